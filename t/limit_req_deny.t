#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A key that Redis has refused is refused on that node without asking again,
# for as long as that is certain: never longer, and no caller who may have
# more.

use strict;
use warnings;

use FindBin;
use Time::HiRes qw(sleep time);
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 2s; connect_timeout 5s; }
    coord_limit_req_zone $arg_k zone=s:1m rate=1r/m;
    coord_limit_req_zone $arg_k zone=f:1m rate=2r/s;
    coord_limit_req_zone $arg_k zone=v:1m rate=$arg_r;
    add_header X-Source $coord_limit_req_source always;
    add_header X-Worker $pid always;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /s { coord_limit_req zone=s; empty_gif; }
        location /more { coord_limit_req zone=s burst=3 nodelay; empty_gif; }
        location /f { coord_limit_req zone=f; empty_gif; }
        location /v { coord_limit_req zone=v; empty_gif; }
        location /api { coord_api write; }
        location /status { coord_status; }
    }
EOF

my $n = $t->node(name => 'n', workers => 2, http => $http)->start;
my $m = $t->node(name => 'm', http => $http)->start;


sub asked {
    my $info = $r->command('INFO', 'commandstats');

    return $info =~ /^cmdstat_bitfield:calls=(\d+)/m ? $1 : 0;
}


# --- without Redis, on all workers ---

is($n->get('/s?k=a')->status, 200, 'a place');

my $first = $n->get('/s?k=a');

is($first->status, 429, 'refused');
is($first->header('X-Source'), 'redis', 'by Redis');

my $before = asked();
my (%workers, @wrong);

for (1 .. 60) {
    my $got = $n->get('/s?k=a');

    $workers{$got->header('X-Worker')}++;
    push @wrong, $got->status . ' ' . $got->header('X-Source')
        if $got->status != 429 || $got->header('X-Source') ne 'deny_cache';
    push @wrong, 'Retry-After ' . $got->header('Retry-After')
        if abs($got->header('Retry-After') - $first->header('Retry-After'))
           > 5;
    push @wrong, $got->header('RateLimit')
        if $got->header('RateLimit')
           ne '"s";r=0;t=' . $got->header('Retry-After');
    push @wrong, 'a body' if $got->body !~ /quota-exceeded/;
}

is_deeply(\@wrong, [], 'and then by the node, in the same words');
is(asked(), $before, 'Redis was not asked');
is(scalar keys %workers, 2, 'by both workers');
like($n->log, qr/limiting requests, excess: 0\.\d+ by zone "s".*deny_cache/,
     'as the log says');
like($n->get('/status?format=prometheus')->body,
     qr/^coord_zone_deny_cache_total\{.*zone="s"\} 60$/m, 'and the metrics');


# --- who may have more is asked for, and so is another node, another key ---

is($n->get('/more?k=a')->status, 200, 'a caller with a larger burst');
is($n->get('/s?k=b')->status, 200, 'another key');
is($m->get('/s?k=a')->header('X-Source'), 'redis', 'another node');

is($n->get('/v?k=r&r=1r/h')->status, 200, 'a rate');
is($n->get('/v?k=r&r=1r/h')->status, 429, 'refused');
sleep 0.01;
is($n->get('/v?k=r&r=1000r/s')->status, 200, 'a raised rate helps at once');


# --- not longer than Redis would ---

for my $round (1 .. 3) {
    my $k = "f$round";
    my ($start, $ran) = (time, $t->ran);

    is($n->get("/f?k=$k")->status, 200, 'a place');

    my ($got, $cached) = (undef, 0);

    while ($t->ran < $ran + 10) {
        $got = $n->get("/f?k=$k");
        last if $got->status == 200;
        $cached++ if $got->header('X-Source') eq 'deny_cache';
        sleep 0.01;
    }

    my $took = time - $start;
    $ran = $t->ran - $ran;

    is($got->status, 200, 'and the next one');
    cmp_ok($took, '>=', 0.49, "after half a second: $took");
    cmp_ok($ran, '<', 0.7, 'and not later');
    cmp_ok($cached, '>', 30 * $ran - 12, 'meanwhile the node has refused');
}


# --- lifted on all nodes ---

$_->get('/s?k=reset') for $n, $m, $n;
is($_->get('/s?k=reset')->header('X-Source'), 'deny_cache', 'refused here')
    for $n, $m;

my $deleted = $m->request('DELETE', '/api/limits/s/reset');
is($deleted->status, 200, 'reset by a node') or diag($deleted->body);

ok($t->wait_for(sub { $_[0] = $n->get('/s?k=reset')->status; $_[0] == 200 },
                5), 'lifted on the other one, too');

# what is told while nobody listens

is($n->get('/s?k=reset')->status, 429, 'refused');
is($n->get('/s?k=reset')->header('X-Source'), 'deny_cache', 'known');

$r->command('CLIENT', 'KILL', 'TYPE', 'pubsub');

ok($t->wait_for(sub { $n->get('/s?k=reset')->header('X-Source') eq 'redis' },
                10), 'who has not listened asks again');

done_testing();
