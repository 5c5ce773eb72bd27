#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# user= of coord_session: the sessions of a user on two nodes, ended one by
# one, all at once, or because there are too many; the same in memory.

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
my $scripts = "$FindBin::Bin/../lua-free-scripts";

my $conf = <<'EOF';
    %%STORE%%
    coord_session_zone $arg_k zone=one:1m;
    coord_session_zone $arg_k zone=three:1m ttl=180s;
    coord_session_zone $arg_k zone=brief:1m ttl=1s;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%%;
        add_header X-Status $coord_session_status always;
        add_header X-Value $coord_session_value always;

        location /user {
            coord_session zone=one bind=$http_x_client user=$http_x_user;
            empty_gif;
        }
        location /moved {
            coord_session zone=one bind=$http_x_client user=$http_x_user
                          mismatch=rebind;
            empty_gif;
        }
        location /auth {
            auth_request /who;
            auth_request_set $who $upstream_http_x_who;
            coord_session zone=one user=$who;
            empty_gif;
        }
        location = /who {
            internal;
            proxy_pass http://127.0.0.1:%%PORT_2%%/tell?who=$http_x_user;
        }
        location /tell { add_header X-Who $arg_who; return 204; }
        location /plain { coord_session zone=one; empty_gif; }
        location /three {
            coord_session zone=three user=$http_x_user max_per_user=3;
            empty_gif;
        }
        location /dry {
            coord_session zone=one user=$http_x_user;
            coord_session_dry_run on;
            empty_gif;
        }
        location /brief {
            coord_session zone=brief user=$http_x_user;
            empty_gif;
        }
        location /moving {
            coord_session zone=brief bind=$arg_v user=$http_x_user
                          mismatch=rebind;
            empty_gif;
        }
        location /page { coord_session zone=one; error_page 403 = /who; }
    }
EOF

my %store = (STORE => 'coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }');
my ($a, $b) = map { $t->node(name => $_, workers => 2, http => $conf,
                             vars => { %store })->start } 'a', 'b';
my $m = $t->node(name => 'm', workers => 2, http => $conf,
                 vars => { STORE => '' })->start;


# the index

is(told($a, '/user', 'k1', 'ann'), '200 NEW', 'first session');

# the clocks of two nodes are as near to each other as a round trip is short

my $score = $admin->command('ZSCORE', user_key('one', 'ann'), id('k1'));
$t->wait_for(sub { my $now = $admin->command('TIME');
                   $now->[0] * 1e6 + $now->[1] > $score + 300_000 }, 10);
is(told($b, '/user', 'k2', 'ann'), '200 NEW', 'second session');
is(told($b, '/user', 'k1', 'ann'), '200 BOUND', 'on the other node');
is(told($a, '/user', 'k3', 'bob'), '200 NEW', 'of another user');

my ($ann, $bob) = map { user_key('one', $_) } 'ann', 'bob';

is_deeply([ sort @{ $admin->command('ZRANGE', $ann, 0, -1) } ],
          [ sort map { id($_) } 'k1', 'k2' ], 'index: ids as digests');
cmp_ok($admin->command('PTTL', $ann), '>', 3_500_000, 'index: TTL');
my $list = script('user_list', i => $ann, old => 0, last => 9);
is($list->[1], 2, 'list: two');
is($list->[2][0], id('k2'), 'list: last active first');
cmp_ok(abs($list->[2][1] / 1e6 - time), '<', 120, 'list: activity');
my $get = script('session_get', k => session_key('one', 'k2'),
                 x => session_key('one', 'k2') . ':x');
cmp_ok(abs($get->[0][0] / 1e6 - time), '<', 120, 'list: creation');

like(join(' ', @{ $admin->command('KEYS', '*us:*') }),
     qr/^(coord:us:one:\{~[0-9a-f]{32}\} ?)+$/, 'user keys are digests');


# activity is written in a ttl/60: 3 seconds of zone three

told($a, '/three', 'act', 'eve');
my $before = $admin->command('ZSCORE', user_key('three', 'eve'), id('act'));
told($b, '/three', 'act', 'eve');
is($admin->command('ZSCORE', user_key('three', 'eve'), id('act')), $before,
   'activity: not yet');
