#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What docs/cache.md says of the directives of proxy_cache, side by side with
# them: what is the same, and what is there in place of what is not.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Pages;
use Coord::Util qw(slurp);
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $origin = $t->origin(default => \&answered);

# the examples of the page, as they stand there

my $page = slurp("$FindBin::Bin/../docs/cache.md");
my ($section) = $page =~ /^## From proxy_cache\n(.*?)(?=^## )/ms;
my @blocks = ($section // '') =~ /^```nginx\n(.*?)^```/msg;

is(scalar @blocks, 3, 'three examples');

# --- each directive of nginx has a row ---

my %rows = map { $_ => 1 } ($section // '') =~ /`(proxy_\w+)`/g;
my @all = qw(proxy_cache proxy_cache_background_update proxy_cache_bypass
             proxy_cache_convert_head proxy_cache_key proxy_cache_lock
             proxy_cache_lock_age proxy_cache_lock_timeout
             proxy_cache_max_range_offset proxy_cache_methods
             proxy_cache_min_uses proxy_cache_path proxy_cache_purge
             proxy_cache_revalidate proxy_cache_use_stale proxy_cache_valid
             proxy_no_cache proxy_ignore_headers proxy_hide_header
             proxy_pass_header proxy_force_ranges proxy_store proxy_buffering);

is(join(' ', grep { !$rows{$_} } @all), '', 'all directives are there');

s{^coord_cache_zone zone=pages;\n\n}{}m for @blocks;
s{http://127\.0\.0\.1:8081}{http://%%ORIGIN%%}g for @blocks;
s{127\.0\.0\.1:8080}{127.0.0.1:%%PORT%%}g for @blocks;
s{127\.0\.0\.1:8082}{127.0.0.1:%%PORT_2%%}g for @blocks;

my ($skip, $hop, $purge) = @blocks;

# the same for pages that are old after a second, and updated in the background

my $background = $hop =~ s/600/1/r =~ s/\$life/\$short/gr =~ s/PORT_2/PORT_3/gr
                      =~ s/www\.example/background/r;

$background =~ s/(add_header) X-Accel.*\n/$&$1 Cache-Control
                 "stale-while-revalidate=60" always;\n/;

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_cache_zone zone=pages:4m;
    proxy_cache_path %%NODEDIR%%/stock keys_zone=stock:1m;
    proxy_cache_key $uri;
    add_header X-Cache $coord_cache_status$upstream_cache_status always;
EOT

my $a = $t->node(name => 'a', workers => 2, http => "$http$skip" . <<'EOT' . "$hop$background");
    server {
        listen 127.0.0.1:%%PORT%%;

        location / {
            coord_cache $uri zone=pages;
            proxy_pass http://%%ORIGIN%%;
        }
        location /stock/ {
            proxy_cache stock;
            proxy_cache_valid 5m;
            proxy_pass http://%%ORIGIN%%;
        }

        location /stale/ {
            coord_cache $uri zone=pages stale=1h;
            proxy_read_timeout 1s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /stock/stale/ {
            proxy_cache stock;
            proxy_cache_valid 5m;
            proxy_cache_use_stale error timeout invalid_header updating
                                  http_500 http_502 http_503 http_504;
            proxy_read_timeout 1s;
            proxy_pass http://%%ORIGIN%%;
        }

        location /lock/ {
            coord_cache $uri zone=pages lock;
            proxy_pass http://%%ORIGIN%%;
        }

        location /skip/ {
            coord_cache $cached_key zone=pages;
            proxy_pass http://%%ORIGIN%%;
        }

        location /ignore/ {
            coord_cache $uri zone=pages valid=5m;
            proxy_ignore_headers Cache-Control Set-Cookie Vary Expires;
            proxy_pass http://%%ORIGIN%%;
        }
        location /stock/ignore/ {
            proxy_cache stock;
            proxy_cache_valid 5m;
            proxy_ignore_headers Cache-Control Set-Cookie Vary Expires;
            proxy_pass http://%%ORIGIN%%;
        }

        location /guarded/ {
            auth_request /guard;
            proxy_pass http://%%ORIGIN%%;
        }
        location = /guard {
            internal;
            coord_cache guard$remote_user zone=pages valid=5m;
            proxy_pass http://%%ORIGIN%%;
        }
        location /kept/ {
            auth_request /kept;
            proxy_pass http://%%ORIGIN%%;
        }
        location = /kept {
            internal;
            proxy_pass http://127.0.0.1:%%PORT%%;
            proxy_set_header Host guard;
        }

        location /unbuffered/ {
            proxy_buffering off;
            coord_cache $uri zone=pages;
            proxy_pass http://%%ORIGIN%%;
        }
    }
    server {
        listen 127.0.0.1:%%PORT%%;
        server_name guard;

        location / {
            coord_cache kept$remote_user zone=pages valid=5m;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOT

$a->start;

my $n = 0;

sub path { return "/$_[0]" . $n++ }

sub word { return $_[0]->header('x-cache') // '' }

# the words of the requests of a path, one after the other, in both

sub both {
    my ($where, $words, $name, %is) = @_;
    my %answer = (%{$is{answer} || {}});
    my $fields = $is{fields} || [];
    my $path = path($where);

    for my $prefix ('/stock', '') {
        my $uri = "$prefix$path" . answer($fields, %answer);
        my @words;

        for my $i (0 .. $#$words) {
            my $res;

            if ($words->[$i] eq 'HIT' && $i) {
                $t->wait_for(sub {
                    $res = $a->request($is{method} || 'GET', $uri,
                                       headers => $is{headers} || []);
                    return word($res) eq 'HIT';
                }, 10);

            } else {
                sleep 0.2 if $i;
                $res = $a->request($is{method} || 'GET', $uri,
                                   headers => $is{headers} || []);
            }

            push @words, word($res);
        }

        is("@words", "@$words", $name . ($prefix ? ', stock' : ''));
    }
}

# --- what is kept, and how long ---

both('p', [qw(MISS HIT)], 'proxy_cache_valid 5m: a 200');
both('p', [qw(MISS HIT)], 'a 301', answer => { status => 301 },
     fields => [Location => '/x']);
both('p', [qw(MISS MISS)], 'not a 404', answer => { status => 404 });
both('p', [qw(MISS HIT)], 'unless the origin says so',
     answer => { status => 404 }, fields => ['X-Accel-Expires' => 60]);
both('p', [qw(MISS MISS)], 'proxy_no_cache: the origin says so',
     fields => ['X-Accel-Expires' => 0]);
both('p', [qw(MISS MISS)], 'or by Cache-Control',
     fields => ['Cache-Control' => 'no-store']);
both('ignore/', [qw(MISS HIT)], 'proxy_ignore_headers',
     fields => ['Cache-Control' => 'no-store', 'Set-Cookie' => 'a=b',
                Vary => '*']);
both('p', [qw(MISS HIT)], 'proxy_cache_min_uses 1: the first is kept');

# --- HEAD, and other methods ---

my $uri = path('p') . answer([]);
is(word($a->request('HEAD', $uri)), 'MISS', 'a HEAD') for 1, 2;
is(word($a->get($uri)), 'MISS', 'keeps nothing');
ok($t->wait_for(sub { word($a->request('HEAD', $uri)) eq 'HIT' }, 10),
   'and is answered from what a GET has kept');
is(word($a->post($uri, 'x')), '', 'a POST is not');

# --- proxy_cache_use_stale ---

my @old = map { my $p = path('stale/'); ["$_", $p] }
              'status=500', 'status=502', 'status=503', 'status=504', 'delay=5',
              'status=403', 'status=404', 'status=429';

for my $old (@old) {
    for ('/stock', '') {
        my $old_uri = "$_$old->[1]" . answer(['Cache-Control' => 'max-age=1',
                                              ETag => '"e"']);
        $t->wait_for(sub { word($a->get($old_uri)) eq 'HIT' }, 10)
            or diag("$old_uri is not there");
    }
}

sleep 2.1;

for my $old (@old) {
    my ($how, $path) = @$old;
    my @seen = map {
        my $res = $a->get("$_$path" . answer(['Cache-Control' => 'max-age=1'])
                          . "&$how", timeout => 20);
        join ' ', $res->status, word($res);
    } '/stock', '';

    is($seen[1], $seen[0], "$how: as proxy_cache, $seen[0]");
}

# --- proxy_cache_revalidate ---

$uri = path('stale/') . answer(['Cache-Control' => 'max-age=1', ETag => '"e"']);
ok($t->wait_for(sub { word($a->get($uri)) eq 'HIT' }, 10), 'a page');
sleep 1.4;
is(word($a->get("$uri&same=1")), 'REVALIDATED', 'proxy_cache_revalidate');

# --- subrequests ---

for ('guard', 'kept') {
    my $path = "/$_" . (/guard/ ? 'ed' : '') . '/';

    is($a->get("$path$n")->status, 200, "$_: auth_request");
    sleep 0.3;
    my $asked = $origin->count("/$_");
    is($a->get("$path$n")->status, 200, 'once more');
    is($origin->count("/$_") - $asked, /kept/ ? 0 : 1,
       /kept/ ? 'by a server of its own: kept' : 'past the cache');
}

# --- proxy_buffering off ---

$uri = path('unbuffered/') . answer(['Cache-Control' => 'max-age=60'],
                                    numbered => 1, chunked => 1);
is($a->get($uri)->body, numbered(), 'proxy_buffering off');
ok($t->wait_for(sub { word($a->get($uri)) eq 'HIT' }, 10),
   'does not keep from being kept');
is($a->get($uri)->body, numbered(), 'as a whole');

# --- proxy_cache_lock ---

$uri = path('lock/');

my $since;

my @waits = map {
    $since = time;
    my $c = $a->connect;
    $c->send("GET $uri" . answer(['Cache-Control' => 'max-age=60'], hold => 1)
             . " HTTP/1.1\r\nHost: x\r\n\r\n");
    ok($t->wait_for(sub { $origin->count($uri) >= 1 }, 10), 'the origin is asked');
    $c;
} 1, 2;

my $left = $r->command(PTTL => "coord:ca:pages:{$uri}");
cmp_ok($left, '>', 20000, 'proxy_cache_lock_age is');
cmp_ok($left, '<=', 31000, '30 seconds, its key is there for one more');

ok($t->wait_for(sub { $origin->count($uri) == 2 }, 20),
   'who has waited asks as well');
cmp_ok(time - $since, '>', 4.9, 'proxy_cache_lock_timeout: 5 seconds');
$origin->release($uri);
is(word($_->response('GET', 20)), 'MISS', 'both have it') for @waits;

# --- the first example: past the cache ---

$uri = path('skip/') . answer(['Cache-Control' => 'max-age=60']);

my @past = ([Cookie => 'preview=1'], ['X-Refresh' => '1']);

for (@past) {
    my $res = $a->get($uri, headers => $_);
    is($res->status . word($res), 200, "@$_: past the cache");
}

is(word($a->get($uri)), 'MISS', 'nothing was kept');
ok($t->wait_for(sub { word($a->get($uri)) eq 'HIT' }, 10), 'now it is');
is(word($a->get($uri, headers => $_)), '', "@$_: and not used") for @past;

# --- the second one: what the origin does not say ---

for (['a 404', 404, 'HIT'], ['a 200', 200, 'HIT'], ['a 403', 403, 'MISS']) {
    my ($name, $status, $word) = @$_;

    $uri = path('said/') . answer([], status => $status);
    my $res = hop($uri);
    is($res->status, $status, "$name of an origin that says nothing");
    is($res->header('x-accel-expires'), undef, 'what was said is not sent');

    if ($word eq 'HIT') {
        ok($t->wait_for(sub { word(hop($uri)) eq 'HIT' }, 10), 'is kept');

    } else {
        sleep 0.3;
        is(word(hop($uri)), 'MISS', 'is not kept');
    }
}

sub hop {
    return $a->get($_[0], headers => [Host => $_[1] || 'www.example.com']);
}

$uri = path('said/') . answer([]);
my $res = hop($uri, 'background.com');
is(word($res), 'MISS', 'stale-while-revalidate, told in the same way');

my $first = $res->header('x-number');
ok($t->wait_for(sub {
    $res = hop($uri, 'background.com');
    return word($res) ne 'HIT' && word($res) ne 'MISS';
}, 20), 'it is old some time');
is(word($res), 'STALE', 'who asks then has it at once');
ok($t->wait_for(sub {
    return hop($uri, 'background.com')->header('x-number') ne $first;
}, 20), 'and the next one what has come in the background');

# --- the third one: PURGE ---

my $b = $t->node(name => 'b', workers => 2, http => "$http$purge")->start;

$uri = '/' . $n++ . 'news';
ok($t->wait_for(sub { word($b->get($uri)) eq 'HIT' }, 10), 'a page');
my $old = $b->get($uri)->header('x-number');
$res = $b->request('PURGE', $uri);
is($res->status, 200, 'PURGE');
like($res->body, qr/"deleted":true/, 'is a DELETE of the API');
isnt($b->get($uri)->header('x-number'), $old, 'it is another one');
is($b->request('PURGE', $uri, local => '127.0.0.2')->status, 403,
   'not for everybody');

done_testing();
