#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Workers that are killed while they hold a claim, or may hold one: what had
# not begun to run is free again, what had goes by on_unknown; at once, the
# lease is longer than this test.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis('appendonly yes', 'appendfsync always');
my $r = $redis->connect;

my $origin = $t->origin(default => sub {
    my ($req) = @_;
    return { delay => $req->{headers}{'x-hold'} ? 60 : 0, body => 'done' };
});

my $http = <<'EOC';
    proxy_read_timeout 100s;
    coord_on_failure closed;
    coord_idempotency_scope off;
    coord_idempotency_lease 5m;
    coord_lock_zone $arg_k zone=lock:1m lease=5m;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /lock { coord_lock zone=lock; proxy_pass http://%%ORIGIN%%; }
        location /conflict {
            coord_idempotency required;
            coord_idempotency_on_unknown conflict;
            proxy_pass http://%%ORIGIN%%;
        }
        location /run {
            coord_idempotency required;
            proxy_pass http://%%ORIGIN%%;
        }
        location /behind {
            coord_idempotency required;
            coord_idempotency_on_unknown conflict;
            coord_lock zone=lock wait=60s;
            proxy_pass http://%%ORIGIN%%;
        }
        location = /ready { coord_lock zone=lock; empty_gif; }
    }
EOC

my %node = (
    memory => $t->node(name => 'm', http => $http)->start,
    redis => $t->node(name => 'r', http => <<"EOC")->start,
    coord_store main { server %%REDIS%%; timeout 1s; connect_timeout 5s; }
    $http
EOC
);

my $n;

sub begin {
    my ($path, $key, %h) = @_;

    return $n->begin(method => 'POST', path => $path, body => 'x',
                     headers => { 'Idempotency-Key' => $key, %h });
}

sub again { begin(@_)->response(timeout => 20) }

sub runs { scalar($origin->requests($_[0])) }

# until it is something else than a twin that runs

sub settled {
    my ($path, $key) = @_;
    my $got;

    $t->wait_for(sub {
        $got = again($path, $key);
        $got->status != 409 || $got->body !~ /being processed/ }, 5);
    return $got;
}


for my $store (sort keys %node) {
    $n = $node{$store};

    # it had begun

    for my $path (map { "$_/$store" } '/conflict', '/run') {
        my $c = begin($path, 'begun', 'X-Hold' => 1);
        ok($t->wait_for(sub { runs($path) == 1 }, 10), "$store $path: it runs");
        is(again($path, 'begun')->status, 409, 'once');
        $n->kill_worker;
        $c->close;

        my $got = settled($path, 'begun');
        my $of = "$store $path: a worker is killed that had begun";

        if ($path =~ /^.run/) {
            is($got->status, 200, "$of: it runs again");
            is(runs($path), 2, 'for the second time');

        } else {
            is($got->status, 409, "$of: the outcome is unknown");
            like($got->body, qr/without a known outcome/, 'which is said');
            ok(!$got->header('Retry-After'), 'it is no use to come back');
            is(runs($path), 1, 'and it does not run again');
        }

        ok($n->wait_log(qr/releasing \d+ leases of processes/), 'told');
    }

    # it had its claim, and waited for something else

    my $held = $n->begin(path => "/lock/$store?k=b",
                         headers => { 'X-Hold' => 1 });
    my $behind = "/behind/$store?k=b";
    ok($t->wait_for(sub { runs("/lock/$store") }, 10), 'a lock is held');
    my $c = begin($behind, 'behind');
    ok($t->wait_for(sub { again($behind, 'behind')->status == 409 }, 10),
       "$store: one has its claim and waits for the lock");
    $n->kill_worker;
    $_->close for $held, $c;

    is(settled($behind, 'behind')->status, 200,
       'its worker is killed: another one runs it');
    is(runs("/behind/$store"), 1, 'once');
}


# Redis has the question, its answer is never read

$n = $node{redis};

for my $kills (1, 2) {
    ok($t->wait_for(sub { $n->get('/ready?k=r')->status == 200 }, 10),
       'Redis answers');

    $redis->freeze;
    my @c = map { begin("/conflict/$kills", "doubt-$kills-$_") } 1 .. 3;
    is(join(' ', map { $_->response(timeout => 10)->status } @c), '503 503 503',
       'it does not answer: nothing runs');

    # the successor has not given back what it knows of, when it is killed

    for (1 .. $kills) {
        $n->kill_worker;
        sleep 0.3;
    }

    kill 'CONT', $redis->{pid};
    ok($t->wait_for(sub { $n->get('/ready?k=r')->status == 200 }, 10),
       'Redis answers again');

    is(join(' ', map { settled("/conflict/$kills", "doubt-$kills-$_")->status }
                 1 .. 3),
       '200 200 200',
       "$kills workers were killed: all run");
    is(runs("/conflict/$kills"), 3, 'once each');
}


# nothing is left of those who came to an end

is(again('/conflict', "end-$_")->status, 200, 'a result') for 1 .. 3;
$n->kill_worker;
sleep 1.2;
ok($t->wait_for(sub { $n->get('/ready?k=r')->status == 200 }, 10),
   'its successor has looked, and is connected');
is(again('/conflict', "end-$_")->header('Idempotency-Replayed'), 'true',
   'and it stays, its worker killed') for 1 .. 3;

done_testing();
