#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Several look-ups that are loaded for one request, in any order: it ends with
# any response, also with one that has no body, and its connection goes on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => {
    (map { ("/$_" => { hold => 1, body => $_ }) } qw(first second third)),
    '/page' => { body => 'page' },
    '/none' => { status => 204 },
    '/same' => { status => 304 },
});

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_lookup $first first:$arg_k load=/first;
    coord_lookup $second second:$arg_k load=/second;
    coord_lookup $third third:$arg_k load=/third;
    coord_limit_req_zone $first$second$third zone=r:1m rate=1000r/s;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        proxy_http_version 1.1;
        proxy_set_header Connection '';
        send_timeout 100s;

        location ~ ^/(page|none|same)$ { coord_limit_req zone=r;
                                         proxy_pass http://%%ORIGIN%%; }
        location = /gif { coord_limit_req zone=r; empty_gif; }
        location ~ ^/(first|second|third)$ { proxy_pass http://%%ORIGIN%%; }
        location = /status { coord_status; }
    }
EOF

my @orders = ([qw(first second third)], [qw(third second first)],
              [qw(second third first)], [qw(second first third)]);
my @requests = (['GET', '/page'], ['HEAD', '/page'], ['GET', '/none'],
                ['GET', '/same'], ['HEAD', '/gif']);
my $k = 0;

# the answers of all that is loaded for a request, in this order

sub answers {
    for my $name (@_) {
        $t->wait_for(sub { $origin->count("/$name") == $k });
        $origin->release("/$name");
    }
}

for my $order (@orders) {
    my $c = $n->connect;
    my $h2 = Coord::HTTP2->new(port => $n->port(2));

    for (@requests) {
        my ($method, $uri) = @$_;
        my $name = "$method $uri, @$order";

        $k++;
        $c->send("$method $uri?k=$k HTTP/1.1\r\nHost: x\r\n\r\n");
        answers(@$order);
        my $res = $c->response(method => $method, timeout => 5);
        ok($res && $res->status < 400, $name);

        $c->send("GET /status HTTP/1.1\r\nHost: x\r\n\r\n");
        $res = $c->response(timeout => 5);
        ok($res && $res->status == 200, 'the connection goes on');
        if (!$res || $res->status != 200) { $c = $n->connect }

        $k++;
        my $id = $h2->request("$uri?k=$k", method => $method);
        answers(@$order);
        ok($h2->ended($id, 5), "$name, HTTP/2");
    }
}

done_testing;
