#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A cluster of three masters and three replicas that changes under load: slots
# move, a master dies and its replica takes over.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Cluster;
use JSON::PP qw(decode_json);
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $cluster = Coord::Cluster->start($t, masters => 3, replicas => 1);
my @servers = @{$cluster->{servers}};
my $origin = $t->origin;

my $conf = <<'EOF';
    coord_store main { mode cluster; %%CLUSTER%%
                       timeout 5s; connect_timeout 5s; }

    coord_limit_req_zone $arg_k zone=rate:1m rate=5r/h;
    coord_limit_req_zone $arg_k zone=wide:1m rate=10000r/s;
    coord_limit_conn_zone $arg_k zone=conn:1m;
    coord_limit_conn_zone $arg_k zone=line:1m;
    coord_session_zone $arg_s zone=session:1m;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /rate { coord_limit_req zone=rate burst=4 nodelay;
                         empty_gif; }
        location /strict { coord_limit_req zone=rate burst=4 nodelay
                                           on_failure=closed;
                           empty_gif; }
        location /wide { coord_limit_req zone=wide burst=10000 nodelay
                                         on_failure=closed;
                         empty_gif; }
        location /place { coord_limit_conn conn 2 on_failure=closed;
                          empty_gif; }
        location /conn { coord_limit_conn conn 2;
                         proxy_pass http://%%ORIGIN%%; }
        location /line { coord_limit_conn line 1 wait=1s on_failure=closed;
                         empty_gif; }
        location = /health { coord_health; }
    }
EOF

my ($a, $b) = map { $t->node(name => $_, workers => 2, http => $conf)->start }
                  qw(a b);


sub statuses {
    my %n;
    $n{$_->status}++ for @_;

    return \%n;
}


# keys of one slot

sub keys_of {
    my ($slot, $n) = @_;

    my @keys;

    for (my $i = 0; @keys < $n; $i++) {
        push @keys, "k$i" if Coord::Cluster::slot_of("k$i") == $slot;
    }

    return @keys;
}


# all workers know all servers, and their clocks

for (1 .. 2) {
    $t->parallel([ map { my $k = $_;
                         map { $_->req("/rate?k=warm$k") } $a, $b } 1 .. 100 ]);
    sleep(1.1);
}


# the server that was looked at is one of those, and its replica another

ok($t->wait_for(sub {
    my $store = decode_json($a->get('/health')->body)->{stores}[0];
    my %port = map { /:(\d+)$/ ? ($1 => 1) : () }
                   $store->{server}{address} || '',
                   map { $_->{address} } @{$store->{server}{replicas} || []};

    return 1 == grep { $port{$servers[$_]{port}}
                       && $port{$servers[$_ + 3]{port}} } 0 .. 2;
}, 5), 'health: one master and its replica');


# a slot that moves: keys that are still there, keys that have gone, new keys

my $slot = $cluster->slot('k0');
my ($there, $gone, $new, $after) = keys_of($slot, 4);
my ($to) = grep { $_->{port} != $cluster->master($slot)->{port} }
                @servers[0 .. 2];

is($a->get("/strict?k=$_")->status, 200, 'before the slot moves')
    for $there, $gone;
is($_->get("/line?k=$there")->status, 200, 'a place, too') for $a, $b;

$cluster->master($slot)->connect(die => 1)
        ->command('ZADD', "coord:cc:conn:{$there}", 2 ** 52, 'one',
                  2 ** 52, 'two');

my $from = $cluster->begin_move($slot, $to);

$from->connect(die => 1)->command('MIGRATE', '127.0.0.1', $to->{port},
                                  "coord:rl:rate:{$gone}", 0, 5000);

is_deeply(statuses(map { $_->get("/strict?k=$there") } ($a, $b) x 3),
          { 200 => 4, 429 => 2 }, 'a key that is still there');
is_deeply(statuses(map { $_->get("/strict?k=$gone") } ($a, $b) x 3),
          { 200 => 4, 429 => 2 }, 'a key that has gone ahead');
is_deeply(statuses(map { $_->get("/strict?k=$new") } ($a, $b) x 4),
          { 200 => 5, 429 => 3 }, 'a new key');
is($to->connect->command('CLUSTER', 'COUNTKEYSINSLOT', $slot), 2,
   'which lies where the slot goes');

# leases of one key and of no other

is_deeply(statuses(map { $_->get("/place?k=$there") } $a, $b), { 429 => 2 },
          'places that are taken where the slot comes from');
