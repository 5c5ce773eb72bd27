#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# All features on one location of two nodes: one round trip before the access
# phase, one after it; what refuses gives the rest back; and nothing breaks
# while clients leave, workers die, Redis stops and nginx reloads.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => {
    '/*' => { body => 'x' x 3000, delay => 0.02 },
    '/few' => sub { return { hold => $_[0]{args}{held} } },
});

my @nodes = map {
    $t->node(name => $_, workers => 2, http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 2s; connect_timeout 2s; }
    coord_limit_req_zone $arg_k zone=rate:1m rate=1000000r/s;
    coord_limit_req_zone $arg_k zone=few:1m rate=5r/h algorithm=fixed_window;
    coord_limit_conn_zone $arg_k zone=conn:1m lease=2s;
    coord_limit_conn_zone $arg_k zone=one:1m lease=2s;
    coord_session_zone $arg_s zone=sess:1m ttl=1m;
    log_format s '$request_uri $status $coord_limit_req_status '
                 '$coord_limit_conn_status $coord_session_status '
                 '$coord_idempotency_status';
    access_log %%NODEDIR%%/access.log s;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;

        location / {
            coord_limit_req zone=rate burst=1000000 nodelay;
            coord_limit_conn conn 1000;
            coord_session zone=sess bind=$arg_b mismatch=reject;
            coord_idempotency on;
            coord_idempotency_scope $arg_k;
            proxy_pass http://%%ORIGIN%%;
        }

        location /few {
            coord_limit_req zone=few;
            coord_limit_conn one 1;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOF
} qw(a b);

my ($n, $m) = @nodes;


# round trips

my $c = $redis->connect;
my $uri = '/?k=u&s=s1&b=v1';

$n->post($uri, 'body', headers => { 'Idempotency-Key' => 'k0' });

my $watch = $redis->watch;
sleep(0.5);
$watch->seen;
is($n->post($uri, 'body', headers => { 'Idempotency-Key' => 'k1' })->status,
   200, 'all features allow');
sleep(0.5);
cmp_ok($watch->calls('exec'), '<=', 4, 'one transaction for limits and '
       . 'session, one for the claim, one for the result, one for the lease');

my $r = $m->post($uri, 'body', headers => { 'Idempotency-Key' => 'k1' });
is($r->status, 200, 'a replay on the other node');
is($r->header('Idempotency-Replayed'), 'true', 'said so');
is($m->get('/?k=u&s=s1&b=other')->status, 403, 'a session mismatch');
ok($t->wait_for(sub { !$c->command('ZCARD', 'coord:cc:conn:{u}') }, 5),
   'no lease is left, whatever the answer was');


# a connection limit that refuses gives the rate back

my $held = $n->connect;
$held->send("GET /few?k=g&held=1 HTTP/1.1\r\nHost: x\r\n\r\n");
$t->wait_for(sub { $c->command('ZCARD', 'coord:cc:one:{g}') }, 5);
my @r = map { $m->get('/few?k=g')->status } 1 .. 20;
is(scalar(grep { $_ == 429 } @r), 20, 'one lease: others are refused')
    or diag("@r");
$origin->release('/few');
$held->response(timeout => 5);
$held->close;
$t->wait_for(sub { !$c->command('ZCARD', 'coord:cc:one:{g}') }, 5);

# a lease is free when Redis has read of it, not when the client has its answer

@r = map {
    $t->wait_for(sub { !$c->command('ZCARD', 'coord:cc:one:{g}') }, 5);
    $m->get('/few?k=g')->status;
} 1 .. 6;

is("@r", '200 200 200 200 429 429', 'and took nothing of the rate');
ok($t->wait_for(sub { !$c->command('ZCARD', 'coord:cc:one:{g}') }, 5),
   'a rate that refuses leaves no lease');


# everything at once

sub storm {
    my ($seed) = @_;

    srand($seed);
    my $end = time + 6;

    while (time < $end) {
        my @req = map {
            my $node = $nodes[rand @nodes];
            my $i = int rand 50;
            $node->req("/?k=k$i&s=s$i&b=b$i", method => 'POST', body => 'x',
                       headers => { 'Idempotency-Key' => int rand 20 });
        } 1 .. 20;

        my @gone = map { $nodes[rand @nodes]->connect } 1 .. 5;

        for my $g (grep { $_ } @gone) {
            eval { $g->send("POST /?k=a&s=x&b=y HTTP/1.1\r\nHost: x\r\n"
                            . "Idempotency-Key: g" . int(rand 1000)
                            . "\r\nContent-Length: 4\r\n\r\nbody") };
        }

        Coord::HTTP::parallel(\@req, timeout => 10);
        $_->reset for grep { $_ } @gone;
    }
}

my @pids = map {
    my $seed = $_;
    my $pid = fork();
    die "fork: $!" if !defined $pid;
    if ($pid == 0) { storm($seed); require POSIX; POSIX::_exit(0) }
    $t->track($pid);
    $pid;
} 1 .. 2;

$_->allow(qr/exited on signal 9/) for @nodes;

my @old;
sleep(1);
push @old, $n->reload;
$m->kill_worker;
$m->h2('http://127.0.0.1:' . $m->port(2) . '/?k=h&s=h&b=h') for 1 .. 5;
$redis->freeze;
sleep(0.5);
kill 'CONT', $redis->{pid};
push @old, $m->reload;
sleep(0.5);
$redis->stop('KILL');
sleep(0.3);
$redis->run;
push @old, $n->reload;

waitpid $_, 0 for @pids;

for my $node (@nodes) {
    ok($t->wait_for(sub {
        $node->get('/?k=z&s=z&b=z')->header('RateLimit') }, 10),
       "$node->{name}: in service after the storm");
    ok($node->wait_gone(20, grep { kill 0, $_ } @old),
       "$node->{name}: old workers are gone");
}

$c = $redis->connect;
ok($t->wait_for(sub {
    !grep { $c->command('ZCARD', $_) } @{$c->command('KEYS', 'coord:cc:*')};
}, 10), 'no lease is left');
is(scalar(grep { $c->command('PTTL', $_) == -1 } @{$c->command('KEYS', '*')}),
   0, 'every key has a TTL');

done_testing();
