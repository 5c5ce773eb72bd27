#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Look-ups on two nodes with two workers each: who writes a key changes it
# everywhere at once, also over reconnects, after FLUSHALL, and, where tracking
# is forbidden, by messages.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis('enable-debug-command yes');
my $r = $redis->connect;

my $http = <<'EOF';
    coord_store main { server %%SERVER%%; timeout 2s; connect_timeout 5s; }
    coord_lookup $tenant_rate rate:$arg_t ttl=1h negative_ttl=1h default=no;
    coord_limit_req_zone $arg_t$arg_n zone=t:1m rate=$limit;

    map $tenant_rate $limit { no ''; default $tenant_rate; }

    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        keepalive_timeout 0;
        add_header X-Rate $tenant_rate always;
        add_header X-Pid $pid always;
        location / { coord_limit_req zone=t; empty_gif; }
    }
EOF

$t->set(SERVER => "redis://127.0.0.1:$redis->{port}");

my @nodes = map {
    $t->node(name => $_, workers => 2, http => $http)->start
} qw(a b);


# what all workers of all nodes say

sub rates {
    my ($tenant, @of) = @_;

    my %rates;

    for my $node (@of ? @of : @nodes) {
        my %seen;
        for (1 .. 60) {
            my $res = $node->get("/?t=$tenant&n=" . rand());
            next if !$res->status;
            $seen{$res->header('x-pid')} = 1;
            $rates{$res->header('x-rate') || ''} = 1;
            last if keys %seen == 2 && $_ >= 8;
        }
    }

    return join(' ', sort keys %rates);
}


sub within {
    my ($tenant, $rate, $name, $seconds, @of) = @_;

    my $start = $t->ran;
    my ($is, $began);

    # who looks when it is over sees it

    do {
        sleep 0.02;
        $began = $t->ran;
        $is = rates($tenant, @of);
    } while $is ne $rate && $began - $start < ($seconds || 1);

    is($is, $rate, $name);
}


sub tracked {
    return scalar(grep { / flags=\w*t/ }
                  split /\n/, $r->command('CLIENT', 'LIST'));
}


ok($t->wait_for(sub { tracked() == 4 }, 10), 'four connections are tracked');

is(rates('x'), 'no', 'nothing is there');
$r->command('SET', 'rate:x', '1000r/s');
within('x', '1000r/s', 'what is written is there');
$r->command('SET', 'rate:x', '5r/s');
within('x', '5r/s', 'what is changed, too');
$r->command('DEL', 'rate:x');
within('x', 'no', 'what is removed');

# the limit follows

$r->command('SET', 'rate:y', '1r/h');
within('y', '1r/h', 'a slow rate');
is($nodes[0]->get('/?t=y&n=1')->status, 200, 'the first');
is($nodes[1]->get('/?t=y&n=1')->status, 429, 'the second, on another node');
$r->command('SET', 'rate:y', '1000r/s');
within('y', '1000r/s', 'a fast one');
is($nodes[1]->get('/?t=y&n=2')->status, 200, 'has effect');
sleep 0.01;
is($nodes[0]->get('/?t=y&n=2')->status, 200, 'on each request');

# nothing is asked in between

my $watch = $redis->watch;
rates('y');
is($watch->calls('get'), 0, 'what nobody writes is not asked for');

$r->command('SET', 'rate:z', '9r/s');
within('z', '9r/s', 'there before');
$r->command('FLUSHALL');
within('z', 'no', 'FLUSHALL');

# expiry is a change

$r->command('SET', 'rate:e', '3r/s', 'PX', 3000);
is($nodes[0]->get('/?t=e')->header('x-rate'), '3r/s', 'with a life');
within('e', 'no', 'it is over', 5.5);

# which the server tells when it removes the key, and it does not haste

