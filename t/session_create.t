#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_session create=: the response names the session, and its header waits
# until every node knows it: the next request, wherever it comes to, goes to the
# origin that issued the id.  Three origins know their own sessions only.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;
use Digest::SHA;
use Time::HiRes qw(time sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect(die => 1);

my @o = map { origin($_) } 1 .. 3;

$t->set("O$_" => $o[$_ - 1]->addr) for 1 .. 3;

my $conf = <<'EOF';
    %%STORE%%
    coord_session_zone $http_mcp_session_id zone=mcp:1m ttl=1h;
    coord_session_zone $http_mcp_session_id zone=user:1m ttl=1h;
    coord_session_zone $http_mcp_session_id zone=client:1m ttl=1h;
    coord_session_zone $cookie_jsessionid zone=java:1m ttl=1h;
    coord_session_zone $arg_k zone=learn:1m ttl=1h;

    upstream sticky {
        server %%O1%%; server %%O2%%; server %%O3%%;
        coord_sticky $coord_session_value;
    }
    upstream plain { server %%O1%%; server %%O2%%; server %%O3%%; }

    map $coord_session_value $peer {
        ""       plain;
        default  $coord_session_value;
    }

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        resolver 127.0.0.1:9;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        add_header X-Status $coord_session_status always;
        add_header X-Value $coord_session_value always;
        add_header X-Age $coord_session_age always;

        location /sticky {
            coord_session zone=mcp create=$upstream_http_mcp_session_id
                          learn=$upstream_addr;
            proxy_pass http://sticky;

            location /sticky/unbuffered {
                proxy_buffering off;
                proxy_pass http://sticky;
            }
        }
        location /plain {
            coord_session zone=mcp create=$upstream_http_mcp_session_id
                          learn=$upstream_addr;
            proxy_pass http://$peer;
        }
        location /java {
            coord_session zone=java create=$upstream_cookie_jsessionid
                          learn=$upstream_addr;
            proxy_pass http://sticky;
        }
        location /user {
            coord_session zone=user create=$upstream_http_mcp_session_id
                          learn=$upstream_addr user=$upstream_http_x_user
                          max_per_user=2;
            proxy_pass http://sticky;
        }
        location /client {
            coord_session zone=client create=$upstream_http_mcp_session_id
                          bind=$http_x_client;
            proxy_pass http://sticky;
        }
        location /learn {
            coord_session zone=learn learn=$upstream_addr
                          user=$upstream_http_x_user;
            proxy_pass http://sticky;
        }
        location /api { coord_api write; }
    }
EOF

my %store = (STORE => 'coord_store main { server %%REDIS%%; timeout 5s; connect_timeout 5s; }');
my ($a, $b) = map { $t->node(name => $_, workers => 2, http => $conf,
                             vars => { %store })->start } 'a', 'b';
my $m = $t->node(name => 'm', workers => 2, http => $conf,
                 vars => { STORE => '' })->start;
my $short = $t->node(name => 'short', http => $conf, vars => {
    STORE => 'coord_store main { server %%REDIS%%; timeout 250ms; }' })->start;
$_->allow(qr/\[(warn|error)\].*store "main"/) for $short;


# 0 of 200 follow-ups at the wrong origin, the first ones at once

for my $where ('/sticky', '/sticky/unbuffered', '/plain') {
    my ($wrong, %at) = (0);

    for my $i (1 .. 50) {
        my $r = (($a, $b)[$i % 2])->get("$where?new");
        my $id = $r->header('Mcp-Session-Id');

        $at{substr $id, 0, 2}++;
        my %h = (headers => { 'Mcp-Session-Id' => $id });
        my @r = $t->parallel([ map { $_->req($where, %h) } $a, $b, $b, $a ]);
        $wrong += grep { $_->status != 200 } @r;
    }

    is($wrong, 0, "$where: 200 follow-ups, none at the wrong origin");
    is(join(' ', sort keys %at), 'o1 o2 o3', "$where: balanced");
}


# what the variables tell, of the response that creates and of the next

