#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Leases over two nodes with two workers each, and what becomes of them when
# workers, nodes or Redis are killed, stopped, reloaded, replaced.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $origin = $t->origin(routes => {
    '/work' => { delay => 0.3, body => 'work' },
    '/long' => { delay => 60 },
    '/six' => { delay => 6, body => 'six' },
});

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 3s; connect_timeout 1s;
                       breaker failures=5 cooldown=200ms; }
    coord_limit_conn_zone $arg_k zone=one:1m lease=3s;
    coord_limit_conn_zone $arg_k zone=slow:1m lease=30s;
    coord_limit_conn_zone $arg_k zone=mem:1m lease=30s store=local;
    proxy_read_timeout 100s;

    server {
        listen 127.0.0.1:%%PORT%%;
        location = /work { coord_limit_conn one 7;
                           proxy_pass http://%%ORIGIN%%; }
        location = /long { coord_limit_conn one 5;
                           proxy_pass http://%%ORIGIN%%; }
        location = /six { coord_limit_conn one 5;
                          proxy_pass http://%%ORIGIN%%; }
        location = /slow { coord_limit_conn slow 5;
                           proxy_pass http://%%ORIGIN%%/long; }
        location = /mem { coord_limit_conn mem 5;
                          proxy_pass http://%%ORIGIN%%/long; }
        location = /pid { add_header X-Pid $pid; empty_gif; }
        location = /try { coord_limit_conn slow 5; empty_gif; }
        location = /trymem { coord_limit_conn mem 1; empty_gif; }
    }
EOF

my %opt = (workers => 2, http => $http, main => 'worker_shutdown_timeout 20s;');
my $a = $t->node(name => 'a', %opt)->start;
my $b = $t->node(name => 'b', %opt)->start;

sub held {
    my ($key, $zone) = @_;
    $zone ||= 'one';
    return $r->command('ZCARD', "coord:cc:$zone:{$key}");
}

# leases that are not over yet

sub valid {
    my ($key, $zone) = @_;
    $zone ||= 'one';
    my $time = $r->command('TIME');
    my $now = $time->[0] * 1e6 + $time->[1];
    return $r->command('ZCOUNT', "coord:cc:$zone:{$key}", $now, '+inf');
}

sub open_requests {
    my ($node, $count, $path) = @_;
    my @c = map { $node->connect } 1 .. $count;
    $_->send("GET $path HTTP/1.1\r\nHost: a\r\n\r\n") for @c;
    return @c;
}

sub soon {
    my ($code, $seconds, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    ok($t->wait_for($code, $seconds), $name);
}


# never more than seven

my @all = $t->parallel([map { ($_ % 2 ? $a : $b)->req('/work?k=n') }
                        1 .. 200], timeout => 60);
my $passed = grep { $_->status == 200 } @all;
my $refused = grep { $_->status == 429 } @all;
is($passed + $refused, 200, 'every request is decided');
cmp_ok($passed, '>=', 7, 'seven or more passed, one after the other');
is($origin->overlap('/work'), 7, 'seven at once, never eight');
soon(sub { $r->command('EXISTS', 'coord:cc:one:{n}') == 0 }, 3,
     'nothing is left');


# renewal: longer than the lease

my @c = open_requests($a, 3, '/six?k=r');
push @c, open_requests($b, 2, '/six?k=r');
soon(sub { held('r') == 5 }, 20, 'five of five');
my $least = 5;
my $end = time + 4.5;
while (time < $end) {
    my $n = valid('r');
    $least = $n if $n < $least;
    sleep 0.05;
}
is($least, 5, 'renewed all the time');
is($a->get('/six?k=r')->status, 429, 'beyond the length of the lease');
is($_->response('GET', 30)->status, 200, 'a long request ends well') for @c;
soon(sub { held('r') == 0 }, 3, 'and its lease with it');


# kill -9 of a worker: its successor releases

@c = open_requests($a, 5, '/slow?k=w');
soon(sub { held('w', 'slow') == 5 }, 20, 'five held by one node');
is($b->get('/try?k=w')->status, 429, 'full on the other node');
$a->kill_worker('KILL', $_) for $a->workers;
$a->allow(qr/exited on signal 9/);
soon(sub { held('w', 'slow') == 0 }, 15,
     'leases of killed workers are released at once, not after 30s');
is($b->get('/try?k=w')->status, 200, 'room on the other node');
ok($a->wait_log(qr/releasing \d leases of processes that are gone/, 2),
   'and logged');
undef @c;

@c = open_requests($a, 1, '/mem?k=m');
soon(sub { $a->get('/trymem?k=m')->status == 429 }, 20, 'held in memory');
$a->kill_worker('KILL', $_) for $a->workers;
soon(sub { $a->get('/trymem?k=m')->status == 200 }, 15,
     'and released by the successor');
undef @c;

# one worker of two is killed: the other one keeps its leases

my %pid;
@c = open_requests($a, 5, '/slow?k=' . 'x' x 60);
soon(sub { held('x' x 60, 'slow') == 5 }, 20, 'five held, a long key');
my ($first, $second) = $a->workers;
$a->kill_worker('KILL', $first);
my $alive = grep { $_->read(0.3); !$_->closed(0.1) } @c;
soon(sub { held('x' x 60, 'slow') == $alive }, 15,
     "the leases of living workers stay ($alive)");
undef @c;
soon(sub { held('x' x 60, 'slow') == 0 }, 15, 'until their end');


# a node that is gone: free within the lease

@c = open_requests($b, 5, '/long?k=g');
soon(sub { held('g') == 5 }, 20, 'five held by the other node');
$b->destroy;
my $start = $t->ran;
soon(sub { valid('g') == 0 }, 6, 'a node that was killed: free by expiry');
cmp_ok($t->ran - $start, '<', 5, 'within the lease');
soon(sub { $a->get('/long?k=g', timeout => 1)->status == 0 }, 2,
     'room again, by the clock of the node');
$b = $t->node(name => 'b2', %opt)->start;
undef @c;


# SIGSTOP beyond the lease, then SIGCONT

@c = open_requests($a, 5, '/long?k=s');
soon(sub { held('s') == 5 }, 20, 'five held');
my @stopped = $a->workers;
kill 'STOP', @stopped;
soon(sub { valid('s') == 0 }, 6, 'they run out while the node sleeps');
my @d = open_requests($b, 5, '/long?k=s');
soon(sub { valid('s') == 5 }, 20, 'others take the places');
kill 'CONT', @stopped;
soon(sub { $a->log_lines(qr/connection lost its place in zone "one"/) == 5 },
     8, 'the late renewals are refused');
sleep 1;
is(valid('s'), 5, 'and changes nothing');
undef @c;
sleep 1;
is(valid('s'), 5, 'nor do the late releases');
undef @d;
soon(sub { held('s') == 0 }, 5, 'all released');
is(scalar $a->log_lines(qr/connection lost its place/), 5,
   'logged once for each');


# reload, binary upgrade

@c = open_requests($a, 5, '/long?k=u');
soon(sub { held('u') == 5 }, 20, 'five held');
my @old = $a->reload;
is(valid('u'), 5, 'held over a reload');
is($a->get('/long?k=u')->status, 429, 'the new generation sees them');
sleep 4;
is(valid('u'), 5, 'and renewed by the old workers');
undef @c;
soon(sub { held('u') == 0 }, 5, 'released by the old workers');
ok($a->wait_gone(10, @old), 'which exit');

@c = open_requests($a, 5, '/long?k=v');
soon(sub { held('v') == 5 }, 20, 'five held');
my ($before, $after) = $a->upgrade;
kill 'WINCH', $before;
is($a->get('/long?k=v')->status, 429, 'a new binary sees them');
sleep 4;
is(valid('v'), 5, 'and they are renewed');
undef @c;
soon(sub { held('v') == 0 }, 5, 'released');
kill 'QUIT', $before;


# SIGTERM

@c = open_requests($a, 5, '/slow?k=t');
soon(sub { held('t', 'slow') == 5 }, 20, 'five held');
$a->stop;
soon(sub { held('t', 'slow') == 0 }, 15, 'a fast exit releases');
undef @c;
$a = $t->node(name => 'a2', %opt)->start;


# Redis loses its state

@c = open_requests($a, 5, '/long?k=f');
soon(sub { held('f') == 5 }, 20, 'five held');
$r->command('FLUSHALL');
soon(sub { held('f') == 5 }, 3, 'renewals put them back');
is($b->get('/long?k=f')->status, 429, 'and the limit holds');
$r->command('FLUSHALL');
@d = open_requests($b, 4, '/long?k=f');
sleep 3;
is(valid('f'), 5, 'never more than five, whoever comes first');
undef @c;
undef @d;
soon(sub { held('f') == 0 }, 5, 'nothing is stuck');

done_testing();
