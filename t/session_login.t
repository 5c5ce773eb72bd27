#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What a log-in does to sessions: only those that exist are good (new=reject),
# a user has so many seats (over=reject), and the id that was known before the
# log-in is worth nothing after it (rotate=).  On two nodes and in memory.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(time sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect(die => 1);

my $origin = $t->origin(default => sub {
    my ($req) = @_;

    my @h = map { ("X-\u$_" => $req->{args}{$_}) }
            grep { defined $req->{args}{$_} } qw(user login);

    return { headers => \@h,
             body => ($req->{headers}{'x-session-id'} || ['none'])->[0] };
});

my $conf = <<'EOF';
    %%STORE%%
    coord_session_zone $coord_session_id zone=app:1m ttl=1h absolute=12h;
    coord_session_zone $coord_session_id zone=only:1m ttl=1h;
    coord_session_zone $arg_k zone=seat:1m ttl=1s;
    coord_session_zone $http_x_id zone=made:1m ttl=1h;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_session_status always;
        add_header X-Value $coord_session_value always;
        add_header X-Age $coord_session_age always;
        add_header X-Id $coord_session_id always;
        proxy_set_header X-Session-Id $coord_session_id;

        location / {
            coord_session_cookie sid httponly;
            coord_session zone=app bind=$arg_v user=$upstream_http_x_user
                          new=reject;
            proxy_pass http://%%ORIGIN%%;
        }
        location /pass {
            coord_session_cookie sid;
            coord_session zone=app new=reject missing=pass;
            proxy_pass http://%%ORIGIN%%;
        }
        location /login {
            coord_session_cookie sid httponly rotate=$upstream_http_x_login;
            coord_session zone=app bind=$arg_v user=$upstream_http_x_user;
            proxy_pass http://%%ORIGIN%%;

            location /login/rolling {
                coord_session_cookie sid expires=1h rolling
                                     rotate=$upstream_http_x_login;
                proxy_pass http://%%ORIGIN%%;
            }
            location /login/two {
                coord_session_cookie sid rotate=$upstream_http_x_login;
                coord_session zone=app user=$upstream_http_x_user
                              max_per_user=2;
                proxy_pass http://%%ORIGIN%%;
            }
        }
        location /only {
            coord_session_cookie sid rotate=$upstream_http_x_login;
            coord_session zone=only bind=$arg_v user=$upstream_http_x_user
                          max_per_user=1;
            proxy_pass http://%%ORIGIN%%;

            location /only/seat {
                coord_session_cookie sid rotate=$upstream_http_x_login;
                coord_session zone=only bind=$arg_v
                              user=$upstream_http_x_user
                              max_per_user=1 over=reject;
                proxy_pass http://%%ORIGIN%%;
            }
        }
        location /alone {
            coord_session_cookie sid rotate=$upstream_http_x_login;
            proxy_pass http://%%ORIGIN%%;
        }
        location /seat {
            coord_session zone=seat user=$arg_u max_per_user=2 over=reject;
            empty_gif;
        }
        location /seat/dry {
            coord_session zone=seat user=$arg_u max_per_user=2 over=reject;
            coord_session_dry_run on;
            empty_gif;
        }
        location /made {
            coord_session zone=made create=$upstream_http_x_login
                          user=$upstream_http_x_user
                          max_per_user=2 over=reject;
            proxy_pass http://%%ORIGIN%%;
        }
        location /api { coord_api write; }
        location /status { coord_status; }
    }
EOF

my %store = (STORE => 'coord_store main { server %%REDIS%%; timeout 5s; connect_timeout 5s; }');
my ($a, $b) = map { $t->node(name => $_, workers => 2, http => $conf,
                             vars => { %store })->start } 'a', 'b';
my $fake = $t->fake_redis(upstream => $redis->{port});
my $f = $t->node(name => 'f', workers => 1, http => $conf,
                 vars => { STORE => 'coord_store main { server %%FAKE%%; '
                           . 'timeout 1s; connect_timeout 5s; }' })->start;
$f->allow(qr/coord store/);
my $m = $t->node(name => 'm', workers => 2, http => $conf,
                 vars => { STORE => '' })->start;