my $lazy = $r->command('DEBUG', 'SET-ACTIVE-EXPIRE', '0');
is($lazy, 'OK', 'keys that have expired are not removed');
$r->command('SET', 'rate:lazy', '4r/s', 'PX', 3000);
within('lazy', '4r/s', 'with a life');
within('lazy', 'no', 'no longer than that', 4.3);
$r->command('SET', 'rate:lazy', '4r/s', 'PX', 600000);
within('lazy', '4r/s', 'with a longer one');
$watch->seen;
rates('lazy');
is($watch->calls('get'), 0, 'is kept meanwhile');
$r->command('DEBUG', 'SET-ACTIVE-EXPIRE', '1');

# connections that are killed, of calls and of trackers

for my $type (qw(normal pubsub)) {
    $r->command('SET', "rate:$type", '1r/s');
    within($type, '1r/s', "$type: cached");

    $r->command('CLIENT', 'KILL', 'TYPE', $type, 'SKIPME', 'yes');
    $r->command('SET', "rate:$type", '2r/s');
    within($type, '2r/s', "$type connections killed: what was written then",
           3);
    ok($t->wait_for(sub { tracked() == 4 }, 10), 'tracked again');

    $r->command('SET', "rate:$type", '3r/s');
    within($type, '3r/s', 'and told again');
}

# a worker that is killed

$r->command('SET', 'rate:k', '1r/s');
within('k', '1r/s', 'cached');
my ($pid) = $nodes[0]->workers;
$nodes[0]->kill_worker('KILL', $pid);
$r->command('SET', 'rate:k', '2r/s');
within('k', '2r/s', 'what a killed worker has read is not trusted', 3);

# a reload

my @old = $nodes[0]->reload;
$r->command('SET', 'rate:k', '3r/s');
within('k', '3r/s', 'after a reload', 3);

# its workers are killed, and their successors are others than those before it

ok($nodes[0]->wait_gone(20, @old), 'those from before the reload have gone');
ok($t->wait_for(sub { tracked() == 4 }, 10), 'four are tracked');
$nodes[0]->kill_worker('KILL', $_) for $nodes[0]->workers;
ok($t->wait_for(sub { tracked() == 4 }, 10), 'and their successors');
$r->command('SET', 'rate:k', '5r/s');
within('k', '5r/s', 'what they have read is not trusted', 1);
$r->command('SET', 'rate:k', '3r/s');
within('k', '3r/s', 'what their successors read is', 1);

# those that are killed while they exit have none

$r->command('SET', 'rate:q', '1r/s');
within('q', '1r/s', 'read');
my @open = map { $nodes[0]->connect } 1 .. 40;
$_->send("GET /?t=q") for @open;
@old = $nodes[0]->reload;
is(rates('q'), '1r/s', 'still known after a reload');
is(scalar(grep { kill 0, $_ } @old), 2, 'two workers exit');
kill 'KILL', @old;
ok($nodes[0]->wait_gone(10, @old), 'and are killed');
$r->command('SET', 'rate:q', '2r/s');
within('q', '2r/s', 'what they have read is not trusted', 3);
$_->close for @open;

# where tracking is forbidden: ttl and messages

$r->command('ACL', 'SETUSER', 'app', 'on', '>pw', '~*', '&*', '+@all',
            '-client|tracking', '-client|caching');
$t->set(SERVER => "redis://app:pw\@127.0.0.1:$redis->{port}");
my $c = $t->node(name => 'c', workers => 2, http => $http)->start;

within('k', '3r/s', 'without tracking: read', 3, $c);
ok($c->wait_log(qr/keys are not tracked, .* "coord:invalidate"/, 5), 'told');
$r->command('SET', 'rate:k', '4r/s');
sleep 0.3;
is(rates('k', $c), '3r/s', 'nobody tells of it');
$r->command('PUBLISH', 'coord:invalidate', 'rate:k');
within('k', '4r/s', 'a message does', 1, $c);
$r->command('DEBUG', 'SET-ACTIVE-EXPIRE', '0');
$r->command('SET', 'rate:f', '4r/s', 'PX', 3000);
within('f', '4r/s', 'with a life', 1, $c);
within('f', 'no', 'no longer than that', 4.3, $c);
$r->command('DEBUG', 'SET-ACTIVE-EXPIRE', '1');