is_deeply(statuses(map { $_->get("/place?k=$new") } $a, $b), { 200 => 2 },
          'a place that nobody had');

# who may wait for a place takes several keys, which are not all there: again
# and again, but not for longer than there is time, and less and less often

my $c = $t->node(name => 'c', http => <<'EOF')->start;
    coord_store main { mode cluster; %%CLUSTER%% connect_timeout 5s;
                       timeout 3s; breaker failures=5 cooldown=1h; }
    coord_limit_conn_zone $arg_k zone=line:1m;

    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_conn line 1 wait=9s on_failure=closed;
                     empty_gif; }
    }
EOF

ok($t->wait_for(sub { $c->get("/?k=warm1")->status == 200 }, 10),
   'a node with less time');

$_->connect->command('CONFIG', 'RESETSTAT') for $from, $to;

sub refused {
    return map { $_->connect->command('INFO', 'commandstats')
                     =~ /^cmdstat_exec:.*rejected_calls=(\d+),
                         failed_calls=(\d+)/mx ? $1 + $2 : 0 } $from, $to;
}

is($c->get("/?k=$there")->status, 503, 'a place goes by on_failure');
ok($c->wait_log(qr/TRYAGAIN Multiple keys request/, 5), 'in its own words');

# in 3 s: at once, and 2, 6, 14, .. 2046 ms later

my @first = refused();

for my $n (@first) {
    cmp_ok($n, '>', 2, "asked of each of the two servers $n times");
    cmp_ok($n, '<=', 11, 'which is not often');
}

# nothing of it comes later; as it was in vain the next ones do not wait

is($c->get("/?k=$there")->status, 503, 'and then at once') for 1 .. 3;
$t->rest(0.5);
is_deeply([ refused() ], [ map { $_ + 3 } @first ], 'asked once each time');

# until the slot has moved

my $mover = fork();
die "fork: $!" if !defined $mover;

if ($mover == 0) {
    sleep(0.3);
    $cluster->move_keys($slot, $to);
    $cluster->end_move($slot, $to);
    POSIX::_exit(0);
}

is_deeply(statuses($t->parallel([ map { $_->req("/line?k=$there") }
                                      ($a, $b) x 3 ])),
          { 200 => 6 }, 'those who have the time wait for that');

waitpid($mover, 0);
is($?, 0, 'the slot has moved');

is($_->get("/line?k=$there")->status, 200, 'and a place is to be had again')
    for $a, $b;
is($c->get("/?k=$there")->status, 200, 'by those who did not wait, too');
is_deeply(statuses(map { $_->get("/place?k=$there") } $a, $b), { 429 => 2 },
          'places that have moved');

for my $k ($there, $gone, $new) {
    is_deeply(statuses(map { $_->get("/strict?k=$k") } $a, $b), { 429 => 2 },
              'as refused as before');
}

is_deeply(statuses(map { $_->get("/strict?k=$after") } ($a, $b) x 4),
          { 200 => 5, 429 => 3 }, 'a key after that');


# many slots move while requests come

{
    my @keys = map { "load$_" } 1 .. 40;
    my (%slots, @moves);

    for my $slot (map { Coord::Cluster::slot_of($_) } @keys) {
        my $first = $cluster->master($slot)->{port} == $servers[0]{port};

        push @{$moves[$first ? 1 : 0]}, $slot if !$slots{$slot}++;
    }

    my $mover = fork();
    die "fork: $!" if !defined $mover;

    if ($mover == 0) {
        for my $to (0, 1) {
            for my $slot (@{$moves[$to]}) {
                $cluster->begin_move($slot, $servers[$to]);
                $cluster->move_keys($slot, $servers[$to]);
                $cluster->end_move($slot, $servers[$to]);
            }
        }

        POSIX::_exit(0);
    }

    my (@all, %ok);

    for (1 .. 8) {
        my @requests = map { my $node = rand() < 0.5 ? $a : $b;
                             $node->req("/strict?k=$_") } @keys;
        my @responses = $t->parallel(\@requests);

        push @all, @responses;

        for my $i (0 .. $#keys) {
            $ok{$keys[$i]}++ if $responses[$i]->status == 200;
        }
    }

    waitpid($mover, 0);
    is($?, 0, 'all slots have moved');

    is_deeply(statuses(@all), { 200 => 200, 429 => 120 },
              'nobody got another answer');
    is(scalar(grep { $_ == 5 } values %ok), 40, '5 of 8 for each key');
}