for ([ $a, $b, 'redis' ], [ $m, $m, 'memory' ]) {
    my ($p, $q, $what) = @$_;

    # only sessions that exist; none is made where they are asked for

    my $made = 'f' x 32;

    is(told($p->get('/?v=1')), '403 NONE', "$what: none");
    like($p->get('/?v=1')->body, qr/missing-session/, "$what: none, says so");
    is(told(with($p, $made, '/?v=1')), '403 NONE', "$what: made up");
    like(with($q, $made, '/?v=1')->body, qr/unknown-session/,
         "$what: made up, says so");
    is(told(with($q, $made, '/?v=1')), '403 NONE', "$what: and stays so");
    is(told($q->get('/pass')), '200 NONE', "$what: missing=pass");
    is(told(with($q, $made, '/pass')), '403 NONE',
       "$what: missing=pass, made up");

    # a log-in makes one, and gives it another id than it came with

    my $r = with($p, $made, '/login?v=1&login=1&user=ann');
    my $id = issued($r);
    is(told($r), '200 NEW 1 0', "$what: log-in");
    like($id, qr/^[0-9a-f]{32}$/, "$what: log-in, a new id");
    isnt($id, $made, "$what: log-in, not the old one");
    is($r->header('X-Id'), $id, "$what: log-in, \$coord_session_id");
    is(told(with($q, $id, '/?v=1')), '200 BOUND 1 0', "$what: is known");
    is(told(with($q, $id, '/?v=2')), '403 MISMATCH', "$what: and bound");
    like($q->get('/api/users/app/ann')->body, qr/"count": ?1/,
         "$what: and indexed");

    # fixation: who knew the old id has nothing; nor does he get a cookie, which
    # would take the place of the new one in the browser

    $r = with($q, $made, '/login?v=1');
    is(told($r), '403 REVOKED', "$what: the old id");
    is($r->header('Set-Cookie'), undef, "$what: the old id, no cookie");

    # it moves with all that it is

    sleep 1.1;
    $r = with($q, $id, '/login?v=1&login=2');
    my $next = issued($r);
    like(told($r), qr/^200 NEW 1 [1-9]$/, "$what: moved, with its age");
    is(told(with($p, $id, '/?v=1')), '403 REVOKED', "$what: moved, the old id");
    like(told(with($p, $next, '/?v=1')), qr/^200 BOUND 1 [1-9]$/,
         "$what: moved, the new one");
    like($q->get('/api/users/app/ann')->body, qr/"count": ?1/,
         "$what: moved in the index, too");
    $q->request('DELETE', '/api/users/app/ann');
    $r = with($p, $next, '/?v=1');
    is(told($r), '403 REVOKED', "$what: log out everywhere");
    like(issued($r), qr/^[0-9a-f]{32}$/, "$what: with a new id then");

    # nothing moves without the value, or where the id is new anyway

    $r = $p->get('/login?v=1&user=bob');
    $id = issued($r);
    is(issued(with($q, $id, '/login?v=1')), '', "$what: no log-in, no id");
    $r = $p->get('/login?v=1&login=1');
    is(scalar @{ $r->{headers}{'set-cookie'} }, 1, "$what: one cookie");
    is(told(with($q, issued($r), '/?v=1')), '200 BOUND 1 0',
       "$what: which is good");

    # a cookie that is sent anyway

    $r = with($p, issued($r), '/login/rolling?v=1&login=1');
    is(scalar @{ $r->{headers}{'set-cookie'} }, 1, "$what: rolling, one");
    is(told(with($q, issued($r), '/?v=1')), '200 BOUND 1 0',
       "$what: rolling, the new one");

    # no session here: the id alone

    $id = issued($p->get('/alone'));
    $r = with($q, $id, '/alone?login=1');
    like(issued($r), qr/^[0-9a-f]{32}$/, "$what: without a session");
    isnt(issued($r), $id, "$what: without a session, another one");

    # a move takes nobody else's place

    my ($x, $y) = map { issued(with($p, issued($p->get('/login?v=1')),
                               '/login/two?v=1&login=1&user=cat')) } 1, 2;
    $y = issued(with($q, $y, '/login/two?login=1'));
    is(join(' ', map { told(with($q, $_, '/?v=1')) =~ /(\w+ \w+)/ } $x, $y),
       '200 BOUND 200 BOUND', "$what: a move evicts nobody");


    # seats: two, and those who sit stay

    is(join(' ', map { told($p->get("/seat?u=eve&k=$_")) } 1, 2, 3),
       '200 NEW 0 200 NEW 0 403 NONE', "$what: two seats");
    like($q->get('/seat?u=eve&k=3')->body, qr/too-many-sessions/,
         "$what: says why");
    is(told($q->get('/seat/dry?u=eve&k=3')), '200 NONE', "$what: dry run");
    is(join(' ', map { $q->get("/seat?u=eve&k=$_")->header('X-Status') }
                 1, 2), 'BOUND BOUND', "$what: those who sit");
    is(told($q->get('/seat?u=dan&k=4')), '200 NEW 0', "$what: another user");
    $p->request('DELETE', '/api/sessions/seat/1');
    is(told($q->get('/seat?u=eve&k=3')), '200 NEW 0', "$what: a free seat");

    my @r = $t->parallel([ map { (($p, $q)[$_ % 2])->req("/seat?u=fay&k=f$_") }
                           1 .. 30 ]);
    is(scalar(grep { $_->status == 200 } @r), 2, "$what: two of 30 at once");
    ok($t->wait_for(sub { $q->get('/seat?u=fay&k=new')->status == 200 }, 10),
       "$what: a seat that nobody uses is free");

    # a session that the response names beyond the seats is none

    is(join(' ', map { told($p->get("/made?login=$what$_&user=gus")) }
                 1 .. 3), '200 NEW 0 200 NEW 0 200 NONE', "$what: created");
    is(join(' ', map { $q->get('/made', headers => { 'X-Id' => "$what$_" })
                       ->status } 1 .. 3), '200 200 403',
       "$what: created, and refused");

    like($p->get('/status?format=json')->body,
         qr/"rejected":[1-9]/, "$what: counted");
}


