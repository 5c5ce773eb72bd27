#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency: results in a memory that is too small for all of them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $origin = $t->origin(default => { body => 'x' x 500_000 }, routes => {
    '/small' => { body => 'small', status => 201,
                  headers => [ 'X-Made' => 'made' ] },
});

for my $mode (qw(run conflict)) {
    my $n = $t->node(name => $mode, workers => 2, http => <<"EOF")->start;
        coord_idempotency_scope off;
        coord_idempotency_on_unknown $mode;

        server {
            listen 127.0.0.1:%%PORT%%;
            coord_idempotency on;
            coord_idempotency_store local size=256k;
            location / { proxy_pass http://%%ORIGIN%%; }
        }
EOF

    # one that finds no room at all

    my @h = (headers => [ 'Idempotency-Key' => 'large' ]);

    $origin->reset_counters;

    is(length $n->post('/large', 'b', @h)->body, 500_000, "$mode: first");

    for (1 .. 2) {
        my $r = $n->post('/large', 'b', @h);

        is($r->status, 200, "$mode: again");
        is($r->header('Idempotency-Replayed'), 'omitted', "$mode: omitted");
        is($r->body, '', "$mode: no body");
    }

    is($origin->count, 1, "$mode: one execution");

    # it has driven out none of the others, and they make room for each other

    my $replayed = 0;

    for my $i (1 .. 40) {
        my @k = (headers => [ 'Idempotency-Key' => "k$i" ]);
        my $path = '/x?size=' . 20_000 . "&status=201";

        $n->post($path, 'b', @k);
        my $r = $n->post($path, 'b', @k);
        $replayed++ if ($r->header('Idempotency-Replayed') || '') eq 'true'
                       && $r->body eq 'x' x 20_000;
    }

    is($replayed, 40, "$mode: each is kept for a while");

    my $r = $n->post('/small', 'b', headers => [ 'Idempotency-Key' => 's' ]);
    $n->post('/large', 'b', headers => [ 'Idempotency-Key' => 'large2' ]);
    $r = $n->post('/small', 'b', headers => [ 'Idempotency-Key' => 's' ]);
    is($r->header('Idempotency-Replayed'), 'true', "$mode: not driven out");
    is($r->header('X-Made'), 'made', "$mode: fields");

    $n->stop;
}

done_testing();
