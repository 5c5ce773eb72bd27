#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: RFC 9111 to the letter: how old a response is, which statuses
# may be kept, what a client may ask for, groups of RFC 9875.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Pages;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $watch = $redis->watch;

# the arguments of a path tell what the origin answers; the key has none

my $origin = $t->origin(default => \&answered);

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_cache_zone zone=pages:4m;
    coord_cache_zone zone=mem:4m store=local;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache $coord_cache_status always;

        location / {
            coord_cache $uri zone=pages valid=5s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /told {
            coord_cache $uri zone=pages valid=0 stale=60s lock;
            proxy_pass http://%%ORIGIN%%;
        }
        location /told/mem {
            coord_cache $uri zone=mem valid=0;
            proxy_pass http://%%ORIGIN%%;
        }
        location /stale {
            coord_cache $uri zone=pages valid=5s stale=60s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /large {
            coord_cache $uri zone=pages valid=60s max=1k;
            proxy_pass http://%%ORIGIN%%;
        }
        location /lock {
            coord_cache $uri zone=pages valid=60s max=1k lock;
            proxy_pass http://%%ORIGIN%%;
        }
        location /lock/stale {
            coord_cache $uri zone=pages valid=60s stale=60s lock;
            proxy_pass http://%%ORIGIN%%;
        }
        location /lock/mem {
            coord_cache $uri zone=mem valid=60s lock;
            proxy_pass http://%%ORIGIN%%;
        }
        location /api/ { coord_api write; }
    }
EOT

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;
my $b = $t->node(name => 'b', workers => 2, http => $http)->start;

sub word { return $_[0]->get(@_[1 .. $#_])->header('x-cache') // '' }

my ($n, $last) = (0);

# what the other node says of a response with these fields, once it is stored

sub is_stored {
    my ($uri) = @_;
    my ($path) = $uri =~ /^([^?]*)/;

    return $t->wait_for(sub { $r->command('EXISTS', "coord:ca:pages:{$path}:r") });
}

# what a node answers with, once it has stored that

sub fills {
    my ($node, @request) = @_;

    return scalar $watch->after(sub { $node->get(@request) }, 'set',
                                qr/^coord:ca:.*:r$/);
}

sub kept {
    my ($fields, $name, $status) = @_;

    $last = '/k' . $n++ . answer($fields, status => $status || 200);
    $a->get($last);
    is_stored($last);
    is(word($b, $last), 'HIT', $name);
}

sub passed {
    my ($fields, $name, $status) = @_;

    $last = '/k' . $n++ . answer($fields, status => $status || 200);
    $a->get($last);
    $t->rest(0.1);
    is(word($b, $last), 'MISS', $name);
}


# --- age ---

my @life = ('Cache-Control' => 'max-age=60');

passed([@life, Date => date(-3600)], 'it was made long ago');
kept([@life, Date => date(-10)], 'a while ago');
cmp_ok($b->get($last)->header('age'), '>=', 10, 'and its Age');
kept([@life, Date => date(3600)], 'the clock of the origin is fast');
kept([@life, Date => 'yesterday'], 'a date that is none');
passed([@life, Age => '9' x 20], 'an Age beyond all numbers');
kept(['Cache-Control' => 'max-age=' . '9' x 20], 'a life beyond all numbers');
my ($path) = $last =~ /^([^?]*)/;
my $life = $r->command('PTTL', "coord:ca:pages:{$path}:r") / 86400_000;
ok($life > 14.99 && $life <= 15.01, 'is 15 days') or diag($life);
passed(['Cache-Control' => "max-age=$_"], "a life that is no number: $_")
    for '60;public', '3600; public', '86400seconds', '-1', '1.5', '';
kept([@life, Age => 'old'], 'and one that is no number');
kept([@life, Age => '5, 7200'], 'the first one of a list');
passed([@life, Age => '7200, 5'], 'and nothing else');
passed([Expires => date(60) =~ s/GMT/$_/r], "a time of the zone $_")
    for 'UTC', 'AEST', '';
kept([Expires => date(60) =~ s/GMT/gmt/r], 'in small letters');
passed([Date => date(3600), Expires => date(3600)],
   'it expires when it is made, by the clock of the origin');
kept([Date => date(3600), Expires => date(3660)], 'and later');
passed([Date => date(-3600), Expires => date(-3000)],
   'it has expired');
kept([Expires => date(60)], 'Expires without Date');
kept([Expires => "Fri, 31 Dec $_ 23:59:59 GMT"], "it expires in $_")
    for 2099, 2222, 2399, 3000, 9999;
passed([Expires => "Fri, 31 Dec $_ 23:59:59 GMT"], "it has expired in $_")
    for 1970, 1900, 1000;
kept([@life, Date => "Fri, 31 Dec $_ 23:59:59 GMT"], "the origin is in $_")
    for 2399, 3000, 9999;
passed([@life, Date => "Fri, 31 Dec $_ 23:59:59 GMT"], "the origin is in $_")
    for 1971, 1900, 1000, 1400;
kept([Date => date(-3600)],
   'valid= counts from when it came, whatever the clock of the origin');

# --- valid=0: nothing without a word of the origin ---

for my $at ('/told', '/told/mem') {
    my $none = "$at/none" . answer([ETag => '"e"']);
    my $life = "$at/life" . answer([@life]);
    my $expires = "$at/expires" . answer([Expires => date(60)], status => 404);

    $a->get($none);
    $t->rest(0.1);
    is(word($a, $none), 'MISS', "$at: what tells no life is not kept");

    for ($life, $expires) {
        $a->get($_);
        ok($t->wait_for(sub { word($a, $_) eq 'HIT' }, 5), "$at: what does is");
    }
}

my $made = date(-7);

kept([@life, Date => $made], 'once more');
is($b->get($last)->header('date'), $made, 'when the origin made it');
kept([@life], 'by an origin without a clock');
like($b->get($last)->header('date'), qr/ GMT$/, 'it has one nevertheless');

my $uri = '/slow' . answer([@life, Age => 0], delay => 2);
$a->get($uri);
is_stored($uri);
cmp_ok($b->get($uri)->header('age'), '>=', 2,
       'it was on its way for so long');


# --- fields ---

kept([@life, 'Connection' => 'x-hop', 'X-Hop' => 1, 'X-End' => 1], 'a hop');
is($b->get($last)->header('x-hop'), undef, 'its field is not kept');
is($b->get($last)->header('x-end'), 1, 'others are');

# of RFC 9111, 3.1: those that are about a proxy

kept([@life, 'Proxy-Authenticate' => 'x', 'Proxy-Authorization' => 'x',
      'Proxy-Authentication-Info' => 'x'], 'fields of a proxy');
is(join(' ', grep { /^proxy-/ } keys %{ $b->get($last)->{headers} }), '',
   'they are not kept');

kept([@life, ETag => '"e"', 'Last-Modified' => date(-100)], 'conditions');
is($b->get($last, headers => ['If-None-Match' => $_->[0],
                              'If-Modified-Since' => date($_->[1])])->status,
   $_->[2], "If-None-Match goes before If-Modified-Since: $_->[2]")
    for ['"e"', -1000, 304], ['"f"', -100, 200];


# --- statuses ---

kept([@life], "$_ with a life", $_)
    for 203, 204, 299, 300, 303, 400, 403, 404, 409, 410, 451, 501;
passed([@life], "$_ is never kept", $_)
    for 206, 401, 407, 412, 416, 428, 429, 431, 500, 502, 503, 504;
passed([], "$_ without a life", $_) for 204, 303, 403, 404;

kept([@life], 'once more', 204);
my $res = $b->get($last);
is_deeply([$res->status, $res->body, scalar $res->header('content-length')],
          [204, '', undef], '204 has no body');


# --- what is to be stale later on ---

my @words = qw(must-revalidate proxy-revalidate s-maxage=1);
my @strict = map { '/stale/strict' . $n++
                   . answer(['Cache-Control' => "max-age=1, $_", ETag => '"e"'],
                            same => 1) } @words;
my $locked = '/lock/stale/strict'
             . answer(['Cache-Control' => 'max-age=4, must-revalidate',
                       ETag => '"e"'], same => 1, delay => 1);
my $only = '/stale/only' . answer(['Cache-Control' => 'max-age=1']);
my $same = '/stale/if' . answer(['Cache-Control' => 'max-age=1', ETag => '"e"'],
                                same => 1);
my $bare = '/stale/bare' . answer(['Cache-Control' => 'max-age=1, must-revalidate']);
my @others = map { '/stale/other' . $n++ . answer(['Cache-Control' => 'max-age=1',
                                                   ETag => '"e"'], other => $_) }
             'W/"e"', '"other"';

$a->get($locked);
is_stored($locked);
my $filled = time;

$t->parallel([map { $a->req($_) } $only, $same, $bare, @others, @strict]);

for (0 .. $#words) {
    is_stored($strict[$_]);
    is(word($b, $strict[$_]), 'HIT', "$words[$_]: fresh");
}

sleep 1.4;


# --- only-if-cached ---

my %only = (headers => ['Cache-Control' => 'only-if-cached']);

$uri = '/only' . answer([@life]);
$res = $a->get($uri, %only);
is($res->status, 504, 'only-if-cached: it is not there');
is($res->header('x-cache'), 'MISS', 'a miss');
is($origin->count('/only'), 0, 'and the origin is not asked');
$a->get($uri);
is_stored($uri);
is(word($b, $uri, %only), 'HIT', 'it is there');

is(word($b, $only, %only), 'STALE', 'only-if-cached: what is stale');
is($origin->count('/stale/only'), 1, 'the origin is not asked, either');


# --- conditions of a client where the cache has to be filled ---

my @tag = (ETag => '"e"', 'Last-Modified' => date(-86400));
my $long = 'x' x 100_000;

for (['If-None-Match', '"e"', 304], ['If-None-Match', '"a", W/"e"', 304],
     ['If-None-Match', '*', 304], ['If-None-Match', '"a"', 200],
     ['If-Modified-Since', $tag[3], 304],
     ['If-Modified-Since', date(-90000), 200])
{
    my ($name, $value, $status) = @$_;

    $uri = '/if' . $n++ . answer([@life, @tag], large => length $long);
    $res = $a->get($uri, headers => [$name => $value]);
    is($res->status, $status, "$name: $value at a miss");
    is($res->body, $status == 304 ? '' : $long, 'its body');
    is($res->header('etag'), '"e"', 'its ETag');
    is($res->header('content-length'), $status == 304 ? undef : length $long,
       'its length');
    is($res->header('x-seen'), '', 'the origin has to send all of it');
    is_stored($uri);
    $res = $b->get($uri);
    is($res->header('x-cache'), 'HIT', 'which is stored');
    is($res->body, $long, 'as a whole');
}

$uri = '/if/both' . answer([@life, @tag]);
is($a->get($uri, headers => ['If-None-Match' => '"a"',
                                   'If-Modified-Since' => $tag[3]])->status,
   200, 'If-None-Match goes first');

# one connection: the next response is that of the next request

my $c = $a->connect;
$uri = '/if/line' . answer([@life, @tag], large => length $long);
$c->send("GET $uri HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"e\"\r\n\r\n");
is($c->response->status, 304, 'a connection that goes on');
$c->send("GET /only HTTP/1.1\r\nHost: x\r\n\r\n");
is($c->response->body, 'body', 'with the next response');

# a client that has got its 304 may go

$uri = '/if/gone' . answer([@life, @tag], slow => 1);
$c = $a->connect;
$c->send("GET $uri HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"e\"\r\n\r\n");
is($c->response->status, 304, 'before the body is there');
$c->close;
is_stored($uri);
is($b->get($uri)->body, 'first second', 'all of it is stored');

$uri = '/if/none' . answer(['Cache-Control' => 'no-store', @tag]);
is($a->get($uri, headers => ['If-None-Match' => '"e"'])->status, 304,
   'what is not kept');
$uri = '/large' . answer([@tag], large => length $long);
is($a->get($uri, headers => ['If-None-Match' => '"e"'])->status, 304,
   'what is too large');

$res = fills($b, $same, headers => ['If-None-Match' => '"e"']);
is($res->header('x-cache'), 'REVALIDATED', 'what has not changed');
is($res->status, 304, 'since the client got it, either');
$res = $a->get($same);
is($res->body, 'body', 'and is stored');
is($res->header('content-seen'), 'if-none-match', 'with its new fields');
like($res->header('date'), qr/ GMT$/, 'and the date of these');


# what must not be used stale is revalidated nevertheless

for my $uri (@strict) {
    is(word($b, $uri, %only), 'MISS', 'it is not used');
    is(word($b, $uri), 'REVALIDATED', 'but revalidated');
}

sleep 1.4;

for my $uri (@strict) {
    $res = $b->get($uri =~ s/&same=1/&status=503/r);
    is($res->status, 503, 'nor in place of an error');
}

# by one of those who ask at once

sleep 0.05 while time < $filled + 4.4;
is_deeply([sort map { $_->header('x-cache') } $b->parallel(3, $locked)],
          [qw(HIT HIT REVALIDATED)], 'with lock one revalidates it');

is(word($b, $bare), 'MISS', 'what cannot be revalidated is fetched');


# a 304 that is about another response changes nothing of the stored one

for (['W/"e"', 'HIT'], ['"other"', 'REVALIDATED']) {
    my ($other, $next) = @$_;

    $uri = shift @others;
    $res = $next eq 'HIT' ? fills($b, $uri) : $b->get($uri);
    is($res->header('x-cache'), 'REVALIDATED', "304 with $other");
    is($res->body, 'body', 'the body');
    is($res->header('etag'), $next eq 'HIT' ? $other : '"e"', 'and its ETag');
    is(scalar $res->header('x-other'), $next eq 'HIT' ? 1 : undef, 'its fields');
    is(word($a, $uri), $next, "then $next");
}


# --- groups ---

sub purge { return $a->request('DELETE', "/api/cache/pages?$_[0]")->status }

for (['"one", "two"', 'one'], ['"one", "two"', 'two'],
     ['"with \"quotes\" and \\\\"', 'with%20%22quotes%22%20and%20%5C'],
     ['"a, b"', 'a,%20b'], ['"param";x=1', 'param'])
{
    my ($groups, $tag) = @$_;

    kept([@life, 'Cache-Groups' => $groups], "groups: $groups");
    is(purge("tag=$tag"), 200, "purge $tag");
    is(word($b, $last), 'MISS', 'it is gone');

    # what is asked for so shortly after a purge is not used

    $t->rest(0.1);
}

passed([@life, 'Cache-Groups' => '"' . 'x' x 129 . '"'],
   'a name that is too long');

for (['POST', 200, 'MISS'], ['GET', 200, 'HIT'], ['POST', 400, 'HIT']) {
    my ($method, $status, $word) = @$_;

    kept([@life, 'Cache-Groups' => '"posts"'], 'before');
    my $send = sub {
        $a->request($method, '/news' . $n
                    . answer(['Cache-Group-Invalidation',
                              '"none", "posts";x=1'], status => $status));
    };
    $word eq 'MISS' ? $watch->after($send, 'unlink') : $send->();
    $t->rest(0.1);
    is(word($b, $last), $word, "$method, $status: $word after it has named "
                               . 'the group of a page');
}


# --- lock: what is not kept is not waited for ---

my @no = ('Cache-Control' => 'no-store');

my @cases = map {
    my ($name, $fields, %is) = @$_;
    my $path = "/lock/$name";

    { name => $name, path => $path, nodes => $name eq 'mem' ? [$a] : [$a, $b],
      not => $path . answer($fields, delay => 1, %is),
      kept => $path . answer([@life], delay => 1) }
} (['no-store', [@no]], ['large', [], large => 5000],
   ['chunked', [], large => 5000, chunked => 1],
   ['vary', ['Vary' => '*']], ['mem', [@no]]);

for my $first (1, 0) {
    my $most = $first ? 7 : 8;

    $origin->reset_counters;
    my $begun = $t->ran;
    my @res = $t->parallel([map {
        my $case = $_;
        my @nodes = @{$case->{nodes}};

        map { $nodes[$_ % @nodes]->req($case->{not}) } 1 .. 8;
    } @cases]);

    cmp_ok($t->ran - $begun, '<', 4, 'not one after another');

    for my $case (@cases) {
        is(scalar(grep { $_->status == 200 } splice(@res, 0, 8)), 8,
           "$case->{name}: all are answered");
        is($origin->overlap($case->{path}), $most, "$most of them at once");
    }
}

$t->parallel([map { $_->{nodes}[0]->req($_->{kept}) } @cases]) for 1, 2;
is(word($_->{nodes}[-1], $_->{kept}), 'HIT',
   "$_->{name}: until there is one that can be kept") for @cases;

# what was kept before, and must not be used stale, stands in nobody's way

$a->get('/lock/stale/gone' . answer(['Cache-Control' => 'max-age=1, must-revalidate',
                                     ETag => '"e"']));
is_stored('/lock/stale/gone');
sleep 1.4;
$origin->reset_counters;
$uri = '/lock/stale/gone' . answer([@no], delay => 1);
my $begun = $t->ran;
$t->parallel([map { $_->req($uri) } ($a, $b) x 4]);
cmp_ok($t->ran - $begun, '<', 4, 'gone: not one after another');
is($origin->overlap('/lock/stale/gone'), 7, 'gone: 7 of them at once');

$origin->reset_counters;
$uri = '/lock/error' . answer([], status => 503);
$a->get($uri);
$t->rest(0.1);
is($r->command('EXISTS', 'coord:ca:pages:{/lock/error}:r'), 0,
   'an error of the origin may be over for the next one');

my %nothing = (headers => ['Cache-Control' => 'no-store']);
$uri = '/lock/client' . answer([@life], delay => 1);
$t->parallel([map { $_->req($uri, %nothing) } $a, $b, $a, $b]);
is($origin->overlap('/lock/client'), 4, 'whose response is not to be kept by '
                                        . 'the word of the client waits for none');
is($r->command('EXISTS', 'coord:ca:pages:{/lock/client}:r'), 0,
   'and tells others nothing');

# --- a note of a purge that is not ours ---

for my $mark ('bad', '', '-1', '9223372036854775', '9223372036854776', '9' x 18, '9' x 30) {
    kept([@life], 'kept');
    my ($path) = $last =~ /^([^?]*)/;
    $r->command('SET', "coord:ca:pages:{$path}:p", $mark);
    is(word($_, $last), 'MISS', "\"$mark\": nothing is used") for $a, $b;
}

done_testing();
