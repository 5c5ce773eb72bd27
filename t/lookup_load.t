#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# load= of coord_lookup: what Redis has not is asked of a location, once for
# all nodes; and lookups/<key> of coord_api.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use Coord::Util qw(spew);
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $version = 1;

my $origin = $t->origin(routes => {
    '/load' => sub {
        my ($req) = @_;
        my ($k) = $req->{uri} =~ /k=(\w*)/;
        return { status => 404, body => 'none' } if $k =~ /^absent/;
        return { delay => 0.5, status => 404, body => 'none' } if $k =~ /^late/;
        return { status => 500, body => 'oops' } if $k =~ /^broken/;
        return { size => 100_000 } if $k eq 'large';
        return { size => 100_000, chunked => 1000 } if $k eq 'pieces';
        return { size => 1000, close_at => 500 } if $k eq 'cut';
        return { size => 1000, chunked => 100, close_at => 500 }
            if $k eq 'broke';
        my ($name) = grep { $req->{headers}{$_} }
                     map { lc } qw(Range If-Range If-Match If-None-Match
                                   If-Modified-Since If-Unmodified-Since
                                   Accept-Encoding);
        return { status => 304 } if $name;
        return { size => 3500 } if $k eq 'full';
        return { body => join '+', @{$req->{headers}{'x-many'} || []} }
            if $k eq 'many';
        return { delay => 30 } if $k eq 'hang';
        return { delay => 0.4, body => "\n slow $k \n" } if $k =~ /^slow/;
        return { body => "line\r\nend" } if $k eq 'lines';
        return { body => "one\ttwo\n" } if $k eq 'tab';
        return { body => "value $k\n" };
    },
    '/content' => sub { return { body => $_[0]->{headers}{'x-value'}[0] } },
});

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    map $arg_k $vkey { '' ''; default val:$arg_k; }
    map $arg_m $mkey { '' ''; default mem:$arg_m; }
    coord_lookup $value $vkey load=/load?k=$arg_k&how=$arg_buffering ttl=20s
                 negative_ttl=400ms default=none;
    map $arg_g $gkey { '' ''; default val:$arg_g; }
    coord_lookup $long $gkey load=/load?k=$arg_g ttl=20s negative_ttl=20s
                 default=none;
    coord_lookup $near $mkey load=/load?k=$arg_m store=local ttl=300ms;
    coord_lookup $some $some_key load=/load?k=some;
    coord_limit_req_zone $arg_l$arg_n zone=l:1m rate=1000r/s;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Value $value always;
        set $some_key "";
        add_header X-Near $near always;
        add_header X-Long $long always;
        location = /load { internal; proxy_pass http://%%ORIGIN%%;
                           proxy_read_timeout 60s;
                           if ($arg_how = off) { rewrite ^ /unbuffered; }
                           if ($arg_how = few) { rewrite ^ /few; }
                           if ($arg_how = file) { rewrite ^ /file; } }
        location = /unbuffered { internal; proxy_buffering off;
                                 rewrite ^ /load break;
                                 proxy_pass http://%%ORIGIN%%; }
        location = /few { internal; proxy_max_temp_file_size 0;
                          proxy_buffers 2 1k; proxy_buffer_size 1k;
                          proxy_busy_buffers_size 1k;
                          rewrite ^ /load break; proxy_pass http://%%ORIGIN%%; }
        location = /file { internal; alias %%NODEDIR%%/large; }
        location = /v { empty_gif; }
        location = /some { set $some_key val:some; empty_gif;
                           add_header X-Some "$some for $some_key"; }
        location = /content { proxy_set_header X-Value $value;
                              proxy_pass http://%%ORIGIN%%; }
        location /coord/ { coord_api write; }
    }
EOF

my ($a, $b) = map {
    $t->node(name => $_, workers => 2, http => $http)->start
} qw(a b);

ok($t->wait_for(sub {
       4 == grep { / flags=\w*t/ } split /\n/, $r->command('CLIENT', 'LIST');
   }, 10), 'all workers hear of changes');

# what is loaded is stored, and not loaded again

is($a->get('/v?k=one')->header('x-value'), 'value one', 'loaded, trimmed');
ok($t->wait_for(sub { ($r->command('GET', 'val:one') // '') eq 'value one' },
                10), 'stored under the key');
my $ttl = $r->command('PTTL', 'val:one');
ok($ttl > 15000 && $ttl <= 20000, 'for the ttl') or diag($ttl);
is($b->get('/v?k=one')->header('x-value'), 'value one', 'another node has it');
is(scalar($origin->requests), 1, 'asked once')
    or diag(join "\n", map { $_->{uri} } $origin->requests);

# a value that stands there is never replaced

$r->command('SET', 'val:two', 'by hand');
is($a->get('/v?k=two')->header('x-value'), 'by hand', 'there is one');

# many requests, four workers: one load

$origin->reset_counters;
my @all = $t->parallel([map { ($a->req('/v?k=slow1'), $b->req('/v?k=slow1')) }
                        1 .. 20], timeout => 20);
is(scalar(grep { ($_->header('x-value') || '') eq 'slow slow1' } @all), 40,
   'all have the value') or diag(join ' ', map { $_->header('x-value') } @all);
is($origin->count('/load'), 1, 'one load for all nodes');

# what cannot be had takes no request along

for my $buffering ('on', 'off', 'few') {
    for my $k ('large', 'pieces', 'cut', 'broke') {
        my $res = $a->get("/v?k=$k&buffering=$buffering");
        is($res->status, 200, "$k, buffering $buffering: the request goes on");
        is($res->header('x-value'), 'none', 'with the default');
        is($r->command('EXISTS', "val:$k"), 0, 'nothing is stored');
    }
}

spew($a->file('large'), 'x' x 100_000);

my $conn = $a->connect;
is($conn->request(path => "/v?k=file$_&buffering=file")->header('x-value'),
   'none', "a file that is too large, request $_ of a connection") for 1, 2;
$conn->close;

is($a->get('/v?k=whole&buffering=off')->header('x-value'), 'value whole',
   'what comes as a whole');

is(length $a->get('/v?k=full&buffering=few')->header('x-value'), 3500,
   'what is larger than the buffers of its location, which has no file');

# 404 is remembered for negative_ttl, anything else is not

$origin->reset_counters;
is($a->get('/v?k=absent1')->header('x-value'), 'none', '404: the default');
is($a->get('/v?k=absent1')->header('x-value'), 'none', 'again');
is($origin->count('/load'), 1, 'asked once');
ok($t->wait_for(sub { $a->get('/v?k=absent1');
                      $origin->count('/load') > 1 }, 3),
   'asked again after negative_ttl');
is($r->command('EXISTS', 'val:absent1'), 0, 'nothing is stored');

$origin->reset_counters;
is($a->get('/v?k=broken1')->header('x-value'), 'none', '500: the default');
is($a->get('/v?k=broken1')->header('x-value'), 'none', 'again');
is($origin->count('/load'), 2, 'asked again at once');
is($a->get('/v?k=lines')->header('x-value'), 'none', 'no text: the default');
is($r->command('EXISTS', 'val:lines'), 0, 'nothing is stored');
is($a->get('/v?k=tab')->header('x-value'), "one\ttwo", 'a tab is text');

# a key that is written while it is loaded

$origin->reset_counters;
my $late = $a->connect;
$late->send("GET /v?g=late1 HTTP/1.1\r\nHost: a\r\n\r\n");
ok($t->wait_for(sub { $origin->count('/load') }, 5), 'it loads');
$r->command('SET', 'val:late1', 'by hand');
is($late->response->header('x-long'), 'none', 'a 404 comes');
$late->close;
is(join(' ', map { $_->get('/v?g=late1')->header('x-long') } ($a) x 8, $b),
   join(' ', ('by hand') x 9), 'which is not remembered');

$origin->reset_counters;
is(join(' ', map { $a->get('/v?g=late2')->header('x-long') } 1 .. 8),
   join(' ', ('none') x 8), 'one that is not written');
is($origin->count('/load'), 1, 'is, for all workers');
$r->command('SET', 'val:late2', 'by hand');
ok($t->wait_for(sub {
       !grep { ($_->get('/v?g=late2')->header('x-long') || '') ne 'by hand' }
       ($a) x 8, $b;
   }, 10), 'until it is written');


# what a client wants of the response to its own request

my $date = 'Thu, 01 Jan 2037 00:00:00 GMT';
for (['Range', 'bytes=0-1'], ['If-None-Match', '"x"'], ['If-Match', '*'],
     ['If-Modified-Since', $date], ['If-Unmodified-Since', $date],
     ['If-Range', '"x"'], ['Accept-Encoding', 'gzip'])
{
    my $k = lc $_->[0] =~ s/\W//gr;
    my $res = $a->get("/v?k=$k", headers => { @$_ });
    is($res->header('x-value'), "value $k",
       "is not asked of the location: $_->[0]");
}

my $many = $a->get('/v?k=many', headers =>
                   [map({ ("X-Many" => $_, "X-Other-$_" => $_) } 1 .. 30)]);
is($many->header('x-value'), join('+', 1 .. 30), 'all other fields are');

# in a request with a body

my $res = $a->post('/content?k=body', 'x' x 100000);
is($res->body, 'value body', 'a request with a body');

# a client that leaves while its request loads

my $c = $a->connect;
$c->send("GET /v?k=hang HTTP/1.1\r\nHost: a\r\n\r\n");
ok($t->wait_for(sub { $origin->count('/load') }, 5), 'it loads');
$c->close;
$origin->reset_counters;
ok($t->wait_for(sub {
       my @keys = $r->command('KEYS', 'coord:lu:*');
       return !grep { /hang/ } map { ref $_ ? @$_ : $_ } @keys;
   }, 5), 'its lease is free');

# a worker that dies while it loads: others do

$c = $a->connect;
$origin->reset_counters;
$c->send("GET /v?k=hang HTTP/1.1\r\nHost: a\r\n\r\n");
ok($t->wait_for(sub { $origin->count('/load') == 1 }, 5), 'it loads');
$a->kill_worker('KILL', $_) for $a->workers;
$c = $b->connect;
$c->send("GET /v?k=hang HTTP/1.1\r\nHost: b\r\n\r\n");
ok($t->wait_for(sub { $origin->count('/load') == 2 }, 4),
   'another node does when it is dead');
$c->close;

# a look-up that one location uses

$origin->reset_counters;
$a->get('/v');
is($origin->count('/load'), 0, 'a key that another location sets');
is($a->get('/some')->header('x-some'), 'value some for val:some',
   'is loaded there, and what the server sets for each request stays apart');

# the memory store has what is loaded, too

$origin->reset_counters;
my %seen = map { $_ => 1 } map { $a->get('/v?m=x')->header('x-near') } 1 .. 5;
is(join(' ', keys %seen), 'value x', 'memory store: loaded');
is($origin->count('/load'), 1, 'once');
ok($t->wait_for(sub { $a->get('/v?m=x'); $origin->count('/load') > 1 }, 3),
   'until its ttl is over');

# coord_api drops a key on all nodes

$r->command('SET', 'val:api', 'old');
is($_->get('/v?k=api')->header('x-value'), 'old', 'cached') for $a, $b;
$res = $a->request('DELETE', '/coord/lookups/val%3Aapi');
is($res->status, 200, 'dropped') or diag($res->body);
like($res->body, qr/"deleted":true/, 'it was there');
my $watch = $redis->watch;
my $asked = 0;
ok($t->wait_for(sub {
       $_->get('/v?k=api') for $a, $b;
       ($asked += $watch->calls('get', qr/^val:api$/)) >= 2;
   }, 3), 'both nodes have asked again');
like($a->request('DELETE', '/coord/lookups/val%3Anothing')->body,
     qr/"deleted":false/, 'one that is not known');

like($t->conf_error(http => 'coord_lookup $a k field=f load=/x;'
                            . 'server { listen 127.0.0.1:1; }'),
     qr/cannot have both "field=" and "load="/, 'a field is not loaded');

done_testing();
