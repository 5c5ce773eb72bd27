#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What Redis has granted, or may have, to requests that did not get the answer
# is given back: while it stands still, goes away and comes back, with a breaker
# that opens, a connection that is closed, and a worker that exits meanwhile.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use Coord::Util qw(stopped);
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis('appendonly yes', 'appendfsync always');
my $r = $redis->connect;

my $origin = $t->origin(routes => {
    '/hold' => { delay => 60 },
    '/pay' => { body => 'paid' },
    '/busy' => { status => 503, delay => 3, body => 'busy' },
});

# times as they are by default; leases outlive the test

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; }
    coord_limit_conn_zone $arg_k zone=conn:1m lease=5m;
    coord_lock_zone $arg_k zone=lock:1m lease=5m;
    proxy_read_timeout 100s;
    coord_on_failure closed;

    server {
        listen 127.0.0.1:%%PORT%%;
        location = /conn { coord_limit_conn conn 8; empty_gif; }
        location = /lock { coord_lock zone=lock; empty_gif; }
        location = /line { coord_lock zone=lock wait=30s; empty_gif; }
        location = /hold { coord_limit_conn conn 8; coord_lock zone=lock;
                           proxy_pass http://%%ORIGIN%%; }
        location = /local { coord_lock zone=lock wait=30s on_failure=local;
                            empty_gif; }

        location / {
            coord_idempotency required;
            coord_idempotency_scope off;
            coord_idempotency_on_unknown conflict;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOF

sub members { $r->command('ZCARD', "coord:$_[0]:{$_[1]}") }

sub pay {
    my ($path, @keys) = @_;
    return map { $_->status }
           $t->parallel([map { $n->req($path, method => 'POST', body => 'x',
                                       headers => { 'Idempotency-Key' => $_ })
                             } @keys], timeout => 20);
}

sub statuses { map { $_->status } @_ }

sub open_request {
    my ($path) = @_;
    my $c = $n->connect;
    $c->send(Coord::HTTP::format(path => $path));
    return $c;
}

# a request that goes on until something is true; one that has no answer of Redis
# in time, on a busy machine, is begun again

sub begin {
    my ($what, $request, $true) = @_;
    my $c;

    ok($t->wait_for(sub {
        if (!$c || defined $c->read(0)) {
            $c = $n->connect;
            $c->send(Coord::HTTP::format(%$request));
        }

        return $true->() && !defined $c->read(0);
    }, 20), $what);

    return $c;
}

sub hold {
    my ($k) = @_;

    return begin('a place and a lock are held', { path => "/hold?k=$k" },
                 sub { members('cc:conn', $k) && members('lk:lock', $k) });
}

sub ready {
    ok($t->wait_for(sub { $n->get('/conn?k=ready')->status == 200 }, 10),
       'Redis answers');
}


# Redis stands still while requests arrive: until they have their answers, and
# the breaker is open, or for longer, or not as long for each

my %pause = (
    'asleep until they are answered' => 0,
    'frozen' => 0.5,
    'busy for a moment' => undef,
);

sub freeze {
    $redis->freeze;
    $t->wait_for(sub { stopped($redis->{pid}) });
}

# what has no answer in time on a busy machine is asked again: it takes nothing
# for longer than it is in doubt

sub decided {
    my ($code) = @_;
    my @got;

    $t->wait_for(sub { @got = $code->(); return !grep { $_ != 200 } @got }, 10);

    return join ' ', @got;
}

for my $name (sort keys %pause) {
    my $k = $name =~ s/\W//gr;

    ready();

    my @keys = map { "$k-$_" } 1 .. 8;
    my $paid = $origin->requests('/pay');
    my %status;

    freeze();
    $status{$_}++ for pay('/pay', @keys);
    is(join(' ', sort keys %status), '503', "Redis is $name: none may pay");

    if (!defined $pause{$name}) {
        kill 'CONT', $redis->{pid};
        ready();
        freeze();
    }

    my $conn = open_request("/conn?k=$k");
    my $lock = open_request("/lock?k=$k");

    is($conn->response(timeout => 10)->status, 503, 'no place');
    is($lock->response(timeout => 10)->status, 503, 'no lock');

    sleep $pause{$name} || 0;
    kill 'CONT', $redis->{pid};
    sleep 2;
    ready();

    is(scalar($origin->requests('/pay')), $paid, 'nothing has run');
    is(decided(sub { pay('/pay', @keys) }), join(' ', (200) x 8),
       'all of them may pay afterwards');
    ok($t->wait_for(sub { members('cc:conn', $k) + members('lk:lock', $k)
                          == 0 }, 5), 'no place is taken');
    is(decided(sub { $n->get("/lock?k=$k")->status }), 200, 'nor the lock');
}


# who asks and leaves, before Redis does not answer

ready();

$redis->freeze;
my @left = map { open_request($_) } '/conn?k=left', '/lock?k=left';
push @left, map { my $c = $n->connect;
                  $c->send(Coord::HTTP::format(
                      method => 'POST', path => '/pay', body => 'x',
                      headers => { 'Idempotency-Key' => "left-$_" }));
                  $c } 1 .. 3;
sleep 0.02;
$_->close for @left;
sleep 0.5;
kill 'CONT', $redis->{pid};

ready();
ok($t->wait_for(sub { members('cc:conn', 'left') + members('lk:lock', 'left')
                      == 0 }, 5), 'who has left before has nothing');
is(decided(sub { pay('/pay', map { "left-$_" } 1 .. 3) }), '200 200 200',
   'and may pay');


# what is given back while Redis restarts

ready();

my $held = hold('r');
my $wait = begin('one waits', { path => '/line?k=r' },
                 sub { $r->command('ZCARD', 'coord:lk:lock:{r}:w') == 1 });
my @busy = map {
    my $i = $_;
    begin("$i run", { method => 'POST', path => '/busy', body => 'x',
                      headers => { 'Idempotency-Key' => "busy-$i" } },
          sub { $origin->count('/busy') == $i });
} 1 .. 2;

$redis->stop('KILL');
$_->close for $held, $wait;
is(join(' ', map { $_->response(timeout => 10)->status } @busy), '503 503',
   'their end is no result');
sleep 1;
$redis->run;
$r = $redis->connect;
is(members('cc:conn', 'r'), 1, 'Redis is back, with all it had')
    if members('cc:conn', 'r');
ok($t->wait_for(sub { members('cc:conn', 'r') + members('lk:lock', 'r')
                      + $r->command('EXISTS', 'coord:lk:lock:{r}:w') == 0 },
                5), 'who has left meanwhile is gone');
ready();
is(join(' ', pay('/busy', 'busy-1', 'busy-2')), '503 503',
   'and what had no result runs again');


# the worker exits while something is to be given back

$held = hold('x');

my @old = $n->reload;
$redis->freeze;
$held->close;
sleep 1;
kill 'CONT', $redis->{pid};
ok($t->wait_for(sub { members('cc:conn', 'x') + members('lk:lock', 'x') == 0 },
                5), 'a worker that exits gives them back');
ok($n->wait_gone(20, @old), 'and is gone');

# it is killed: nobody is its successor, the others see it

$held = hold('z');
@old = $n->reload;
$n->allow(qr/exited on signal 9/);
kill 'KILL', @old;
ok($t->wait_for(sub { members('cc:conn', 'z') + members('lk:lock', 'z') == 0 },
                5), 'a worker that exits is killed: others give them back');

# it does not stay for ever

$held = hold('y');
@old = $n->reload;
my $start = time;
$redis->stop('KILL');
$held->close;
ok($n->wait_gone(20, @old), sprintf('gone after %.1f s', time - $start));
$redis->run;
$r = $redis->connect;
ok($t->wait_for(sub { members('cc:conn', 'y') + members('lk:lock', 'y') == 0 },
                5), 'what it left others give back');


# who waits with on_failure=local, and is granted it late

ready();
$held = hold('l');
$wait = begin('one waits', { path => '/local?k=l' },
              sub { $r->command('ZCARD', 'coord:lk:lock:{l}:w') == 1 });
$redis->freeze;
$held->close;
is($wait->response(timeout => 10)->status, 200, 'it has that of the node');
kill 'CONT', $redis->{pid};
ok($t->wait_for(sub { $r->command('EXISTS', 'coord:lk:lock:{l}',
                                  'coord:lk:lock:{l}:w') == 0 }, 10),
   'and nothing in Redis');

done_testing();