for ([ $a, $b, 'redis' ], [ $m, $m, 'memory' ]) {
    my ($p, $q, $what) = @$_;

    my $r = $p->get('/sticky?new');
    like(told($r), qr/^200 NEW 127\.0\.0\.1:\d+ 0$/, "$what: created");
    my %h = (headers => { 'Mcp-Session-Id' => $r->header('Mcp-Session-Id') });
    is($q->get('/sticky', %h)->header('X-Value'), $r->header('X-Value'),
       "$what: bound to the origin that answered");
    is($q->get('/sticky', %h)->header('X-Status'), 'BOUND', "$what: bound");

    # without a session, and none made

    is(told($p->get('/sticky?other')), '200 NONE', "$what: no session");

    # cookies, and an id that replaces another one

    $r = $p->get('/java?new');
    my ($one) = $r->header('Set-Cookie') =~ /JSESSIONID=(\S+)/;
    is($q->get('/java', headers => { Cookie => "JSESSIONID=$one" })->status,
       200, "$what: cookie");
    $r = $q->get('/java?new', headers => { Cookie => "JSESSIONID=$one" });
    my ($two) = $r->header('Set-Cookie') =~ /JSESSIONID=(\S+)/;
    is(told($r), '200 NEW ' . $r->header('X-Value') . ' 0', "$what: replaced");
    is($p->get('/java', headers => { Cookie => "JSESSIONID=$two" })->status,
       200, "$what: the new one");

    # created by an error, too, but nothing else is learned from it

    $r = $p->get('/sticky?new&status=401');
    %h = (headers => { 'Mcp-Session-Id' => $r->header('Mcp-Session-Id') });
    is($r->status . $q->get('/sticky', %h)->status, '401200',
       "$what: created by a 401");
    $p->get('/sticky?status=404',
            headers => { 'Mcp-Session-Id' => 'made-up' });
    $r = $p->get('/sticky?status=200',
                 headers => { 'Mcp-Session-Id' => 'made-up' });
    is($r->header('X-Status'), 'NEW', "$what: a 404 teaches nothing");

    # bind: what the client had when its session was created

    $r = $p->get('/client?new', headers => { 'X-Client' => 'me' });
    my $id = $r->header('Mcp-Session-Id');
    is(join(' ', map { $q->get('/client', headers => {
                           'Mcp-Session-Id' => $id, 'X-Client' => $_ })
                       ->header('X-Status') } qw(me you me)),
       'BOUND MISMATCH BOUND', "$what: bind=");

    # the user that the response tells

    my @ids = map { $p->get('/user?new&user=ann')->header('Mcp-Session-Id') }
              1 .. 3;
    is(join(' ', map { $q->get('/user', headers => { 'Mcp-Session-Id' => $_ })
                       ->header('X-Status') } @ids),
       'REVOKED BOUND BOUND', "$what: user=, the oldest makes room");
    like($q->get('/api/users/user/ann')->body, qr/"count": ?2/,
         "$what: indexed");
    $q->request('DELETE', '/api/users/user/ann');
    is($p->get('/user', headers => { 'Mcp-Session-Id' => $ids[2] })
       ->header('X-Status'), 'REVOKED', "$what: log out everywhere");

    # and with learn= alone

    $p->get('/learn?k=1&user=bob');
    $p->get('/learn?k=2&user=bob&status=500');
    like($q->get('/api/users/learn/bob')->body, qr/"count": ?1/,
         "$what: user= with learn=");
    is($q->get('/learn?k=1&user=bob')->header('X-Status'), 'BOUND',
       "$what: whose session is bound");
    $q->request('DELETE', '/api/users/learn/bob');
    is($p->get('/learn?k=1')->status, 403, "$what: and ends with the others");
}


# the header waits, and only as long as it has to; the body comes behind it

