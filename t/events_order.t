#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Two nodes publish to one channel at the same time: whoever listens, where and
# from when on, hears the messages in one order, and with a history in that of
# the stream.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Cluster;
use Coord::Events;

my $t = Coord->new;
my $redis = $t->redis;
my $cluster = Coord::Cluster->start($t, masters => 3);

$t->set(SEED => $cluster->{servers}[1]{port});

my $server = <<'EOT';

    server {
        listen 127.0.0.1:%%PORT%%;
        keepalive_requests 10000;
        location /pub { coord_publish $arg_c $arg_m history=5000;
                        return 200 ok; }
        location /plain { coord_publish $arg_c $arg_m; return 200 ok; }
        location /events { coord_subscribe $arg_c history; }
        location /now { coord_subscribe $arg_c; }
    }
EOT

my %store = (
    redis => 'server %%REDIS%%;',
    cluster => 'mode cluster; server redis://127.0.0.1:%%SEED%%;
                connect_timeout 2s;',
);

for my $kind ('redis', 'cluster') {
    my $http = "coord_store main { $store{$kind} timeout 5s; }" . $server;
    my @node = map { $t->node(name => "$kind$_", workers => 2, http => $http)
                     ->start } qw(a b);
    my $n = 600;

    # the last one hears all that it is told in one turn

    my $last = $t->node(name => "${kind}l", http => $http)->start;
    my @at = (@node, @node, $last);

    my @kept = map { Coord::Events->new($_, "/events?c=$kind") } @at;
    my @plain = map { Coord::Events->new($_, "/now?c=plain$kind") } @at;
    $_->wait_text(qr/\Aid: 0-0\n\n/) for @kept;
    is($_->status, 200, "$kind: listens") for @kept, @plain;

    my ($pid) = $last->workers;
    $last->hold_worker($pid);

    # by several workers of both, in turn and without a pause

    my @c = map { $node[$_ % 2]->connect } 0 .. 7;

    for my $i (1 .. $n) {
        my $c = $c[$i % @c];
        $c->response('GET', 10) if $i > @c;
        $c->send('GET ' . ($i % 2 ? "/pub?c=$kind" : "/plain?c=plain$kind")
                 . "&m=$i HTTP/1.1\r\nHost: x\r\n\r\n");
        if ($i % 2) {
            $c->response('GET', 10);
            $c->send("GET /plain?c=plain$kind&m=x$i HTTP/1.1\r\n"
                     . "Host: x\r\n\r\n");
        }
    }

    kill 'CONT', $pid;

    # one that comes when all is over, and one that was in between

    my @own;
    my $late = Coord::Events->new($node[0], "/events?c=$kind", last => '0');
    for my $es (@kept, $late) {
        push @own, [];
        while (@{$own[-1]} < $n / 2) {
            push @{$own[-1]}, $es->next(10) // last;
        }
    }
    my $back = Coord::Events->new($node[1], "/events?c=$kind",
                                  last => $own[0][99]{id});
    my @rest = map { $back->next(10) } 101 .. $n / 2;
    is($back->next(0.3), undef, 'nothing comes twice');

    my @ids = map { [ map { $_->{id} // 'none' } @$_ ] } @own;
    my $falls = 0;

    for my $i (1 .. $#{$ids[0]}) {
        my @two = map { [ split /-/ ] } @{$ids[0]}[$i - 1, $i];
        $falls++ if ($two[0][0] <=> $two[1][0] || $two[0][1] <=> $two[1][1])
                    >= 0;
    }

    is(scalar @{$ids[0]}, $n / 2, "$kind: all are heard");
    is($falls, 0, 'their ids grow');
    is_deeply($ids[$_], $ids[0], "client $_: the same order") for 1 .. 5;
    is_deeply([ map { $_->{data} } @{$own[5]} ],
              [ map { $_->{data} } @{$own[0]} ], 'of the same messages');
    is_deeply([ map { $_->{id} } @rest ], [ @{$ids[0]}[100 .. $n / 2 - 1] ],
              'who comes back goes on in it');
    is_deeply([ sort { $a <=> $b } map { $_->{data} } @{$own[0]} ],
              [ grep { $_ % 2 } 1 .. $n ], 'each once');

    # those that are not kept: one order, which is that of Redis

    my @heard = map { join ',', $_->data($n, 10) } @plain;
    is(scalar(split /,/, $heard[0]), $n, 'not kept: all are heard');
    is($heard[$_], $heard[0], "not kept, client $_: the same order")
        for 1 .. 4;

    # requests of one worker that follow each other are published in turn

    $c[0]->response('GET', 10);
    my @in_turn = map { Coord::Events->new($_, "/events?c=turn$kind") } @node;
    $_->wait_text(qr/\Aid: 0-0\n\n/) for @in_turn;
    $c[0]->request(path => "/pub?c=turn$kind&m=$_") for 1 .. 100;
    is(join(',', $_->data(100, 10)), join(',', 1 .. 100),
       'one connection: in turn') for @in_turn;

    $_->close for @kept, @plain, $late, $back, @in_turn;
}

done_testing();
