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
    add_header X-Source $coord_limit_req_source always;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /drains { coord_limit_req zone=drains burst=299 nodelay
                                           cost=$arg_c; empty_gif; }
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

for my $cost (50, 10, 1) {
    while (take($m, '/drains?k=a', $cost)->status == 200) { }
}

my $last;

for (1 .. 100) {
    $last = take($n, '/drains?k=a', 1);
    last if $last->status != 200;
}

is($last->status, 429, 'all is used');
cmp_ok(beyond(300, 100), '<', 3, 'and no more was let in than there was');

done_testing();