{
    my @r;

    for my $path (qw(/sticky?new&size=300000 /sticky/unbuffered?new&size=300000
                     /sticky?new&size=300000&chunked=1000))
    {
        my $since = time;
        $admin->command(qw(CLIENT PAUSE 400 WRITE));
        my $r = $a->get($path);
        cmp_ok(time - $since, '>=', 0.39, "$path: waits for Redis");
        is(length $r->body, 300000, "$path: the whole body");
        is($b->get('/sticky', headers => { 'Mcp-Session-Id' =>
                                           $r->header('Mcp-Session-Id') })
           ->status, 200, "$path: known");
    }

    for my $path ('/sticky?new', '/sticky?new&status=204') {
        $admin->command(qw(CLIENT PAUSE 300 WRITE));
        my $c = $a->connect;
        my $r = $c->request(method => 'HEAD', path => $path);
        like($r->header('Mcp-Session-Id'), qr/^o/, "HEAD $path");
        is($c->request(path => '/sticky?again')->status, 200,
           "HEAD $path: the connection goes on");
    }

    # SSE: nothing but a header, at first

    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    my $c = $a->connect;
    $c->send("GET /sticky/unbuffered?sse HTTP/1.1\r\nHost: x\r\n\r\n");
    my $since = $t->ran;
    my $head = '';
    while ($head !~ /\r\n\r\n/) {
        my $bytes = $c->read(2);
        last if !defined $bytes || $bytes eq '';
        $head .= $bytes;
    }
    like($head, qr/mcp-session-id: o/i, 'SSE: the header');
    cmp_ok($t->ran - $since, '<', 1.5, 'SSE: although no body comes');
    my ($id) = $head =~ /mcp-session-id: (\S+)/i;
    is($b->get('/sticky', headers => { 'Mcp-Session-Id' => $id })->status, 200,
       'SSE: the session is known while the stream is open');
    $head .= $c->read(3) // '' while $head !~ /data: late/ && $t->ran - $since < 6;
    like($head, qr/data: late/, 'SSE: and goes on');
    $c->close;

    # HTTP/2

    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    my $h2 = Coord::HTTP2->new(port => $a->port(2));
    my @s = map { $h2->request('/sticky?new&size=100000') } 1 .. 3;
    my @ended = map { $h2->ended($_, 10) } @s;
    is(join(' ', map { length $_->{body} } @ended), '100000 100000 100000',
       'HTTP/2: bodies');
    is(join(' ', map { $b->get('/sticky', headers => {
                           'Mcp-Session-Id' => header($_, 'mcp-session-id') })
                       ->status } @ended), '200 200 200',
       'HTTP/2: sessions');

    # one that gives up

    my $log = $a->log;
    $admin->command(qw(CLIENT PAUSE 500 WRITE));
    my $gone = $h2->request('/sticky?new');
    sleep 0.15;
    $h2->reset($gone);
    my $c2 = $a->connect;
    $c2->send("GET /sticky?new&size=100000 HTTP/1.1\r\nHost: x\r\n\r\n");
    sleep 0.15;
    $c2->reset;
    sleep 0.6;
    is($a->get('/sticky?new')->status, 200, 'clients that go away');
    $h2->close;
}


# a store without an answer: the header leaves when its time is over

{
    $redis->freeze;
    my $since = $t->ran;
    my $r = $short->get('/sticky?new');
    cmp_ok($t->ran - $since, '<', 1.2, 'no answer: the header leaves in time');
    is($r->header('X-Status'), 'BYPASSED', 'no answer: BYPASSED');
    my $id = $r->header('Mcp-Session-Id');
    is(scalar(grep { $_->status == 200 }
              map { $short->get('/sticky', headers => {
                        'Mcp-Session-Id' => $id }) } 1 .. 4), 4,
       'no answer: the node remembers');
    kill 'CONT', $redis->{pid};
}


# one that answers and takes no writes: what it does not have the node knows, and
# sends it again when it is asked for

