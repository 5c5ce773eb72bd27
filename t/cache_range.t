#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: parts of what is not in the cache yet: the origin sends all of
# it, the client has its part, and others find the whole.

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

my $origin = $t->origin(default => \&answered);

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_cache_zone zone=pages:4m;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache $coord_cache_status always;

        location / {
            coord_cache $uri zone=pages valid=60s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /large {
            coord_cache $uri zone=pages valid=60s max=1k;
            proxy_pass http://%%ORIGIN%%;
        }
        location /stale {
            coord_cache $uri zone=pages valid=60s stale=60s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /trailer {
            coord_cache $uri zone=pages valid=60s;
            add_trailer X-Trailer end;
            proxy_pass http://%%ORIGIN%%;
        }
        location /hide {
            coord_cache $uri zone=pages valid=60s;
            proxy_hide_header Cache-Control;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOT

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;
my $b = $t->node(name => 'b', workers => 2, http => $http)->start;

my $n = 0;
my $date = date(-86400);
my @tag = (ETag => '"e"', 'Last-Modified' => $date);

my $long = numbered();
my $size = length $long;

sub is_stored {
    my ($path) = $_[0] =~ /^([^?]*)/;

    return $t->wait_for(sub { $r->command('EXISTS', "coord:ca:pages:{$path}:r") });
}

sub page {
    my ($where, $fields, %is) = @_;

    return "/$where" . $n++ . answer([@tag, @$fields], numbered => 1, %is);
}

# a part of what is not there, and the whole of it on the other node

sub part {
    my ($range, $from, $to, %opt) = @_;
    my $uri = page('p', [], $opt{is} ? %{$opt{is}} : ());
    my $res = $a->get($uri, headers => [Range => $range, @{$opt{headers} || []}]);

    is($res->status, 206, "$range of a miss");
    is($res->header('x-cache'), 'MISS', 'which it is');
    is($res->header('content-range'), "bytes $from-$to/$size", 'which part');
    is($res->header('content-length'), $to - $from + 1, 'its length');
    is($res->body, substr($long, $from, $to - $from + 1), 'its bytes');
    is($res->header('x-seen'), '', 'the origin has to send all of it');
    is_stored($uri);

    my $hit = $b->get($uri);
    is($hit->header('x-cache'), 'HIT', 'which is stored');
    is($hit->status . ' ' . $hit->body, "200 $long", 'as a whole');

    return $res;
}

part('bytes=0-9', 0, 9);
part('bytes=5-40004', 5, 40004);
part('bytes=99000-', 99000, 99999);
part('bytes=-17', 99983, 99999);
part('bytes=99990-200000', 99990, 99999);
part('bytes=0-', 0, 99999);
part('BYTES=7-7', 7, 7);
part('bytes=3-5', 3, 5, headers => ['If-Range' => '"e"']);
part('bytes=3-5', 3, 5, headers => ['If-Range' => $date]);
my $res = part('bytes=50000-50003', 50000, 50003, is => { split => 1 });
is($res->header('etag'), '"e"', 'its fields');

for ([Range => 'bytes=0-2', 'If-Range' => '"f"'], [Range => 'bytes=0-2,5-9'],
     [Range => 'lines=1-2'],
     [Range => 'bytes=0-2', 'If-Range' => date(-90000)])
{
    my $uri = page('w', []);
    $res = $a->get($uri, headers => $_);
    is($res->status . ' ' . $res->body, "200 $long", "@$_: all of it");
    is_stored($uri);
    is($b->get($uri)->body, $long, 'which is stored');
}

my $uri = page('u', []);
is($a->get($uri, headers => [Range => 'bytes=100000-'])->status, 416,
   'a part that there is not');

$uri = page('c', [], chunked => 1);
$res = $a->get($uri, headers => [Range => 'bytes=0-9']);
is($res->status . ' ' . $res->body, "200 $long", 'of unknown length: all of it');
is_stored($uri);
is($b->get($uri, headers => [Range => 'bytes=0-9'])->body, 'X000000XX0',
   'and a part, once it is there');

# with trailers the length is not told

for ('bytes=0-9', 'bytes=5-40004', 'bytes=-17') {
    $uri = page('trailer', []);

    my ($from, $to) = /=(\d+)-(\d+)/ ? ($1, $2) : ($size - 17, $size - 1);

    for my $node ($a, $b) {
        $res = $node->get($uri, headers => [Range => $_]);
        is($res->status . ' ' . $res->header('content-range'),
           "206 bytes $from-$to/$size", "$_, and a trailer");
        is($res->body, substr($long, $from, $to - $from + 1), 'its bytes');
        is($res->header('content-length'), undef, 'the length is not told');
        is_stored($uri);
    }
}

# conditions that a part, or all of it, is for

for (['If-Match' => '"f"', '"e"'],
     ['If-Unmodified-Since' => date(-90000), $date])
{
    my ($field, $bad, $good) = @$_;

    $uri = page('match', []);

    $res = $a->get($uri, headers => [$field => $bad]);
    is($res->status, 412, "a miss: $field");
    is($res->header('x-cache'), 'MISS', 'which it is');
    is($a->get($uri, headers => [$field => $good])->body, $long, 'that holds');
    is_stored($uri);
    is($b->get($uri, headers => [$field => $bad])->status, 412, 'of a hit');
    $res = $b->get($uri, headers => [$field => $good]);
    is($res->header('x-cache') . ' ' . $res->body, "HIT $long", 'that holds');

    $uri = page('match', ['Cache-Control' => 'no-store']);
    is($a->get($uri, headers => [$field => $bad])->status, 412,
       'of what is not to be kept');
    is($a->get($uri, headers => [$field => $good, Range => 'bytes=0-9'])->body,
       'X000000XX0', 'a part');
}

$uri = page('if', []);
is($a->get($uri, headers => [Range => 'bytes=0-9', 'If-None-Match' => '"e"'])
   ->status, 304, 'who has it gets no part of it');

# what is not kept, either

for (['large', [], 'what is too large'],
     ['p', ['Cache-Control' => 'no-store'], 'what is not to be kept'])
{
    my ($where, $fields, $name) = @$_;

    $uri = page($where, $fields);
    $res = $a->get($uri, headers => [Range => 'bytes=5-40004']);
    is($res->status, 206, "$name: a part");
    is($res->body, substr($long, 5, 40000), 'its bytes');
    is($res->header('x-seen'), '', 'of the whole');
    $t->rest(0.1);
    is($b->get($uri)->header('x-cache'), 'MISS', 'it is not kept');
}

# what is stored, and not fresh

for (['same=1', 'REVALIDATED'], ['status=503', 'STALE']) {
    my ($how, $word) = @$_;

    $uri = page('stale', ['Cache-Control' => 'max-age=1']);
    $a->get($uri);
    is_stored($uri);
    sleep 1.4;
    $res = $b->get("$uri&$how", headers => [Range => 'bytes=5-40004']);
    is($res->header('x-cache'), $word, $word);
    is($res->status, 206, 'a part');
    is($res->body, substr($long, 5, 40000), 'its bytes');
    sleep 1.4 if $word eq 'REVALIDATED';
    is($b->get("$uri&$how", headers => [Range => 'bytes=100000-'])->status, 416,
       'a part that there is not');
    sleep 1.4 if $word eq 'REVALIDATED';
    $res = $b->get("$uri&$how", headers => ['If-Match' => '"f"']);
    is($res->status . ' ' . $res->header('x-cache'), "412 $word",
       'If-Match, which does not hold');
}

# on a connection that goes on, and one that does not

my $c = $a->connect;
$uri = page('line', [], split => 1);
$c->send("GET $uri HTTP/1.1\r\nHost: x\r\nRange: bytes=5-40004\r\n\r\n");
is($c->response('GET', 5)->body, substr($long, 5, 40000), 'a part');
$c->send("GET $uri HTTP/1.1\r\nHost: x\r\n\r\n");
is($c->response('GET', 5)->body, $long, 'and the next response');

$uri = page('gone', [], split => 1);
$c = $a->connect;
$c->send("GET $uri HTTP/1.1\r\nHost: x\r\nRange: bytes=0-9\r\n\r\n");
is($c->response('GET', 5)->body, substr($long, 0, 10), 'who goes with his part');
$c->close;
is_stored($uri);
is($b->get($uri)->body, $long, 'leaves the whole to others');

$uri = page('accept', ['Accept-Ranges' => 'bytes']);
$a->get($uri);
is_stored($uri);
is($b->get($uri)->header('accept-ranges'), 'bytes',
   'Accept-Ranges is told once');

# what an operator hides is not there for the cache, either

$uri = page('hide', ['Cache-Control' => 'no-store']);
$a->get($uri);
is_stored($uri);
is($b->get($uri)->header('x-cache'), 'HIT', 'proxy_hide_header');

done_testing();
