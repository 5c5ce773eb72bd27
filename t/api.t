#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_api: who may ask, what, and how it answers what it cannot answer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use Digest::SHA qw(sha256_hex);
use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => { '/slow' => { delay => 20, body => 's' } });

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 5s; connect_timeout 5s; }
    coord_store mem { }

    coord_limit_req_zone $arg_k zone=leaky:1m rate=1r/h STORE;
    coord_limit_req_zone $arg_k zone=fixed:1m rate=3r/h
                         algorithm=fixed_window STORE;
    coord_limit_req_zone $arg_k zone=sliding:1m rate=3r/h
                         algorithm=sliding_window STORE;
    coord_limit_req_zone $arg_k zone=log:1m rate=3r/h
                         algorithm=sliding_log STORE;
    coord_limit_req_zone $arg_k zone=var:1m rate=$arg_rate STORE;
    coord_limit_conn_zone $arg_k zone=conn:1m lease=30s STORE;
    coord_lock_zone $arg_k zone=lock:1m lease=30s STORE;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_3%% proxy_protocol;
        listen unix:%%NODEDIR%%/api.sock;

        location /leaky { coord_limit_req zone=leaky burst=2 nodelay;
                          empty_gif; }
        location /fixed { coord_limit_req zone=fixed; empty_gif; }
        location /sliding { coord_limit_req zone=sliding; empty_gif; }
        location /log { coord_limit_req zone=log; empty_gif; }
        location /conn {
            coord_limit_conn conn 3;
            proxy_pass http://%%ORIGIN%%/slow;
        }

        location /lock {
            coord_lock zone=lock;
            proxy_pass http://%%ORIGIN%%/slow;
        }

        location /api/ { coord_api write; }
        location /read/ { coord_api; }
        location /a/b { coord_api write; }
        location /merge/ { coord_api public; }

        location /proxy/ {
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_pass http://127.0.0.1:%%PORT%%/api/;
        }
    }

    server {
        listen 127.0.0.1:%%PORT_2%%;

        set_real_ip_from 127.0.0.1;
        real_ip_header X-From;

        location /private/ { coord_api write; }
        location /public/ { coord_api public; }
    }
EOF

(my $in_redis = $http) =~ s/ STORE//g;
(my $in_memory = $http) =~ s/STORE/store=mem/g;
my %node;

for my $kind ('redis', 'memory') {
    my $n = $t->node(name => $kind, workers => 2,
                     http => $kind eq 'redis' ? $in_redis : $in_memory)->start;
    $node{$kind} = $n;

    my $get = sub {
        my ($path) = @_;
        my $r = $n->get($path);
        return ($r->status, decode_json($r->body));
    };

    my $drop = sub {
        my ($path) = @_;
        return decode_json($n->request('DELETE', $path)->body)->{deleted};
    };

    for my $zone ('leaky', 'fixed', 'sliding', 'log') {
        my ($status, $json) = $get->("/api/limits/$zone/new");
        is($status, 200, "$kind $zone: a new key");
        is($json->{remaining}, 3, "$kind $zone: all places are free");
        ok(!$json->{refused}, "$kind $zone: not refused");
        ok(!$json->{known}, "$kind $zone: not known");
        is($json->{source}, $kind, "$kind $zone: source");

        is($n->get("/$zone?k=u")->status, 200, "$kind $zone: passed") for 1, 2;
        ($status, $json) = $get->("/api/limits/$zone/u");
        is($json->{remaining}, 1, "$kind $zone: one is left");
        ok($json->{known}, "$kind $zone: known");
        ($status, $json) = $get->("/api/limits/$zone/u");
        is($json->{remaining}, 1, "$kind $zone: looking takes nothing");

        $n->get("/$zone?k=u") for 1 .. 4;
        ($status, $json) = $get->("/api/limits/$zone/u");
        is($json->{remaining}, 0, "$kind $zone: none is left");
        ok($json->{refused}, "$kind $zone: refused");
        cmp_ok($json->{retry_after_seconds}, '>', 0, "$kind $zone: retry");
        cmp_ok($json->{retry_after_seconds}, '<=', 7201, "$kind $zone: soon");
        is($n->get("/$zone?k=u")->status, 429, "$kind $zone: indeed");

        ok($drop->("/api/limits/$zone/u"), "$kind $zone: deleted");
        ok(!$drop->("/api/limits/$zone/u"), "$kind $zone: only once");
        is($n->get("/$zone?k=u")->status, 200, "$kind $zone: let through");
    }

    # keys of all kinds

    for ('a%2Fb', 'a%2fb%3F%25', '%C3%A4', '..', '%2E%2E', 'a b', "%7Bx%7D",
         'x' x 3000, '~short', '%22%0A', '.', '%2F')
    {
        (my $key = $_) =~ s/ /%20/g;
        is($n->get("/leaky?k=$_" =~ s/ /%20/r)->status, 200, "$kind key")
            if !/ /;
        next if /^(%2E|\.)+$/;

        my ($status, $json) = $get->("/api/limits/leaky/$key");
        my $name = length > 20 ? 'long' : $_;

        is($status, 200, "$kind key $name");
        next if / /;

        # $arg_k is the argument as it was sent

        (my $sent = $key) =~ s/%/%25/g;
        ($status, $json) = $get->("/api/limits/leaky/$sent");
        is($json->{remaining}, 2, "$kind key $name: the same key");
    }

    # leases

    my @held = map {
        my $c = $n->connect;
        $c->send("GET /conn?k=h HTTP/1.1\r\nHost: a\r\n\r\n");
        $c
    } 1, 2;

    ok($t->wait_for(sub {
        my ($status, $json) = $get->('/api/conns/conn/h');
        return $status == 200 && $json->{current} == 2;
    }, 10), "$kind: two leases");

    $_->close for @held;

    ok($t->wait_for(sub { ($get->('/api/conns/conn/h'))[1]{current} == 0 },
                    10), "$kind: none");


    # locks

    my $working = $origin->count('/slow');
    my $holder = $n->connect;
    $holder->send("GET /lock?k=l HTTP/1.1\r\nHost: a\r\n\r\n");
    ok($t->wait_for(sub { $origin->count('/slow') > $working }, 20),
       "$kind: who has the lock works");
    is($n->get('/lock?k=l')->status, 423, "$kind: locked");
    ok($drop->('/api/locks/lock/l'), "$kind: the lock is taken away");
    ok(!$drop->('/api/locks/lock/l'), "$kind: it is free");
    $holder->close;
}

