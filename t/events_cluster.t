#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Events in mode cluster: what is published on any server is heard on all
# nodes; a history is on the server of its slot.  The cache, too.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Cluster;
use Coord::Events;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $cluster = Coord::Cluster->start($t, masters => 3);
my @servers = @{$cluster->{servers}};
my $origin = $t->origin(default => {
    headers => ['Cache-Control' => 'max-age=60', 'Surrogate-Key' => 'tag'],
});

$t->set(SEED => $servers[1]{port});

my $http = <<'EOT';
    coord_store main { mode cluster; server redis://127.0.0.1:%%SEED%%;
                       timeout 2s; connect_timeout 2s; }
    coord_cache_zone zone=pages;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /pub { coord_publish $arg_c $arg_m history=1000; empty_gif; }
        location /plain { coord_publish $arg_c $arg_m; empty_gif; }
        location /events { coord_subscribe $arg_c history; }
        location /now { coord_subscribe $arg_c; }
        location /page { coord_cache $uri zone=pages;
                         add_header X-Cache $coord_cache_status;
                         proxy_pass http://%%ORIGIN%%; }
        location /api/ { coord_api write; }
    }
EOT

my $a = $t->node(name => 'a', http => $http)->start;
my $b = $t->node(name => 'b', http => $http)->start;

# a channel on each server

for my $i (0 .. 2) {
    my $channel = $cluster->key_on($servers[$i], '', '');
    my @es = map { Coord::Events->new($_, "/events?c=$channel") } ($a, $b);
    my $now = Coord::Events->new($a, "/now?c=$channel");

    is($_->status, 200, "server $i: a stream") for @es;

    $a->get("/pub?c=$channel&m=$_") for 1 .. 20;
    is(join(',', $_->data(20)), join(',', 1 .. 20), 'heard in order')
        for @es, $now;

    $servers[$_]->connect->command(PUBLISH => $channel, "from $_") for 0 .. 2;
    is(join(',', sort $_->data(3)), 'from 0,from 1,from 2',
       'what any server is told') for @es, $now;
    is($_->next(0.2), undef, 'once') for @es, $now;

    my $last = $es[0]{last};
    $_->close for @es;
    $b->get("/pub?c=$channel&m=$_") for 21 .. 30;
    is(join(',', $now->data(10)), join(',', 21 .. 30), 'on the bus');
    my $back = Coord::Events->new($b, "/events?c=$channel", last => $last);
    is(join(',', $back->data(10)), join(',', 21 .. 30), 'what was missed');
    $b->get("/plain?c=$channel&m=31");
    is(join(',', $back->data(1)), '31', 'and what is new');
    $back->close;
    $now->close;
}

# the cache

for my $path (map { "/page/$_" } 1 .. 6) {
    $a->get($path);
    ok($t->wait_for(sub { $b->get($path)->header('x-cache') eq 'HIT' }, 3),
       "$path: shared");
}

is($a->request('DELETE', '/api/cache/pages?tag=tag')->status, 200, 'a purge');
is($b->get("/page/$_")->header('x-cache'), 'MISS', 'of all servers')
    for 1 .. 6;

done_testing();
