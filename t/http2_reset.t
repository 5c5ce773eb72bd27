#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A stream of HTTP/2 that ends without a response is reset at once, also when
# all others of its connection are silent: nginx sends the frame with the next
# one of the connection if it was not a frame of the client that ended it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => {
    '/quiet' => { hold => 1 },
    '/cut' => { parts => [[0, 'begin '], [1, 'end']], close_at => 6 },
});

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_req_zone $arg_k zone=r:1m rate=1r/h;
    coord_limit_conn_zone $arg_k zone=c:1m;
    coord_limit_conn_zone $arg_k zone=cm:1m store=local;

    server {
        listen 127.0.0.1:%%PORT%% http2;
        proxy_read_timeout 100s;

        location = /quiet { proxy_pass http://%%ORIGIN%%; }
        location = /cut { proxy_buffering off; coord_limit_conn c 1;
                          proxy_pass http://%%ORIGIN%%; }
        location = /rate { coord_limit_req zone=r;
                           coord_limit_req_status 444; empty_gif; }
        location = /held { coord_limit_conn c 1; coord_limit_conn cm 1;
                           proxy_pass http://%%ORIGIN%%/quiet; }
        location = /redis { coord_limit_conn c 1 wait=100ms;
                            coord_limit_conn_status 444; empty_gif; }
        location = /memory { coord_limit_conn cm 1 wait=100ms;
                             coord_limit_conn_status 444; empty_gif; }
    }
EOF

my $h2 = Coord::HTTP2->new(port => $n->port);

my $first = $h2->request('/rate?k=1');
is($h2->ended($first, 5)->{status}, 200, 'the only place is taken');

my ($quiet, $held) = $h2->together(sub {
    return ($h2->request('/quiet'), $h2->request('/held?k=2'));
});

ok($h2->wait(sub { $origin->count('/quiet') == 2 }), 'two streams are silent');

for (['/rate?k=1', 'refused, when Redis has answered'],
     ['/redis?k=2', 'refused by Redis, when it has waited'],
     ['/memory?k=2', 'refused by the memory store, when it has waited'],
     ['/cut?k=3', 'broken off by its upstream'])
{
    my ($path, $name) = @$_;

    my $id = $h2->request($path);

    ok($h2->ended($id, 10), "$name: the stream ends");
    ok(defined $h2->stream($id)->{reset}, "$name: it is reset");
}

done_testing;
