#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A cluster that speaks TLS: the ports and the names are those that it
# announces, and each server has to be the one that it is named.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Cluster;
use Coord::TLS;
use Coord::Util qw(free_port);

my $t = Coord->new;

my ($version) = `redis-server --version 2>/dev/null` =~ /v=(\d+)/;

plan(skip_all => 'cluster-announce-hostname is of Redis 7')
    if ($version || 0) < 7;

my $tls = Coord::TLS->new($t->dir);

# the first one is a seed, by its address; the third one is somebody else

$tls->cert('n1', san => 'DNS:n1.test,IP:127.0.0.1');
$tls->cert('n2', san => 'DNS:n2.test');
$tls->cert('n3', san => 'DNS:other.test');

my @port = map { free_port() } 1 .. 3;

my $cluster = Coord::Cluster->start($t, masters => 3, meet => \@port,
    each => sub {
        my ($n) = @_;

        return $tls->redis("n$n", $port[$n - 1], 'tls-cluster yes',
                           'tls-auth-clients no',
                           "cluster-announce-hostname n$n.test");
    });

my @servers = @{$cluster->{servers}};

$t->set(SEED => $port[0], CA => $tls->file('ca.pem'));

my $n = $t->node(name => 'n', workers => 2, http => <<'EOF')->start;
    coord_store main { mode cluster; server rediss://127.0.0.1:%%SEED%%;
                       ssl_trusted_certificate %%CA%%;
                       timeout 2s; connect_timeout 2s; }

    coord_limit_req_zone $arg_k zone=rate:1m rate=3r/h;

    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_req zone=rate burst=2 nodelay
                                     on_failure=closed;
                     empty_gif; }
        location = /health { coord_health; }
    }
EOF

my @keys = map { $cluster->key_on($_, 't') } @servers;


sub check {
    my ($what) = @_;

    for my $i (0, 1) {
        my $k = $cluster->key_on($servers[$i], $what);

        is_deeply([ map { $n->get("/?k=$k")->status } 1 .. 5 ],
                  [ 200, 200, 200, 429, 429 ], "$what: server " . ($i + 1));
    }

    my $k = $cluster->key_on($servers[2], $what);

    is($n->get("/?k=$k")->status, 503, "$what: who is not who it should be");
    is($servers[2]->connect->command('DBSIZE'), 0, 'has got nothing');
}


check('address');
ok($n->wait_log(qr/certificate of the server refused.*:$port[2]/, 5),
   'the log says why');


# names in place of addresses

for my $server (@servers) {
    $server->connect(die => 1)->command('CONFIG', 'SET',
        'cluster-preferred-endpoint-type', 'hostname');
}

$n->reload;
check('hostname');

like($n->get('/health')->body, qr/"address":"n2\.test:$port[1]"/,
     'as it is announced');


# at the debug level nginx tells it, in lines of its own
$n->allow(qr/SSL_\w+\(\) failed/)
    if ($ENV{TEST_LOG_LEVEL} // '') eq 'debug';

done_testing();
