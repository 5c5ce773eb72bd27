#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Redis restarts while places and locks are held: with an append-only file, in
# which all is found again, and without anything stored.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $kept = $t->redis('appendonly yes', 'appendfsync always');
my $lost = $t->redis;

my $origin = $t->origin(routes => { map { ("/$_" => { delay => 60 }) }
                                    qw(kept lost keptlock lostlock) });

my $http = "    coord_lock_status 423;\n";

for (['kept', '%%REDIS%%'], ['lost', '%%REDIS_2%%']) {
    my ($s, $server) = @$_;

    $http .= <<"EOF";
    coord_store $s { server $server; timeout 1s; connect_timeout 1s;
                     breaker failures=3 cooldown=100ms; }
    coord_limit_conn_zone \$arg_k zone=$s:1m lease=3s store=$s;
    coord_lock_zone \$arg_k zone=$s:1m lease=3s store=$s;
EOF
}

$http .= <<'EOF';
    proxy_read_timeout 100s;
    proxy_set_header X-Token $coord_lock_token;
    add_header X-Token $coord_lock_token always;

    server {
        listen 127.0.0.1:%%PORT%%;
EOF

for my $s (qw(kept lost)) {
    $http .= <<"EOF";
        location = /$s { coord_limit_conn $s 5 on_failure=closed;
                         proxy_pass http://%%ORIGIN%%; }
        location = /${s}lock { coord_lock zone=$s on_failure=closed;
                               proxy_pass http://%%ORIGIN%%; }
        location = /${s}token { coord_lock zone=$s on_failure=closed;
                                empty_gif; }
EOF
}

$http .= "    }\n";

my @n = map { $t->node(name => $_, workers => 2, http => $http)->start }
        qw(a b);

sub open_request {
    my ($node, $path) = @_;
    my $c = $node->connect;
    $c->send("GET $path HTTP/1.1\r\nHost: a\r\n\r\n");
    return $c;
}

sub soon {
    my ($code, $seconds, $name) = @_;
    ok($t->wait_for($code, $seconds), $name);
}

# a number, when the store answers

sub token {
    my ($node, $path) = @_;
    my $res;
    $t->wait_for(sub { ($res = $node->get($path))->status == 200 }, 10);
    return $res->header('X-Token') || 0;
}


for (['kept', $kept, 'TERM', 'stopped'], ['kept', $kept, 'KILL', 'killed'],
     ['lost', $lost, 'KILL', 'killed, with nothing stored'])
{
    my ($s, $redis, $signal, $name) = @$_;
    my $k = lc $signal;
    my $has = $s eq 'kept';
    my $r = $redis->connect;

    my $members = sub { join ' ', sort @{$r->command('ZRANGE',
                        "coord:$_[0]:$s:{$k}", 0, -1)} };
    my $count = sub { scalar split ' ', $members->('cc') };

    # five of five places, a lock, a number

    my @c = map { open_request($n[$_ % 2], "/$s?k=$k") } 1 .. 5;
    my $lock = open_request($n[0], "/${s}lock?k=$k");

    soon(sub { $count->() == 5 && $members->('lk') }, 10,
         "$s, $k: five places and a lock");
    soon(sub { $origin->overlap("/$s") == 5 }, 5, 'all run');

    my $token = token($n[0], "/${s}token?k=free");
    my ($places, $holder) = ($members->('cc'), $members->('lk'));

    # nobody renews until it has been looked at, where it should be there

    my @workers = map { $_->workers } @n;
    kill 'STOP', @workers if $has;

    $redis->stop($signal);

    is(join(' ', map { $_->get("/$s?k=$k")->status } @n), '503 503',
       "Redis is $name") if !$has;

    $redis->run;
    $r = $redis->connect;

    if ($has) {
        is($members->('cc'), $places, "Redis was $name: it has all places");
        is($members->('lk'), $holder, 'and the lock');
        kill 'CONT', @workers;

    } else {
        soon(sub { $members->('cc') eq $places }, 10,
             'renewals put all places back');
        soon(sub { $members->('lk') eq $holder }, 10, 'and the lock');
    }

    # for longer than the lease

    my ($start, %status) = (time);

    while (time - $start < 3.3) {
        $status{$_->get("/$s?k=$k")->status}++ for @n;
        $status{$_->get("/${s}lock?k=$k")->status}++ for @n;
        sleep 0.02;
    }

    cmp_ok($status{429} || 0, '>', 0, 'a sixth is refused');
    cmp_ok($status{423} || 0, '>', 0, 'a second lock as well');
    is(join(' ', grep { !/429|423|503/ } keys %status), '', 'always');
    is($origin->overlap("/$s"), 5, 'never six');
    is($origin->overlap("/${s}lock"), 1, 'never two');
    is($members->('cc'), $places, 'renewed all the time');

    # numbers

    my $next = token($n[1], "/${s}token?k=free");
    cmp_ok($next, '>', $token, 'the number grows');
    is($next, $token + 1, 'as if nothing had been') if $has;

    my ($held) = map { $_->{headers}{'x-token'}[0] }
                 grep { $_->{args}{k} eq $k } $origin->requests("/${s}lock");
    $lock->close;
    cmp_ok(token($n[1], "/${s}token?k=$k"), '>', $held || 1e18,
           'also that of the lock that was held');

    # the end of one that Redis does not hear of, and of the others

    if ($has) {
        $redis->stop($signal);
        (pop @c)->close;
        $redis->run;
        $r = $redis->connect;
        soon(sub { $count->() == 4 }, 10, 'released when Redis is back');
    }

    $_->close for @c;
    soon(sub { $count->() == 0 && $origin->connections == 0 }, 10,
         'all are free');
    $origin->reset_counters;
}

done_testing();