my @told = $c->log_lines(qr/keys are not tracked/);
ok(@told <= 2, 'told once by a worker') or diag(scalar @told);
ok(!$c->log_lines(qr/breaker/), 'the breaker has not opened');

# keys that the user may not read

$r->command('ACL', 'SETUSER', 'app', 'on', '>pw', 'resetkeys', '~coord:*',
            '&*', '+@all');
my $d = $t->node(name => 'd', workers => 1, http => $http)->start;
is($d->get("/?t=k&n=$_")->header('x-rate'), 'no',
   'a key that may not be read: the default') for 1 .. 8;
ok(!$d->log_lines(qr/breaker/), 'no trouble of the server');

# a server that does not know the connection of the tracker: another one

my $fake = $t->fake_redis(upstream => $redis->{port});
$fake->fault(action => 'replace', cmd => 'CLIENT', match => '^TRACKING',
             data => "-ERR The client ID you want redirect to does not "
                     . "exist\r\n");
$t->set(SERVER => '%%FAKE%%');
my $e = $t->node(name => 'e', workers => 1, http => $http)->start;

ok($t->wait_for(sub {
       my @on = grep { $_->[2] eq 'TRACKING' } $fake->commands('CLIENT');
       @on >= 2;
   }, 10), 'it is asked for again');
$r->command('SET', 'rate:e', '1r/s');
within('e', '1r/s', 'read', 3, $e);
$r->command('SET', 'rate:e', '2r/s');
within('e', '2r/s', 'tracked', 1, $e);
ok(!$e->log_lines(qr/keys are not tracked/), 'not given up');

# the connections are to different servers, behind one name: nothing is kept,
# though the id of the tracker is known there, too

sub asked {
    my $n = shift;

    $watch = $redis->watch;
    $e->get("/?t=apart&n=$_") for 1 .. $n;

    return $watch->calls('get');
}

$r->command('SET', 'rate:apart', '1000r/s');
is(asked(1), 1, 'read');
is(asked(5), 0, 'kept');

my $id = 'f' x 40;
my $info = "# Server\r\nredis_version:7.0.15\r\nrun_id:$id\r\n";
my $seen = () = $fake->commands('SUBSCRIBE');

$fake->fault(action => 'replace', cmd => 'INFO', match => '^server',
             times => 0, data => '$' . length($info) . "\r\n$info\r\n");

# that of the calls stays

$r->command('CLIENT', 'KILL', 'TYPE', 'pubsub');
ok($t->wait_for(sub {
       $e->get("/?t=apart");
       my @now = $fake->commands('SUBSCRIBE');
       return @now >= $seen + 6;
   }, 20), 'a tracker elsewhere connects again and again');
is(asked(5), 5, 'and nothing is kept');

$fake->clear;
ok($t->wait_for(sub { asked(5) < 5 }, 20), 'one server again: it is kept');

# a change that comes before the value that was read is not lost

$r->command('SET', 'rate:race', 'old');
$fake->fault(action => 'delay', delay => 0.5, cmd => 'GET', match => 'race');
my $slow = $e->connect;
$slow->send("GET /?t=race HTTP/1.1\r\nHost: e\r\n\r\n");
ok($t->wait_for(sub { grep { $_->[2] =~ /race/ } $fake->commands('GET') }, 5),
   'a value is on its way');
sleep 0.1;
$r->command('SET', 'rate:race', 'new');
like($slow->response->header('x-rate'), qr/^(?:old|new)$/,
     'who asked has it');
within('race', 'new', 'and then the new one counts', 1, $e);

$_->allow(qr/coord redis|exited on signal 9/) for @nodes, $c, $d, $e;

done_testing();
