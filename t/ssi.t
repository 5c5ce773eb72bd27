#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The SSI module of nginx: a page that includes another one reaches its client
# as it is, also where it is too large to be kept, and so waits within nginx.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;

my $t = Coord->new;
my @type = (headers => [ 'Content-Type' => 'text/html' ]);
my $text = 'x' x 300_000;

my $origin = $t->origin(default => sub {
    my ($req) = @_;

    # its end is told when nothing of it is left to be sent

    return { until_close => 1,
             parts => [[0.1, 'one'], [0.2, ' two'], [0.2, '']] }
        if $req->{path} eq '/part';

    return { @type, chunked => 1,
             body => "begin <!--#include virtual=\"/part\" --> $text end" };
});

my $redis = $t->redis;
my $n = $t->node(http => <<'EOT')->start;
    coord_store main { server %%REDIS%%; timeout 2s; connect_timeout 5s; }
    coord_cache_zone zone=pages:8m;
    coord_idempotency_scope off;
    coord_idempotency_max_response 8k;
    coord_idempotency_methods GET POST;
    proxy_http_version 1.1;
    ssi on;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;

        location /plain { proxy_pass http://%%ORIGIN%%; }
        location /idem { coord_idempotency on; proxy_pass http://%%ORIGIN%%; }
        location /cache { coord_cache $uri zone=pages max=8k;
                          proxy_pass http://%%ORIGIN%%; }
        location /both { coord_idempotency on;
                         coord_cache $uri zone=pages max=8k;
                         proxy_pass http://%%ORIGIN%%; }
        location /part { proxy_buffering off; proxy_pass http://%%ORIGIN%%; }
    }
EOT

my $k = 0;

for my $where (qw(plain idem cache both)) {
    my ($one, $two) = map { "Idempotency-Key: k" . ++$k } 1, 2;
    my $r = $n->get("/$where", headers => { split /: /, $one });

    is($r->status, 200, "$where, HTTP/1.1");
    ok($r->body eq "begin one two $text end", 'all of it')
        or diag length $r->body, ' bytes: ', substr $r->body, 0, 80;

    $r = $n->h2('http://127.0.0.1:' . $n->port(2) . "/$where", '-H', $two);

    is($r->status, 200, "$where, HTTP/2");
    ok($r->body eq "begin one two $text end", 'all of it')
        or diag length $r->body, ' bytes: ', substr $r->body, 0, 80;
}

done_testing();
