#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Look-ups that are loaded for a subrequest in the background, of "mirror" or of
# a response that coord_cache updates: the request ends with them, and its
# connection goes on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => {
    '/mirrored' => { body => 'mirrored' },
    '/load' => sub { return { body => "of $_[0]{args}{k}" } },
    '/page' => sub {
        my ($req) = @_;
        return { body => 'page', headers => [
            'Cache-Control' => 'max-age=1, stale-while-revalidate=60',
            'X-Seen' => ($req->{headers}{'x-value'} || [''])->[0]] };
    },
});

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_cache_zone zone=pages;
    coord_lookup $copy copy:$uri$arg_k load=/load?k=$arg_k;
    coord_lookup $value value:$arg_k load=/load?k=$arg_k ttl=1s;
    coord_limit_req_zone $copy zone=r:1m rate=100r/s;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        proxy_http_version 1.1;
        proxy_set_header Connection '';

        location = /mirrored { mirror /copy; proxy_pass http://%%ORIGIN%%; }
        location = /copy { coord_limit_req zone=r;
                           proxy_pass http://%%ORIGIN%%; }
        location = /load { proxy_pass http://%%ORIGIN%%; }
        location = /page {
            coord_cache $uri$arg_k zone=pages;
            proxy_set_header X-Value $value;
            proxy_pass http://%%ORIGIN%%;
        }
        location = /status { coord_status; }
    }
EOF

my $c = $n->connect;

sub ask {
    my ($uri) = @_;

    $c->send("GET $uri HTTP/1.1\r\nHost: x\r\n\r\n");

    my $res = $c->response;
    return $res ? $res->body : undef;
}

for my $k (1 .. 3) {
    is(ask("/mirrored?k=$k"), 'mirrored', "mirrored, $k");
    ok($t->wait_for(sub { $origin->count('/copy') == $k }), 'with its copy');
}

is(ask('/page?k=a'), 'page', 'a page');

ok($t->wait_for(sub { ask('/page?k=a'); $origin->count('/page') > 1 }),
   'is updated in the background');
is(ask('/page?k=a'), 'page', 'the connection goes on');

is(($origin->requests('/page'))[-1]{headers}{'x-value'}[0], 'of a',
   'with a value that was loaded');

$c->close;

# what was begun has ended

my $h2 = Coord::HTTP2->new(port => $n->port(2));
my $id = $h2->request('/mirrored?k=4');
is($h2->ended($id)->{status}, 200, 'HTTP/2');
ok($t->wait_for(sub { $origin->count('/copy') == 4 }), 'with its copy');

done_testing;
