#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A client that leaves while its request waits for Redis, over HTTP/1.1 and
# HTTP/2: what Redis grants later is given back, nothing else happens.  One that
# only ends what it sends is answered.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 20s; connect_timeout 5s; }
    coord_limit_req_zone $arg_k zone=bucket:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=log:1m rate=6r/h algorithm=sliding_log;
    coord_limit_req_zone $arg_k zone=fixed:1m rate=6r/h
                         algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=sliding:1m rate=6r/h
                         algorithm=sliding_window;
    coord_limit_conn_zone $arg_k zone=conn:1m lease=60s;
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        location / {
            coord_limit_req zone=bucket burst=5 nodelay;
            coord_limit_req zone=log;
            coord_limit_req zone=fixed;
            coord_limit_req zone=sliding;
            coord_limit_conn conn 6;
            empty_gif;
        }
        location = /stub { stub_status; }
    }
EOF

is($n->get('/?k=warm')->status, 200, 'connected');

my ($worker) = $n->workers;

sub waiting {
    my ($n) = $n->get('/stub')->body =~ /Writing: (\d+)/;

    return $n - 1;
}
my $h2 = 'http://127.0.0.1:' . $n->port(2);

for my $way (qw(reset close h2)) {
    $redis->freeze;

    if ($way eq 'h2') {
        my $start = $t->ran;
        $n->h2("$h2/?k=$way", '--max-time', '0.3') for 1 .. 4;
        cmp_ok($t->ran - $start, '<', 8, "$way: the clients left");

    } else {
        my @c = map { $n->connect } 1 .. 4;
        $_->send("GET /?k=$way HTTP/1.1\r\nHost: x\r\n\r\n") for @c;
        ok($t->wait_for(sub { waiting() == 4 }, 10), "$way: four wait");
        $_->$way for @c;
        ok($t->wait_for(sub {
            4 <= $n->log_lines(qr/prematurely closed.*k=$way /) }, 5),
           "$way: the clients left");
    }

    kill 'CONT', $redis->{pid};

    my $c = $redis->connect;
    ok($t->wait_for(sub { !$c->command('ZCARD', "coord:cc:conn:{$way}") }, 10),
       "$way: no lease is left");
    ok($t->wait_for(sub { !$c->command('ZCARD', "coord:rg:log:{$way}") }, 10),
       "$way: no entry of the log");

    my @r = $n->parallel(10, "/?k=$way");
    is(scalar(grep { $_->status == 200 } @r), 6,
       "$way: all six places of all limits are free");
}

my $half = 0;

sub answered {
    my $c = $n->connect;
    $c->send("GET /?k=half" . $half++ . " HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown $c->{sock}, 1;

    my $r = $c->response;
    return $r && $r->status == 200;
}

# all of them, unless the machine stands still in between

ok($t->wait_for(sub { 10 == grep { answered() } 1 .. 10 }, 10),
   'who has ended what he sends may not have left');

is_deeply([$n->workers], [$worker], 'the worker is the same');

done_testing();