my $n = $node{redis};


# what is wrong

sub problem {
    my ($method, $path, $status, %opt) = @_;
    my $node = delete $opt{node} // $n;
    my $r = $node->request($method, $path, %opt);
    my $what = "$method " . substr($path, 0, 60);

    is($r->status, $status, $what);
    is($r->header('Content-Type'), 'application/problem+json', "$what: type");
    is(eval { decode_json($r->body)->{status} }, $status, "$what: body")
        if $method ne 'HEAD';

    return $r;
}

problem('GET', $_, 404) for '/api/', '/api/limits', '/api/limits/',
    '/api/limits/leaky', '/api/limits/leaky/', '/api/limits/none/x',
    '/api/limits/conn/x', '/api/nothing/leaky/x', '/api/limits/leaky/a/b',
    '/api/limits//x', '/api/conns/leaky/x', '/api/sessions/s/x',
    '/api/limits%2Fleaky%2Fx', '/api/' . '/' x 500,
    '/api/limits/leaky/x/', '/api/limits/leaky//', '/api/events/x/';

problem('GET', '/api/limits/leaky/' . 'x' x 5000, 414);
problem('GET', '/api/limits/var/x', 400);
problem('GET', '/api/limits/leaky/x?rate=fast', 400);
problem('GET', "/api/limits/$_/x?rate=0r/s", 400) for qw(leaky fixed sliding log);
problem('GET', '/api/limits/leaky/x?burst=-1', 400);
is($n->get('/api/limits/var/x?rate=5r/s')->status, 200, 'with a rate');
is(decode_json($n->get('/api/limits/var/x?rate=5r%2Fs&burst=%37')->body)->{burst},
   7, 'with a rate, as libraries send it');
is($n->request('DELETE', '/api/limits/var/x')->status, 200,
   'a reset needs none');

my $r = problem('DELETE', '/read/limits/leaky/x', 405);
is($r->header('Allow'), 'GET, HEAD', 'Allow without write');
$r = problem($_, '/api/limits/leaky/x', 405)
    for 'PUT', 'PATCH', 'OPTIONS', 'PROPFIND', 'MKCOL';
is($r->header('Allow'), 'GET, HEAD, DELETE', 'Allow with write');
$r = problem('DELETE', '/api/conns/conn/x', 405);
is($r->header('Allow'), 'GET, HEAD', 'Allow of conns');
$r = problem($_, '/api/limits/leaky/x', 405, body => 'x' x 1000)
    for 'PUT', 'POST';
