#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What a user of Redis must be allowed: docs/redis.md tells it feature by
# feature.  Each feature has a store and a user of its own here, that is allowed
# just that, and does all that it can: nothing is refused, and nothing of it is
# not needed.  With one server, in a cluster, and behind sentinels.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Cluster;
use Coord::Events;
use Coord::Sentinel;
use Coord::Util qw(slurp spew);
use JSON::PP qw(decode_json);
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $o = $t->origin(default => sub {
    my ($req) = @_;
    my %arg = map { /^(\w+)=(.*)/ ? ($1 => $2) : () }
                  split /[?&]/, $req->{uri};

    return { status => $arg{status} || 200, delay => $arg{delay} || 0,
             body => 'x' x ($arg{size} || 4),
             headers => [ 'Cache-Control' => $arg{cc} || 'no-store',
                          'Surrogate-Key' => 'tag',
                          $arg{login} ? ('X-Login' => $arg{login}) : () ] };
});


# "# name" and words below it, in the block that begins with "# every store"

my %words;

{
    my ($block) = slurp("$FindBin::Bin/../docs/redis.md")
        =~ /^```\n(# every store\n.*?)^```/ms;
    my $name;

    for (split /\n/, $block || '') {
        if (/^# (.*)/) {
            $name = $1;
        } else {
            push @{$words{$name}}, split;
        }
    }
}

# features of which a row is a part

push @{$words{coord_lookup}}, @{$words{'coord_lookup load='} || []};

my @features = qw(coord_limit_req coord_limit_conn coord_lock
                  coord_idempotency coord_session coord_lookup coord_cache
                  coord_publish coord_subscribe coord_status);

is_deeply([ grep { !$words{$_} } @features ], [], 'all features are told of');


# the rule for all of them is that of lua-free-scripts/README.md

{
    my ($rule) = slurp("$FindBin::Bin/../lua-free-scripts/README.md")
        =~ /^ *ACL SETUSER app on >secret((?:.*\\\n)*.*)/m;
    my %all = map { $_ => 1 } map { @$_ } values %words;
    my %rule = map { $_ => 1 } grep { !/^(?:\\|-\@all|resetchannels)$/ }
                                    split ' ', $rule;

    # keys and channels of an application are its own

    delete $all{$_} for grep { /^[~&]/ && !/coord|__redis__/ } keys %all;

    is_deeply([ sort keys %rule ], [ sort keys %all ],
              'together they are the rule of the README');
}

