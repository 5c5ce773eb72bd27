#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: several parts of a page, and parts that there are not, as
# proxy_cache sends them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Pages;
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $watch = $redis->watch;

my $origin = $t->origin(default => \&answered);

my $a = $t->node(name => 'a', workers => 1, http => <<'EOT')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_store own { }
    coord_cache_zone zone=pages:4m;
    coord_cache_zone zone=local:4m store=own;
    proxy_cache_path %%NODEDIR%%/stock keys_zone=stock:1m;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        add_header X-Cache $coord_cache_status$upstream_cache_status always;

        proxy_pass_header Date;
        proxy_cache_key $uri;
        proxy_cache_valid 60s;
        proxy_cache_use_stale error http_503;
        proxy_cache_revalidate on;

        location / {
            coord_cache $uri zone=pages valid=60s stale=60s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /memory/ {
            coord_cache $uri zone=local valid=60s stale=60s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /stock/ {
            proxy_cache stock;
            proxy_pass http://%%ORIGIN%%;
        }

        location /slow/ {
            limit_rate 60k;
            coord_cache $uri zone=pages valid=60s stale=60s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /stock/slow/ {
            limit_rate 60k;
            proxy_cache stock;
            proxy_pass http://%%ORIGIN%%;
        }

        location /one/ {
            max_ranges 1;
            coord_cache $uri zone=pages valid=60s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /stock/one/ {
            max_ranges 1;
            proxy_cache stock;
            proxy_pass http://%%ORIGIN%%;
        }
        location /none/ {
            max_ranges 0;
            coord_cache $uri zone=pages valid=60s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /stock/none/ {
            max_ranges 0;
            proxy_cache stock;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOT

my $n = 0;
my $date = date(-86400);
my @fields = (ETag => '"e"', 'Last-Modified' => $date,
              'Accept-Ranges' => 'bytes',
              'Content-Type' => 'text/plain; charset=utf-8');
my @several = (Range => 'bytes=0-2,50000-50004,-3');

# what a client sees: all but how old it is, and the number of a boundary

sub seen {
    my ($res) = @_;
    my ($boundary) = ($res->header('content-type') // '')
        =~ /boundary=(\w+)/;
    my $text = join "\n", $res->status,
        map { "$_: " . ($res->header($_) // '-') }
            qw(x-cache content-type content-length content-range etag
               last-modified accept-ranges);

    $text .= "\n\n" . $res->body;
    $text =~ s/$boundary/boundary/g if $boundary;

    return $text;
}

# the same of a page of each of the caches

sub pages {
    my ($where, $fields, %is) = @_;
    my $page = $where . $n++;
    my $args = answer([@fields, @$fields], numbered => 1, %is);

    return map { "$_$page$args" } '/stock/', '/memory/', '/';
}

sub fill {
    for my $uri (@_) {
        ok($t->wait_for(sub {
            $a->get($uri)->header('x-cache') eq 'HIT';
        }, 10), 'it is there') or diag($uri);
    }
}

sub same {
    my ($name, $uris, %opt) = @_;
    my ($stock, @ours) = map { $a->request($opt{method} || 'GET', $_, %opt) }
                             @$uris;

    ok(seen($_) eq seen($stock), "$name: as proxy_cache") or
        diag(substr(seen($stock), 0, 1200), "\n\n", substr(seen($_), 0, 1200))
        for @ours;

    return $stock;
}

# --- what is there ---

my @uris = pages('', []);
fill(@uris);

my $res = same('several', \@uris, headers => \@several);
is($res->status, 206, 'which is a 206');
like($res->header('content-type'), qr{^multipart/byteranges; boundary=},
     'of several parts');
is(scalar(() = $res->body =~ /^Content-Range: bytes /mg), 3, 'three');
like($res->body, qr{^Content-Range: bytes 50000-50004/100000\r\n\r\nX0062\r}m,
     'with their bytes');

for (['HEAD', method => 'HEAD'],
     ['If-Range, that holds', headers => [@several, 'If-Range' => '"e"']],
     ['If-Range, a date', headers => [@several, 'If-Range' => $date]],
     ['If-Range, that does not', headers => [@several, 'If-Range' => '"f"']],
     ['If-None-Match', headers => [@several, 'If-None-Match' => '"e"']],
     ['If-Match', headers => [@several, 'If-Match' => '"f"']],
     ['one of two', headers => [Range => 'bytes=0-2,100000-']],
     ['overlapping ones', headers => [Range => 'bytes=0-99,50-149']],
     ['more than all', headers => [Range => 'bytes=0-,0-']],
     ['none', headers => [Range => 'bytes=100000-']],
     ['none of two', headers => [Range => 'bytes=100000-,200000-']],
     ['none, HEAD', method => 'HEAD', headers => [Range => 'bytes=100000-']],
     ['none, If-Range', headers => [Range => 'bytes=100000-',
                                    'If-Range' => '"f"']],
     ['no number', headers => [Range => 'bytes=x-y']],
     ['another unit', headers => [Range => 'lines=1-2,4-5']])
{
    my ($name, %opt) = @$_;

    $opt{headers} ||= \@several;
    same($name, \@uris, %opt);
}

is($a->get($uris[2], headers => [Range => 'bytes=100000-'])->status, 416,
   'what there is not is a 416');

for (['several', '0-2,50000-50004,-3', 206], ['none', '100000-', 416]) {
    my ($name, $range, $status) = @$_;
    my ($stock, @ours) = map {
        $a->h2('http://127.0.0.1:' . $a->port(2) . $_, '-H',
               "Range: bytes=$range");
    } @uris;

    is($stock->status, $status, "HTTP/2, $name");
    ok(seen($_) eq seen($stock), 'as proxy_cache') or diag(seen($_))
        for @ours;
}

# nginx compares tags as strings; a weak one cannot tell whether parts fit

my ($weak) = reverse pages('', [ETag => 'W/"e"']);
$weak =~ s/ETag%0a%22e%22%0a//;
fill($weak);

for ([\@several, 206], [[@several, 'If-Range' => 'W/"e"'], 200],
     [[Range => 'bytes=0-2', 'If-Range' => 'W/"e"'], 200])
{
    my ($headers, $status) = @$_;
    is($a->get($weak, headers => $headers)->status, $status,
       "a weak tag: @$headers");
}

# --- in the memory of the node ---

@uris = pages('near/', [], numbered => 0, body => '0123456789' x 400);
fill(@uris);

ok($t->wait_for(sub {
    $watch->seen;
    $a->get($uris[2]) for 1 .. 6;
    return $watch->calls('get') == 0;
}, 10), 'nearby');
$watch->seen;
same('several, nearby', \@uris, headers => \@several);
same('several', \@uris, headers => [Range => 'bytes=0-2,5-6,-3']);
same('HEAD', \@uris, method => 'HEAD', headers => [Range => 'bytes=0-2,5-6']);
same('none', \@uris, headers => [Range => 'bytes=4000-']);
is($watch->calls('get'), 0, 'without Redis');

# --- by max_ranges ---

for ('one', 'none') {
    @uris = map { (/^(\S+)/)[0] } pages("$_/", []);
    @uris = @uris[0, 2];
    fill(@uris);
    same("$_: several", \@uris, headers => \@several);
    same("$_: a part", \@uris, headers => [Range => 'bytes=3-5']);
    same("$_: none", \@uris, headers => [Range => 'bytes=100000-']);
}

# --- what is not fresh any more ---

my @parts = (['several', @several], ['none', Range => 'bytes=100000-'],
             ['a part', Range => 'bytes=7-9'],
             ['If-Range', @several, 'If-Range' => '"f"']);
my @old;
my @slow = pages('slow/', ['Cache-Control' => 'max-age=2'], numbered => 0,
                 body => '0123456789' x 20);
my @large = pages('slow/', ['Cache-Control' => 'max-age=2']);

@$_ = @$_[0, 2] for \@slow, \@large;
fill(@slow, @large);

for my $how (['same=1', 'REVALIDATED'], ['status=503', 'STALE']) {
    for (@parts) {
        @uris = pages('', ['Cache-Control' => 'max-age=2']);
        fill(@uris);
        push @old, [$how, $_, [@uris]];
    }
}

sleep 3.1;

for (@old) {
    my ($what, $part, $uris) = @$_;
    my ($how, $word) = @$what;
    my ($name, @headers) = @$part;

    $res = same("$word, $name", [map { "$_&$how" } @$uris],
                headers => \@headers);
    like($res->header('x-cache'), qr/^$word\b/, 'which it is');
}

# what is sent in many pieces, by HTTP/2, to who asks for its end only

for my $how ('status=503', 'same=1') {
    @uris = map { "$_&$how" } @large;
    same("$how, slowly", \@uris,
         headers => [Range => 'bytes=0-49999,50001-99989,-3']);
    sleep 2.1;
}

my ($stock, $ours) = map {
    $a->h2('http://127.0.0.1:' . $a->port(2) . "$_&status=503", '-H',
           'Range: bytes=0-2,50-54,-3');
} @slow;

is($ours->status, 206, 'HTTP/2, stale');
like($ours->header('content-type'), qr/^multipart/, 'several');
is(seen($ours), seen($stock), 'as proxy_cache');

# --- what is not there: proxy_cache sends all of it ---

($weak) = reverse pages('', [ETag => 'W/"e"']);
$weak =~ s/ETag%0a%22e%22%0a//;
is($a->get($weak, headers => [Range => 'bytes=0-2', 'If-Range' => 'W/"e"'])
   ->status, 200, 'a miss, and a weak tag');

@uris = pages('', []);
same('a miss', \@uris, headers => \@several);
fill(@uris);
same('which is kept', \@uris, headers => \@several);

for (['none of a miss', headers => [Range => 'bytes=100000-']],
     ['a part of a miss', headers => [Range => 'bytes=7-9']],
     ['a part, If-Range', headers => [Range => 'bytes=7-9',
                                      'If-Range' => '"e"']],
     ['a part, another one', headers => [Range => 'bytes=7-9',
                                         'If-Range' => '"f"']])
{
    my ($name, %opt) = @$_;

    @uris = pages('', []);
    same($name, \@uris, %opt);
    fill(@uris);
    same("$name, kept", \@uris, %opt);
}

done_testing();
