#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# "prefetch": places of hot keys are taken in blocks and let requests in from
# the memory of the zone.  Never more than without, on two nodes whose workers
# are killed, too; what is not used comes back or lapses.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_req_zone $arg_k zone=hot:1m rate=20r/s prefetch=200;
    coord_limit_req_zone $arg_k zone=slow:1m rate=6r/m prefetch=50;
    coord_limit_req_zone $arg_k zone=big:1m rate=1r/h prefetch=64;
    coord_limit_req_zone $arg_k zone=lazy:1m rate=1r/h prefetch=16;
    coord_limit_req_zone $arg_k zone=all:1m rate=1000r/s;
    coord_limit_conn_zone $arg_k zone=c:1m;
    coord_limit_req_zone $arg_k zone=cost:1m rate=1r/h prefetch=64;
    add_header X-Source $coord_limit_req_source always;
    add_header X-Remaining $coord_limit_req_remaining always;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /hot { coord_limit_req zone=hot burst=999 nodelay;
                        empty_gif; }
        location /slow { coord_limit_req zone=slow burst=99 nodelay;
                         empty_gif; }
        location /big { coord_limit_req zone=big burst=299 nodelay;
                        empty_gif; }
        location /lazy { coord_limit_req zone=lazy burst=99 nodelay;
                         empty_gif; }
        location /two { coord_limit_req zone=big burst=299 nodelay;
                        coord_limit_req zone=all; empty_gif; }
        location /both { coord_limit_req zone=big burst=299 nodelay;
                         coord_limit_conn c 9; empty_gif; }
        location /cost { coord_limit_req zone=cost burst=99 nodelay
                                         cost=$arg_c; empty_gif; }
        location /api { coord_api write; }
        location /status { coord_status; }
        location /stub { stub_status; }
    }
EOF

my $n = $t->node(name => 'n', workers => 2, http => $http)->start;
my $m = $t->node(name => 'm', workers => 2, http => $http)->start;


sub listeners { $r->command('PUBSUB', 'NUMSUB', 'coord:deny')->[1] }

ok($t->wait_for(sub { listeners() == 4 }), 'all hear of resets');


sub asked {
    my $info = $r->command('INFO', 'commandstats');

    return $info =~ /^cmdstat_bitfield:calls=(\d+)/m ? $1 : 0;
}


# --- a hot key asks Redis seldom ---

my $before = asked();
my (%source, $passed);
my $client = $n->connect;

for (1 .. 400) {
    my $got = $client->request(path => '/hot?k=a');

    $passed++ if $got->status == 200;
    $source{$got->header('X-Source') || ''}++;
}

is($passed, 400, 'all are within the rate and the burst');
cmp_ok($source{prefetch} || 0, '>', 200, "from blocks: $source{prefetch}");
is(($source{prefetch} || 0) + ($source{redis} || 0), 400, 'or from Redis');
cmp_ok(asked() - $before, '<', 200, 'which was asked less often');

my ($zone) = $n->get('/status?format=prometheus')->body
             =~ /^coord_zone_prefetch_total\{.*zone="hot"\} (\d+)$/m;
is($zone, $source{prefetch}, 'and the metrics say so');


# places that are left, as Redis knows

sub left {
    my ($node, $zone, $key) = @_;

    my ($n) = $node->get("/api/limits/$zone/$key")->body
              =~ /"remaining": ?(\d+)/;

    return $n // -1;
}


# what is not used comes back within ten seconds, and then somebody has it

sub all_in_the_end {
    my ($key, $let, $name) = @_;

    cmp_ok($let, '<=', 300, "$name: no more than the bucket: $let");
    ok($t->wait_for(sub { left($n, 'big', $key) == 300 - $let }, 11),
       "$name: what was not used is there again");

    my @nodes = ($n, $m);

    while (@nodes && $let <= 300) {
        if ($nodes[0]->get("/big?k=$key")->status == 200) {
            $let++;

        } else {
            shift @nodes;
        }
    }

    is($let, 300, "$name: all of them, in the end");
    is($_->get("/big?k=$key")->status, 429, 'not one more') for $n, $m;
}


# --- never more than there are: two nodes, all at once, no drain ---

my @got = $t->parallel([map { ($n, $m)[$_ % 2]->req('/big?k=b') } 1 .. 500]);

is((grep { $_->status !~ /^(?:200|429)$/ } @got), 0, 'all are answered');
all_in_the_end('b', scalar(grep { $_->status == 200 } @got), 'two nodes');


# --- a worker is killed while its node has a block ---

my @live = $n->workers;
my $let = 0;

$n->allow(qr/exited on signal 9/);

for my $round (1 .. 8) {
    my @r = $t->parallel([map { ($n, $m)[$_ % 2]->req('/big?k=killed') }
                          1 .. 60]);
    is((grep { $_->status !~ /^(?:200|429)$/ } @r), 0,
       "round $round: all are answered");
    $let += grep { $_->status == 200 } @r;

    kill 'KILL', $live[0] if $round == 3;
}

all_in_the_end('killed', $let, 'killed');


# --- a bucket is full, and a block of it is not used up ---