sleep 3.5;
told($b, '/three', 'act', 'eve');
ok($t->wait_for(sub { $admin->command('ZSCORE', user_key('three', 'eve'),
                                      id('act')) > $before }, 10),
   'activity: now');


# revoke one

script('session_revoke', k => session_key('one', 'k1'),
       x => session_key('one', 'k1') . ':x', until => us() + 3_600_000_000,
       ttl => 3_600_000, channel => 'coord:wake');
script('user_drop', i => $ann, id => id('k1'));

for my $x ($a, $b) {
    is(told($x, '/user', 'k1', 'ann'), '403 REVOKED', 'revoked');
    is(told($x, '/plain', 'k1'), '403 REVOKED', 'revoked, no user=');
    is(told($x, '/user', 'k2', 'ann'), '200 BOUND', 'the other one is not');
}

like($a->get('/user?k=k1')->body, qr/"code":"session-revoked"/, 'problem');
is(told($a, '/dry', 'k1', 'ann'), '200 REVOKED', 'dry run');


# revoke all: effective with the next request on every node

told($_, '/user', 'k4', 'ann') for $a, $b;
is(script('user_revoke', i => $ann)->[0], 2, 'revoke all');

for my $x ($a, $b, $a) {
    is(told($x, '/user', $_, 'ann'), '403 REVOKED', "all revoked: $_")
        for 'k2', 'k4';
    is(told($x, '/user', 'k3', 'bob'), '200 BOUND', 'not of another user');
}

is(told($a, '/plain', 'k4'), '403 REVOKED', 'all revoked, no user=');
is(told($a, '/user', 'k5', 'ann'), '200 NEW', 'a later session');
is(told($b, '/user', 'k5', 'ann'), '200 BOUND', 'is good');
is(told($b, '/user', 'k4', 'ann'), '403 REVOKED', 'the old one is not');


# max_per_user

for my $x ([ $a, $b, 'redis' ], [ $m, $m, 'memory' ]) {
    my ($p, $q, $what) = @$x;

    for (1 .. 3) {
        is(told($p, '/three', "m$_", 'max'), '200 NEW', "$what: session $_");
        sleep 0.01;
    }

    is(told($q, '/three', 'm4', 'max'), '200 NEW', "$what: one more");
    is(told($q, '/three', 'm1', 'max'), '403 REVOKED', "$what: ends the first");
    is(told($p, '/three', 'm1', 'max'), '403 REVOKED', "$what: everywhere");
    is(told($p, '/three', "m$_", 'max'), '200 BOUND', "$what: $_ is there")
        for 2 .. 4;

    sleep 3.5;
    is(told($p, '/three', 'm2', 'max'), '200 BOUND', "$what: m2 is active");
    sleep 0.5;
    is(told($q, '/three', 'm5', 'max'), '200 NEW', "$what: and more");
    is(told($p, '/three', 'm3', 'max'), '403 REVOKED',
       "$what: the least recently active is ended");
    is(told($p, '/three', 'm2', 'max'), '200 BOUND', "$what: not the active");
}

{
    my @r = $t->parallel([ map {
        (($_ % 2 ? $a : $b)->req("/three?k=p$_",
                                 headers => { 'X-User' => 'many' }))
    } 1 .. 20 ]);
    is(scalar(grep { $_->status == 200 } @r), 20, '20 sessions at once');
    my @left = grep { told($a, '/three', "p$_", 'many') =~ /BOUND/ } 1 .. 20;
    is(scalar @left, 3, '3 are left');
}


# identity from the access phase

is(told($a, '/auth', 'k6', 'cat'), '200 NEW', 'auth_request: new');
is(told($b, '/auth', 'k6', 'cat'), '200 BOUND', 'auth_request: bound');
is($admin->command('ZCARD', user_key('one', 'cat')), 1, 'auth_request: index');

