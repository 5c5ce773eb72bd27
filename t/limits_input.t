#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What limits make of values that a request brings (nothing, zero, no number),
# and what a client and an operator are told, on both stores.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use JSON::PP qw(decode_json);

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => {
    '/slow' => { delay => 60 },
    '/page' => { body => 'a <!--# include virtual="/part?k=ssi" --> z',
                 headers => [ 'Content-Type' => 'text/html' ] },
});

# path, argument: what some requests in a row get, and the status word of the
# last

my @rows = (
    [ '/rate', 'r=1r/m', '200 429', 'REJECTED' ],
    [ '/rate', 'r=0r/s', '429 429', 'REJECTED' ],
    [ '/rate/closed', 'r=0r/s', '429 429', 'REJECTED' ],
    [ '/window', 'r=0r/m', '429 429', 'REJECTED' ],
    [ '/rate', 'r=', '200 200 200', '-' ],
    [ '/rate/closed', 'r=', '200 200 200', '-' ],
    [ '/rate', 'r=1', '200 200 200', 'BYPASSED' ],
    [ '/rate', 'r=-1r/s', '200 200 200', 'BYPASSED' ],
    [ '/rate/closed', 'r=1', '503 503', 'UNAVAILABLE' ],
    [ '/rate/closed', 'r=10r/x', '503 503', 'UNAVAILABLE' ],
    [ '/rate/dry', 'r=0r/s', '200 200', 'REJECTED_DRY_RUN' ],
    [ '/rate/dry', 'r=1', '200 200', 'BYPASSED' ],
    [ '/burst', 'b=', '200 429', 'REJECTED' ],
    [ '/burst', 'b=0', '200 429', 'REJECTED' ],
    [ '/burst', 'b=1', '200 200 429', 'REJECTED' ],
    [ '/burst', 'b=x', '200 200 200', 'BYPASSED' ],
    [ '/burst/closed', 'b=-1', '503 503', 'UNAVAILABLE' ],
    [ '/conn', 'n=1', '200 200', 'PASSED' ],
    [ '/conn', 'n=0', '429 429', 'REJECTED' ],
    [ '/conn/closed', 'n=0', '429 429', 'REJECTED' ],
    [ '/conn/wait', 'n=0', '429 429', 'REJECTED' ],
    [ '/conn', 'n=', '200 200', '-' ],
    [ '/conn', 'n=x', '200 200', 'BYPASSED' ],
    [ '/conn/closed', 'n=1x', '503 503', 'UNAVAILABLE' ],
);

