#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Lines of those who are gone: killed with their workers, with their node, or
# left while Redis was away.  coord_limit_conn and coord_lock, on both stores.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use JSON::PP;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis('appendonly yes', 'appendfsync always');
my $r = $redis->connect;

my $origin = $t->origin(routes => { '/hold' => { delay => 100 } });

my $http = <<'EOF';
    coord_store redis { server %%REDIS%%; timeout 2s; connect_timeout 5s;
                        breaker failures=3 cooldown=100ms; }
    coord_store memory { }
    proxy_read_timeout 200s;
    coord_on_failure closed;
EOF
my $server = '';

for my $s (qw(redis memory)) {
    for my $lease (qw(long short)) {
        my $length = $lease eq 'long' ? '5m' : '1s';
        my $z = "$s$lease";

        $http .= <<"EOF";
    coord_limit_conn_zone \$arg_k zone=$z:1m lease=$length store=$s;
    coord_lock_zone \$arg_k zone=$z:1m lease=$length store=$s;
EOF
        $server .= <<"EOF";
        location = /$z/conn/hold { coord_limit_conn $z 1;
                                   proxy_pass http://%%ORIGIN%%/hold; }
        location = /$z/conn/wait { coord_limit_conn $z 1 wait=40s queue=2;
                                   empty_gif; }
        location = /$z/lock/hold { coord_lock zone=$z;
                                   proxy_pass http://%%ORIGIN%%/hold; }
        location = /$z/lock/wait { coord_lock zone=$z wait=40s;
                                   empty_gif; }
        location = /$z/conn/long { coord_limit_conn $z 1 wait=20s; empty_gif; }
        location = /$z/lock/long { coord_lock zone=$z wait=20s; empty_gif; }
EOF
    }
}

$http .= <<"EOF";
    server {
        listen 127.0.0.1:%%PORT%%;
        location = /status { coord_status; }
$server
    }
EOF

my %n = map { $_ => $t->node(name => $_, workers => 4, http => $http)->start }
        qw(a b c);
$_->allow(qr/exited on signal 9/) for values %n;

my %prefix = (conn => 'cc', lock => 'lk');

sub line { $r->command('ZCARD', "coord:$prefix{$_[1]}:$_[0]:{$_[2]}:w") }
sub held { $r->command('ZCARD', "coord:$prefix{$_[1]}:$_[0]:{$_[2]}") }

sub open_request {
    my ($node, $path) = @_;
    my $c = $node->connect;
    $c->send(Coord::HTTP::format(path => $path));
    return $c;
}

# how many wait, as the node itself knows

sub waiting {
    my ($node) = @_;
    my $status = decode_json(
                     $node->get('/status?format=json')->body);
    my $n = 0;
    $n += $_->{waiters} || 0 for @{$status->{zones}};
    return $n;
}

# every worker of a node has its store again

sub answers {
    my ($node) = @_;
    ok($t->wait_for(sub {
        $node->get('/status?format=prometheus')->body
            =~ /^coord_store_workers\{store="redis"\} 4$/m }, 20),
       'all workers are connected');
    ok($t->wait_for(sub {
        20 == grep { $_->status == 200 }
              $t->parallel([map { $node->req("/redislong/lock/long?k=a$_") }
                            1 .. 20]) }, 20),
       'the node has its store');
}

# one holds, two wait

sub queue {
    my ($node, $z, $type) = @_;
    my $held = $origin->count('/hold');
    my @c = open_request($node, "/$z/$type/hold?k=k");
    $t->wait_for(sub { $origin->count('/hold') == $held + 1 }, 10);
    my $waiting = waiting($node);
    push @c, map { open_request($node, "/$z/$type/wait?k=k") } 1 .. 2;
    ok($t->wait_for(sub { waiting($node) == $waiting + 2 }, 10),
       "$z, $type: one holds, two wait");
    return @c;
}


# the successors of killed workers clear what those have left

for my $z (qw(redislong memorylong)) {
    for my $type (qw(conn lock)) {
        my $waiting = waiting($n{a});
        my @c = queue($n{a}, $z, $type);

        $n{a}->kill_worker('KILL', $_) for $n{a}->workers;

        # what they have left is known to their successors when these have begun

        ok($t->wait_for(sub { waiting($n{a}) == $waiting
                              && ($z !~ /redis/ || !line($z, $type, 'k')) },
                        10), 'all workers are killed: they leave the line');

        my $start = $t->ran;
        is($n{a}->get("/$z/$type/wait?k=k", timeout => 20)->status, 200,
           'the next one passes');
        cmp_ok($t->ran - $start, '<', 1, 'at once');
        is(line($z, $type, 'k'), 0, 'the line is empty') if $z =~ /redis/;
        is(held($z, $type, 'k'), 0, 'and nobody holds') if $z =~ /redis/;
    }
}


# a node that is gone as a whole: whoever comes then has waited for it once

for my $type (qw(conn lock)) {
    my @c = queue($n{a}, 'redisshort', $type);

    kill 'KILL', $n{a}->pid, $n{a}->workers;
    is(line('redisshort', $type, 'k'), 2, "$type: the node is dead, its line "
                                          . 'is not');
    ok($t->wait_for(sub {
        $r->command('ZREMRANGEBYSCORE',
                    "coord:$prefix{$type}:redisshort:{k}", '-inf',
                    1e6 * time);
        held('redisshort', $type, 'k') == 0 }, 10), 'there is room');

    my $start = $t->ran;
    ok($t->wait_for(sub {
        $n{b}->get("/redisshort/$type/wait?k=k", timeout => 20)->status == 200
    }, 10), 'another node has its turn');
    cmp_ok($t->ran - $start, '<', 3, 'within two seconds of room');
    $start = $t->ran;
    is($n{c}->get("/redisshort/$type/wait?k=k", timeout => 20)->status, 200,
       'and the next one');
    cmp_ok($t->ran - $start, '<', 0.5, 'without a wait');

    unlink $n{a}->file('nginx.pid');
    $n{a}->start;
}


# who leaves while Redis is away

for my $type (qw(conn lock)) {
    answers($n{$_}) for qw(a b);

    my $hold = open_request($n{a}, "/redislong/$type/hold?k=away");
    ok($t->wait_for(sub { held('redislong', $type, 'away') == 1 }, 10),
       "$type: one holds");

    my @wait = map { open_request($n{qw(a b)[$_ % 2]},
                                  "/redislong/$type/long?k=away") } 1 .. 16;
    ok($t->wait_for(sub { line('redislong', $type, 'away') == 16 }, 10),
       'sixteen wait');

    $redis->stop('KILL');
    $_->close for @wait, $hold;
    sleep 0.5;
    $redis->run;
    $r = $redis->connect;

    ok($t->wait_for(sub { line('redislong', $type, 'away')
                          + held('redislong', $type, 'away') == 0 }, 5),
       'Redis is back, and they are gone');
    answers($n{$_}) for qw(a b);

    my $start = $t->ran;

    for my $i (1 .. 7) {
        my $status;

        # 503: of a worker that has no connection yet

        $t->wait_for(sub {
            $status = $n{qw(a b)[$i % 2]}
                      ->get("/redislong/$type/long?k=away")->status;
            return $status != 503;
        }, 5);

        is($status, 200, 'passes');
    }

    cmp_ok($t->ran - $start, '<', 2, 'and nobody has waited');
}

done_testing();
