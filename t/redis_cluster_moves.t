#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Slots of a cluster move, again and again, under places that are held, claims
# that run and blocks of places: never more than the limit, nothing twice, and
# nothing is left behind on any server.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Cluster;

use JSON::PP qw(decode_json);
use POSIX ();
use Time::HiRes qw(sleep time);

my $t = Coord->new(time_limit => 400);
my $cluster = Coord::Cluster->start($t, masters => 3);
my @servers = @{$cluster->{servers}};

my $o = $t->origin(default => sub {
    return { body => 'done', delay => 0.05 + rand(0.4) };
});

my @nodes = map { $t->node(name => $_, workers => 2, http => <<'EOC')->start }
    coord_store main { mode cluster; %%CLUSTER%%
                       timeout 2s; connect_timeout 2s; }

    map $uri $k { ~/(\w+)$ $1; }

    coord_limit_conn_zone $k zone=conn:1m lease=100s;
    coord_limit_conn_zone $k zone=line:1m lease=100s;
    coord_lock_zone $k zone=lock:1m lease=100s;
    coord_limit_req_zone $k zone=pre:1m rate=60r/h prefetch=16;
    coord_limit_req_zone $k zone=log:1m rate=60r/h algorithm=sliding_log;
    coord_idempotency_scope off;
    coord_idempotency_lease 100s;
    coord_idempotency_wait 5s;

    server {
        listen 127.0.0.1:%%PORT%%;
        coord_on_failure closed;
        add_header X-Status "$coord_limit_conn_status$coord_lock_status$coord_idempotency_status$coord_limit_req_status" always;

        location /conn { coord_limit_conn conn 2; proxy_pass http://%%ORIGIN%%; }
        location /line { coord_limit_conn line 2 wait=5s;
                         proxy_pass http://%%ORIGIN%%; }
        location /lock { coord_lock zone=lock wait=5s;
                         proxy_pass http://%%ORIGIN%%; }
        location /post { coord_idempotency on; proxy_pass http://%%ORIGIN%%; }
        location /pre { coord_limit_req zone=pre burst=59 nodelay; empty_gif; }
        location /log { coord_limit_req zone=log; empty_gif; }
        location = /health { coord_health; }
    }
EOC
    qw(a b);

my @keys = map { "k$_" } 1 .. 6;
my %slots = map { $_ => 1 } map { Coord::Cluster::slot_of($_) } @keys;


sub statuses {
    my %n;
    $n{$_->status}++ for @_;

    return \%n;
}


# all workers know all servers

for (1 .. 2) {
    $t->parallel([ map { my $n = $_;
                         map { $n->req("/pre/warm$_") } 1 .. 60 } @nodes ]);
    sleep(1.1);
}


my $mover = fork();
die "fork: $!" if !defined $mover;

if ($mover == 0) {
    while (1) {
        for my $slot (sort keys %slots) {
            my $from = $cluster->master($slot);
            my ($to) = grep { $_->{port} != $from->{port} } @servers;

            $cluster->begin_move($slot, $to);
            sleep(rand(0.3));
            $cluster->move_keys($slot, $to);
            sleep(rand(0.1));
            $cluster->move_keys($slot, $to);
            $cluster->end_move($slot, $to);
        }

        POSIX::_exit(0) if -e $t->file('over');
    }
}

my (%codes, %admitted);
my ($round, $slowest) = (0, 0);

sub round {
    my (@of) = @_;
    my @what;

    $round++;

    for my $key (@of) {
        for my $n (@nodes) {
            push @what, [ $_, $key, $n->req("/$_/$key") ]
                for qw(conn conn line lock), (qw(pre log)) x 6;
            push @what, [ 'post', $key,
                          $n->req("/post/$key", method => 'POST', body => 'b',
                                  headers => { 'Idempotency-Key' =>
                                                   "$key-$round" }) ]
                for 1, 2;
        }
    }

    my $start = $t->ran;
    my @r = $t->parallel([map { $_->[2] } @what], timeout => 40);
    my $took = $t->ran - $start;

    $slowest = $took if $took > $slowest;

    for my $i (0 .. $#what) {
        my ($what, $key) = @{$what[$i]};

        $codes{$what}{$r[$i]->status}++;
        $admitted{$what}{$key}++ if $r[$i]->status == 200;
    }
}

round(@keys) for 1 .. 12;

open(my $over, '>', $t->file('over')) or die;
close $over;
waitpid($mover, 0);
is($?, 0, 'the slots have moved');

note(explain(\%codes));
is_deeply([grep { $_->{503} } values %codes], [], 'nobody was told 503');


sub came {
    my ($key) = @_;

    return scalar grep { $_->{path} =~ m!^/(?:conn|line|lock)/$key$! }
                       $o->requests;
}


# slots that stay as they are in between, with some of their keys here and some
# there: nobody may have what needs both, and who holds something gives it back

for my $key (@keys[0 .. 2]) {
    my $slot = Coord::Cluster::slot_of($key);
    my $from = $cluster->master($slot);
    my ($to) = grep { $_->{port} != $from->{port} } @servers;

    # a place is given back behind the response

    ok($t->wait_for(sub { !left() }, 20), "$key: nobody holds anything")
        or diag(join "\n", left());

    my $before = came($key);
    my @held = map { my $n = $_;
                     map { my $c = $n->connect;
                           $c->send("GET /$_/$key HTTP/1.1\r\nHost: x\r\n"
                                    . "Connection: close\r\n\r\n");
                           $c } qw(conn line lock) } @nodes;

    # all of them, but for the second who wants the lock

    ok($t->wait_for(sub { came($key) - $before >= 5 }, 10),
       "$key: have what they asked for");

    $cluster->begin_move($slot, $to);

    my @there = @{$from->connect->command('CLUSTER', 'GETKEYSINSLOT', $slot,
                                          100)};
    $from->connect->command('MIGRATE', '127.0.0.1', $to->{port}, '', 0, 5000,
                            'KEYS', @there[grep { $_ % 2 } 0 .. $#there]);

    round($key) for 1 .. 2;
    is_deeply([grep { !/^(?:200|503)$/ }
                    map { $_->response(timeout => 20)->status } @held], [],
              "$key: half a slot: who holds or waits");

    $cluster->move_keys($slot, $to);
    $cluster->end_move($slot, $to);
}

note(explain(\%codes));
note("the slowest round: $slowest s");
cmp_ok($slowest, '<', 12, 'nobody waits for long');

for my $key (@keys) {
    cmp_ok($o->overlap("/conn/$key"), '<=', 2, "$key: places");
    cmp_ok($o->overlap("/line/$key"), '<=', 2, "$key: places that are waited for");
    cmp_ok($o->overlap("/lock/$key"), '<=', 1, "$key: the lock");
    cmp_ok($admitted{$_}{$key} || 0, '<=', 60, "$key: $_")
        for qw(pre log);
}

my %runs;

$runs{$_->{headers}{'idempotency-key'}[0]}++
    for grep { $_->{path} =~ /^\/post/ } $o->requests;

is_deeply([grep { $runs{$_} > 1 } sort keys %runs], [], 'nothing has run twice');

my @odd = grep { !/^(?:200|429|503|423|409)$/ }
          map { keys %{$codes{$_}} } keys %codes;
is_deeply(\@odd, [], 'no other answers');


# nothing is left behind

sub left {
    return map { my $server = $_;
                 map { "$server->{port} $_" }
                 grep { /^coord:(?:cc|lk):/ && !/:t$/ }
                 @{$server->connect->command('KEYS', '*')} } @servers;
}

ok($t->wait_for(sub { !left() }, 20), 'nothing is left behind')
    or diag(join "\n", left());

my @r = $t->parallel([ map { my $key = $_;
                             map { $nodes[0]->req("/$_/$key") }
                             qw(conn line lock) } @keys ], timeout => 40);
is_deeply(statuses(@r), { 200 => scalar @r }, 'all is to be had again');

my %again;

for my $key (sort keys %runs) {
    my ($path) = $key =~ /^(\w+)-/;
    my $r = $nodes[1]->post("/post/$path", 'b',
                            headers => { 'Idempotency-Key' => $key });
    $again{$r->status . ' ' . $r->header('X-Status')}++;
}

is_deeply(\%again, { '200 REPLAYED' => scalar keys %runs },
          'and all results are kept');


# one server of three takes no writes: that is told as long as it is asked, and
# what others take does not end it

sub health {
    my $r = $nodes[0]->get('/health');
    my $store = decode_json($r->body)->{stores}[0];

    return join ' ', $r->status, $store->{state}, $store->{refuses} || '-';
}

my ($here, $there) = map { $cluster->key_on($_, 'health') } @servers[0, 1];
my $admin = $servers[0]->connect(die => 1);

ok($t->wait_for(sub { health() eq '200 up -' }, 10), 'all servers are well')
    or diag(health());

$admin->command(qw(CONFIG SET min-replicas-to-write 1));
is($nodes[0]->get("/log/$here")->status, 503, 'one of them refuses');
is(health(), '200 degraded NOREPLICAS', 'which is shown');
is($nodes[0]->get("/log/$there")->status, 200, 'others are asked') for 1 .. 10;
is(health(), '200 degraded NOREPLICAS', 'which ends nothing');

$admin->command(qw(CONFIG SET min-replicas-to-write 0));
ok($t->wait_for(sub {
    $nodes[0]->get("/log/$here");
    return health() eq '200 up -';
}, 10), 'the first write that it takes does') or diag(health());

done_testing();