for my $store (qw(memory redis)) {
    my $n = $t->node(name => $store,
                     vars => { STORE => $store eq 'redis'
                                        ? 'server %%REDIS%%; timeout 30s; connect_timeout 30s;'
                                        : '' },
                     http => <<'EOF2')->start;
    coord_store main { %%STORE%% }

    map $host $zero { default 0; }
    geo $text { default "$binary_remote_addr"; }

    coord_limit_req_zone $arg_k zone=rate:1m rate=$arg_r;
    coord_limit_req_zone $arg_k zone=window:1m rate=$arg_r
                         algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=burst:1m rate=1r/m;
    coord_limit_req_zone $arg_k zone=short:1m rate=1r/2s;
    coord_limit_req_zone $arg_k zone=long:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=part:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=all:1m rate=1r/h;
    coord_limit_req_zone $text zone=geo:1m rate=1r/h;
    coord_limit_conn_zone $arg_k zone=conn:1m;

    add_header X-Req $coord_limit_req_status always;
    add_header X-Conn $coord_limit_conn_status always;
    add_header X-Zone $coord_limit_req_zone always;

    server {
        listen 127.0.0.1:%%PORT%%;

        location /rate { coord_limit_req zone=rate; empty_gif; }
        location /rate/closed {
            coord_limit_req zone=rate on_failure=closed; empty_gif;
        }
        location /rate/dry {
            coord_limit_req zone=rate on_failure=closed;
            coord_limit_req_dry_run on;
            empty_gif;
        }
        location /window { coord_limit_req zone=window; empty_gif; }
        location /burst {
            coord_limit_req zone=burst burst=$arg_b nodelay; empty_gif;
        }
        location /burst/closed {
            coord_limit_req zone=burst burst=$arg_b nodelay on_failure=closed;
            empty_gif;
        }
        location /conn { coord_limit_conn conn $arg_n; empty_gif; }
        location /conn/wait { coord_limit_conn conn $arg_n wait=60s; empty_gif; }
        location /conn/closed {
            coord_limit_conn conn $arg_n on_failure=closed; empty_gif;
        }
        location /slow {
            coord_limit_conn conn 1; proxy_pass http://%%ORIGIN%%;
        }
        location /two {
            coord_limit_req zone=short; coord_limit_req zone=long; empty_gif;
        }
        location /page { ssi on; proxy_pass http://%%ORIGIN%%; }
        location /part { coord_limit_req zone=part; empty_gif; }
        location /geo { coord_limit_req zone=geo burst=9 nodelay; empty_gif; }
        location /lock { coord_limit_req_status 423; empty_gif;
                         coord_limit_req zone=long; }
    }

    coord_limit_req_status 429;

    server {
        listen 127.0.0.1:%%PORT_2%%;
        coord_limit_req zone=all;
        coord_limit_conn conn $zero;

        location / { empty_gif; }
        location = /status { coord_status; }
        location = /health { coord_health; }
        location /api/ { coord_api; location /api/x { empty_gif; } }
        location = /if { coord_status; if ($arg_i) { set $x 1; } }
        location = /own { coord_status; coord_limit_req zone=all;
                          coord_limit_conn off; }
        location = /off { coord_limit_req off; coord_limit_conn off;
                          empty_gif; }
    }

    coord_session_zone $arg_s zone=s;
    coord_lock_zone $arg_k zone=l;

    server {
        listen 127.0.0.1:%%PORT_3%%;
        coord_session zone=s missing=reject;
        coord_lock zone=l;
        coord_idempotency required;

        location / { empty_gif; }
        location = /status { coord_status; }
        location = /health { coord_health; }
        location /api/ { coord_api write; }
    }
EOF2

    my $key = 0;

    for (@rows) {
        my ($path, $args, $want, $word) = @$_;
        my $k = ++$key;
        my @seen;
        my $r;

        for (split / /, $want) {
            $r = $n->get("$path?k=$k&$args");
            push @seen, $r->status;
        }

        my $field = $path =~ /conn/ ? 'X-Conn' : 'X-Req';

        is(join(' ', @seen, $r->header($field) // '-'), "$want $word",
           "$store: $path $args");
    }

    my $r = $n->get('/rate?k=zero&r=0r/m');
    is($r->header('Retry-After'), 60, "$store: a rate of 0, Retry-After");
    is($r->header('RateLimit-Policy'), '"rate";q=0;w=60', "$store: its policy");

    # one word for one thing

    ok($n->wait_log(qr/\[error\].*refusing\ request,\ on_failure=closed,
                       \ by\ limit_req\ zone\ "rate",\ client:.*,
                       \ outcome:\ UNAVAILABLE/x, 5),
       "$store: the line of a 503");
    is(scalar $n->log_lines(qr/limiting (?:requests|connections).*UNAVAIL/), 0,
       "$store: which is not a limit's");

    my $json = decode_json($n->get('/status', port => $n->port(2))->body);
    my ($z) = grep { $_->{zone} eq 'rate' } @{ $json->{zones} };
    is($z->{decisions}{unavailable}, 4, "$store: and in the metrics");

    # two refuse: the client comes back when both admit it

    $n->get('/two?k=two');
    $r = $n->get('/two?k=two');
    cmp_ok($r->header('Retry-After'), '>', 3500, "$store: the longest");
    is_deeply(decode_json($r->body)->{'violated-policies'}, ['short', 'long'],
              "$store: both are told");
    is($r->header('X-Zone'), 'long', "$store: it is the one that decided");
    ok($n->wait_log(qr/limiting requests, .* by zone "long", .*k=two/, 5),
       "$store: in the log, too");

    $n->get('/lock?k=st');
    like($n->get("/lock?k=st")->{head}, qr/\AHTTP\/1\.1 423 Locked\r/,
         "$store: a reason phrase");

    # connections

    my $c = $n->connect;
    $c->send("GET /slow?k=c HTTP/1.1\r\nHost: a\r\n\r\n");
    $t->wait_for(sub { $origin->count('/slow') }, 10);

    $r = $n->get('/slow?k=c');
    is_deeply(decode_json($r->body)->{'violated-policies'}, ['conn'],
              "$store: connections: violated-policies");
    $c->close;

    # a part of a page

    $n->get('/part?k=ssi');
    $r = $n->get('/page');
    is($r->status . ($r->header('Retry-After') // ''), '200',
       "$store: a page is not refused with a part of it");
    like($r->body, qr/^a .*quota-exceeded.* z$/s, "$store: which is");

    # values of geo are text

    $n->get('/geo') for 1, 2;
    is(scalar $n->log_lines(qr/\[warn\].*key in zone "geo".*variable.*geo/), 1,
       "$store: a key that is a name, warned of once");

    # what is never limited by what it inherits

    my @seen = map { $n->get($_, port => $n->port(2))->status }
               qw(/?k=a /status /health /api/limits/all/a /if?i=1 /off
                  /api/x?k=a /own?k=b /own?k=b);

    is("@seen", '429 200 200 200 200 200 429 200 429', "$store: exempt");

    @seen = map { $n->get($_, port => $n->port(3))->status }
            qw(/ /status /health /api/limits/all/a);
    is("@seen", '403 200 200 200', "$store: from sessions, too");
}

done_testing();
