#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What a client leaves out does not help it; a refused request sees nothing of
# the session; a session in use lives; refusals are counted as such; what
# stands in Redis is checked.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Digest::SHA;
use JSON::PP;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect(die => 1);
my $origin = $t->origin(default => sub {
    my ($req) = @_;
    return { headers => [ 'X-Seen' => $req->{headers}{'x-value'}[0] // '',
                          $req->{args}{sid} ? ('X-Sid' => $req->{args}{sid})
                                            : () ],
             status => $req->{args}{status} || 200,
             parts => [ [ 0, 'begin ' ], [ $req->{args}{long} || 0, 'end' ] ],
             chunked => 1 };
});

my $conf = <<'EOF';
    %%STORE%%
    coord_session_zone $arg_k zone=one:1m;
    coord_session_zone $arg_k zone=user:1m;
    coord_session_zone $arg_k zone=stream:1m ttl=2s;
    coord_session_zone $arg_k zone=learn:1m ttl=2s;
    coord_session_zone $arg_k zone=count:1m;
    coord_session_zone $sid zone=late:1m ttl=2s;
    coord_session_zone $arg_k zone=looked:1m;
    coord_lookup $plan plan:$request_body default=none;
    coord_limit_req_zone $plan zone=plans:1m rate=1000r/s;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_session_status always;
        add_header X-Value $coord_session_value always;
        add_header X-Age $coord_session_age always;
        proxy_set_header X-Value $coord_session_value;
        proxy_read_timeout 30s;

        location /bind { coord_session zone=one bind=$arg_v; empty_gif; }
        location /pass {
            coord_session zone=one bind=$arg_v mismatch=pass;
            proxy_pass http://%%ORIGIN%%;
        }
        location /rebind {
            coord_session zone=one bind=$arg_v mismatch=rebind;
            proxy_pass http://%%ORIGIN%%;
        }
        location /page {
            coord_session zone=one bind=$arg_v;
            error_page 403 = /denied;
            empty_gif;
        }
        location = /denied {
            internal;
            add_header X-Value "[$coord_session_value]" always;
            proxy_pass http://%%ORIGIN%%;
        }
        location /early {
            auth_request /who;
            coord_session zone=one bind=$arg_v;
            proxy_pass http://%%ORIGIN%%;
        }
        location = /who {
            internal;
            proxy_pass http://%%ORIGIN%%/who?status=403;
        }
        location /late {
            auth_request /sid;
            auth_request_set $sid $upstream_http_x_sid;
            coord_session zone=late bind=$arg_v;
            proxy_intercept_errors on;
            error_page 404 = @late;
            proxy_pass http://%%ORIGIN%%;
        }
        location @late {
            coord_session zone=late bind=$arg_v;
            empty_gif;
        }
        location /looked {
            coord_session zone=looked bind=$arg_v;
            coord_limit_req zone=plans burst=1000 nodelay after_body;
            proxy_pass http://%%ORIGIN%%;
        }
        location /looked/seat {
            coord_session zone=looked bind=$arg_v user=$arg_k
                          max_per_user=1 over=reject;
            coord_limit_req zone=plans burst=1000 nodelay after_body;
            proxy_pass http://%%ORIGIN%%;
        }
        location = /sid {
            internal;
            proxy_pass http://%%ORIGIN%%/?sid=late;
        }
        location /off {
            coord_session off;
            return 200 "[$coord_session_status]";
        }
        location /inherit {
            coord_session zone=one bind=$arg_v;
            empty_gif;
            location /inherit/off { coord_session off; empty_gif; }
        }
        location /user {
            coord_session zone=user user=$arg_u;
            empty_gif;
        }
        location /move {
            coord_session zone=user user=$arg_u mismatch=rebind;
            empty_gif;
        }
        location /stay {
            coord_session zone=user user=$arg_u mismatch=pass;
            empty_gif;
        }
        location /stream {
            coord_session zone=stream bind=$arg_v;
            proxy_buffering off;
            proxy_pass http://%%ORIGIN%%;
        }
        location /learn {
            coord_session zone=learn learn=$upstream_addr;
            proxy_buffering off;
            proxy_pass http://%%ORIGIN%%;
        }
        location /decoded { coord_session zone=one bind=$uri; empty_gif; }
        location /count {
            coord_session zone=count bind=$arg_v missing=reject;
            empty_gif;
        }
        location /count_rebind {
            coord_session zone=count bind=$arg_v mismatch=rebind;
            empty_gif;
        }
        location /count_dry {
            coord_session zone=count bind=$arg_v missing=reject;
            coord_session_dry_run on;
            empty_gif;
        }
        location /status { coord_status; }
        location /api { coord_api write; }
    }
