#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A fast exit (SIGTERM) while the store has a question whose answer the worker
# will not read: what Redis grants then is given back by the worker that asked,
# no successor of it is there.  All leases are longer than this test.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $origin = $t->origin(default => sub {
    my ($req) = @_;
    return { delay => $req->{headers}{'x-hold'} ? 60 : 0, body => 'done' };
});

my $http = <<'EOC';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 5s; }
    coord_limit_conn_zone $arg_k zone=conn:1m lease=5m;
    coord_lock_zone $arg_k zone=lock:1m lease=5m;
    coord_idempotency_scope off;
    coord_idempotency_lease 5m;
    coord_on_failure closed;
    proxy_read_timeout 100s;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /conn { coord_limit_conn conn 1;
                         proxy_pass http://%%ORIGIN%%; }
        location /lock { coord_lock zone=lock; proxy_pass http://%%ORIGIN%%; }
        location /line { coord_lock zone=lock wait=60s;
                         proxy_pass http://%%ORIGIN%%; }
        location /claim {
            coord_idempotency required;
            proxy_pass http://%%ORIGIN%%;
        }
        location = /ready { coord_limit_conn conn 9; empty_gif; }
    }
EOC

my $other = $t->node(name => 'other', http => $http)->start;
my $nodes = 0;

sub node {
    my $n = $t->node(name => 'n' . ++$nodes, http => $http)->start;

    ok($t->wait_for(sub { $n->get("/ready?k=r$nodes")->status == 200 }, 10),
       'a node, connected');
    return $n;
}

sub begin {
    my ($n, $path, %h) = @_;

    return $n->begin(method => 'POST', path => $path, body => 'x',
                     headers => { 'Idempotency-Key' => $path, %h });
}

sub status { begin($other, @_)->response(timeout => 20)->status }

# bytes that Redis has not read yet

sub unread {
    my $port = sprintf '%04X', $redis->{port};
    my $n = 0;

    open my $tcp, '<', '/proc/net/tcp' or die $!;

    while (<$tcp>) {
        $n += hex $1
            if /^\s*\d+: [0-9A-F]{8}:$port \S+ 01 [0-9A-F]+:([0-9A-F]+)/;
    }

    return $n;
}


sub keys_of { join ' ', sort @{$r->command('KEYS', "*{$_[0]}*")} }
sub in_line { $r->command('ZCARD', "coord:lk:lock:{$_[0]}:w") }


# granted after the worker is gone

my %takes = (
    '/conn?k=a' => 'a place',
    '/lock?k=a' => 'a lock',
    '/line?k=b' => 'a lock that it would have waited for',
    '/claim' => 'a claim',
);

my $n = node();

ok($t->wait_for(sub { unread() == 0 }, 5), 'Redis has read all');

my $watch = $redis->watch;
my ($ran, @c) = (0);

$redis->freeze;

for my $path (sort keys %takes) {
    my $had = unread();
    push @c, begin($n, $path);
    ok($t->wait_for(sub { unread() > $had }, 10), "$takes{$path}: asked for");
}

ok($n->stop, 'a fast exit');
$redis->thaw;
ok($t->wait_for(sub { ($ran += $watch->calls('multi')) >= keys %takes }, 10),
   'then Redis does what it was asked for');

for my $path (sort keys %takes) {
    my $status;
    ok($t->wait_for(sub { ($status = status($path)) == 200 }, 5),
       "$takes{$path}: another one has it at once")
        or diag("status $status");
}

is(scalar($origin->requests('/claim')), 1, 'what was claimed runs once');


# who stands in line

$n = node();

my $held = begin($other, '/lock/held?k=c', 'X-Hold' => 1);
ok($t->wait_for(sub { $origin->requests('/lock/held') }, 10), 'a lock is held');
my $keys = keys_of('c');
@c = map { begin($n, '/line?k=c') } 1 .. 3;
ok($t->wait_for(sub { in_line('c') == 3 }, 10), 'three stand in line');
ok($n->stop, 'a fast exit');
ok($t->wait_for(sub { in_line('c') == 0 }, 5), 'nobody stands in line');
is(keys_of('c'), $keys, 'nothing of them is left');


# what has begun is not given back: its key is blocked until its lease is over

$n = node();

@c = begin($n, '/claim/begun', 'X-Hold' => 1);
ok($t->wait_for(sub { $origin->requests('/claim/begun') == 1 }, 10),
   'a request runs');
ok($n->stop, 'a fast exit');
is(status('/claim/begun'), 409, 'nobody knows what becomes of it');
is(scalar($origin->requests('/claim/begun')), 1, 'and it runs once');

done_testing();
