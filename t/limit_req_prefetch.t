#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# "prefetch": places of hot keys are taken in blocks and let requests in from
# the memory of the zone.  Never more than without, on two nodes whose workers
# are killed, too; what is not used comes back or lapses.

use strict;
use warnings;

use FindBin;
use Time::HiRes qw(sleep time);
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new(time_limit => 120);
my $redis = $t->redis;
my $r = $redis->connect;

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 2s; connect_timeout 5s; }
    coord_limit_req_zone $arg_k zone=hot:1m rate=200r/s prefetch=200;
    coord_limit_req_zone $arg_k zone=slow:1m rate=6r/m prefetch=50;
    coord_limit_req_zone $arg_k zone=big:1m rate=1r/h prefetch=64;
    coord_limit_req_zone $arg_k zone=lazy:1m rate=1r/h prefetch=16;
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
        location /api { coord_api write; }
        location /status { coord_status; }
    }
EOF

my $n = $t->node(name => 'n', workers => 2, http => $http)->start;
my $m = $t->node(name => 'm', workers => 2, http => $http)->start;


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


# --- never more than there are: two nodes, all at once, no drain ---

my @got = $t->parallel([map { ($n, $m)[$_ % 2]->req('/big?k=b') } 1 .. 500]);
my $let = grep { $_->status == 200 } @got;

cmp_ok($let, '<=', 300, "no more than the bucket: $let");

# what is left in the blocks of a node is used there, or comes back

my $until = time + 15;

while (time < $until && $let < 300) {
    $let += grep { $_->get('/big?k=b')->status == 200 } $n, $m;
    sleep 0.05;
}

is($let, 300, 'and all of them, in the end');
is($_->get('/big?k=b')->status, 429, 'not one more') for $n, $m;


# --- a worker is killed while its node has a block ---

my @live = $n->workers;

$let = 0;

for my $round (1 .. 8) {
    my @r = $t->parallel([map { ($n, $m)[$_ % 2]->req('/big?k=killed') }
                          1 .. 60]);
    $let += grep { $_ && $_->status == 200 } @r;

    if ($round == 3) {
        kill 'KILL', $live[0];
        $n->allow(qr/exited on signal 9/);
    }
}

# a response of the killed worker may be lost, a place may not be given twice

cmp_ok($let, '<=', 300, "killed: no more than the bucket: $let");
cmp_ok($let, '>=', 200, 'and not many less');


# --- what is not used comes back: within ten seconds, for other nodes ---

is($n->get('/lazy?k=l')->status, 200, 'used for a moment') for 1 .. 12;

my $left = 88;

ok($t->wait_for(sub {
       my $peek = $m->get('/api/limits/lazy/l')->body;
       my ($remaining) = $peek =~ /"remaining": ?(\d+)/;

       return $remaining == $left;
   }, 11), 'what was not used is there again');


# --- also when the worker that took them exits before that ---

is($n->get('/lazy?k=x')->status, 200, 'used for a moment') for 1 .. 12;

my @old = $n->reload;

ok($n->wait_gone(20, @old), 'its workers have gone');
ok($t->wait_for(sub {
       my $peek = $m->get('/api/limits/lazy/x')->body;
       my ($remaining) = $peek =~ /"remaining": ?(\d+)/;

       return $remaining == $left;
   }, 11), 'what they took and was not used is there again');


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
