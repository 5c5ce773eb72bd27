#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# "make demo": two stock nginx nodes, one Redis and an origin on loopback, until
# Ctrl-C.  With DEMO_ONCE=1 it runs the curl lines that it prints, checks what
# they say, and does the same on one node without a coord_store.  TOPOLOGY=tls
# speaks TLS to Redis, TOPOLOGY=cluster has three masters, TOPOLOGY=sentinel a
# master, a replica and three sentinels: DEMO_ONCE=1 then loses the master.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../t/lib";

use Coord;
use Coord::Util qw(free_port slurp);
use IO::Socket::INET;

$| = 1;

my $once = $ENV{DEMO_ONCE};
my $failed = 0;

my $t = Coord->new(time_limit => $once ? 120 : 1000000000);
$SIG{INT} = $SIG{TERM} = sub { exit 0 } if !$once;

my $conf = slurp("$FindBin::Bin/demo.conf");

my $topology = $ENV{TOPOLOGY} || 'one';
my (@redis, $sentinels);

if ($topology eq 'cluster') {
    require Coord::Cluster;

    @redis = @{Coord::Cluster->start($t, masters => 3)->{servers}};
    $conf =~ s/server +%%REDIS%%;/mode cluster; %%CLUSTER%%/;

} elsif ($topology eq 'sentinel') {
    require Coord::Sentinel;

    $sentinels = Coord::Sentinel->start($t);
    @redis = @{$sentinels->{servers}};
    my $lines = $sentinels->lines . ' mode sentinel=mymaster;';
    $conf =~ s/server +%%REDIS%%;/$lines/ or die 'demo.conf has no store';

} elsif ($topology eq 'tls') {
    require Coord::TLS;

    my $tls = Coord::TLS->new($t->dir);
    my $port = free_port();

    $tls->cert('redis', san => 'IP:127.0.0.1');
    @redis = $t->redis($tls->redis('redis', $port, 'tls-auth-clients no'));
    my $lines = "server rediss://127.0.0.1:$port; ssl_trusted_certificate "
        . $tls->file('ca.pem') . ';';
    $conf =~ s/server +%%REDIS%%;/$lines/ or die 'demo.conf has no store';

} elsif ($topology eq 'one') {
    @redis = $t->redis;

} else {
    die "TOPOLOGY is one, tls, sentinel or cluster\n";
}

$t->origin(default => sub {
    my ($req) = @_;
    return { body => "the origin answers request $req->{n}\n" };
});

my ($n1, $n2) = map {
    $t->node(name => "node$_", port => usable(8080 + $_), workers => 2,
             conf => $conf)->start;
} 1, 2;

my ($u1, $u2) = map { $_->url } $n1, $n2;
my $key = '-H "X-Api-Key: alice"';

my @lines = (
    [ 'four requests for one key, the nodes in turn: the limit is 3 at once',
      "for url in $u1 $u2 $u1 $u2; do"
      . " curl -s -o /dev/null -w '%{http_code} ' $key \$url; done; echo",
      qr/^200 200 200 429 $/ ],

    [ 'node 2 refuses what it never saw itself, and says until when',
      "curl -s -i $key $u2",
      qr/^HTTP\/1.1[ ]429[ ] .*^Retry-After:[ ]\d+\r$
         .*^RateLimit-Policy:[ ]"demo";q=\d+;w=\d+\r$/msx ],

    [ 'one POST sent to both nodes: it runs once, node 2 replays the answer',
      "for url in ${u1}orders ${u2}orders; do curl -s -i $key"
      . " -H 'Idempotency-Key: \"order-17\"' -d amount=10 \$url"
      . " | grep -iE '^HTTP|^Idempotency|^the origin'; done",
      qr/\AHTTP\/1.1[ ]200[^\n]*\n(the[ ]origin[ ]answers[ ]request[ ]\d+\n)
         HTTP\/1.1[ ]200[^\n]*\nIdempotency-Replayed:[ ]true\r?\n\1\z/x ],
);

if ($once) {
    once();

} else {
    interactive();
}

exit $failed;


# the wanted port, or any if it is taken

sub usable {
    my ($port) = @_;

    my $sock = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
                                     LocalPort => $port, Listen => 1);

    return $sock ? $port : undef;
}


sub interactive {
    print "\n    node 1   $u1\n    node 2   $u2\n",
          "    status   ${u1}coord\n",
          map({ "    Redis    127.0.0.1:$_->{port}"
                . "   redis-cli -p $_->{port} monitor\n" } @redis), "\n";

    for my $line (@lines) {
        print "# $line->[0]\n$line->[1]\n\n";
    }

    print "Ctrl-C ends it all.\n";
    sleep 1000 while 1;
}


sub once {
    check(@$_) for @lines;

    lose_master() if $sentinels;

    # the same configuration on one node's memory

    (my $local = $conf) =~ s/^    coord_store .*?^    \}\n//ms
        or die 'demo.conf has no coord_store';

    my $n3 = $t->node(name => 'node3', workers => 2, conf => $local)->start;

    # nothing here may come from Redis
    $_->stop for @redis;

    my $url = $n3->url;

    check('without a coord_store: four requests to one node',
          "for i in 1 2 3 4; do curl -s -o /dev/null -w '%{http_code} ' $key"
          . " $url; done; echo", qr/^200 200 200 429 $/);

    my ($late, $bad) = $t->finish;

    if (@$late || @$bad) {
        print "not ok: ", join("\n        ", @$late, @$bad), "\n";
        $failed = 1;
    }

    print $failed ? "demo: failed\n" : "demo: ok\n";
}


sub decides {
    my ($n) = @_;

    return defined $n->get('/', headers => { 'X-Api-Key' => rand })
                     ->header('RateLimit');
}


# the replica takes over, and both nodes follow

sub lose_master {
    $sentinels->master->stop('KILL');

    my $ok = $sentinels->failed_over(20) && $t->wait_for(sub {
        decides($n1) && decides($n2)
    }, 5);

    print "# the master is killed, its replica is promoted\n",
          $ok ? "both nodes decide there\n\n" : "not ok\n\n";

    $failed = 1 if !$ok;
}


sub check {
    my ($text, $command, $want) = @_;

    my $out = `$command`;

    print "# $text\n$command\n$out\n";

    if ($out !~ $want) {
        print "not ok: expected $want\n\n";
        $failed = 1;
    }
}
