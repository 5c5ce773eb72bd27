#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# "prefetch": a block that takes the place of another one, of which some is
# left.  What was let in is never more than the bucket may hold, and nobody
# waits for Redis where a key is hot.

use strict;
use warnings;

use FindBin;
use Time::HiRes qw(time);
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_req_zone $arg_k zone=drains:1m rate=100r/s prefetch=64;
    coord_limit_req_zone $arg_k zone=hot:1m rate=1r/h prefetch=16;
    coord_limit_req_zone $arg_k zone=full:1m rate=1r/h prefetch=16;
    add_header X-Source $coord_limit_req_source always;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /drains { coord_limit_req zone=drains burst=299 nodelay
                                           cost=$arg_c; empty_gif; }
        location /hot { coord_limit_req zone=hot burst=999 nodelay;
                        empty_gif; }
        location /full { coord_limit_req zone=full burst=49 nodelay;
                         empty_gif; }
        location /api { coord_api; }
    }
EOT

# one worker: what it asks is answered in this order

my ($n, $m) = map { $t->node(name => $_, http => $http)->start } qw(n m);

sub left {
    my ($node, $zone, $key) = @_;

    my ($n) = $node->get("/api/limits/$zone/$key")->body
              =~ /"remaining": ?(\d+)/;

    return $n // -1;
}

# what was let in: when it was asked and answered, and its cost

my @let;

sub take {
    my ($node, $path, $cost) = @_;

    my $began = time;
    my $got = $node->get("$path&c=$cost");

    push @let, [$began, time, $cost] if $got->status == 200;

    return $got;
}

# by how much that is more, at any time, than a bucket lets in

sub beyond {
    my ($capacity, $rate) = @_;
    my $most = -$capacity;

    for my $i (0 .. $#let) {
        my $sum = 0;

        for my $j ($i .. $#let) {
            $sum += $let[$j][2];

            my $more = $sum - $capacity
                       - $rate * ($let[$j][1] - $let[$i][0]);

            $most = $more if $more > $most;
        }
    }

    return $most;
}


# --- what is left of a block is given back in front of the next one ---

is(take($n, '/drains?k=a', 1)->status, 200, 'a place') for 1 .. 62;
is(take($n, '/drains?k=a', 70)->header('X-Source'), 'redis',
   'more than is left of the block');

ok($t->wait_for(sub { left($m, 'drains', 'a') >= 266 }, 10),
   'what was used has drained, and some of the block');

# five at once: more than drains meanwhile, however slow the machine is

for my $cost (50, 10, 5) {
    while (take($m, '/drains?k=a', $cost)->status == 200) { }
}

my $last;

for (1 .. 100) {
    $last = take($n, '/drains?k=a', 5);
    last if $last->status != 200;
}

is($last->status, 429, 'all is used');
cmp_ok(beyond(300, 100), '<', 3, 'and no more was let in than there was');



# --- the next block is there before the last place of this one is used ---

# what is asked for ahead is answered before what is asked for after it

my (%source, @late);

for my $i (1 .. 200) {
    my $source = $n->get('/hot?k=b')->header('X-Source') || '';

    $source{$source}++;
    push @late, $i if $i > 40 && $source ne 'prefetch';

    left($n, 'hot', 'b');
}

is_deeply(\@late, [], 'nobody waits for Redis once a key is hot');
cmp_ok(left($n, 'hot', 'b'), '<=', 800, 'what was let in is in the bucket');
ok($t->wait_for(sub { left($m, 'hot', 'b') == 800 }, 11),
   'and what was not used is there again');


# --- where there is no room for it, the places of this one are let in ---

my @full = map { my $s = $n->get('/full?k=c')->status;
                 left($n, 'full', 'c');
                 $s } 1 .. 60;

is_deeply(\@full, [(200) x 50, (429) x 10], 'all that there is, and no more');


# --- Redis does not answer: neither is anybody held up ---

is($n->get('/hot?k=d')->header('X-Source'), 'redis', 'a key');

for (1 .. 60) {
    $n->get('/hot?k=d');
    left($n, 'hot', 'd');
}

# a fourth of a block is there at any time

my @got;

for (1 .. 12) {
    $n->get('/hot?k=d');
    left($n, 'hot', 'd');

    $redis->freeze;
    push @got, map { $n->get('/hot?k=d')->header('X-Source') } 1 .. 3;
    kill 'CONT', $redis->{pid};

    left($n, 'hot', 'd');
}

is_deeply(\@got, [('prefetch') x 36], 'the last places of a block');



# --- who has asked for the next one is killed ---

sub used {
    $n->get('/hot?k=d');
    return left($n, 'hot', 'd');
}

# until the next one has just come, and then to the last quarter of it

my $left = used();
my $taken;

do { ($taken, $left) = ($left - used(), left($n, 'hot', 'd')) }
    until $taken > 1;

$redis->freeze;

is_deeply([map { $n->get('/hot?k=d')->header('X-Source') } 1 .. 13],
          [('prefetch') x 13], 'the next one is asked for');

$n->allow(qr/exited on signal 9/);
$n->kill_worker('KILL', $n->workers);

kill 'CONT', $redis->{pid};

ok($t->wait_for(sub { $n->get('/hot?k=d')->header('X-Source') eq $_ }, 5),
   "then by $_") for qw(redis prefetch);

done_testing();
