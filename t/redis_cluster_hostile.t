#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Servers that say what no cluster would say: only servers of the map are
# connected to, whatever an error reply names; a map that is none is not taken;
# and a server that leaves the map with calls in flight leaves quietly.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Cluster;
use Coord::Util qw(free_port);
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my @port = (free_port(), free_port());
my ($one, $two) = map { $t->fake_redis(upstream => $redis->{port},
                                       port => $_) } @port;

# nobody is to come here

my $trap = $t->fake_redis;


sub node_of { '*3' . "\r\n" . bulk('127.0.0.1') . ":$_[0]\r\n" . bulk('id') }
sub bulk { '$' . length($_[0]) . "\r\n$_[0]\r\n" }


sub slots {
    my (@ranges) = @_;

    return '*' . @ranges . "\r\n"
           . join '', map { "*3\r\n:$_->[0]\r\n:$_->[1]\r\n"
                            . node_of($_->[2]) } @ranges;
}


# what a server answers to all that has to do with a key; a transaction with an
# error is not executed

my $map;

sub says {
    my ($fake, $k, $error) = @_;

    $fake->fault(action => 'replace', match => "\\{$k\\}",
                 data => "-$error\r\n", times => 0);
    $fake->fault(action => 'replace', cmd => 'EXEC', times => 0,
                 data => "-EXECABORT Transaction discarded because of"
                         . " previous errors.\r\n");
}


sub map_is {
    my ($bytes) = @_;

    $map = $bytes;

    for my $fake ($one, $two) {
        $fake->clear;
        $fake->fault(action => 'replace', cmd => 'CLUSTER', data => $bytes,
                     times => 0);
    }
}


map_is(slots([0, 8191, $port[0]], [8192, 16383, $port[1]]));

$t->set(SEED => $port[0]);

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { mode cluster; server redis://127.0.0.1:%%SEED%%;
                       timeout 500ms; connect_timeout 1s;
                       breaker failures=100000; }

    coord_limit_req_zone $arg_k zone=rate:1m rate=1r/h;
    coord_limit_conn_zone $arg_k zone=conn:1m;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /rate { coord_limit_req zone=rate on_failure=closed;
                         empty_gif; }
        location /conn { coord_limit_conn conn 1 on_failure=closed;
                         empty_gif; }
        location = /health { coord_health; }
    }
EOF


sub key {
    my ($first, $last) = @_;

    for (my $i = int(rand(1000000)); ; $i++) {
        my $slot = Coord::Cluster::slot_of("h$i");
        return ("h$i", $slot) if $slot >= $first && $slot <= $last;
    }
}


ok($t->wait_for(sub {
    return !grep { $n->get("/rate?k=$_")->status != 200 }
                 (key(0, 8191))[0], (key(8192, 16383))[0];
}, 10), 'there is a map');

my ($k1) = key(0, 8191);
my ($k2) = key(8192, 16383);

is($n->get("/rate?k=$k1")->status, 200, 'the first server');
is($n->get("/rate?k=$k2")->status, 200, 'the second server');
is($n->get("/rate?k=$_")->status, 429, 'both count') for $k1, $k2;
is($n->get("/conn?k=$_")->status, 200, 'transactions') for $k1, $k2;


# a MOVED and an ASK to somebody else, and to nobody

my $address = '127.0.0.1:' . $trap->port;

for my $kind (qw(MOVED ASK)) {
    for my $to ($address, 'localhost:1', '169.254.169.254:80', '::1:1', ':1',
                '?:' . $trap->port, '127.0.0.1:0', '127.0.0.1:99999',
                ('x' x 1000) . ':1', '', ' ', '127.0.0.1')
    {
        my ($k, $slot) = key(0, 8191);

        says($one, $k, "$kind $slot $to");

        is($n->get("/rate?k=$k", timeout => 5)->status, 503,
           "$kind " . substr($to, 0, 20) . ': by on_failure');

        map_is($map);
    }
}

is(scalar($trap->entries(event => 'command')), 0, 'nobody came to the trap');

my ($k) = key(0, 8191);
is($n->get("/rate?k=$k")->status, 200, 'all is as it was');


# from one to the other and back: not for ever

{
    my ($k, $slot) = key(0, 8191);

    is($n->get("/rate?k=$k")->status, 200, 'a key');

    my $before = grep { "@$_" =~ /\{$k\}/ } $one->commands, $two->commands;

    says($one, $k, "MOVED $slot 127.0.0.1:$port[1]");
    says($two, $k, "MOVED $slot 127.0.0.1:$port[0]");

    is($n->get("/rate?k=$k", timeout => 5)->status, 503, 'a circle ends');

    my $asked = grep { "@$_" =~ /\{$k\}/ } $one->commands, $two->commands;
    cmp_ok($asked - $before, '<=', 10, 'soon');

    map_is($map);
}