is($n->get('/cost?k=f&c=1')->status, 200, 'a block') for 1 .. 12;
my $free = left($n, 'cost', 'f');
cmp_ok($free, '<', 88, "is left: $free of 88");
is($m->get("/cost?k=f&c=$free")->status, 200, 'others take the rest');
is($n->get('/cost?k=f&c=50')->header('X-Source'), 'redis', 'full, says Redis');
is($n->get('/cost?k=f&c=50')->header('X-Source'), 'deny_cache',
   'and the node knows');
is($n->get('/cost?k=f&c=1')->header('X-Source'), 'prefetch', 'of the block')
    for 1 .. 88 - $free;
is($n->get('/cost?k=f&c=1')->status, 429, 'it is used up');


# --- a block that is too small for a request does not get lost ---

is($n->get('/cost?k=s&c=1')->status, 200, 'a block') for 1 .. 12;
cmp_ok(left($n, 'cost', 's'), '<', 88, 'is left');
is($n->get('/cost?k=s&c=40')->header('X-Source'), 'redis', 'not enough');
ok($t->wait_for(sub { left($m, 'cost', 's') == 48 }, 11),
   'and all that was not used is there again');


# --- a client that leaves while another limit waits for Redis ---

# the counters that nginx shares still have what the killed worker was at

sub writing {
    my ($n) = $n->get('/stub')->body =~ /Writing: (\d+)/;

    return $n;
}

my ($dead) = sort { $a <=> $b } map { $t->rest(0.05); writing() } 1 .. 20;

sub waiting { return writing() - $dead }

for my $where (qw(two both)) {
    is($n->get("/big?k=$where")->status, 200, 'a block') for 1 .. 12;
    cmp_ok(left($n, 'big', $where), '<', 288, 'is left');

    $redis->freeze;

    my $client = $n->connect;
    $client->send("GET /$where?k=$where HTTP/1.1\r\nHost: a\r\n\r\n");
    ok($t->wait_for(sub { waiting() == 1 }), "/$where waits");
    $client->close;
    ok($t->wait_for(sub { waiting() == 0 }), 'and its client leaves');

    kill 'CONT', $redis->{pid};
}

ok($t->wait_for(sub { left($m, 'big', $_) == 288 }, 11),
   "$_: its place is there again") for qw(two both);


# --- what is not used comes back: within ten seconds, for other nodes ---

my @held = $n->workers;
my $taken;

for (['n', $n], ['m', $m]) {
    my ($key, $node) = @$_;
    is($node->get("/lazy?k=$key")->status, 200, 'used for a moment')
        for 1 .. 12;
    cmp_ok(left($node, 'lazy', $key), '<', 88, 'and more was taken');

    # as a machine that is busy, or stands still, does
    if ($node == $n) {
        kill 'STOP', @held;
        $taken = time;
    }
}

# one after the other: while nobody of a node hears of resets, blocks are void;
# that of a worker that is dead is a listener until Redis reads of its end

sub heard { sort { $a <=> $b } $r->command(qw(CLIENT LIST TYPE pubsub))
                               =~ /^id=(\d+)/mg }

for ($m->workers) {
    my @before = heard();

    $m->kill_worker('KILL', $_);
    ok($t->wait_for(sub { my @ids = heard();
                          @ids == @before && $ids[-1] > $before[-1] }),
       'a successor listens');
}

ok($t->wait_for(sub { left($m, 'lazy', 'm') == 88 }, 11),
   'what was not used is there again, by the successors of killed workers');
cmp_ok(left($m, 'lazy', 'n'), '<', 88, 'but of workers that stand still');

sleep(9.5 - (time - $taken)) if time - $taken < 9.5;
kill 'CONT', @held;

ok($t->wait_for(sub { left($m, 'lazy', 'n') == 88 }, 5),
   'it is when they go on');

is($m->get('/lazy?k=r')->status, 200, 'used for a moment') for 1 .. 12;
cmp_ok(left($m, 'lazy', 'r'), '<', 88, 'and more was taken');
$m->wait_gone(30, $m->reload);
ok($t->wait_for(sub { left($n, 'lazy', 'r') == 88 }, 5),
   'and at once when the workers end');


# --- a reset voids blocks ---

is($n->get('/lazy?k=v')->status, 200, 'used') for 1 .. 6;
is($m->request('DELETE', '/api/limits/lazy/v')->status, 200, 'reset');
ok($t->wait_for(sub {
       my $got = $n->get('/lazy?k=v');

       return $got->header('X-Source') eq 'redis'
              && $got->header('X-Remaining') >= 97;
   }, 5), 'a block of before is void');


# --- what can be said ---

like($t->conf_error(http => 'coord_limit_req_zone $arg_k zone=z:1m rate=1r/s '
                            . 'algorithm=sliding_log prefetch=5;'),
     qr/"prefetch=" is not allowed with algorithm "sliding_log"/,
     'not with other algorithms');
like($t->conf_error(http => 'coord_limit_req_zone $arg_k zone=z:1m rate=1r/s '
                            . 'prefetch=0;'),
     qr/invalid number in "prefetch=0", it must be from 1 to 4095/,
     'a number');

done_testing();