is($r->header('Allow'), 'GET, HEAD, DELETE', 'Allow, whatever it has');
problem($_, '/api/limits/leaky/x', 400, body => '{}') for 'GET', 'DELETE';
problem('GET', '/api/limits/none/x', 404, body => '{}');

for my $path ('/api/limits/leaky/' . 'y' x 10240, '/api/limits/leaky/a%00b',
              '/api/limits/leaky/%', "/api/limits/leaky/a\0b")
{
    my $status = $n->get($path)->status;
    ok($status >= 400 && $status < 500, 'refused: ' . length $path);
}

is($n->request('POST', '/api/limits/leaky/x', body => 'x' x 2_000_000)->status,
   413, 'a huge body');
is($n->get('/a/b/limits/leaky/x')->status, 200, 'a location in two parts');
is($n->request('HEAD', '/api/limits/leaky/x')->body, '', 'HEAD');


# who may ask

my %from = (headers => { 'X-From' => '192.0.2.1' });
my $base = $n->port(2);

for (['192.0.2.1', 403], ['127.0.0.1', 200], ['127.9.9.9', 200], ['::1', 200],
     ['2001:db8::1', 403], ['::ffff:127.0.0.1', 200],
     ['::ffff:192.0.2.7', 403], ['10.0.0.1', 403])
{
    my ($address, $status) = @$_;
    my $answer = $n->get('/private/limits/leaky/x', port => $base,
                         headers => { 'X-From' => $address });
    is($answer->status, $status, "from $address");
}

is($n->get('/public/limits/leaky/x', port => $base, %from)->status, 200,
   'public');

my $socket = $n->dir . '/api.sock';
like(`curl -s --unix-socket $socket http://localhost/api/limits/leaky/x`,
     qr/"remaining":/, 'over a unix socket');


# neighbours: pages whose name points here, proxies on this host

my $port = $n->port;

for ([{ Host => 'localhost' }, 200], [{ Host => "localhost:$port" }, 200],
     [{ Host => 'LocalHost.' }, 200], [{ Host => 'x.localhost' }, 200],
     [{ Host => '127.0.0.1' }, 200], [{ Host => "127.1.2.3:$port" }, 200],
     [{ Host => '[::1]' }, 200], [{ Host => "[::1]:$port" }, 200],
     [{ Host => '[0:0::0:1]' }, 200], [{ Host => '[::ffff:127.0.0.1]' }, 200],
     [{ Host => 'evil.example' }, 403], [{ Host => 'localhost.evil' }, 403],
     [{ Host => 'notlocalhost' }, 403], [{ Host => '10.0.0.1' }, 403],
     [{ Host => '127.0.0.1.evil' }, 403], [{ Host => '127.0.0' }, 403],
     [{ Host => '[2001:db8::1]' }, 403], [{ Host => '[::1].evil' }, 403],
     [{ Host => 'localhost:evil' }, 403], [{ Host => '127.0.0.1:1.evil' }, 403],
     [{ Host => '[::1]:x' }, 403], [{ Host => 'evil.example:127' }, 403],
     [{ 'X-Forwarded-For' => '127.0.0.1' }, 403],
     [{ 'x-forwarded-proto' => 'http' }, 403],
     [{ Forwarded => 'for=127.0.0.1' }, 403], [{ Via => '1.1 x' }, 403],
     [{ 'X-Real-IP' => '127.0.0.1' }, 403],
     [{ 'X-Forwarded' => '1' }, 200], [{ Viable => '1' }, 200],
     [{ Origin => 'http://evil.example' }, 403], [{ Origin => 'null' }, 403],
     [{ Origin => 'http://localhost:1' }, 403],
     [{ Origin => 'http://localhost.evil' }, 403],
     [{ Host => "localhost:$port", Origin => "http://localhost:$port" }, 200])
{
    my ($headers, $status) = @$_;

    # newer nginx refuses some hosts itself
    next if $n->get('/leaky', headers => $headers)->status == 400;

    my $what = join ', ', map { "$_: $headers->{$_}" } sort keys %$headers;
    $what =~ s/$port/port/g;

    for my $method ('GET', 'DELETE') {
        is($n->request($method, '/api/limits/leaky/x',
                       headers => $headers)->status,
           $status, "$method with $what");
    }

    is($n->get('/merge/limits/leaky/x', headers => $headers)->status, 200,
       "public, with $what");
}

