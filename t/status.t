#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_status: its forms, who gets which, the keys that are refused most.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis('requirepass secretword');

my $n = $t->node(name => 'n', workers => 2, http => <<'EOF')->start;
    coord_store main {
        server   redis://:secretword@127.0.0.1:%%REDIS_PORT%%;
        timeout  2s;
    }
    coord_store mem { }

    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h store=mem;
    coord_limit_req_zone $arg_k "zone=a<b>&:1m" rate=1r/h store=mem;

    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_req zone=one; empty_gif; }
        location /odd { coord_limit_req "zone=a<b>&"; empty_gif; }
        location /status { coord_status; }
        location /keys { coord_status keys; }
    }
EOF

my $no_json = qr{^text/plain};

for (
    ['/status.json', undef, 'application/json'],
    ['/status.prom', undef, 'text/plain; version=0.0.4; charset=utf-8'],
    ['/status?format=json', 'text/plain', 'application/json'],
    ['/status.json?format=prometheus', undef, $no_json],
    ['/status', undef, 'application/json'],
    ['/status', '*/*', 'application/json'],
    ['/status', 'text/plain', $no_json],
    ['/status', 'application/openmetrics-text;version=1.0.0;q=0.75,'
                . 'text/plain;version=0.0.4;q=0.5,*/*;q=0.1', $no_json],
    ['/status', 'application/json;q=0.1, text/plain;q=0.2', $no_json],
    ['/status', 'text/plain;q=0.2, application/json;q=0.21',
     'application/json'],
    ['/status', 'text/plain;q=0, */*', 'application/json'],
    ['/status', ';;;q=,,,=;q', 'application/json'],
    ['/status', "text/plain;\tq=0.1, application/json\t; q=0.2",
     'application/json'],
    ['/status', "text/plain\t;q=0.3\t, application/json;q=0.2", $no_json],
    ['/status', 'text/plain;q=0.3;x=1, application/json;q=0.2', $no_json],
    ['/status', 'text/plain;q=, application/json;q=0.1', 'application/json'],
)
{
    my ($path, $accept, $type) = @$_;
    my $response = $n->get($path, headers => $accept ? { Accept => $accept }
                                                     : {});
    my $what = "$path, " . ($accept // 'no Accept');

    is($response->status, 200, $what);
    ref $type ? like($response->header('Content-Type'), $type, $what)
              : is($response->header('Content-Type'), $type, $what);
}

my $response = $n->get('/status');
is($response->header('Vary'), 'Accept', 'Vary');
is($response->header('Cache-Control'), 'no-store', 'not cached');
is($n->request('HEAD', '/status')->body, '', 'HEAD');

for (['GET', '/status?format=xml', 400], ['POST', '/status', 405],
     ['DELETE', '/status', 405], ['PROPFIND', '/status', 405])
{
    my ($method, $path, $status) = @$_;
    my $problem = $n->request($method, $path, body => '');

    is($problem->status, $status, "$method $path");
    is($problem->header('Content-Type'), 'application/problem+json',
       'as a problem');
    is(decode_json($problem->body)->{status}, $status, 'that says so');
}


# names that need escapes

$n->get('/odd?k=1');

my $json = decode_json($n->get('/status')->body);
my ($odd) = grep { $_->{zone} eq 'a<b>&' } @{ $json->{zones} };
is($odd->{directive},
   'coord_limit_req_zone $arg_k zone=a<b>&:1m rate=1r/h store=mem',
   'the directive of a zone');
is_deeply($odd->{uses}, [ 'coord_limit_req zone=a<b>&' ], 'and its use');
like($n->get('/status?format=html')->body,
     qr{<pre>[^<]*zone=a&lt;b&gt;&amp;:1m[^<]*\ncoord_limit_req [^<]*</pre>},
     'on the page as well');
is($odd->{decisions}{passed}, 1, 'a strange zone name in JSON');
like($n->get('/status.prom')->body,
     qr/zone="a<b>&",outcome="passed"\} 1$/m, 'and in a label');


# keys

$n->get('/?k=alice') for 1 .. 5;
$n->get('/?k=bob') for 1 .. 3;
$n->get('/?k=s%7Be%7Dc') for 1 .. 2;
$n->get("/?k=once$_") for 1 .. 100;

sub keys_of {
    my ($path) = @_;
    my ($zone) = grep { $_->{zone} eq 'one' }
                      @{ decode_json($n->get($path)->body)->{zones} };
    return $zone->{keys};
}

is(keys_of('/status.json'), undef, 'no keys unless they are asked for');

my $keys = keys_of('/keys.json');
is_deeply([map { [$_->{key}, $_->{refused}] } @$keys[0, 1]],
          [['alice', 4], ['bob', 2]], 'the most refused keys');
is(scalar @$keys, 3, 'a key that passed is none of them');
like($keys->[2]{key}, qr/^~[0-9a-f]{32}$/, 'a key that is not plain');

$n->get("/?k=many" . ($_ >> 1)) for 1 .. 200;
$keys = keys_of('/keys.json');
is($keys->[0]{key}, 'alice', 'many others do not push it out');
cmp_ok(scalar @$keys, '<=', 10, 'a bounded list');


# no secret anywhere

unlike($n->get($_)->body, qr/secretword/, "no password in $_")
    for '/status.json', '/status.prom', '/keys.json';

like($t->conf_error(http => 'server { listen 127.0.0.1:%%PORT%%;'
                            . 'location / { coord_status x; } }'),
     qr/invalid parameter "x", allowed is "keys"/, 'a wrong parameter');
like($t->conf_error(http => 'server { listen 127.0.0.1:%%PORT%%;'
                            . 'location / { coord_status; coord_status; } }'),
     qr/is duplicate/, 'twice');
is($t->conf_error(http => 'server { listen 127.0.0.1:%%PORT%%;'
                          . 'location / { coord_status; } }'), '',
   'alone');

done_testing();
