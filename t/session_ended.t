#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A session that was ended stays ended, whoever asked for it meanwhile or not,
# on all nodes, for as long as "revoked=" says; one that was only not used is
# free.  The same on the memory store.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Digest::SHA;
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect(die => 1);

my $conf = <<'EOF';
    %%STORE%%
    coord_session_zone $arg_k zone=user:1m ttl=3s absolute=12h;
    coord_session_zone $arg_k zone=cap:1m ttl=3s absolute=4s;
    coord_session_zone $arg_k zone=short:1m ttl=1s;
    coord_session_zone $arg_k zone=tiny:32k;
    coord_session_zone $coord_session_id zone=cookie:1m ttl=1h;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_session_status always;
        add_header X-Value $coord_session_value always;

        location /user {
            coord_session zone=user bind=$arg_v user=$arg_u;
            empty_gif;
        }
        location /two {
            coord_session zone=user bind=$arg_v user=$arg_u max_per_user=2;
            empty_gif;
        }
        location /cap {
            coord_session zone=cap bind=$arg_v revoked=3s;
            empty_gif;
        }
        location /short {
            coord_session zone=short bind=$arg_v revoked=1500ms;
            empty_gif;
        }
        location /longer { coord_session zone=short revoked=5s; empty_gif; }
        location /tiny { coord_session zone=tiny bind=$arg_v; empty_gif; }
        location /cookie {
            coord_session_cookie sid httponly;
            coord_session zone=cookie user=$arg_u;
            add_header X-Status $coord_session_status always;
            add_header X-Id $coord_session_id;
            empty_gif;
        }
        location /page {
            coord_session_cookie sid;
            coord_session zone=cookie user=$arg_u;
            error_page 403 = /login;
            empty_gif;
        }
        location = /login {
            coord_session_cookie sid;
            return 200 "login $coord_session_id";
        }
        location /dry {
            coord_session_cookie sid;
            coord_session zone=cookie user=$arg_u;
            coord_session_dry_run on;
            empty_gif;
        }
        location /api { coord_api write; }
    }
EOF

my %store = (STORE => 'coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }');
my ($a, $b) = map { $t->node(name => $_, workers => 2, http => $conf,
                             vars => { %store })->start } 'a', 'b';
my $m = $t->node(name => 'm', workers => 2, http => $conf,
                 vars => { STORE => '' })->start;

my @pairs = ([ $a, $b, 'redis' ], [ $m, $m, 'memory' ]);


# ended in every way, and not asked for until its idle time is over

for (@pairs) {
    my ($p, $q, $what) = @$_;

    is(told($p, "/user?k=$_&v=1&u=ann"), '200 NEW 1', "$what: $_")
        for 'one', 'all1', 'all2';
    is(told($p, '/user?k=other&v=1&u=bob'), '200 NEW 1', "$what: of another");
    is(told($p, "/two?k=max$_&v=1&u=max"), '200 NEW 1', "$what: max $_")
        for 1 .. 3;
    is(told($p, '/cap?k=cap&v=1'), '200 NEW 1', "$what: absolute");

    is($q->request('DELETE', '/api/sessions/user/one')->status, 200,
       "$what: DELETE session");
    like($q->request('DELETE', '/api/users/user/ann')->body, qr/"ended": ?2/,
         "$what: DELETE user");
}

for (1 .. 3) {
    sleep 0.6;
    told($_->[0], '/cap?k=cap&v=1') for @pairs;
}

sleep 3;

for (@pairs) {
    my ($p, $q, $what) = @$_;

    for my $k (qw(one all1 all2)) {
        is(told($q, "/user?k=$k&v=2"), '403 REVOKED', "$what: $k, a thief");
        is(told($p, "/user?k=$k&v=1&u=ann"), '403 REVOKED',
           "$what: $k, the owner");
    }

    is(told($q, '/user?k=max1&v=2'), '403 REVOKED', "$what: evicted");
    is(told($q, '/user?k=other&v=2'), '200 NEW 2', "$what: idle is not ended");
    is(told($q, '/user?k=next&v=1&u=ann'), '200 NEW 1',
       "$what: another log-in");
    is(told($q, '/cap?k=cap&v=2'), '403 REVOKED', "$what: past absolute");
}


# for as long as the longest line of the zone says, and no longer

for (@pairs) {
    my ($p, $q, $what) = @$_;

    told($p, '/short?k=s&v=1');
    $p->request('DELETE', '/api/sessions/short/s');
}

sleep 2;
is(told($_->[1], '/short?k=s&v=2'), '403 REVOKED',
   "$_->[2]: the longest counts") for @pairs;
sleep 4;
is(told($_->[1], '/short?k=s&v=2'), '200 NEW 2', "$_->[2]: and is over")
    for @pairs;
is(told($_->[1], '/cap?k=cap&v=2'), '200 NEW 2', "$_->[2]: absolute, over")
    for @pairs;