{
    my $bound = sub {
        my ($node, @ids) = @_;

        return grep { $_->status == 200 && $_->header('X-Value') }
               map { $node->get('/sticky', headers => {
                         'Mcp-Session-Id' => $_ }) } @ids;
    };

    $t->wait_for(sub { $short->get('/sticky?new')->header('X-Status') eq 'NEW' },
                 20);
    $admin->command(qw(CONFIG SET min-replicas-to-write 1));
    my @ids = map { $_->header('Mcp-Session-Id') }
              grep { $_->header('X-Status') eq 'BYPASSED' }
              map { $short->get('/sticky?new') } 1 .. 8;
    is(scalar @ids, 8, 'no writes: BYPASSED');

    # the breaker is closed: it is asked, and has none of them

    ok($t->wait_for(sub {
        my $r = $short->get('/api/sessions/mcp/' . $ids[0]);
        return $r->status == 404;
    }, 20), 'no writes: it is read');
    is(scalar $bound->($short, reverse @ids), 8,
       'no writes: the node remembers');
    is(scalar $bound->($short, reverse @ids), 8, 'no writes: and again');

    $admin->command(qw(CONFIG SET min-replicas-to-write 0));
    ok($t->wait_for(sub {
        $bound->($short, $ids[0]);
        return 1 == $admin->command('EXISTS', "coord:ss:mcp:{~" . substr(
            Digest::SHA::sha256_hex($ids[0]), 0, 32) . '}');
    }, 20), 'writes again: it is sent');
    is(scalar $bound->($short, reverse @ids), 8,
       'writes again: with all that it knows');
    is(scalar $bound->($b, reverse @ids), 8,
       'writes again: which all nodes know then');

    # what has come to its end meanwhile has

    $admin->command(qw(CONFIG SET min-replicas-to-write 1));
    my $id = $short->get('/sticky?new')->header('Mcp-Session-Id');
    $admin->command(qw(CONFIG SET min-replicas-to-write 0));
    is($b->request('DELETE', "/api/sessions/mcp/$id")->status, 200, 'revoked');
    ok($t->wait_for(sub { $short->get('/sticky', headers => {
                              'Mcp-Session-Id' => $id })->status == 403 }, 20),
       'writes again: one that was revoked by another node is not sent');
}


# an upstream that breaks while its header is kept

{
    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    my $r = $a->get('/sticky?new&size=1000&close_at=10');
    is(length($r->body), 10, 'cut: what came');
    ok(!$r->{complete}, 'cut: and told so');
}

is(join(' ', grep { $admin->command('PTTL', $_) == -1 }
             @{ $admin->command('KEYS', '*') }), '', 'all keys have a TTL');

done_testing();


# an origin that knows the sessions that it has issued

sub origin {
    my ($n) = @_;

    my (%ids, $count);

    return $t->origin(default => sub {
        my ($req) = @_;

        my @h = defined $req->{args}{user}
                ? ('X-User' => $req->{args}{user}) : ();
        my $id = ($req->{headers}{'mcp-session-id'} || [])->[0];
        my $cookie = ($req->{headers}{cookie} || [''])->[0];
        $id = $1 if $cookie =~ /JSESSIONID=(\w+)/;

        if (exists $req->{args}{new} || exists $req->{args}{sse}) {
            $id = "o${n}x" . ++$count . 'x' . int(rand 1e9);
            $ids{$id} = 1;
            push @h, $req->{path} eq '/java'
                     ? ('Set-Cookie' => "JSESSIONID=$id")
                     : ('Mcp-Session-Id' => $id);

        } elsif (defined $id && !$ids{$id} && !defined $req->{args}{status}) {
            return { status => 404, body => "o$n", headers => \@h };
        }

        return { headers => [ @h, 'Content-Type' => 'text/event-stream' ],
                 chunked => 1, parts => [ [ 2, "data: late\n\n" ] ] }
            if exists $req->{args}{sse};

        return { body => "o$n", headers => \@h };
    });
}


sub told {
    my ($r) = @_;

    return join ' ', $r->status, grep { defined && length }
        map { $r->header($_) } 'X-Status', 'X-Value', 'X-Age';
}


sub header {
    my ($stream, $name) = @_;

    my $h = $stream->{headers};

    return ref $h eq 'HASH' ? (ref $h->{$name} ? $h->{$name}[0] : $h->{$name})
                            : undef;
}