# a command by itself, and the others of its turn

{
    my @keys = map { [ key(0, 8191) ] } 1 .. 4;

    is($n->get("/rate?k=$_->[0]")->status, 200, 'a key') for @keys;

    says($one, $keys[0][0], "MOVED $keys[0][1] 10.0.0.1:1");

    my @responses = $t->parallel([ map { $n->req("/rate?k=$_->[0]") } @keys ]);

    is_deeply([ map { $_->status } @responses ], [ 503, 429, 429, 429 ],
              'a command that is sent away takes no others along');

    map_is($map);
}


# TRYAGAIN: 2, 4, 8, .. ms later within the 500 ms that there are; CLUSTERDOWN:
# once; and no other key has to do with it

for my $case ([ 'TRYAGAIN Multiple keys request during rehashing of slot', 8 ],
              [ 'CLUSTERDOWN Hash slot not served', 1 ])
{
    my ($error, $most) = @$case;
    my @keys = map { (key(0, 8191))[0] } 1 .. 10;

    for my $k (@keys) {
        says($one, $k, $error);
        is($n->get("/rate?k=$k")->status, 503, substr($error, 0, 11));
        map_is($map);
    }

    my ($k) = key(0, 8191);
    is($n->get("/rate?k=$k")->status, 200, 'another key');

    for my $k (@keys) {
        my @asked = grep { $_->[1] eq 'BITFIELD' && "@$_" =~ /\{$k\}/ }
                         $one->commands;
        cmp_ok(scalar @asked, '<=', $most, "asked $most times at most");
    }
}


# the time, which has no slot: it is not followed to another server

for my $error ("MOVED 1 127.0.0.1:$port[1]", 'TRYAGAIN x', 'CLUSTERDOWN x') {
    my $from = $one->commands;

    $one->fault(action => 'replace', cmd => 'TIME', times => 0,
                data => "-$error\r\n");
    my $before = grep { $_->[1] eq 'TIME' } $two->commands;

    ok($t->wait_for(sub {
        my @all = $one->commands;
        return 3 <= grep { $_->[1] eq 'TIME' } @all[$from .. $#all];
    }, 30), 'the time is asked for');

    my ($k) = key(0, 8191);
    is($n->get("/rate?k=$k")->status, 200, 'a key of that server');
    map_is($map);
}


# maps that are none leave the old one

for my $bad ("*0\r\n", "+OK\r\n", "-ERR unknown\r\n", "*1\r\n:1\r\n",
             slots([0, 16384, $trap->port]),
             slots([0, 9000, $trap->port], [9000, 16383, $trap->port]),
             "*1\r\n*3\r\n:0\r\n:5\r\n*2\r\n" . bulk('a b') . ":1\r\n")
{
    map_is($bad);

    my $asked = grep { $_->[1] eq 'CLUSTER' } $one->commands, $two->commands;
    my ($k, $slot) = key(0, 8191);

    says($one, $k, "MOVED $slot 10.0.0.1:1");
    $n->get("/rate?k=$k", timeout => 5);
    map_is($bad);

    ok($t->wait_for(sub {
        return $asked < grep { $_->[1] eq 'CLUSTER' } $one->commands,
                                                       $two->commands;
    }, 8), 'a map is asked for');

    my ($k1) = key(0, 8191);
    my ($k2) = key(8192, 16383);

    is($n->get("/rate?k=$_")->status, 200, 'the old one holds') for $k1, $k2;
}

is(scalar($trap->entries(event => 'command')), 0, 'nobody came to the trap');


# the second server leaves while calls are in flight

map_is(slots([0, 16383, $port[0]]));
$two->fault(action => 'stall', match => 'coord:', times => 0);

my @responses = $t->parallel([
    (map { my ($k) = key(8192, 16383); $n->req("/conn?k=$k", timeout => 9) }
         1 .. 20),
    do { my ($k, $slot) = key(0, 8191);
         says($one, $k, "MOVED $slot 10.0.0.1:1");
         $n->req("/rate?k=$k", timeout => 9) },
]);

is(scalar(grep { $_->status == 503 || $_->status == 200 } @responses), 21,
   'all have an answer');

$one->clear;
$one->fault(action => 'replace', cmd => 'CLUSTER', data => $map, times => 0);

ok($t->wait_for(sub {
    my ($k) = key(8192, 16383);
    return $n->get("/rate?k=$k")->status == 200;
}, 10), 'its slots have another one');

ok($t->wait_for(sub { $two->connections == 0 }, 20), 'it is left alone');
is($n->get('/health')->status, 200, 'and the worker lives');


done_testing();