my $http = <<'EOF';
    %%STORES%%

    coord_limit_req_zone $arg_k zone=leaky:1m rate=5r/s store=coord_limit_req;
    coord_limit_req_zone $arg_k zone=bucket:1m rate=$arg_r
                         algorithm=token_bucket store=coord_limit_req;
    coord_limit_req_zone $arg_k zone=sliding:1m rate=2r/m
                         algorithm=sliding_window store=coord_limit_req;
    coord_limit_req_zone $arg_k zone=log:1m rate=4r/m
                         algorithm=sliding_log store=coord_limit_req;
    coord_limit_req_zone $arg_k zone=fixed:1m rate=$arg_r
                         algorithm=fixed_window store=coord_limit_req;
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h store=coord_limit_req;
    coord_limit_conn_zone $arg_k zone=conn:1m lease=1s store=coord_limit_conn;
    coord_lock_zone $arg_k zone=lock:1m lease=1s store=coord_lock;
    coord_session_zone $arg_k zone=session:1m store=coord_session;
    coord_session_zone $coord_session_id zone=login:1m store=coord_session;
    coord_cache_zone zone=pages:1m store=coord_cache;
    coord_lookup $rate rate:$arg_l ttl=1h store=coord_lookup zone=look;
    coord_lookup $plan user:$arg_l field=plan store=coord_lookup zone=look;
    coord_lookup $name name:$arg_n load=/load store=coord_lookup zone=look;

    server {
        listen 127.0.0.1:%%PORT%%;
        coord_on_failure closed;
        coord_idempotency_store coord_idempotency;

        location /leaky { coord_limit_req zone=leaky burst=10;
                          empty_gif; }
        location /bucket { coord_limit_req zone=bucket burst=$arg_b;
                           coord_limit_req zone=one burst=99 nodelay
                                           charge=after cost=2;
                           empty_gif; }
        location /sliding { coord_limit_req zone=sliding;
                            coord_limit_req zone=one burst=$arg_b nodelay;
                            empty_gif; }
        location /log { coord_limit_req zone=log cost=$arg_c reserve=$arg_v;
                        coord_limit_req zone=one burst=$arg_b nodelay;
                        empty_gif; }
        location /fixed { coord_limit_req zone=fixed cost=$arg_c
                                          reserve=$arg_v;
                          coord_limit_req zone=one burst=$arg_b nodelay;
                          empty_gif; }
        location /hold { coord_limit_req zone=one burst=99 nodelay;
                         coord_limit_req_hold zone=one for=$arg_for
                                              if=$arg_for;
                         empty_gif; }
        location /conn { coord_limit_conn conn 1 wait=20s;
                         proxy_pass http://%%ORIGIN%%; }
        location /lock { coord_lock zone=lock wait=20s;
                         proxy_pass http://%%ORIGIN%%; }
        location /now/conn { coord_limit_conn conn 1;
                             proxy_pass http://%%ORIGIN%%; }
        location /now/lock { coord_lock zone=lock;
                             proxy_pass http://%%ORIGIN%%; }
        location /post { coord_idempotency required;
                         coord_idempotency_scope off;
                         coord_idempotency_lease 1s;
                         coord_idempotency_wait 20s;
                         proxy_pass http://%%ORIGIN%%; }
        location /session { coord_session zone=session bind=$arg_b
                            user=$arg_u max_per_user=1 over=evict cut;
                            proxy_pass http://%%ORIGIN%%; }
        location /seat { coord_session zone=session bind=$arg_b
                         user=$arg_u max_per_user=1 over=reject;
                         proxy_pass http://%%ORIGIN%%; }
        location /login { coord_session zone=login bind=$arg_b
                                        user=$upstream_http_x_login;
                          coord_session_cookie sid
                                        rotate=$upstream_http_x_login;
                          proxy_pass http://%%ORIGIN%%; }
        location /learn { coord_session zone=session
                                        learn=$upstream_http_x_login;
                          proxy_pass http://%%ORIGIN%%; }
        location /rebind { coord_session zone=session bind=$arg_b
                                         mismatch=rebind;
                           proxy_pass http://%%ORIGIN%%; }
        location /look { add_header X-Look "$rate $plan $name"; empty_gif; }
        location /load { proxy_pass http://%%ORIGIN%%; }
        location /page { coord_cache $arg_k zone=pages lock;
                         add_header X-Cache $coord_cache_status;
                         proxy_pass http://%%ORIGIN%%; }
        location /pub { coord_publish news $arg_m store=coord_publish;
                        coord_publish kept $arg_m history=9
                                      store=coord_publish;
                        empty_gif; }
        location /events { coord_subscribe news kept history
                                           store=coord_subscribe; }
        location /status { coord_status; }
        location /health { coord_health; }
        location /api/ { coord_api write; }
    }
EOF


# all that was said to the servers: { store => { command => 1 } }

sub said {
    my ($monitors, @admin) = @_;

    my (%said, %store, %by);

    for my $i (0 .. $#admin) {
        $admin[$i]->command('ECHO', 'the end');

        while (1) {
            my ($client, $text) = $monitors->[$i]->read
                =~ /^\d+\.\d+ \[\d+ (\S+)\] (.*)/ or next;
            my @argv = $text =~ /"((?:[^"\\]++|\\.)*+)"/g;
            my $command = lc $argv[0];

            last if $command eq 'echo' && $argv[1] eq 'the end';

            $command .= '|' . lc $argv[1]
                if $command eq 'client' || $command eq 'cluster';

            # SELECT comes before the name, AUTH is not shown

            $by{"$i $client"}{$command} = 1;

            ($store{"$i $client"}) = $argv[2] =~ /^ngx_coord:(\w+):/
                if $command eq 'client|setname';
        }
    }

    for my $client (keys %by) {
        $said{$store{$client} || ''}{$_} = 1 for keys %{$by{$client}};
    }

    return \%said;
}


sub statuses {
    my %n;
    $n{$_->status}++ for @_;

    return \%n;
}


# all that a feature does

sub scenario {
    my ($name, $n, @admin) = @_;

    my $i = 0;
    my ($r, @got);

    my $look = sub {
        my ($path, $expected) = @_;

        $r = $n->get("/api/$path");
        is($r->status, $expected || 200, "$name: api: $path")
            or diag($r->body);
    };

    my $drop = sub {
        my ($path) = @_;

        $r = $n->request('DELETE', "/api/$path");
        is($r->status, 200, "$name: api: DELETE $path") or diag($r->body);
    };

    my $write = sub {
        my (@argv) = @_;

        for my $admin (@admin) {
            last if $admin->command(@argv) !~ /^MOVED/;
        }
    };

    # limits: granted, delayed, refused, given back, at other rates, held

    ok($t->wait_for(sub { $n->get('/leaky?k=0')->status == 200 }, 10),
       "$name: up");

    for my $path ('bucket?k=1&r=5r/s', 'bucket?k=1&r=9r/s',
                  'bucket?k=1&r=1r/h', 'sliding?k=1', 'log?k=1&c=1',
                  'log?k=2&c=2', 'fixed?k=1&r=100r/h&c=1',
                  'fixed?k=1&r=50r/m&c=2')
    {
        for my $rest ('b=0', 'b=99', 'b=0', 'b=99', 'b=99&v=2', 'b=99&v=1') {
            $r = $n->get("/$path&$rest");
            isnt($r->status, 503, "$name: $path&$rest");
        }
    }

    is_deeply(statuses($n->parallel(3, '/leaky?k=1')), { 200 => 3 },
              "$name: delayed");
    my $c = $n->connect;
    $c->send("GET /leaky?k=1 HTTP/1.1\r\nHost: x\r\n\r\n");
    sleep 0.05;
    $c->reset;

    is($n->get('/hold?k=h&for=1s')->status, 200, "$name: a hold");
    is($n->get('/hold?k=h&for=3s')->status, 429, "$name: is in force");
    is($n->get('/hold?k=h2&for=3s')->status, 200, "$name: another one");

    $look->("limits/$_/1?rate=5r/s") for qw(leaky bucket sliding log fixed);
    $look->("limits/one/h");
    $drop->("limits/$_/1") for qw(leaky bucket sliding log fixed one);
    $drop->("limits/one/h");

    # places and locks: in line, renewed, taken away

    my @both = qw(conn lock);

    @got = $t->parallel([map { ($n->req("/$_?k=1&delay=0.2")) x 3 } @both]);
    is_deeply(statuses(splice(@got, 0, 3)), { 200 => 3 },
              "$name: $_: in line") for @both;

    @got = $t->parallel([map { $n->req("/$_?k=2&delay=1.2") } @both]);
    is((shift @got)->status, 200, "$name: $_: renewed") for @both;

    my @pairs = map {
        my ($path, @pair) = ($_, map { $n->connect } 1, 2);

        $_->send("GET /$path?k=3&delay=0.5 HTTP/1.1\r\nHost: x\r\n\r\n")
            for @pair;
        \@pair;
    } @both;

    sleep 0.1;
    $_->[1]->reset for @pairs;
    is((shift @pairs)->[0]->response(timeout => 5)->status, 200,
       "$name: $_: one left") for @both;

    # without a line

    is($n->get("/now/$_?k=5")->status, 200, "$name: $_: at once")
        for qw(conn lock);

    # a line whose first one is gone

    $write->('ZADD', "coord:$_:{4}:w", time . '000000',
              'A' x 22)
        for 'cc:conn', 'lk:lock';
    @got = $t->parallel([map { $n->req("/$_?k=4") } @both]);
    is((shift @got)->status, 200, "$name: $_: a line is removed") for @both;

    $look->("conns/conn/1");
    $drop->("locks/lock/1");

    # one execution; one that is not kept; one that is forgotten; a large one

    for my $how ('delay=1.2', 'status=503', 'size=200000') {
        $i++;
        @got = $n->parallel(3, "/post?$how", method => 'POST', body => 'b',
                            headers => { 'Idempotency-Key' => "$name-$i" });
        is_deeply(statuses(@got), { $how =~ /503/ ? (503 => 3) : (200 => 3) },
                  "$name: post: $how");
        unlike($_->body, qr/store-unavailable/, "$name: by the origin")
            for @got;
        $drop->("idempotency/$name-$i?scope=");
    }

    # a record that is none any more

    my @post = (headers => { 'Idempotency-Key' => "$name-bad" });

    is($n->post('/post', 'b', @post)->status, 200, "$name: post: a record");

    for my $admin (@admin) {
        my @keys = grep { $admin->command('TYPE', $_) eq 'string' }
                        @{$admin->command('KEYS', 'coord:id:*')};
        $admin->command('SET', $_, 'bad', 'KEEPTTL') for @keys;
    }

    is($n->post('/post', 'b', @post)->status, 200, "$name: post: a bad one");

    # sessions: bound, another one of the user, one who may not, a log-in

    is($n->get("/session?k=s1&b=1&u=u")->status, 200, "$name: a session")
        for 1, 2;
    is($n->get("/session?k=s2&b=1&u=u")->status, 200, "$name: another one");
    is($n->get("/session?k=s1&b=1&u=u")->status, 403, "$name: ends the first");
    is($n->get("/seat?k=s3&b=1&u=v")->status, 200, "$name: a seat");
    is($n->get("/seat?k=s4&b=1&u=v")->status, 403, "$name: is taken");
    is($n->get("/learn?k=s5&login=$_")->status, 200, "$name: learned")
        for qw(a b);
    is($n->get("/rebind?k=s6&b=$_")->status, 200, "$name: bound, and again")
        for 1, 2;

    my ($sid) = ($n->get('/login?b=1')->header('Set-Cookie') || '')
        =~ /(sid=\w+)/;
    is($n->get('/login?b=1&login=ann', headers => { Cookie => $sid })->status,
       200, "$name: a log-in");
    is($n->get('/login?b=1', headers => { Cookie => $sid })->status, 403,
       "$name: the old name");

    $look->('sessions/session/s2');
    $look->('users/session/u');
    $drop->('sessions/session/s2');
    $drop->('users/session/v');

    # look-ups

    my $says = sub {
        my ($expected) = @_;

        ok($t->wait_for(sub {
            $r = $n->get("/look?l=1&n=1");
            return $r->header('X-Look') eq $expected;
        }, 5), "$name: look-ups: $expected") or diag($r->header('X-Look'));
    };

    $write->('SET', 'rate:1', '1r/s');
    $write->('HSET', 'user:1', 'plan', 'gold');
    $says->('1r/s gold xxxx');
    $write->('SET', 'rate:1', '2r/s');
    $says->('2r/s gold xxxx');
    $write->('HSET', 'user:1', 'plan', 'free');
    $says->('2r/s free xxxx');
    $drop->('lookups/rate%3A1');

    # the cache, and its copies nearby

    my $page = '/page?k=1&cc=max-age=60';

    ok($t->wait_for(sub { $n->get($page)->header('X-Cache') eq 'HIT' }, 5),
       "$name: a page");
    is_deeply(statuses($n->parallel(3, '/page?k=2&cc=max-age=60&delay=0.2')),
              { 200 => 3 }, "$name: one fill");
    my $gets = sub {
        my $sum = 0;
        $sum += $_ for map { $_->command('INFO', 'commandstats')
                             =~ /^cmdstat_get:calls=(\d+)/m } @admin;
        return $sum;
    };

    ok($t->wait_for(sub {
        my $before = $gets->();
        $n->get($page) for 1 .. 8;
        return $gets->() == $before;
    }, 20), "$name: copied nearby");

    $drop->('cache/pages?key=1');
    ok($t->wait_for(sub { $n->get($page)->header('X-Cache') eq 'HIT' }, 5),
       "$name: a page again");
    $drop->('cache/pages?tag=tag');

    # events

    my $es = Coord::Events->new($n, '/events');
    is($es->status, 200, "$name: a stream");
    $n->get("/pub?m=$_") for 1 .. 3;
    is(join(',', sort $es->data(6)), '1,1,2,2,3,3', "$name: is told");
    my $last = $es->{last};
    $es->close;
    $n->get('/pub?m=4');
    $es = Coord::Events->new($n, '/events', last => $last);
    is_deeply([ $es->data(1) ], [ 4 ], "$name: what was missed");
    $es->close;

    # the fleet

    ok($t->wait_for(sub { $n->get('/health')->status == 200 }, 5),
       "$name: health");
    ok($t->wait_for(sub {
        my $nodes = decode_json($n->get('/status?format=json')->body)
                    ->{fleet}{nodes};
        return grep { !$_->{self} } @$nodes;
    }, 20), "$name: status: the other node");

    # what is not used is asked whether it is there

    ok($t->wait_for(sub {
        return !grep { $_->command('INFO', 'commandstats') !~ /^cmdstat_ping:/m }
                     $admin[0];
    }, 20), "$name: idle");

    # servers that do not answer for a while

    $_->command('CLIENT', 'PAUSE', 900) for @admin;
    ok($t->wait_for(sub { $n->get('/leaky?k=' . rand)->status == 503 }, 5),
       "$name: paused");
    ok($t->wait_for(sub { $n->get('/leaky?k=' . rand)->status == 200 }, 10),
       "$name: and back");
}


my %needed;

sub run {
    my ($name, $lines, $also, $more, @servers) = @_;

    my @admin = map { $_->connect } @servers;
    my $stores = '';

    if ($lines =~ m{/(\d+);}) {
        $_->command('SELECT', $1) for @admin;
    }

    for my $feature ('coord_status', grep { $_ ne 'coord_status' } @features) {
        $stores .= "coord_store $feature { $lines username $feature;"
                   . " password_file %%TESTDIR%%/pass; timeout 500ms;"
                   . " connect_timeout 2s; breaker failures=3"
                   . " cooldown=200ms; }\n";

        my @rule = map { @{$words{$_} || []} } 'every store', @$also, $feature;

        @rule = qw(+@all ~* &*) if $ENV{ACL_DISCOVER};

        for (@admin) {
            is($_->command('ACL', 'SETUSER', $feature, 'on', '>secret',
                           'resetchannels', '-@all', @rule), 'OK',
               "$name: $feature") or diag("@rule");
        }
    }

    $_->command('CONFIG', 'RESETSTAT') for @admin;

    my @monitors = map { $_->connect } @servers;
    $_->command('MONITOR') for @monitors;
    $_->command('ACL', 'LOG', 'RESET') for @admin;

    my ($n, $other) = map {
        $t->node(name => $_, http => $http, vars => { STORES => $stores })
          ->start
    } $name, "$name-2";

    scenario($name, $n, @admin);
    $more->($n) if $more;
    $_->stop for $n, $other;

    my $said = said(\@monitors, @admin);

    for my $admin (@admin) {
        for my $denied (@{$admin->command('ACL', 'LOG')}) {
            my %entry = @$denied;
            fail("$name: $entry{username} is refused: $entry{object}");
        }
    }

    ok($_->log !~ /NOPERM|not permitted/, "$name: nothing was refused")
        for $n, $other;

    if ($ENV{ACL_DISCOVER}) {
        diag("$_: " . join ' ', sort keys %{$said->{$_}}) for sort keys %$said;
        return;
    }

    # and nothing is allowed without need

    my %all = map { %{$said->{$_}} } @features;

    $needed{$_} = 1 for keys %all;

    for my $row (@$also) {
        is_deeply([ grep { /^\+/ && !$all{substr $_, 1} } @{$words{$row}} ],
                  [], "$name: $row: all is needed");
    }

    for my $row (@features) {
        is_deeply([ grep { /^\+/ && !$said->{$row}{substr $_, 1} }
                         @{$words{$row}} ],
                  [], "$name: $row: all is needed");
    }
}


spew($t->file('pass'), "secret\n");
chmod 0600, $t->file('pass');

{
    my $redis = $t->redis;
    run('one', "server redis://127.0.0.1:$redis->{port}/1;",
        [ 'a database other than 0' ], undef, $redis);
}


# in a cluster, with a slot between two servers

{
    my $cluster = Coord::Cluster->start($t, masters => 3);
    my @servers = @{$cluster->{servers}};

    run('cluster', "mode cluster; server redis://127.0.0.1:$servers[0]{port};",
        [ 'a cluster' ], sub {
            my ($n) = @_;

            my $slot = Coord::Cluster::slot_of('moves');
            my ($to) = grep { $_ != $cluster->master($slot) } @servers;

            # the scenario has waited for one of them

            ok($t->wait_for(sub {
                my @keys = map { $cluster->key_on($_, 'back' . rand) } @servers;
                return !grep { $n->get("/leaky?k=$_")->status != 200 } @keys;
            }, 10), 'cluster: all of it is back');

            $cluster->begin_move($slot, $to);
            is($n->get('/leaky?k=moves')->status, 200, 'cluster: moves');
        }, @servers);
}


# behind sentinels

{
    # a master that is paused stays the master

    my $s = Coord::Sentinel->start($t, sentinels => 1, quorum => 1,
        sentinel_conf => [ 'sentinel down-after-milliseconds mymaster 60000' ]);

    run('sentinel', $s->lines . ' mode sentinel=mymaster;', [ 'sentinels' ],
        undef, @{$s->{servers}});
}

is_deeply([ grep { /^\+/ && !$needed{substr $_, 1} }
                 @{$words{'every store'}} ],
          [], 'every store: all is needed');

done_testing();
