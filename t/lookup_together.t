#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Look-ups in the values of all features of one location: the first request
# fetches them, and each feature has begun once.  What all workers of a node
# want at the same time is asked once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use List::Util qw(max);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $origin = $t->origin(routes => { '/all' => { body => 'done' } });

my $a = $t->node(name => 'a', workers => 1, http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }

    coord_lookup $tenant tenant:$arg_u;
    coord_lookup $conns conns:$tenant default=1;
    coord_lookup $rate rate:$tenant default=1r/h;
    coord_lookup $device device:$arg_u;

    coord_limit_req_zone $tenant zone=rl:1m rate=$rate;
    coord_limit_conn_zone $tenant zone=cc:1m;
    coord_lock_zone lock:$tenant zone=lk:1m;
    coord_session_zone $arg_u zone=ss:1m;
    coord_session_zone $coord_session_id zone=id:1m;

    server {
        listen 127.0.0.1:%%PORT%%;

        location = /cookie {
            coord_limit_req zone=rl;
            coord_session_cookie sid;
            coord_session zone=id;
            empty_gif;
        }

        location = /all {
            coord_limit_req zone=rl;
            coord_limit_conn cc $conns;
            coord_lock zone=lk;
            coord_session zone=ss bind=$device;
            coord_idempotency on;
            coord_idempotency_scope $tenant;
            add_header X-Session $coord_session_status always;
            add_header X-Lock $coord_lock_status always;
            add_header X-Idempotency $coord_idempotency_status always;
            add_header X-Rate $coord_limit_req_limit always;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOF

$r->command('SET', 'tenant:ann', 'acme');
$r->command('SET', 'conns:acme', 5);
$r->command('SET', 'rate:acme', '1000r/s');
$r->command('SET', 'device:ann', 'phone');

$r->command('SET', 'tenant:bob', 'other');
my @cookies = @{ $a->get('/cookie?u=bob')->{headers}{'set-cookie'} || [] };
is(scalar(@cookies), 1, 'a session is named once')
    or diag(join ' ', @cookies);

my $res = $a->post('/all?u=ann', 'body',
                   headers => { 'Idempotency-Key' => 'k1' });

is($res->status, 200, 'the first request');
is($res->body, 'done', 'its body');
is($res->header('x-lock'), 'ACQUIRED', 'locked');
is($res->header('x-idempotency'), 'NEW', 'protected, by a looked-up scope');
is($res->header('x-rate'), 1000, 'limited by a looked-up rate');
is($res->header('x-session'), 'NEW', 'a session');

$res = $a->post('/all?u=ann', 'body', headers => { 'Idempotency-Key' => 'k1' });
is($res->header('x-idempotency'), 'REPLAYED', 'replayed');
is($origin->count('/all'), 1, 'the origin was asked once');


# --- one node, two workers ---

my $b = $t->node(name => 'b', workers => 2, http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }

    map $arg_k $key { '' ''; default val:$arg_k; }
    map $arg_s $short_key { '' ''; default val:$arg_s; }
    coord_lookup $value $key field=f default=none;
    coord_lookup $short $short_key field=f default=none ttl=1ms
                 negative_ttl=1ms;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Pid $pid always;
        add_header X-Value $value$short always;
        location / { empty_gif; }
    }
EOF

ok($t->wait_for(sub {
       3 == grep { / flags=\w*t/ } split /\n/, $r->command('CLIENT', 'LIST');
   }, 10), 'all workers hear of changes');

sub hgets {
    return $r->command('INFO', 'commandstats') =~ /^cmdstat_hget:calls=(\d+)/m
           ? $1 : 0;
}

# Redis halts until all have asked

sub together {
    my ($k) = @_;
    my $before = hgets();

    $r->command('CLIENT', 'PAUSE', 500);
    my @res = $t->parallel([map { $b->req("/?$k") } 1 .. 40]);
    my %pids = map { scalar($_->header('x-pid')) => 1 } @res;
    my %values = map { scalar($_->header('x-value')) => 1 } @res;

    return (hgets() - $before, scalar(keys %pids), join ',', sort keys %values);
}

my ($calls, $pids, $values, $n) = (0, 0, '', 0);

while ($pids < 2 && $n++ < 20) {
    $r->command('HSET', "val:$n", 'f', "v$n");
    ($calls, $pids, $values) = together("k=$n");
}

is($pids, 2, 'both workers are asked');
is($calls, 1, 'and Redis once');
is($values, "v${n}none", 'all have its answer');

($calls, $pids, $values) = (0, 0, '');
$n = 0;
($calls, $pids, $values) = together("k=none$n") while $pids < 2 && $n++ < 20;
is($calls, 1, 'what is not there is asked once, too');
is($values, 'nonenone', 'and all know that');

# an answer that does not count any more when it is there

($calls, $pids, $values) = (0, 0, '');
$n = 0;

while ($pids < 2 && $n++ < 20) {
    $r->command('HSET', "val:s$n", 'f', "s$n");
    ($calls, $pids, $values) = together("s=s$n");
}

is($values, "nones$n", 'what lives for a moment');


# --- what those behind a look-up are told ---

my $c = $t->node(name => 'c', workers => 2, http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 1s; connect_timeout 30s;
                       breaker failures=100000 cooldown=5s; }

    coord_limit_req_zone $arg_k zone=many:1m rate=$rate;
    coord_lookup $rate rate:$arg_k default=1000r/s;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Pid $pid always;
        add_header X-Limit $coord_limit_req_status always;
        location / { coord_limit_req zone=many burst=100 nodelay; empty_gif; }
    }
EOF

ok($t->wait_for(sub {
       5 == grep { / flags=\w*t/ } split /\n/, $r->command('CLIENT', 'LIST');
   }, 10), 'its workers hear of changes');

sub halted {
    my ($ms) = @_;

    for my $n (1 .. 20) {
        $r->command('CLIENT', 'PAUSE', $ms);
        my @res = $t->parallel([map { $c->req("/?k=$ms-$n") } 1 .. 40]);
        $r->command('CLIENT', 'UNPAUSE');

        my %pids = map { scalar($_->header('x-pid')) => 1 } @res;
        return @res if keys %pids == 2;
    }

    die "one worker alone\n";
}

sub others {
    my ($status, @res) = @_;

    return scalar grep { $_->header('x-limit') ne $status } @res;
}

is(others('PASSED', halted(300)), 0, 'told by another worker: asks on');

# the look-up has cost one timeout, whoever has asked

my @res = halted(8000);
my $longest = max(map { $_->{ran} } @res);

is(others('BYPASSED', @res), 0, 'no answer by another worker');
cmp_ok($longest, '<', 1.8, 'and it is not waited for again');

done_testing();
