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
use IO::Socket::IP;
use Socket qw(AF_INET6 inet_aton inet_pton);

my $t = Coord->new;
my $redis = $t->redis;

# a DNS server that answers with the addresses in a file, or with NXDOMAIN

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
        my @ips = split ' ', slurp($answer);
        my @rrs;

        for my $ip (@ips) {
            my $bytes = $ip =~ /:/ ? inet_pton(AF_INET6, $ip) : inet_aton($ip);
            my $is = $ip =~ /:/ ? 28 : 1;

            push @rrs, pack('n3 N n', 0xc00c, $is, 1, 1, length $bytes)
                       . $bytes if $type == $is;
        }

        $dns->send(join '', pack('n6', $id, @ips ? 0x8180 : 0x8183, 1,
                                 scalar @rrs, 0, 0), $question, @rrs);
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

# several addresses: all are tried at each attempt, the first that answers is
# the server

spew($answer, '127.0.0.9 127.0.0.8 127.0.0.7 127.0.0.1');
my $from = length $n->log;

for (1 .. 4) {
    $redis->stop('KILL');
    $redis->run;
    ok($t->wait_for(\&decided, 10), 'found among others');
}

like(substr($n->log, $from), qr/server: 127\.0\.0\.[789]/,
     'which were tried as well');

# a name server that says nothing, for 30s: the last address is not that far

kill 'STOP', $pid;
$t->rest(1.5);

my $admin = $redis->connect;
my $began = $t->ran;

for (1 .. 2) {
    $admin->command('CLIENT', 'KILL', 'TYPE', 'normal');
    ok($t->wait_for(\&decided, 10), 'no answer for the name: the last address');
}

cmp_ok($t->ran - $began, '<', 8, 'soon');
kill 'CONT', $pid;

my @old = $n->reload;
ok($n->wait_gone(10, @old), 'a resolver keeps no old worker');

# IPv6: an address, and a name

SKIP: {
    my $six = IO::Socket::IP->new(Listen => 1, LocalHost => '::1')
        or skip('no IPv6 here', 4);
    close $six;

    $redis->stop('KILL');
    my $r6 = $t->redis('bind 127.0.0.1 ::1');
    spew($answer, '::1');

    for my $host ('[::1]', 'redis.test') {
        my $m = $t->node(name => $host eq 'redis.test' ? 'name6' : 'addr6',
                         http => <<"EOF")->start;
    resolver 127.0.0.1:%%DNS%% valid=1s;
    coord_store main { server redis://$host:$r6->{port};
                       timeout 5s; connect_timeout 1s; }
    coord_limit_req_zone \$arg_k zone=one:1m rate=1r/h;
    server { listen 127.0.0.1:%%PORT%%;
             location / { coord_limit_req zone=one; empty_gif; }
             location = /health { coord_health; } }
EOF
        ok($t->wait_for(sub { $m->get('/?k=' . rand)->header('RateLimit') },
                        10), "$host: decided");
        like($r6->connect->command('CLIENT', 'LIST'),
             qr/addr=\[::1\]:\d+ laddr=\[::1\]:$r6->{port} .*name=ngx_coord/,
             "$host: over IPv6");
        $m->stop;
    }
}

done_testing();
