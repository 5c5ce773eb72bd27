#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A store with a host name and a "resolver": looked up in the workers, again at
# each reconnect; a name that cannot be found stops nothing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp spew);
use IO::Socket::INET;

my $t = Coord->new;
my $redis = $t->redis;

# a DNS server that answers with the address in a file, or with NXDOMAIN

my $dns = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1')
    or die "udp: $!";
my $answer = $t->file('answer');
spew($answer, '');

my $pid = fork();
die "fork: $!" if !defined $pid;

if ($pid == 0) {
    while (defined $dns->recv(my $q, 512)) {
        my ($id, undef, $n) = unpack 'n3', $q;
        my ($name) = substr($q, 12) =~ /^((?:[^\0]+)\0)/s;
        my $question = substr($q, 12, length($name) + 4);
        my ($type) = unpack 'n', substr($question, -4, 2);
        my $ip = slurp($answer);

        my $rr = $ip && $type == 1
            ? pack('n3 N n', 0xc00c, 1, 1, 1, 4) . pack('C4', split /\./, $ip)
            : '';

        $dns->send(pack('n6', $id, $ip ? 0x8180 : 0x8183, 1, $rr ? 1 : 0, 0, 0)
                   . $question . $rr);
    }
    exit 0;
}

$t->track($pid);
$t->set(DNS => $dns->sockport);

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    resolver 127.0.0.1:%%DNS%% ipv6=off valid=1s;
    coord_store main { server redis://redis.test:%%REDIS_PORT%%;
                       timeout 5s; connect_timeout 1s; }
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    server { listen 127.0.0.1:%%PORT%%;
             location / { coord_limit_req zone=one; empty_gif; } }
EOF

sub decided { return $n->get('/?k=' . rand)->header('RateLimit') }

is($n->get('/?k=a')->status, 200, 'no such name: the request goes on');
ok($n->wait_log(qr/redis.test could not be resolved|could not be resolved/, 5),
   'and the log says why');
spew($answer, '127.0.0.1');
ok($t->wait_for(\&decided, 10), 'the name is there: Redis is used');

$redis->stop('KILL');
spew($answer, '');
$redis->run;
ok($t->wait_for(\&decided, 10), 'a lost name leaves the last address');

$redis->stop('KILL');
spew($answer, '127.0.0.9');
$t->wait_for(sub { $n->log =~ /server: 127\.0\.0\.9/ }, 10);
like($n->log, qr/server: 127\.0\.0\.9/, 'a new address is tried');
$redis->run;
spew($answer, '127.0.0.1');
ok($t->wait_for(\&decided, 15), 'and the next one');

my @old = $n->reload;
ok($n->wait_gone(10, @old), 'a resolver keeps no old worker');

done_testing();
