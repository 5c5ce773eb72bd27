#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_session on two nodes: what a session is bound to, and for how long;
# the same on the memory store.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect;

my $conf = <<'EOF';
    %%STORE%%
    coord_limit_req_zone $arg_k zone=lim:1m rate=1000r/s;
    coord_session_zone $arg_k zone=one:1m;
    coord_session_zone $arg_k zone=short:1m ttl=3s;
    coord_session_zone $arg_k zone=capped:1m ttl=2s absolute=4s;
    coord_session_zone $arg_k zone=learn:1m;

    coord_session_zone $http_x_sid zone=secret:1m;

    server {
        listen 127.0.0.1:%%PORT%%;

        add_header X-Status $coord_session_status always;
        add_header X-Value $coord_session_value always;
        add_header X-Age $coord_session_age always;

        location /bind {
            coord_session zone=one bind=$arg_v;
            return 200;
        }
        location /rebind {
            coord_session zone=one bind=$arg_v mismatch=rebind;
            empty_gif;
        }
        location /pass {
            coord_session zone=one bind=$arg_v mismatch=pass;
            empty_gif;
        }
        location /missing {
            coord_session zone=one bind=$arg_v missing=reject;
            coord_session_status 401;
            empty_gif;
        }
        location /dry {
            coord_session zone=one bind=$arg_v missing=reject;
            coord_session_dry_run on;
            coord_session_log_level warn;
            empty_gif;
        }
        location /gif { coord_session zone=one bind=$arg_v; empty_gif; }
        location /limited {
            coord_limit_req zone=lim burst=1000 nodelay;
            coord_session zone=one bind=$arg_v;
            empty_gif;
        }
        location /secret {
            coord_session zone=secret bind=$http_x_value;
            coord_session_log_level info;
            empty_gif;
        }
        location /plain { coord_session zone=one; empty_gif; }
        location /short { coord_session zone=short bind=$arg_v; empty_gif; }
        location /capped { coord_session zone=capped bind=$arg_v; empty_gif; }
        location /page {
            coord_session zone=one bind=$arg_v;
            error_page 403 /denied;
            empty_gif;
        }
        location = /denied { internal; return 200 denied; }

        location /learn {
            coord_session zone=learn learn=$upstream_http_x_agent;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOF

my $origin = $t->origin(default => sub {
    my ($req) = @_;
    my $agent = $req->{args}{agent};
    return { body => 'x', status => $req->{args}{status} || 200,
             headers => [ $agent ? ('X-Agent' => $agent) : () ] };
});

my %opt = (workers => 2, http => $conf,
           vars => { STORE => 'coord_store main { server %%REDIS%%; '
                              . 'timeout 5s; connect_timeout 5s; }' });
my $a = $t->node(name => 'a', %opt)->start;
my $b = $t->node(name => 'b', %opt)->start;
my $m = $t->node(name => 'm', %opt, vars => { STORE => '' })->start;


for my $pair ([ $a, $b, 'redis' ], [ $m, $m, 'memory' ]) {
    my ($x, $y, $what) = @$pair;

    # bind

    is(told($x, '/gif?k=1&v=10.0.0.1'), '200 NEW 10.0.0.1', "$what: new");
    is(told($y, '/gif?k=1&v=10.0.0.1'), '200 BOUND 10.0.0.1', "$what: bound");
    is(told($x, '/plain?k=1'), '200 BOUND 10.0.0.1', "$what: value, no bind");
    is(told($y, '/gif?k=2&v=other'), '200 NEW other', "$what: another session");
    is(told($x, '/gif'), '200 NONE', "$what: no session");

    # mismatch

    my $r = $y->get('/gif?k=1&v=10.6.6.6');
    is($r->status, 403, "$what: mismatch");
    is($r->header('X-Status'), 'MISMATCH', "$what: mismatch, status");
    is($r->header('Content-Type'), 'application/problem+json',
       "$what: problem");
    like($r->body, qr/"status":403.*"code":"session-mismatch"/,
         "$what: problem body");
    unlike($r->body, qr/10\.0\.0\.1/, "$what: the value is not told");
    is(told($x, '/gif?k=1&v=10.0.0.1'), '200 BOUND 10.0.0.1',
       "$what: still bound");

    is(told($x, '/pass?k=1&v=zzz'), '200 MISMATCH 10.0.0.1', "$what: pass");
    is(told($y, '/rebind?k=1&v=moved'), '200 MISMATCH moved', "$what: rebind");
    is(told($x, '/gif?k=1&v=moved'), '200 BOUND moved', "$what: rebound");
    is(told($x, '/gif?k=1&v=10.0.0.1'), '403 MISMATCH',
       "$what: the old value is the wrong one now, and sees no other");
    is($x->get('/page?k=1&v=x')->body, 'denied', "$what: error_page");

    # missing

    is(told($x, '/missing?v=1'), '401 NONE', "$what: missing=reject");
    like($x->get('/missing')->body, qr/"code":"missing-session"/,
         "$what: missing, problem body");
    is(told($x, '/missing?k=1&v=moved'), '200 BOUND moved',
       "$what: not missing");

    # dry run

    is(told($x, '/dry?k=1&v=evil'), '200 MISMATCH moved', "$what: dry run");
    is(told($x, '/dry'), '200 NONE', "$what: dry run, missing");
    ok($x->wait_log(qr/\[warn\].*session mismatch, dry run, by zone "one"/, 10),
       "$what: dry run is logged");

    # values of any length

    my $long = 'v' x 3000;
    is(told($x, "/gif?k=long&v=$long"), '200 NEW sha256:'
       . digest($long), "$what: a long value");
    is(told($y, "/gif?k=long&v=$long"), '200 BOUND sha256:' . digest($long),
       "$what: a long value again");
    is(told($y, "/gif?k=long&v=${long}x"), '403 MISMATCH',
       "$what: a long value that differs at its end");

    # learn

    is(told($x, '/learn?k=7'), '200 NEW', "$what: nothing to learn");
    is(told($x, '/learn?k=7&agent=a1'), '200 NEW a1',
       "$what: learned now");
    ok($t->wait_for(sub { told($y, '/learn?k=7&agent=a2')
                          eq '200 BOUND a1' }, 10),
       "$what: learned value, not the second one");
    is(told($x, '/learn?k=7&agent=a3'), '200 BOUND a1', "$what: stays");
}

like($a->wait_log(qr/session mismatch/, 10) ? log_line($a) : '',
     qr/session mismatch, by zone "one", client: .*, key: [0-9a-f]{8}, outcome: MISMATCH, store: main \(redis\)/,
     'log line');


# two nodes that see new sessions at the same instant agree

for my $n (1 .. 20) {
    my @r = $t->parallel([ map { (($_ % 2 ? $a : $b)
                                  ->req("/pass?k=race$n&v=v$_")) } 1 .. 8 ]);
    my %values = map { ($_->header('X-Value') // '') => 1 } @r;
    my @new = grep { $_->header('X-Status') eq 'NEW' } @r;

    if (keys %values != 1 || @new != 1) {
        is(join(' ', sort keys %values) . ' ' . @new, 'one 1', "race $n");
    }
}

pass('races');


# one round trip: limit and session have one nonce

$a->get('/limited?k=1&v=moved');
my $watch = $redis->watch;
$a->get('/limited?k=1&v=moved') for 1 .. 20;
is(scalar(my @trips = $watch->seen), 20, 'one round trip per request');


# nothing of the client's in keys; all have a TTL

my @keys = @{ $admin->command('KEYS', '*') };
ok(scalar(grep { /^coord:ss:one:\{~[0-9a-f]{32}\}$/ } @keys), 'session keys');
is(join(' ', grep { !/^coord:(ss:\w+:\{~[0-9a-f]{32}\}|rl:.*)$/ } @keys), '',
   'nothing else');
is(scalar(grep { $admin->command('PTTL', $_) == -1 } @keys), 0, 'all have a TTL');

$a->get('/secret', headers => { 'X-Sid' => 'sid-123', 'X-Value' => $_ })
    for 'value-456', 'value-789';
ok($a->wait_log(qr/by zone "secret"/, 10), 'logged');
unlike($a->log, qr/sid-123|value-456|value-789/, 'no ids, no values in the log');
unlike(join(' ', @{ $admin->command('KEYS', '*') }), qr/sid-123|value/,
       'nor in keys');


# life

for my $x ([$a, $b, 'redis'], [$m, $m, 'memory']) {
    my ($p, $q, $what) = @$x;
    my $k;

    my @told = $t->in_time(4.4, sub {
        $k = "s$_[0]";
        my @r = told($p, "/short?k=$k&v=1");
        sleep 1.5;
        push @r, told($q, "/short?k=$k&v=1");
        sleep 2.2;
        return @r, told($p, "/short?k=$k&v=1"),
               $p->get("/short?k=$k&v=1")->header('X-Age');
    });

    is($told[0], '200 NEW 1', "$what, ttl: new");
    is($told[1], '200 BOUND 1', "$what, ttl: used");
    is($told[2], '200 BOUND 1', "$what, ttl: has been slid");
    cmp_ok($told[3] || 0, '>=', 3, "$what: age");
    sleep 3.6;
    is(told($p, "/short?k=$k&v=2"), '200 NEW 2', "$what, ttl: expired");
}

# whoever is refused does not keep the session alive

is(told($_, '/short?k=t&v=1'), '200 NEW 1', 'mismatch: new') for $a, $m;

for (1 .. 3) {
    sleep 0.8;
    $_->get('/short?k=t&v=2') for $a, $m;
}

sleep 1.5;
is(told($a, '/short?k=t'), '200 NEW', 'mismatch: has not slid the life');
is(told($m, '/short?k=t'), '200 NEW', 'memory, mismatch: nor there');


my $capped;
my @told = $t->in_time(3.8, sub {
    $capped = "/capped?k=s$_[0]";
    my @r = map { told($_, "$capped&v=1") } $a, $m;

    for (1 .. 3) {
        sleep 1;
        push @r, map { told($_, "$capped&v=1") } $a, $m;
    }

    return @r;
});

is(join(', ', @told),
   join(', ', ('200 NEW 1') x 2, ('200 BOUND 1') x 6), 'absolute: used');
sleep 1.5;
is(told($_, "$capped&v=2"), '403 REVOKED', 'absolute: it is over') for $a, $m;


# activity is written once in ttl/60

is(told($a, '/gif?k=act&v=1'), '200 NEW 1', 'activity');
$watch->seen;
$_->get('/gif?k=act&v=1') for ($a, $b) x 20;
is($watch->calls('pexpire'), 0, 'activity is not written at once');


# configuration

my $pre = 'coord_session_zone $arg_k zone=z:1m;';

for my $c ([ 'coord_session_zone $arg_k ttl=1h;', '', qr/must have "zone"/ ],
           [ 'coord_session_zone $arg_k zone=z ttl=x;', '', qr/invalid time/ ],
           [ 'coord_session_zone $arg_k zone=z life=1;', '',
             qr/invalid parameter "life=1", allowed are/ ],
           [ $pre, 'coord_session bind=$arg_v;', qr/must have "zone"/ ],
           [ $pre, 'coord_session zone=none;', qr/unknown zone "none"/ ],
           [ $pre, 'coord_session zone=z mismatch=maybe;',
             qr/it must be "reject", "rebind" or "pass"/ ],
           [ $pre, 'coord_session zone=z missing=rebind;',
             qr/it must be "reject" or "pass"/ ],
           [ $pre, 'coord_session zone=z max_per_user=2;',
             qr/"max_per_user=" needs "user="/ ],
           [ $pre, 'coord_session zone=z user=$arg_u max_per_user=0;',
             qr/invalid value "0"/ ],
           [ $pre, 'coord_session zone=z; coord_session zone=z;',
             qr/is duplicate/ ],
           [ $pre, 'coord_session zone=z; coord_session_status 200;',
             qr/value must be/ ],
           [ $pre, 'coord_session_cookie sid samesite=some;',
             qr/invalid parameter "samesite=some"/ ],
           [ $pre, 'coord_session_cookie "s;id";',
             qr/cannot stand in a cookie/ ])
{
    like($t->conf_error(http => "$c->[0] server { listen 127.0.0.1:%%PORT%%; "
                                . "location / { $c->[1] } }"),
         $c->[2], "error: $c->[0] $c->[1]");
}


done_testing();


sub told {
    my ($node, $path) = @_;

    my $r = $node->get($path);

    return join ' ', $r->status, grep { defined && length }
        map { $r->header($_) } 'X-Status', 'X-Value';
}


sub digest {
    require Digest::SHA;
    return Digest::SHA::sha256_hex($_[0]);
}


sub log_line { return join "\n", $_[0]->log_lines(qr/session mismatch, by/) }
