#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# mode cluster: keys on three masters, two nodes with several workers each;
# limits are as exact as with one server.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Cluster;
use JSON::PP;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $cluster = Coord::Cluster->start($t, masters => 3);
my @servers = @{$cluster->{servers}};
my $origin = $t->origin;

# one seed is enough

$t->set(SEED => $servers[2]{port});

my $conf = <<'EOF';
    log_format s '$status $request_uri rl=$coord_limit_req_status '
                 'cc=$coord_limit_conn_status id=$coord_idempotency_status '
                 'ss=$coord_session_status src=$coord_limit_req_source';
    access_log %%NODEDIR%%/access.log s;

    coord_store main { mode cluster; server redis://127.0.0.1:%%SEED%%;
                       timeout 2s; connect_timeout 2s; }

    coord_limit_req_zone $arg_k zone=rate:1m rate=5r/h;
    coord_limit_req_zone $arg_b zone=bare:1m rate=3r/h algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=window:1m rate=5r/h
                         algorithm=sliding_window;
    coord_limit_req_zone $arg_k zone=log:1m rate=5r/h algorithm=sliding_log;
    coord_limit_conn_zone $arg_k zone=conn:1m;
    coord_lock_zone $arg_k zone=lock:1m lease=5s;
    coord_session_zone $arg_s zone=session:1m;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /rate { coord_limit_req zone=rate burst=4 nodelay;
                         empty_gif; }
        location /window { coord_limit_req zone=window; empty_gif; }
        location /log { coord_limit_req zone=log; empty_gif; }
        location /conn { coord_limit_conn conn 2;
                         proxy_pass http://%%ORIGIN%%; }
        location /lock { coord_lock zone=lock wait=20s;
                         proxy_pass http://%%ORIGIN%%; }
        location /session { coord_session zone=session bind=$arg_v
                                          user=$arg_u;
                            add_header X-Value $coord_session_value;
                            empty_gif; }
        location /post { coord_idempotency on; coord_idempotency_scope off;
                         coord_idempotency_wait 10s;
                         proxy_pass http://%%ORIGIN%%; }
        location /all { coord_limit_req zone=rate burst=4 nodelay;
                        coord_limit_req zone=bare;
                        coord_limit_conn conn 100;
                        coord_session zone=session bind=$arg_v;
                        coord_idempotency on; coord_idempotency_scope off;
                        proxy_pass http://%%ORIGIN%%; }
        location = /health { coord_health; }
        location = /status { coord_status; }
        location /api/ { coord_api write; }
    }
EOF

my ($a, $b) = map { $t->node(name => $_, workers => 3, http => $conf)->start }
                  qw(a b);


sub statuses {
    my %n;
    $n{$_->status}++ for @_;

    return \%n;
}


# a database is not to be had

like($t->conf_error(http => 'coord_store x { mode cluster;
                             server redis://127.0.0.1:1/2; }'),
     qr/database 2: in "mode cluster" there is only 0/, 'no database');


# all workers know all servers, and their clocks

for (1 .. 3) {
    $t->parallel([ map { my $k = $_;
                         map { $_->req("/log?k=warm$k") } $a, $b } 1 .. 100 ]);
    sleep(1.1);
}


# each of many keys has its five requests, whatever server it is on

for my $what (qw(rate window log)) {
    my (@requests, @keys);

    # clocks may be apart by less than this takes

    my @first = $t->parallel([ map { $a->req("/$what?k=$what$_") } 1 .. 60 ]);

    is_deeply(statuses(@first), { 200 => 60 }, "$what: the first ones");

    for my $i (1 .. 60) {
        for my $n (1 .. 7) {
            my $node = ($i + $n) % 2 ? $a : $b;

            push @keys, $i;
            push @requests, $node->req("/$what?k=$what$i");
        }
    }

    my %ok;
    my @responses = $t->parallel(\@requests);

    for my $i (0 .. $#responses) {
        $ok{$keys[$i]}++ if $responses[$i]->status == 200;
    }

    is(scalar(grep { $_ == 4 } values %ok), 60,
       "$what: 4 of 7 more for each of 60 keys")
        or diag(explain(statuses(@responses)));
}

for my $server (@servers) {
    cmp_ok($server->connect->command('DBSIZE'), '>', 20,
           'every server has keys');
}


# new workers know of no server yet: their first requests wait for the map

for my $n (1 .. 3) {
    $a->reload;

    is_deeply(statuses($a->parallel(30, '/rate?k=rate' . $n)), { 429 => 30 },
              'refused by new workers, too');
}


# what is told of it

sub topology {
    my ($node) = @_;

    return decode_json($node->get('/health')->body)->{stores}[0];
}

my $told = topology($b);

is($told->{state}, 'up', 'the store is up');
is($told->{topology}{mode}, 'cluster', 'a cluster');
is(scalar @{$told->{topology}{servers}}, 3, 'of three servers');
is_deeply([ sort map { $_->{slots} }
                                   @{$told->{topology}{servers}} ],
          [ 5461, 5461, 5462 ], 'with their slots');
is_deeply([ sort map { $_->{address} } @{$told->{topology}{servers}} ],
          [ sort map { "127.0.0.1:$_->{port}" } @servers ], 'by address');
is(scalar(grep { $_->{role} eq 'master' } @{$told->{topology}{servers}}), 3,
   'masters');


# places that are held, and what waits in line, on each of the servers

for my $server (@servers) {
    my $key = $cluster->key_on($server, 'c');

    my @responses = $t->parallel([ map {
        $_->req("/conn?k=$key&delay=1"), $_->req("/conn?k=$key&delay=1")
    } $a, $b ]);

    is_deeply(statuses(@responses), { 200 => 2, 429 => 2 },
              'two of four at once');
    is($b->get("/conn?k=$key")->status, 200, 'and then they are free');

    $origin->reset_counters;

    @responses = $t->parallel([ map {
        ($_->req("/lock?k=$key&delay=0.1")) x 3
    } $a, $b ]);

    is_deeply(statuses(@responses), { 200 => 6 }, 'all have had the lock');
    is($origin->overlap('/lock'), 1, 'one at a time');

    # wake-ups come over whatever server

    my ($r) = map { @$_ } [ $t->parallel([
        $a->req("/lock?k=$key&delay=0.5"), $b->req("/lock?k=$key") ]) ];

    is($r->status, 200, 'the next one waits for the first');
}


# one execution, replayed from both nodes

for my $server (@servers) {
    my $key = $cluster->key_on($server, 'p');

    $origin->reset_counters;

    my @responses = $t->parallel([ map {
        $_->req('/post?delay=0.3', method => 'POST', body => 'x',
                headers => { 'Idempotency-Key' => "post-$key" })
    } ($a, $b) x 3 ]);

    is_deeply(statuses(@responses), { 200 => 6 }, 'all have an answer');
    is($origin->count('/post'), 1, 'of one execution');
}


# sessions, with an index of the user that lies elsewhere

for my $i (1 .. 6) {
    is($a->get("/session?s=s$i&v=v$i&u=u")->header('X-Value'), "v$i",
       'a session is bound');
    is($b->get("/session?s=s$i&u=u")->status, 403, 'an empty one differs');
    is($b->get("/session?s=s$i&v=v$i&u=u")->header('X-Value'), "v$i",
       'and it is found');
}

is($a->request('DELETE', '/api/users/session/u')->status, 200,
   'all of a user are ended');

for my $i (1 .. 6) {
    is($b->get("/session?s=s$i&v=v$i&u=u")->status, 403, 'on every server');
}


# all on one location, with keys on three servers; what one refuses the
# others do not count

my %on = map { my $s = $_; $_ => $cluster->key_on($servers[$_], 'all') } 0 .. 2;

for my $n (1 .. 5) {
    my $r = $a->post("/all?k=$on{0}&b=$on{1}&s=$on{2}&v=1", 'x',
                     headers => { 'Idempotency-Key' => "all-$n" });
    is($r->status, $n <= 3 ? 200 : 429, "all features, request $n");
}

# what is given back comes behind the answer

ok($t->wait_for(sub {
    $b->get("/api/limits/rate/$on{0}")->body =~ /"remaining": ?2\b/ }, 10),
   'what was refused was not counted');

for my $n (1 .. 3) {
    my $r = $b->post("/all?k=$on{0}&b=other&s=$on{2}&v=1", 'x',
                     headers => { 'Idempotency-Key' => "all-rest-$n" });
    is($r->status, $n <= 2 ? 200 : 429, 'the rest of the rate is there');
}


# a master that dies costs its own keys alone, and they by on_failure

my $dead = $servers[0];
my %key = map { $_ => $cluster->key_on($servers[$_], 'd') } 0 .. 2;

is($a->get("/rate?k=$key{$_}")->status, 200, 'before') for 0 .. 2;

kill 'STOP', $dead->{pid};
$dead->stop('KILL');

for my $server (1, 2) {
    my @responses = map { $_->get("/rate?k=$key{$server}") } ($a, $b) x 3;

    is_deeply(statuses(@responses), { 200 => 4, 429 => 2 },
              'the others are exact');
}

is($a->get("/rate?k=$key{0}")->status, 200, 'open') for 1 .. 8;

ok($t->wait_for(sub {
    my $told = topology($a);

    # another one answers for it

    return $told->{state} eq 'degraded'
           && !$told->{trouble} && $told->{server}{version}
           && grep { $_->{state} eq 'down' && $_->{slots} }
                   @{$told->{topology}{servers}};
}, 10), 'the store is degraded, one server is down');


done_testing();