# a slot that nobody has: by default all of the server is down

{
    my $server = $servers[1];
    my $key = $cluster->key_on($server, 'down');
    my $slot = Coord::Cluster::slot_of($key);
    my ($then, @new) = keys_of($slot, 2);
    my $other = $cluster->key_on($servers[2], 'up');
    my $admin = $server->connect(die => 1);

    is($a->get("/strict?k=$key")->status, 200, 'before the slot is lost');

    $admin->command('CLUSTER', 'DELSLOTS', $slot);

    ok($t->wait_for(sub { $a->get("/strict?k=$key")->status == 503
                          && $b->get("/strict?k=$key")->status == 503 }, 5),
       'its keys go by on_failure');
    is($_->get("/rate?k=$key")->status, 200, 'open as well') for ($a, $b) x 6;
    ok($_->wait_log(qr/CLUSTERDOWN (?:The cluster is down|Hash slot not)/, 5),
       'in the words of the server') for $a, $b;
    is_deeply(statuses(map { $_->get("/strict?k=$other") } ($a, $b) x 4),
              { 200 => 5, 429 => 3 }, 'others are exact');

    $admin->command('CLUSTER', 'ADDSLOTS', $slot);

    all_decide($key, 'until it has a server again');
    is($_->get("/strict?k=$new[0]")->status, 200,
       'nobody is refused a new key from what a node remembers') for $a, $b;
    is_deeply(statuses(map { $_->get("/strict?k=$then") } ($a, $b) x 4),
              { 200 => 5, 429 => 3 }, 'and then they are exact');
}


# a master dies: its replica takes over

my $dead = $servers[0];
my $key = $cluster->key_on($dead, 'f');

# one node has its name alone

(my $alone = $conf) =~ s/%%CLUSTER%%/server redis:\/\/127.0.0.1:$dead->{port};/;

my $lone = $t->node(name => 'lone', workers => 2, http => $alone)->start;

ok($t->wait_for(sub {
    defined $lone->get('/rate?k=alone' . rand)->header('RateLimit')
}, 5), 'a node whose configuration has the name of one server');

$dead->stop('KILL');

ok($t->wait_for(sub {
    my $redis = $servers[3]->connect;
    return $redis->command('ROLE')->[0] eq 'master'
           && $redis->command('CLUSTER', 'INFO') =~ /cluster_state:ok/;
}, 20), 'the replica is the master');

my $promoted = $t->ran;

all_decide($key, 'and answers');
cmp_ok($t->ran - $promoted, '<', 4, 'soon');

for my $i (1 .. 6) {
    my ($try, @responses) = (0);

    # where Redis has no answer in time, requests pass without one

    $t->wait_for(sub {
        $try++;
        @responses = map { $_->get("/rate?k={$key}$i-$try") } ($a, $b) x 4;

        return !grep { !defined $_->header('RateLimit') } @responses;
    });

    is_deeply(statuses(@responses), { 200 => 5, 429 => 3 }, 'exact again');
}


# all workers of both nodes have found the server of the key, each by itself: who
# takes connections that come one by one is not always among those that come
# together; one that is never refused, for a node remembers that without a server

sub all_decide {
    my ($key, $name) = @_;

    my $found = 0;

    ok($t->wait_for(sub {
        my @responses = $t->parallel([ map { ($_->req("/wide?k=$key")) x 12 }
                                           $a, $b ]);

        push @responses, map { $_->get("/wide?k=$key") } ($a, $b) x 6;

        $found = (grep { $_->status == 503 } @responses) ? 0 : $found + 1;

        return $found == 3;
    }, 10), $name);
}


# workers that start now find none of those that the configuration names

sub exact_from_the_start {
    my ($name) = @_;

    my @responses;

    # a worker of the other node may ask for the map a second later

    ok($t->wait_for(sub {
        my $k = 'start' . rand;

        @responses = map { $_->get("/strict?k=$k") } ($lone, $b) x 4;

        return !grep { !defined $_->header('RateLimit') } @responses;
    }, 10), "$name: they ask those that the last ones knew");

    is_deeply(statuses(@responses), { 200 => 5, 429 => 3 },
              "$name: exact, with other nodes");
}

$lone->wait_gone(20, $lone->reload);
exact_from_the_start('a reload');

$lone->kill_worker('KILL', $_) for $lone->workers;
exact_from_the_start('workers that were killed');

done_testing();