# who was let in before cannot undo it: a request in flight writes late

is(told($a, '/user?k=late&v=1&u=ann'), '200 NEW 1', 'late');
$a->request('DELETE', '/api/sessions/user/late');
my $key = 'coord:ss:user:{~' . hex_of('late') . '}';
$admin->command('HSET', $key, 'c', int(time * 1e6), 'v', 2);
$admin->command('PEXPIRE', $key, 500);
sleep 1.2;
is(told($b, '/user?k=late&v=2'), '403 REVOKED', 'late: stays ended');
cmp_ok($admin->command('PTTL', "$key:x"), '>', 11 * 3_600_000,
       'late: for long');


# an index that is dropped by hand: remembered when it is seen

told($a, '/user?k=hand&v=1&u=cat');
$admin->command('UNLINK', 'coord:us:user:{~' . hex_of('cat') . '}');
is(told($b, '/user?k=hand&v=1&u=cat'), '403 REVOKED', 'by hand');
sleep 3.5;
is(told($a, '/user?k=hand&v=2'), '403 REVOKED', 'by hand: stays');


# a user with more sessions than a list tells

for (@pairs) {
    my ($p, $q, $what) = @$_;

    my @r = $t->parallel([ map { $p->req("/user?k=many$_&v=1&u=many") }
                           1 .. 130 ]);
    is(scalar(grep { $_->status == 200 } @r), 130, "$what: 130 sessions");
    like($q->request('DELETE', '/api/users/user/many')->body,
         qr/"ended": ?130/, "$what: all are ended");
}

sleep 3.5;

for (@pairs) {
    my ($p, $q, $what) = @$_;

    my @r = $t->parallel([ map { $q->req("/user?k=many$_&v=2") } 1 .. 130 ]);
    is(scalar(grep { $_->status == 403 } @r), 130, "$what: and stay so");
}


# made-up ids do not push it out of the memory

told($m, '/tiny?k=s&v=1');
$m->request('DELETE', '/api/sessions/tiny/s');
$m->get("/tiny?k=made$_") for 1 .. 400;
is(told($m, '/tiny?k=s&v=2'), '403 REVOKED', 'memory: after 400 others');


# a Redis that lost all: a node knows what it has seen, and tells the others

told($a, '/user?k=lost&v=1&u=dan');
$a->request('DELETE', '/api/sessions/user/lost');
is(told($a, '/user?k=lost&v=1'), '403 REVOKED', 'lost: seen');
$admin->command('FLUSHALL');
is(told($a, '/user?k=lost&v=2'), '403 REVOKED', 'lost: known to the node');
ok($t->wait_for(sub { $admin->command('EXISTS', 'coord:ss:user:{~'
                      . hex_of('lost') . '}:x') }, 10), 'lost: told to Redis');
is(told($b, '/user?k=lost&v=2'), '403 REVOKED', 'lost: known to the other');


# a browser gets a new id with the refusal, and only then

for (@pairs) {
    my ($p, $q, $what) = @$_;

    my $id = $p->get('/cookie?u=eve')->header('X-Id');
    is(cookie($q, '/cookie?u=eve', $id), '200 BOUND', "$what: cookie");
    $p->request('DELETE', '/api/users/cookie/eve');
    is(cookie($q, '/dry?u=eve', $id), '200 REVOKED',
       "$what: a dry run gives none");

    my $told = cookie($q, '/cookie?u=eve', $id);
    like($told, qr/^403 REVOKED sid=[0-9a-f]{32}; httponly; path=\/$/,
         "$what: a new id");
    unlike($told, qr/$id/, "$what: not the same");

    my ($new) = $told =~ /sid=(\w+)/;
    is(cookie($p, '/cookie?u=eve', $new), '200 NEW', "$what: which is good");

    my $r = $q->get('/page?u=eve', headers => { Cookie => "sid=$id" });
    is($r->body, 'login ' . (($r->header('Set-Cookie') // '')
                             =~ /sid=(\w+)/)[0],
       "$what: and known to the error page");

    is(cookie($p, '/cookie?u=other', $new), '403 MISMATCH',
       "$what: none for a mismatch");
}


# all keys have a TTL

is(join(' ', grep { $admin->command('PTTL', $_) == -1 }
             @{ $admin->command('KEYS', '*') }), '', 'all keys have a TTL');

done_testing();


sub told {
    my ($node, $path) = @_;

    my $r = $node->get($path);

    return join ' ', $r->status, grep { defined && length }
        map { $r->header($_) } 'X-Status', 'X-Value';
}


sub cookie {
    my ($node, $path, $id) = @_;

    my $r = $node->get($path, headers => { Cookie => "sid=$id" });

    return join ' ', $r->status, grep { defined && length }
        map { $r->header($_) } 'X-Status', 'Set-Cookie';
}


sub hex_of { substr Digest::SHA::sha256_hex($_[0]), 0, 32 }