# a log-in while Redis is away keeps its id

{
    my $id = issued($a->get('/login?v=1'));
    my $since = time;
    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    my $r = with($a, $id, '/login?v=1&login=1');
    cmp_ok(time - $since, '>=', 0.29, 'the header waits');
    is(told(with($b, issued($r), '/?v=1')), '200 BOUND 1 0', 'and is known');
    is(told(with($b, $id, '/?v=1')), '403 REVOKED', 'as is the end');
}

# and when the answer comes too late: the session that it had is untouched, and
# has the only place of its user, as before

{
    for my $path ('/only', '/only/seat') {
        for my $cmd ('ZADD', 'HSETNX') {
            my $user = "hal$path$cmd" =~ s!/!_!gr;

            # the answer of the one before may be under way yet

            ok($t->wait_for(sub {
                   $f->get('/seat?u=ivy&k=1')->header('X-Status') ne 'BYPASSED'
               }, 10), "$path, $cmd: the store answers");

            my $id = issued($f->get("$path?v=1&user=$user"));

            is(told(with($f, $id, "$path?v=1")), '200 BOUND 1 0',
               "$path, $cmd: logged in");

            $fake->fault(action => 'delay', delay => 2, cmd => $cmd,
                         match => $cmd eq 'ZADD' ? 'us:only' : 'ss:only');
            my $r = with($f, $id, "$path?v=1&login=1");
            is($r->status . ' ' . issued($r), '200 ',
               "$path, $cmd: keeps its id");
            sleep 1.5;
            is(told(with($a, $id, "$path?v=1")) =~ s/ \d+$//r,
               '200 BOUND 1', "$path, $cmd: which is good");

            $r = with($a, $id, "$path?v=1&login=2");
            is(told(with($a, issued($r), "$path?v=1")) =~ s/ \d+$//r,
               '200 BOUND 1', "$path, $cmd: and moves then");
            is(told(with($a, $id, "$path?v=1")), '403 REVOKED',
               "$path, $cmd: the old id");
            ok($t->wait_for(sub { $a->get("/api/users/only/$user")->body
                                  =~ /"count": ?1\b/ }, 5),
               "$path, $cmd: one session");
        }
    }
}

is(join(' ', grep { $admin->command('PTTL', $_) == -1 }
             @{ $admin->command('KEYS', '*') }), '', 'all keys have a TTL');

done_testing();


sub with {
    my ($node, $id, $path) = @_;

    return $node->get($path, headers => { Cookie => "sid=$id" });
}


sub issued { return (($_[0]->header('Set-Cookie') // '') =~ /sid=(\w+)/)[0]
                    // '' }


sub told {
    my ($r) = @_;

    return join ' ', $r->status, grep { defined && length }
        map { $r->header($_) } 'X-Status', 'X-Value', 'X-Age';
}