my $watch = $redis->watch;
told($_, '/auth', 'k6', 'cat') for ($a, $b) x 5;
cmp_ok($watch->calls('exec'), '<=', 11, 'one round trip per request: the node knows whose');
script('user_revoke', i => user_key('one', 'cat'));
is(told($_, '/auth', 'k6', 'cat'), '403 REVOKED', 'auth_request: revoked')
    for $a, $b;


# a session gets a user, and another one

for my $x ([ $a, $b, 'redis' ], [ $m, $m, 'memory' ]) {
    my ($p, $q, $what) = @$x;

    is(told($p, '/user', 'anon'), '200 NEW', "$what: anonymous");
    is(told($q, '/user', 'anon', 'dan'), '200 BOUND', "$what: logs in");
    is(told($p, '/user', 'anon'), '200 BOUND', "$what: known");

    next if $what eq 'memory';

    is($admin->command('ZCARD', user_key('one', 'dan')), 1, 'in the index');
    is(told($p, '/user', 'anon', 'fay'), '403 MISMATCH', 'somebody else');
    is(told($p, '/moved', 'anon', 'fay'), '200 MISMATCH', 'rebind: moves');
    is(told($q, '/user', 'anon', 'fay'), '200 BOUND', 'and has moved');
    is($admin->command('EXISTS', user_key('one', 'dan')), 0, 'moved from');
    script('user_revoke', i => user_key('one', 'dan'));
    is(told($q, '/user', 'anon', 'fay'), '200 BOUND', 'not revoked with dan');
    script('user_revoke', i => user_key('one', 'fay'));
    is(told($q, '/user', 'anon'), '403 REVOKED', 'revoked with fay');
}


# entries vanish with their sessions

told($a, '/brief', "b$_", 'gus') for 1, 2;
sleep 3.5;
is($admin->command('EXISTS', user_key('brief', 'gus')), 0, 'index expires');

my @left = $t->in_time(4.2, sub {
    my $user = "hal$_[0]";
    told($a, '/brief', 'h1', $user);

    for (1 .. 9) {
        told($a, '/brief', 'h2', $user);
        sleep 0.4;
    }

    told($a, '/brief', 'h3', $user);
    return @{ $admin->command('ZRANGE', user_key('brief', $user), 0, -1) };
});

is_deeply([ sort @left ], [ sort map { id($_) } 'h2', 'h3' ],
          'the entry of an expired session vanishes');
is(told($b, '/brief', 'h1', 'hal'), '200 NEW', 'expired, not revoked');


# what writes the session keeps its entry as well

for my $x ($a, $m) {
    my $n = 0;
    my @statuses;

    for (1 .. 12) {
        $n++;
        push @statuses, told($x, '/moving', "mv&v=$n", 'ida');
        sleep 0.35;
    }

    is(scalar(grep { /REVOKED/ } @statuses), 0, 'rebinding ends no session');
}

unlike($a->log . $b->log, qr/\b(ann|bob|cat|dan)\b/, 'no users in the log');
is(join(' ', grep { $admin->command('PTTL', $_) == -1 }
             @{ $admin->command('KEYS', '*') }), '', 'all keys have a TTL');

done_testing();


sub told {
    my ($node, $path, $k, $user) = @_;

    my $r = $node->get("$path?k=$k",
                       headers => { defined $user ? ('X-User' => $user) : () });

    return join ' ', $r->status, $r->header('X-Status') // '';
}


sub hex_of { substr Digest::SHA::sha256_hex($_[0]), 0, 32 }
sub id { hex_of($_[0]) }
sub session_key { "coord:ss:$_[0]:{~" . hex_of($_[1]) . '}' }
sub user_key { "coord:us:$_[0]:{~" . hex_of($_[1]) . '}' }
sub us { int(time * 1e6) }


# runs a script as it stands in its file

sub script {
    my ($name, %value) = @_;

    open(my $fh, '<', "$scripts/$name.redis") or die "$name: $!";

    my @commands = map { [ map { /^\{(.+)\}$/ ? $value{$1} // die $_ : $_ }
                           split ] }
                   grep { !/^#/ } <$fh>;

    return ($admin->pipeline(@commands))[-1];
}
