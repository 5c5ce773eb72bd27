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
my $origin = $t->origin(default => { hold => 1 });

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_req_zone $arg_k zone=s:1m rate=1r/m;
    coord_limit_req_zone $arg_k zone=bucket:1m rate=1r/m;
    coord_limit_req_zone $arg_k zone=f:1m rate=2r/s;
    coord_limit_req_zone $arg_k zone=v:1m rate=$arg_r;
    coord_limit_req_zone $arg_k zone=fixed_window:1m rate=3r/h algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=fixed_window_rate:1m rate=$arg_r algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=fixed_window_second:1m rate=1r/s algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=sliding_window:1m rate=3r/h algorithm=sliding_window;
    coord_limit_req_zone $arg_k zone=sliding_window_rate:1m rate=$arg_r algorithm=sliding_window;
    coord_limit_req_zone $arg_k zone=sliding_window_second:1m rate=1r/s algorithm=sliding_window;
    coord_limit_req_zone $arg_k zone=sliding_log:1m rate=3r/h algorithm=sliding_log;
    coord_limit_req_zone $arg_k zone=sliding_log_rate:1m rate=$arg_r algorithm=sliding_log;
    coord_limit_req_zone $arg_k zone=sliding_log_second:1m rate=1r/s algorithm=sliding_log;
    add_header X-Source $coord_limit_req_source always;
    add_header X-Worker $pid always;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /s { coord_limit_req zone=s; empty_gif; }
        location /more { coord_limit_req zone=s burst=3 nodelay; empty_gif; }
        location /bucket { coord_limit_req zone=bucket; empty_gif; }
        location /f { coord_limit_req zone=f; empty_gif; }
        location /v { coord_limit_req zone=v; empty_gif; }
        location = /fixed_window { coord_limit_req zone=fixed_window; empty_gif; }
        location = /fixed_window/look { coord_limit_req zone=fixed_window charge=after; empty_gif; }
        location = /fixed_window/cost { coord_limit_req zone=fixed_window cost=$arg_c; empty_gif; }
        location = /fixed_window/rate { coord_limit_req zone=fixed_window_rate; empty_gif; }
        location = /fixed_window/second { coord_limit_req zone=fixed_window_second; empty_gif; }
        location = /fixed_window/slow { coord_limit_req zone=fixed_window reserve=1 cost=0;
                              proxy_pass http://%%ORIGIN%%; }
        location = /sliding_window { coord_limit_req zone=sliding_window; empty_gif; }
        location = /sliding_window/look { coord_limit_req zone=sliding_window charge=after; empty_gif; }
        location = /sliding_window/cost { coord_limit_req zone=sliding_window cost=$arg_c; empty_gif; }
        location = /sliding_window/rate { coord_limit_req zone=sliding_window_rate; empty_gif; }
        location = /sliding_window/second { coord_limit_req zone=sliding_window_second; empty_gif; }
        location = /sliding_window/slow { coord_limit_req zone=sliding_window reserve=1 cost=0;
                              proxy_pass http://%%ORIGIN%%; }
        location = /sliding_log { coord_limit_req zone=sliding_log; empty_gif; }
        location = /sliding_log/look { coord_limit_req zone=sliding_log charge=after; empty_gif; }
        location = /sliding_log/cost { coord_limit_req zone=sliding_log cost=$arg_c; empty_gif; }
        location = /sliding_log/rate { coord_limit_req zone=sliding_log_rate; empty_gif; }
        location = /sliding_log/second { coord_limit_req zone=sliding_log_second; empty_gif; }
        location = /sliding_log/slow { coord_limit_req zone=sliding_log reserve=1 cost=0;
                              proxy_pass http://%%ORIGIN%%; }
        location /api { coord_api write; }
        location /status { coord_status; }
    }
EOF

my $n = $t->node(name => 'n', workers => 2, http => $http)->start;
my $m = $t->node(name => 'm', http => $http)->start;


sub commands {
    my $info = $r->command('INFO', 'commandstats');
    my $n = 0;

    $n += $1 while $info =~ /^cmdstat_(?:bitfield|zunionstore|zrangestore|zremrangebyrank):calls=(\d+)/mg;

    return $n;
}

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
    my $start = time;

    is($n->get("/f?k=$k")->status, 200, 'a place');

    # what is asked for after that is not refused any more; the clocks of the
    # workers are samples of that of Redis

    my $end = time + 0.5 + 0.1;

    my ($got, $late, $began, %source) = (undef, 0);

    for (1 .. 1000) {
        $began = time;
        $got = $n->get("/f?k=$k");
        last if $got->status == 200;
        $source{$got->header('X-Source')}++;
        $late++ if $began > $end;
        sleep 0.01;
    }

    my $took = time - $start;

    is($got->status, 200, 'and the next one');
    cmp_ok($took, '>=', 0.49, "after half a second: $took");
    is($late, 0, 'and not later');
    cmp_ok($source{redis} || 0, '<=', 2, 'meanwhile the node has refused');
}


# --- what is told counts down as it does where Redis is asked ---

my @windows = qw(fixed_window sliding_window sliding_log);

sub left {
    my ($z) = @_;
    my $got = $n->get("/api/limits/$z/count")->body;

    return $got =~ /"refused":true.*"retry_after_seconds":([\d.]+)/s ? $1 : 0;
}

sub ceil { return int($_[0]) + (int($_[0]) < $_[0]) }

# the clocks of the workers are samples of that of Redis

my $sample = 0.05;
my (%told, @off);

for my $z ('bucket', @windows) {
    $n->get("/$z?k=count") for 1 .. 5;
}

my $counted = $t->wait_for(sub {
    for my $z ('bucket', @windows) {
        my $most = ceil(left($z) + $sample);
        my $got = $n->get("/$z?k=count");
        my $least = ceil(left($z) - $sample);
        my $retry = $got->header('Retry-After') || 0;

        $told{$z}{$retry}++;

        push @off, "$z: $retry, not $least to $most, "
                   . $got->header('X-Source')
            if $retry < $least || $retry > $most
               || $got->header('X-Source') ne 'deny_cache'
               || $got->header('RateLimit') ne "\"$z\";r=0;t=$retry";
    }

    sleep 0.1;

    return !grep { keys %$_ < 3 } values %told;
}, 20);

ok($counted, 'what is left becomes less');
is_deeply(\@off, [], 'and is what Redis says at each moment');


# --- windows: the next place is free at a time that is known ---

for my $z (@windows) {
    $r->command('CONFIG', 'RESETSTAT');

    my @got = map { $n->get("/$z?k=w") } 1 .. 4;

    is(join(' ', map { $_->status } @got), '200 200 200 429', "$z: refused");
    is($got[3]->header('X-Source'), 'redis', "$z: by Redis");

    my $before = commands();
    my @wrong = map { $_->status . ' ' . $_->header('X-Source') . ' '
                      . $_->header('Retry-After') . ' '
                      . $_->header('RateLimit') }
                grep { $_->status != 429
                       || $_->header('X-Source') ne 'deny_cache'
                       || abs($_->header('Retry-After')
                              - $got[3]->header('Retry-After')) > 5
                       || $_->header('RateLimit')
                          ne "\"$z\";r=0;t=" . $_->header('Retry-After')
                       || $_->header('RateLimit-Policy')
                          ne $got[3]->header('RateLimit-Policy') }
                map { $n->get("/$z?k=w") } 1 .. 20;

    is_deeply(\@wrong, [], "$z: and then by the node, in the same words");
    is(commands(), $before, "$z: Redis was not asked");

    is($m->get("/$z?k=w")->header('X-Source'), 'redis', "$z: another node");
    is($n->get("/$z/look?k=w")->header('X-Source'), 'deny_cache',
       "$z: who looks is refused, too");
    is($n->get("/$z/cost?k=w&c=2")->header('X-Source'), 'redis',
       "$z: another cost is asked for");
    is($n->get("/$z/cost?k=w&c=0")->status, 200, "$z: one of 0 passes");
    is($n->get("/$z/rate?k=v&r=1r/h")->status, 200, "$z: a rate");
    is($n->get("/$z/rate?k=v&r=1r/h")->status, 429, "$z: refused");
    is($n->get("/$z/rate?k=v&r=1r/h")->header('X-Source'), 'deny_cache',
       "$z: is known");
    is($n->get("/$z/rate?k=v&r=9r/h")->status, 200, "$z: a raised one helps");

    # not longer than Redis would

    my ($start, $cached, $got);

    # a busy machine may have no time to ask so often in a second

    for my $try (1 .. 5) {
        $cached = 0;
        $n->get("/$z/second?k=s$try") for 1 .. 2;
        $start = $t->ran;

        for (1 .. 300) {
            $got = $n->get("/$z/second?k=s$try");
            last if $got->status == 200;
            $cached++ if $got->header('X-Source') eq 'deny_cache';
            sleep 0.01;
        }

        last if $cached > 3;
    }

    is($got->status, 200, "$z: the next one");
    cmp_ok($t->ran - $start, '<', 3.5, "$z: not later than two seconds");
    cmp_ok($cached, '>', 3, "$z: meanwhile the node has refused");

    # a place that is given back, and a reset

    is($n->get("/$z?k=b")->status, 200, "$z: a place") for 1 .. 2;
    my $c = $n->connect;
    $c->send("GET /$z/slow?k=b&none=9r/s HTTP/1.1\r\nHost: a\r\n\r\n");
    ok($t->wait_for(sub { $origin->count("/$z/slow") }, 5),
       "$z: it has the last one");
    is($n->get("/$z?k=b")->status, 429, "$z: which is reserved");
    is($n->get("/$z?k=b")->header('X-Source'), 'deny_cache', "$z: known");
    $origin->release("/$z/slow");
    is($c->response('GET', 5)->status, 200, "$z: it has cost nothing");
    ok($t->wait_for(sub { $n->get("/$z?k=b")->status == 200 }, 10),
       "$z: what this node gives back is seen at once");

    $_->get("/$z?k=b") for $n, $m, $n, $m;
    is($_->get("/$z?k=b")->header('X-Source'), 'deny_cache', "$z: refused")
        for $n, $m;
    is($m->request('DELETE', "/api/limits/$z/b")->status, 200, "$z: reset");
    ok($t->wait_for(sub { $n->get("/$z?k=b")->status == 200 }, 5),
       "$z: lifted on the other node, too");
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
