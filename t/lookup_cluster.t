#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Look-ups in a cluster: keys of all masters, changed on two nodes with two
# workers each, while slots move and when a master is lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Cluster;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $cluster = Coord::Cluster->start($t, masters => 3);
my @servers = @{$cluster->{servers}};

$t->set(SEED => $servers[0]{port});

my @nodes = map { $t->node(name => $_, workers => 2, http => <<'EOF')->start }
    coord_store main { mode cluster; server redis://127.0.0.1:%%SEED%%;
                       timeout 2s; connect_timeout 2s; }
    coord_limit_req_zone $arg_l zone=l:1m rate=1000r/s;
    coord_lookup $value $arg_k ttl=1h negative_ttl=1h default=none;

    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        keepalive_timeout 0;
        add_header X-Value $value always;
        add_header X-Pid $pid always;
        location / { empty_gif; }
        location /l { coord_limit_req zone=l burst=99 nodelay; empty_gif; }
    }
EOF
    qw(a b);


sub values_of {
    my ($key) = @_;
    my %values;

    for my $node (@nodes) {
        my %seen;
        for (1 .. 60) {
            my $res = $node->get("/?k=$key");
            next if !$res->status;
            $seen{$res->header('x-pid')} = 1;
            $values{$res->header('x-value') || ''} = 1;
            last if keys %seen == 2 && $_ >= 8;
        }
    }

    return join(' ', sort keys %values);
}


sub within {
    my ($key, $value, $name, $seconds) = @_;

    my $start = $t->ran;
    my ($is, $began);

    # who looks when it is over sees it

    do {
        sleep 0.02;
        $began = $t->ran;
        $is = values_of($key);
    } while $is ne $value && $began - $start < ($seconds || 2);

    is($is, $value, $name);
}


sub master_of { $cluster->master($cluster->slot($_[0])) }

my @keys = map { $cluster->key_on($_, 'val:', '') } @servers[0 .. 2];

# who hears of the keys of a server: who has read one of them

sub trackers {
    return $_[0]->connect->command('PUBSUB', 'NUMSUB',
                                   '__redis__:invalidate')->[1];
}

for my $l (map { $cluster->key_on($_, 'limit') } @servers) {
    is($_->get("/l?l=$l")->status, 200, "a limit: $l") for (@nodes) x 4;
}

is(values_of($keys[0]), 'none', 'a key of the first server');
ok($t->wait_for(sub { values_of($keys[0]); trackers($servers[0]) >= 2 }, 10),
   'its changes are told to both nodes');
is(join(' ', map { trackers($_) } @servers[1, 2]), '0 0',
   'those of the others to nobody');

for my $key (@keys) {
    my $r = master_of($key)->connect;

    is(values_of($key), 'none', "$key: nothing is there");
    $r->command('SET', $key, 'one');
    within($key, 'one', 'written', 5);
    $r->command('SET', $key, 'two');
    within($key, 'two', 'changed');

    ok(scalar(grep { / flags=\w*t/ } split /\n/,
              $r->command('CLIENT', 'LIST')),
       'connections to its server are tracked');

    my $watch = master_of($key)->watch;
    values_of($key);
    is($watch->calls('get'), 0, 'and not asked for in between');
}

# a slot moves

my $key = $keys[0];
my $slot = $cluster->slot($key);

$cluster->begin_move($slot, $servers[1]);
$cluster->move_keys($slot, $servers[1]);
within($key, 'two', 'while its slot moves');
$cluster->end_move($slot, $servers[1]);
$servers[1]->connect->command('SET', $key, 'three');
within($key, 'three', 'written on its new server', 5);
$servers[1]->connect->command('SET', $key, 'four');
within($key, 'four', 'and changed there');

$_->allow(qr/coord redis/) for @nodes;

done_testing();
