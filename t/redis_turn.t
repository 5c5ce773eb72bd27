#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Replies that are read in several turns of the event loop, while others ask:
# how many there are of what is asked for together is known when it is written.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $fake = $t->fake_redis(upstream => $redis->{port});

# one event a turn: the order of turns is that in which things come

my $n = $t->node(name => 'n', workers => 1, http => <<"EOF",
    coord_store main { server redis://@{[$fake->addr]}; timeout 30s;
                       connect_timeout 30s; }
    coord_limit_req_zone \$arg_k zone=r:1m rate=1r/d;
    coord_limit_req_zone \$arg_k zone=q:1m rate=1r/d;
    add_header X-Req \$coord_limit_req_status always;

    server {
        listen 127.0.0.1:%%PORT%% backlog=1024;
        location /one { coord_limit_req zone=r; empty_gif; }
        location /two { coord_limit_req zone=r;
                        coord_limit_req zone=q after_auth; empty_gif; }
        location /none { return 204; }
    }
EOF
    main => 'events { worker_connections 2048; use epoll; epoll_events 1; }')
    ->start;


sub client {
    my ($path) = @_;

    my $c = $n->connect;
    $c->request(path => '/none');

    return [$c, "GET $path HTTP/1.1\r\nHost: a\r\n\r\n"];
}


# a turn reads so many replies at most; the first ones are read in one, and in
# the next one those of who asks twice, behind another one that asks.  The clock
# of the server is asked for before, as what is behind that is apart.

for my $first (30, 40, 50, 60, 70, 80) {
    my @all = ((map { client("/one?k=$first-$_") } 1 .. $first),
               (map { client("/two?k=$first-t$_") } 1 .. 3));
    my $other = client("/one?k=$first");

    $t->rest(1.1);
    $n->get("/one?k=$first-clock");

    $fake->fault(action => 'delay', delay => 0.4, cmd => 'EXEC', times => 1);

    $_->[0]->send($_->[1]) for @all;
    $t->rest(0.25);

    my $worker = $n->hold_worker;
    $t->rest(0.35);

    # all replies are there before it asks

    $other->[0]->send($other->[1]);
    kill 'CONT', $worker;

    is(scalar(grep { $_->[0]->response('GET', 20)->header('X-Req')
                     eq 'PASSED' } @all, $other), $first + 4,
       "$first: each has its answer");
}

is(scalar($n->log_lines(qr/not of this call/)), 0,
   'no reply was taken for that of another call');

done_testing();