EOF

my %store = (STORE => 'coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }');
my ($a, $b) = map { $t->node(name => $_, workers => 2, http => $conf,
                             vars => { %store })->start } 'a', 'b';
my $m = $t->node(name => 'm', workers => 2, http => $conf,
                 vars => { STORE => '' })->start;

for ([ $a, $b, 'redis' ], [ $m, $m, 'memory' ]) {
    my ($p, $q, $what) = @$_;

    # an empty value is another value, wherever one is bound

    is(told($p, '/bind?k=e&v=secret'), '200 NEW secret', "$what: bound");
    is(told($q, '/bind?k=e'), '403 MISMATCH', "$what: left out");
    is(told($q, '/bind?k=e&v='), '403 MISMATCH', "$what: empty");
    is(told($q, '/pass?k=e'), '200 MISMATCH secret',
       "$what: passes on purpose");
    is(told($q, '/rebind?k=e'), '200 MISMATCH secret',
       "$what: nothing is not bound");
    is(told($p, '/bind?k=e&v=secret'), '200 BOUND secret', "$what: stays");
    is(told($p, '/bind?k=un'), '200 NEW', "$what: nothing to bind");
    is(told($q, '/bind?k=un'), '200 BOUND', "$what: nothing is bound");
    is(told($q, '/bind?k=un&v=1'), '200 BOUND 1', "$what: bound now");
    is(told($q, '/bind?k=un'), '403 MISMATCH', "$what: and left out");


    # a refused request sees nothing

    for my $v ('', '&v=guess') {
        my $r = $q->get("/page?k=e$v");
        is($r->header('X-Value'), '[]', "$what: error_page, header");
        is($r->header('X-Seen'), '', "$what: error_page, upstream");
        is($q->get("/bind?k=e$v")->header('X-Age'), undef, "$what: no age");
    }

    my $r = $q->get('/early?k=e&v=secret');
    is($r->status . ($r->header('X-Value') // ''), 403,
       "$what: nothing before the decision");


    # off

    is($p->get('/off')->body, '[]', "$what: off");
    is(told($p, '/inherit/off?k=e'), 200, "$what: off, inherited");
    is(told($p, '/inherit?k=e'), '403 MISMATCH', "$what: on");


    # another user

    is(told($p, '/user?k=u1&u=ann'), '200 NEW', "$what: ann");
    is(told($q, '/user?k=u1&u=bob'), '403 MISMATCH', "$what: bob is not ann");
    is(told($q, '/user?k=u1'), '200 BOUND', "$what: nobody may be");
    is(told($q, '/stay?k=u1&u=bob'), '200 MISMATCH', "$what: pass");
    is(told($q, '/user?k=u1&u=ann'), '200 BOUND', "$what: ann's still");
    is(users($p, 'bob'), 0, "$what: not bob's");
    is(told($q, '/move?k=u1&u=bob'), '200 MISMATCH', "$what: rebind");
    is(users($p, 'ann') . users($p, 'bob'), '01', "$what: moved");
    is(told($q, '/user?k=u1&u=bob'), '200 BOUND', "$what: bob's now");
    is(told($q, '/user?k=u1&u=ann'), '403 MISMATCH', "$what: not ann's");
    $p->request('DELETE', '/api/users/user/bob');
    is(told($q, '/user?k=u1&u=ann'), '403 REVOKED',
       "$what: ended with bob's");


    # what cannot stand in a field is bound as its digest

    my $digest = 'sha256:' . Digest::SHA::sha256_hex("/decoded/a\r\nX-B: 1");
    is(told($p, '/decoded/a%0d%0aX-B:%201?k=d'), "200 NEW $digest",
       "$what: a value with line ends");
    is(told($q, '/decoded/a%0d%0aX-B:%201?k=d'), "200 BOUND $digest",
       "$what: is bound");


    # counts: what was refused

    is(counted($p)->{refused}, 0, "$what: nobody was");
    told($p, '/count') for 1 .. 3;
    is(counted($p)->{refused}, 3, "$what: missing=reject");
    told($p, '/count?k=1&v=1');
    told($p, '/count_rebind?k=1&v=2');
    told($p, '/count_rebind?k=1&v=3');
    is(counted($p)->{refused}, 3, "$what: mismatch=rebind is not refused");
    told($p, '/count_dry?k=1&v=4') for 1 .. 4;
    told($p, '/count_dry') for 1 .. 2;
    my $c = counted($p);
    is($c->{refused}, 3, "$what: nor is a dry run");
    is_deeply([ @{ $c->{decisions} }{qw(missing mismatch_passed
                                       mismatch_dry_run missing_dry_run)} ],
              [ 3, 2, 4, 2 ], "$what: each as what it is");
    told($p, '/count?k=1&v=4');
    is(counted($p)->{refused}, 4, "$what: a mismatch is");
}


# a session in use lives

for my $n ($a, $m) {
    is(told($n, '/stream?k=s&v=1'), '200 NEW 1', 'stream: new');
    $n->get('/learn?k=l');
}

my @r = $t->parallel([ map { $_->req('/stream?k=s&v=1&long=5'),
                             $_->req('/learn?k=l&long=5'),
                             $_->req('/learn?k=l2&long=5') } $a, $m ]);
is(join(' ', map { $_->body } @r), join(' ', ('begin end') x 6), 'streamed');

for my $n ($a, $m) {
    is(told($n, '/stream?k=s&v=1'), '200 BOUND 1', 'stream: lived');
    like(told($n, "/learn?k=$_"), qr/^200 BOUND 127/, "stream: $_ lived")
        for 'l', 'l2';
}

sleep 2.5;
is(told($_, '/stream?k=s&v=2'), '200 NEW 2', 'stream: over') for $a, $m;


# nothing is learned from an error

is(told($_, '/learn?k=err&status=404'), '404 NEW', 'learn: not from a 404')
    for $a, $m;
like(told($_, '/learn?k=err'), qr/^200 NEW 127/, 'learn: from what comes then')
    for $a, $m;


# a session that the access phase has named is decided once: the page of an
# error does not begin another one, and nothing of it outlives the request

for my $node ($a, $m) {
    my @pids = sort $node->workers;
    my @told = map { told($node, '/late?status=404&v=1') } 1 .. 30;

    is($told[0], '200 NEW 1', 'named late: the page of an error');
    is(join(' ', grep { $_ ne '200 BOUND 1' } @told[1 .. 29]), '',
       'named late: again');

    sleep 2.1;

    told($node, '/late?status=404&v=1') for 1 .. 30;
    is(join(' ', sort $node->workers), "@pids", 'named late: workers live');
}


# a limit behind it whose key is fetched when the body is read: all of that
# phase begins anew, and the session is bound

for my $path ('/looked', '/looked/seat') {
    for my $k (1 .. 5) {
        my $n = 0;
        my @told = map {
            my $r = $_->[0]->post("$path?k=$path$k&v=$_->[1]",
                                  "$path $k " . $n++);
            join ' ', $r->status, grep { defined } map { $r->header($_) }
                                       'X-Status', 'X-Value';
        } [ $a, 1 ], [ $b, 1 ], [ $b, 2 ];

        is(join(', ', @told), '200 NEW 1, 200 BOUND 1, 403 MISMATCH',
           "$path, $k: bound");
    }
}


# what stands in Redis is checked

for my $c ([ v => "1\r\nX-Bad: 1" ], [ v => "a\x00b" ], [ c => 'yesterday' ],
           [ v => 'x' x 600 ])
{
    my ($field, $value) = @$c;
    my $key = 'coord:ss:one:{~' . hex_of('bad') . '}';

    $admin->command('DEL', $key);
    $admin->command('HSET', $key, c => int(time() * 1e6), v => 1,
                    $field => $value);
    $admin->command('PEXPIRE', $key, 60000);

    my $r = $a->get('/pass?k=bad');
    is($r->status, 200, "damaged $field: goes on");
    is($r->header('X-Bad'), undef, "damaged $field: not in the response");
    is($r->header('X-Seen'), '', "damaged $field: nor upstream");
}

cmp_ok(counted($a, 'one')->{decisions}{damaged}, '>=', 4, 'damaged: counted');

done_testing();


sub told {
    my ($node, $path) = @_;

    my $r = $node->get($path);

    return join ' ', $r->status, grep { defined && length }
        map { $r->header($_) } 'X-Status', 'X-Value';
}


sub users {
    my ($node, $user) = @_;

    return decode_json($node->get("/api/users/user/$user")->body)->{count};
}


sub counted {
    my ($node, $zone) = @_;

    my $json = decode_json($node->get('/status?format=json')->body);
    my ($z) = grep { ($_->{zone} // '') eq ($zone // 'count') } @{ $json->{zones} };

    return $z;
}


sub hex_of { substr Digest::SHA::sha256_hex($_[0]), 0, 32 }
