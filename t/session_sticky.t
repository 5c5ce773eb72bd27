#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_sticky: two nodes send a session to one of three origins, whatever
# balances; the binding follows where its peer cannot be used.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my @o = map { my $n = $_; $t->origin(default => sub {
    return { body => "o$n", delay => $_[0]{args}{delay} || 0 };
}) } 1 .. 3;

$t->set("O$_" => $o[$_ - 1]->addr) for 1 .. 3;

my $conf = <<'EOF';
    %%STORE%%
    %%ZONES%%

    upstream rr {
        server %%O1%% max_fails=1 fail_timeout=60s;
        server %%O2%% max_fails=1 fail_timeout=60s;
        server %%O3%% max_fails=1 fail_timeout=60s;
        coord_sticky $coord_session_value;
    }
    upstream weight {
        server %%O1%% weight=5;
        server %%O2%%;
        server %%O3%%;
        coord_sticky $coord_session_value;
    }
    upstream fresh {
        server %%O1%% weight=5;
        server %%O2%%;
        server %%O3%%;
        coord_sticky $coord_session_value;
    }
    upstream least {
        zone least 256k;
        least_conn;
        server %%O1%%; server %%O2%%; server %%O3%%;
        coord_sticky $coord_session_value;
    }
    upstream hash {
        hash $request_id consistent;
        server %%O1%%; server %%O2%%; server %%O3%%;
        coord_sticky $coord_session_value;
    }
    upstream keep {
        server %%O1%%; server %%O2%%; server %%O3%%;
        coord_sticky $coord_session_value;
        keepalive 8;
    }
    upstream backup {
        server %%O1%% down;
        server %%O2%% max_fails=0;
        server %%O3%% backup;
        coord_sticky $coord_session_value;
    }
    upstream most {
        zone most 256k;
        server %%O1%% max_conns=1;
        server %%O2%%;
        coord_sticky $coord_session_value;
    }
    upstream named {
        server 127.1:%%O1PORT%%;
        server %%O2%%; server %%O3%%;
        coord_sticky $coord_session_value;
    }
    upstream argument {
        server %%O1%%; server %%O2%%; server %%O3%%;
        coord_sticky $arg_peer;
    }
    upstream gone { server %%O2%%; server %%O3%%;
                    coord_sticky $coord_session_value; }

    server {
        listen 127.0.0.1:%%PORT%%;
        proxy_next_upstream error timeout;
        proxy_http_version 1.0;
        proxy_set_header Connection close;
        proxy_connect_timeout 30s;
        add_header X-Status $coord_session_status;
        add_header X-Upstream $upstream_addr;

        %%LOCATIONS%%

        location /keep {
            coord_session zone=keep learn=$upstream_addr;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://keep;
        }
        location /variable {
            set $up $arg_up;
            coord_session zone=variable learn=$upstream_addr;
            proxy_pass http://$up;
        }
        location /pinned {
            coord_session zone=pinned bind=%%O1%%;
            proxy_pass http://gone;
        }
        location /agent {
            coord_session zone=agent bind=$arg_agent mismatch=pass;
            proxy_pass http://named;
        }
        location /argument { proxy_pass http://argument; }
    }
EOF

my @all = qw(rr weight fresh least hash backup most gone);

$t->set(O1PORT => $o[0]->port);
$t->set(ZONES => join "\n",
        map { "coord_session_zone \$arg_k zone=$_:1m;" }
        @all, qw(keep variable pinned agent));
$t->set(LOCATIONS => join "\n",
        map { "location /$_ { coord_session zone=$_ learn=\$upstream_addr; "
              . "proxy_pass http://$_; }" } @all);

my @nodes;

for (qw(a b)) {
    push @nodes, $t->node(name => $_, workers => 2, http => $conf,
                          vars => { STORE => 'coord_store main { server '
                                             . '%%REDIS%%; timeout 30s; connect_timeout 30s; }' });
}

my ($a, $b) = map { $_->start } @nodes;
$_->allow(qr/\[warn\].*temporarily disabled/) for $a, $b;


# a session stays where it was balanced to, on both nodes

for my $up (qw(rr weight least hash keep)) {
    my %first;

    for my $k (1 .. 12) {
        $first{$k} = $a->get("/$up?k=$k")->body;
    }

    my %origins = map { $_ => 1 } values %first;
    cmp_ok(scalar keys %origins, '>=', 2, "$up: new sessions are balanced");

    my %other;

    for my $k (1 .. 12) {
        bound($b, "/$up?k=$k");
        push @{ $other{$k} }, map { $_->get("/$up?k=$k")->body } $a, $b, $b, $a;
    }

    is(join(' ', map { "@{ $other{$_} }" } 1 .. 12),
       join(' ', map { join ' ', ($first{$_}) x 4 } 1 .. 12),
       "$up: sessions stay");
}

{
    my %n;
    $n{ $a->get("/fresh?k=w$_")->body }++ for 1 .. 28;

    # two workers count on their own; nothing came before
    ok($n{o1} >= 18 && $n{o2} >= 3 && $n{o3} >= 3,
       'weight: new sessions by weight')
        or diag(join ' ', map { "$_: $n{$_}" } sort keys %n);
}


# connections are kept, and to the right peer

{
    my $k = 'kept';
    my $r = $a->get("/keep?k=$k");
    my ($origin) = $r->body =~ /(\d)/;
    bound($a, "/keep?k=$k");

    $a->get("/keep?k=$k") for 1 .. 20;

    # two workers keep connections of their own

    my @requests = $o[$origin - 1]->requests('/keep');
    my %conns = map { $_->{conn} => 1 } @requests[-20 .. -1];
    cmp_ok(scalar keys %conns, '<=', 3, 'keepalive: connections are reused');
    is($a->get("/keep?k=$k")->body, "o$origin", 'keepalive: the right origin');
}


# variables and several upstreams

{
    my $first = $a->get('/variable?k=1&up=rr')->body;
    bound($b, '/variable?k=1&up=rr');
    is(join(' ', map { $b->get("/variable?k=1&up=$_")->body }
                 qw(rr least hash weight)), "$first $first $first $first",
       'the same peer in several upstreams');
}

is($a->get("/argument?peer=" . $o[$_ - 1]->addr)->body, "o$_",
   "coord_sticky without a session, o$_") for 1, 2, 3;


# a name of the configuration

is($a->get('/agent?k=1&agent=127.1:' . $o[0]->port)->body, 'o1',
   'peer by name');
is($b->get('/agent?k=1&agent=x')->body, 'o1', 'peer by name, other node');
is($a->get('/agent?k=2&agent=' . $o[2]->addr)->body, 'o3', 'peer by address');
is($b->get('/agent?k=2')->body, 'o3', 'peer by address, other node');


# backup: used while nothing else is, and then kept

{
    is($a->get('/backup?k=b1')->body, 'o2', 'backup: not for new sessions');
    $o[1]->refuse;
    is($a->get('/backup?k=b2')->body, 'o3', 'backup: takes over');
    $o[1]->accept;
    bound($b, '/backup?k=b2');
    is($b->get('/backup?k=b2')->body, 'o3', 'backup: the session stays');
    is($b->get('/backup?k=b3')->body, 'o2', 'backup: a new one does not');
}


# max_conns: another one meanwhile, the binding stays

{
    my $k;

    for (1 .. 10) {
        $k = "m$_";
        last if $a->get("/most?k=$k")->body eq 'o1';
    }

    bound($a, "/most?k=$k");
    my @r = $t->parallel([ map { $a->req("/most?k=$k&delay=1") } 1 .. 4 ]);
    is(join(' ', sort map { $_->body } @r), 'o1 o2 o2 o2',
       'max_conns: one at a time');
    is($a->get("/most?k=$k")->body, 'o1', 'max_conns: back again');
}


# down: the balancer chooses, the binding follows on every node

{
    my %at;
    $at{ $a->get("/rr?k=$_")->body } = $_ for 1 .. 12;
    my $k = $at{o1};
    ok($k, 'a session of the first origin');

    $o[0]->refuse;

    my $r = $a->get("/rr?k=$k");
    is($r->status, 200, 'peer down: answered');
    my $moved = $r->body;
    isnt($moved, 'o1', 'peer down: by another');

    $o[0]->accept;
    ok($t->wait_for(sub { $b->get("/rr?k=$k")->body eq $moved }, 10),
       'peer down: the binding follows');
    is(join(' ', map { $_->get("/rr?k=$k")->body } $a, $b, $a, $b),
       join(' ', ($moved) x 4), 'peer down: it has moved for good');
    is($a->get("/rr?k=$k")->header('X-Status'), 'BOUND', 'still bound');
}


# removed from the configuration

{
    my $at = $o[0]->addr;
    $redis->connect->command('HSET', session_key('gone', 'g'), 'c',
                             int(time * 1e6), 'v', $at);
    $redis->connect->command('PEXPIRE', session_key('gone', 'g'), 60000);

    my $moved = $a->get('/gone?k=g')->body;
    like($moved, qr/^o[23]$/, 'peer removed: another');
    ok($t->wait_for(sub { $b->get('/gone?k=g')->body eq $moved }, 10),
       'peer removed: the binding follows');
    is(join(' ', map { $_->get('/gone?k=g')->body } $a, $b, $b, $b),
       join(' ', ($moved) x 4), 'peer removed: stays there');

    # without learn= the binding is the operator's word

    $a->get('/pinned?k=p') for 1 .. 3;
    is($redis->connect->command('HGET', session_key('pinned', 'p'), 'v'), $at,
       'bind=: not learned');
}


# a failed answer is not learned

{
    $_->refuse for @o;
    is($a->get('/hash?k=none')->status, 502, 'nobody answers');
    $_->accept for @o;
    is($redis->connect->command('EXISTS', session_key('hash', 'none')), 0,
       'and nothing is learned');
}

like($t->conf_error(http => 'upstream u { server 127.0.0.1:1; coord_sticky a; '
                            . 'coord_sticky b; }'),
     qr/"coord_sticky" directive is duplicate/, 'duplicate');

done_testing();


sub bound {
    my ($node, $path) = @_;

    return if $t->wait_for(sub { ($node->get($path)->header('X-Status') // '')
                                 eq 'BOUND' }, 10);
    fail("bound: $path");
}


sub session_key {
    my ($zone, $key) = @_;

    require Digest::SHA;

    # as ngx_coord_key_digest()
    return "coord:ss:$zone:{~"
           . substr(Digest::SHA::sha256_hex($key), 0, 32) . '}';
}
