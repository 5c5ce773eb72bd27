#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Sentinel where all speak TLS: nginx with the sentinel and with the master that
# it names, before and after a failover.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::TLS;
use Coord::Util qw(free_port);

my $t = Coord->new(time_limit => 120);
my $tls = Coord::TLS->new($t->dir);

$tls->cert('good', san => 'IP:127.0.0.1');
$tls->cert('wrong', san => 'IP:127.0.0.1', ca => 'other');

my @port = map { free_port() } 1 .. 4;

sub secure {
    my ($name, $port, @more) = @_;

    return $t->redis($tls->redis($name, $port, 'tls-auth-clients no',
                                 'tls-replication yes'), @more);
}

my @conf = ('repl-diskless-sync-delay 0', 'repl-ping-replica-period 1');
my $master = secure('good', $port[0], @conf);
my $replica = secure('good', $port[1], @conf,
                     "replicaof 127.0.0.1 $port[0]");

ok($t->wait_for(sub { $replica->connect->command('INFO', 'replication')
                      =~ /master_link_status:up/ }, 20), 'a replica');

my @sentinel = ("sentinel monitor mymaster 127.0.0.1 $port[0] 1",
                'sentinel down-after-milliseconds mymaster 500',
                'sentinel failover-timeout mymaster 3000', '--sentinel');
my $sentinel = secure('good', $port[2], @sentinel);

ok($t->wait_for(sub { $sentinel->connect->command('INFO', 'sentinel')
                      =~ /status=ok,address=\S+,slaves=1,/ }, 20),
   'a sentinel knows both');

$t->set(CA => $tls->file('ca.pem'), SENTINEL => $port[2]);

my $http = <<'EOF';
    coord_store main { server rediss://127.0.0.1:%%SENTINEL%%;
                       mode sentinel=mymaster; timeout 1s; connect_timeout 1s;
                       ssl_trusted_certificate %%CA%%; }
    coord_limit_req_zone $arg_k zone=one:1m rate=2r/h;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_req zone=one burst=1 nodelay
                                     on_failure=closed;
                     empty_gif; }
    }
EOF

my $n = $t->node(name => 'n', workers => 1, http => $http)->start;

sub decides {
    my ($seconds) = @_;

    return $t->wait_for(sub { $n->get('/?k=' . rand)->status == 200 },
                        $seconds);
}


# where nginx has come in: the port without TLS is that of the test

sub ports {
    my ($redis) = @_;

    my %seen = map { /laddr=\S+:(\d+)/ ? ($1 => 1) : () }
               grep { /name=ngx_coord/ }
               split /\n/, $redis->connect->command('CLIENT', 'LIST');

    return join ' ', sort keys %seen;
}

ok(decides(10), 'the master is found');
is_deeply([ map { $n->get('/?k=a')->status } 1 .. 4 ], [ 200, 200, 429, 429 ],
          'and decides');
is(ports($master), $port[0], 'over TLS');
is(ports($sentinel), $port[2], 'as it was asked for');


# the master is lost

$master->stop('KILL');

ok($t->wait_for(sub {
       my $got = $sentinel->connect->command('SENTINEL',
                                      'GET-MASTER-ADDR-BY-NAME', 'mymaster');
       return ref $got && $got->[1] == $port[1];
   }, 90), 'the replica is the master now');
ok(decides(10), 'which is found');
is_deeply([ map { $n->get('/?k=b')->status } 1 .. 4 ], [ 200, 200, 429, 429 ],
          'and decides');
is(ports($replica), $port[1], 'over TLS');
ok($n->wait_log(qr/the master is 127\.0\.0\.1:$port[1] now/, 5), 'it is told');


# a sentinel that is somebody else: it is not asked

my $false = secure('wrong', $port[3], @sentinel);

$t->set(SENTINEL => $port[3]);

my $w = $t->node(name => 'w', workers => 1, http => $http)->start;

is($w->get('/?k=c')->status, 503, 'a sentinel of another CA: no answer');
ok($w->wait_log(qr/certificate of the server refused.*:$port[3]/, 10),
   'the log says why');
is(ports($false), '', 'it was told nothing');

$_->allow(qr/coord redis|SSL_\w+\(\) failed/) for $n, $w;

done_testing();
