#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Limits with "after_auth" come behind idempotency: what is answered from a
# stored result, or refused for its key, takes nothing, not for a moment; a
# request that a limit refuses keeps no claim.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => {
    '/' => { status => 201, body => 'made' },
    '/slow' => { status => 201, body => 'made', delay => 60 },
});

for my $store (qw(memory redis)) {
    my $n = $t->node(name => $store,
                     vars => { STORE => $store eq 'redis'
                                        ? 'server %%REDIS%%; timeout 30s;'
                                          . ' connect_timeout 30s;'
                                        : '' },
                     http => <<'EOF2')->start;
    coord_store main { %%STORE%% }

    coord_limit_req_zone $http_x_user zone=req:1m rate=1r/h;
    coord_limit_conn_zone $http_x_user zone=conn:1m;
    coord_idempotency_scope $http_x_user;
    coord_idempotency on;

    add_header X-Req $coord_limit_req_status always;
    add_header X-Idem $coord_idempotency_status always;

    server {
        listen 127.0.0.1:%%PORT%%;

        location /req {
            coord_limit_req zone=req burst=1 nodelay after_auth;
            proxy_pass http://%%ORIGIN%%/;
        }
        location /delay {
            coord_limit_req zone=req burst=1 after_auth;
            proxy_pass http://%%ORIGIN%%/;
        }
        location /conn {
            coord_limit_conn conn 1 after_auth;
            proxy_pass http://%%ORIGIN%%/;
        }
        location /conn/slow {
            coord_limit_conn conn 1 after_auth;
            proxy_pass http://%%ORIGIN%%/slow;
        }
        location /peek { coord_limit_req zone=req; empty_gif; }
    }
EOF2

    my $ask = sub {
        my ($path, $user, $key, $body) = @_;

        my $r = $n->post($path, $body // 'x',
                         headers => { 'X-User' => $user,
                                      'Idempotency-Key' => $key });

        return join ' ', $r->status, $r->header('X-Idem') // '-',
                    $r->header('X-Req') // '-',
                    defined $r->header('RateLimit') ? 'told' : '-';
    };

    # two places

    is($ask->('/req', 'a', 'k1'), '201 NEW PASSED told', "$store: runs");
    is($ask->('/req', 'a', 'k1'), '201 REPLAYED - -', "$store: a replay")
        for 1 .. 5;
    is($ask->('/req', 'a', 'k1', 'y'), '422 MISMATCH - -',
       "$store: another request") for 1 .. 3;
    is($ask->('/req', 'a', 'k2'), '201 NEW PASSED told',
       "$store: none of them took a place");
    is($ask->('/req', 'a', 'k3'), '429 NEW REJECTED told', "$store: full");
    is($ask->('/req', 'a', 'k1'), '201 REPLAYED - -',
       "$store: a replay all the same");

    # what was refused holds no claim

    is($ask->('/req', 'b', 'k3'), '201 NEW PASSED told', "$store: others");
    is($ask->('/conn', 'a', 'k3'), '201 NEW - told',
       "$store: the key of a refused request is free");

    # a place that is held

    my $raw = "POST /conn/slow HTTP/1.1\r\nHost: a\r\nX-User: d\r\n"
              . "Idempotency-Key: k1\r\nContent-Length: 1\r\n\r\nx";
    my $held = $origin->count('/slow');
    my ($c, $twin) = map { $n->connect } 1, 2;
    $c->send($raw);
    $t->wait_for(sub { $origin->count('/slow') > $held }, 10);

    is($ask->('/conn', 'd', 'k2'), '429 NEW - told', "$store: a place is held");
    $twin->send($raw);
    is($twin->response->status, 409, "$store: a twin is told so");
    $_->close for $c, $twin;

    # a client that leaves while it is delayed leaves neither place nor claim

    is($ask->('/req', 'e', 'k1'), '201 NEW PASSED told', "$store: one");
    $c = $n->connect;
    $c->send("POST /delay HTTP/1.1\r\nHost: localhost\r\nX-User: e\r\n"
             . "Idempotency-Key: k2\r\nContent-Length: 1\r\n\r\nx");
    ok($n->wait_log(qr/delaying request, .*POST \/delay/, 10),
       "$store: the next is delayed");
    $c->close;
    ok($t->wait_for(sub { $ask->('/req', 'e', 'k2') eq '201 NEW PASSED told' },
                    10), "$store: has left nothing");

    next if $store eq 'memory';

    # not for a moment: nothing is even asked

    $ask->('/req', 'm', 'k1');

    my $admin = $redis->connect;
    $admin->command('CONFIG', 'RESETSTAT');
    $ask->('/req', 'm', 'k1') for 1 .. 3;

    unlike($admin->command('INFO', 'commandstats'), qr/cmdstat_bitfield:/,
           'a replay touches no bucket');
}

done_testing();