my $raw = $n->connect;
$raw->send("GET http://evil.example/api/limits/leaky/x HTTP/1.1\r\n"
           . "Host: localhost\r\n\r\n");
is($raw->response->status, 403, 'a whole URI as the target');
$raw = $n->connect;
$raw->send("GET /api/limits/leaky/x HTTP/1.0\r\n\r\n");
is($raw->response->status, 403, 'no host at all');

for (['PROXY TCP4 127.0.0.1 127.0.0.1 5 6', 403], ['PROXY UNKNOWN', 403]) {
    my ($line, $status) = @$_;
    my $proxied = $n->connect(port => $n->port(3));

    $proxied->send("$line\r\nGET /api/limits/leaky/x HTTP/1.1\r\n"
                   . "Host: localhost\r\n\r\n");
    is($proxied->response->status, $status, $line);
}

is($n->get('/proxy/limits/leaky/x')->status, 403, 'through a proxy here');


# logs: that it was done, but not to whom

$n->request('DELETE', '/api/limits/leaky/verysecretkey');
ok($n->wait_log(qr/coord api: deleting from limits of zone "leaky"/, 5),
   'a write is logged');
my @lines = grep { !/request: "/ || /coord api/ } $n->log_lines(qr/coord api/);
s/request: "[^"]*"// for @lines;
unlike(join('', @lines), qr/verysecretkey/, 'without the key');


# the digits of the line are those in Redis, or of a plain key its SHA-256

for my $key ('odd%21', 'plain') {
    my $hex = sha256_hex($key);
    (my $sent = $key) =~ s/%/%25/g;

    $n->get("/leaky?k=$key");
    $n->request('DELETE', "/api/limits/leaky/$sent");
    ok($n->wait_log(qr/coord api: .* key: \Q@{[substr $hex, 0, 8]}\E,/, 5),
       "digits of the key $key");
}


# a store that is away

$redis->freeze;
$n->conf(http => $in_redis =~ s/timeout 5s; connect_timeout 5s/timeout 300ms/r);
my @old = $n->reload;
$r = $n->get('/api/limits/leaky/x');
is($r->status, 503, 'Redis hangs');
is($r->header('Content-Type'), 'application/problem+json', 'a problem');
like(decode_json($r->body)->{detail},
     qr/^The store does not answer, reason: (?:timeout|connect)\.$/,
     'and its reason');
kill 'CONT', $redis->{pid};
ok($t->wait_for(sub { $n->get('/api/limits/leaky/x')->status == 200 }, 20),
   'and is back');
$n->wait_gone(20, @old);


# one that refuses: nothing has changed, and the reason is told

{
    my $admin = $redis->connect(die => 1);

    my $known = sub {
        my $r = $n->get('/api/limits/leaky/kept');
        return $r->status == 200 && decode_json($r->body)->{known};
    };

    # a worker whose breaker is open is told of no refusal

    ok($t->wait_for(sub { $n->get('/leaky?k=kept'); $known->() }, 20), 'counted');
    $admin->command(qw(CONFIG SET min-replicas-to-write 1));
    ok($t->wait_for(sub {
        my $r = $n->request('DELETE', '/api/limits/leaky/kept');
        return $r->status == 503 && decode_json($r->body)->{detail}
               eq 'The store does not answer, reason: unavailable '
                  . '(it refuses, NOREPLICAS).';
    }, 20), 'Redis takes no writes: the reason');
    ok($n->wait_log(qr/error reply: NOREPLICAS/, 5), 'in words of the server');
    $admin->command(qw(CONFIG SET min-replicas-to-write 0));
    ok($t->wait_for($known, 20), 'the key is what it was');
}


# a client that goes away while Redis hangs

$redis->freeze;
my $c = $n->connect;
$c->send("GET /api/limits/leaky/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
$c->reset;
kill 'CONT', $redis->{pid};
ok($t->wait_for(sub { $n->get('/api/limits/leaky/x')->status == 200 }, 20),
   'harmless');


# configuration

for (['location / { coord_api all; }', qr/invalid parameter "all"/],
     ['location = /x { coord_api; }', qr/a location with a prefix only/],
     ['location ~ /x { coord_api; }', qr/a location with a prefix only/],
     ['location / { coord_api; coord_api; }', qr/is duplicate/])
{
    my ($conf, $error) = @$_;
    like($t->conf_error(server => $conf), $error, $conf);
}

done_testing();
