#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Keys of any bytes and of any length: each is one of its own, the same on all
# nodes, in the API and in Redis; what is shown of it is JSON, text for
# Prometheus, and a line of the log, whatever it is.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use Digest::SHA qw(sha256_hex);
use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;
my $conn = $redis->connect;
my $o = $t->origin(default => { body => 'x' },
                   routes => { map { $_ => { hold => 1 } } '/conn', '/lock' });

my @nodes = map { $t->node(name => $_, workers => 2, http => <<'EOC')->start }
    coord_store main { server %%REDIS%%; timeout 10s; connect_timeout 10s; }
    client_max_body_size 1m;
    large_client_header_buffers 4 256k;
    proxy_buffer_size 256k;
    proxy_buffers 8 256k;
    proxy_busy_buffers_size 512k;

    coord_limit_req_zone $http_x zone=req:1m rate=1r/h;
    coord_limit_req_zone $http_x zone=log:1m rate=1r/h algorithm=sliding_log;
    coord_limit_req_zone $request_body zone=body:1m rate=1r/h;
    coord_limit_conn_zone $http_x zone=conn:1m;
    coord_lock_zone $http_x zone=lock:1m;
    coord_session_zone $http_x zone=session:1m;
    coord_lookup $plan $http_x ttl=1h zone=plans default=none;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Pid $pid always;
        location /req { coord_limit_req zone=req; empty_gif; }
        location /log { coord_limit_req zone=log; empty_gif; }
        location /body { coord_limit_req zone=body after_body;
                         proxy_pass http://%%ORIGIN%%; }
        location /conn { coord_limit_conn conn 9;
                         proxy_pass http://%%ORIGIN%%; }
        location /lock { coord_lock zone=lock; proxy_pass http://%%ORIGIN%%; }
        location /session { coord_session zone=session bind=$http_x;
                            add_header X-Value $coord_session_value;
                            empty_gif; }
        location /look { add_header X-Plan $plan; empty_gif; }
        location /api/ { coord_api write; }
        location /status { coord_status keys; }
    }
EOC
    qw(a b);

my %keys = (
    'plain' => 'alice@example.com:1/2-3._',
    'longest plain' => 'p' x 64,
    'one more' => 'p' x 65,
    'the longest of the API' => 'q' x 4096,
    'high bytes' => "\xff\xfe\x80",
    'UTF-8' => "\xc3\xbc\xe2\x82\xac",
    'half of it' => "\xe2\x82",
    'braces' => 'a}b{c}:w',
    'quotes' => '"\\\'<b>&',
    'space, tab' => "a b\tc",
    'percent' => '%00%ff%zz+',
    'slashes' => '/../a//b/',
    'a newline, as text' => '\n\r\0',
    'delete' => "a\x7fb",
    'a digest of none' => '~' . 'g' x 32,
    'a short one' => '~0123',
);

sub percent { return $_[0] =~ s/([^A-Za-z0-9._~-])/sprintf '%%%02X', ord $1/ger }

sub name { return $_[0] =~ /^[A-Za-z0-9._\@:\/-]{1,64}$/
                  ? $_[0] : '~' . substr(sha256_hex($_[0]), 0, 32) }

sub api {
    my ($n, $method, $path) = @_;

    my $r = $n->request($method, "/api/$path");
    my $json = eval { JSON::PP->new->utf8->decode($r->body) };

    return { %{$json || { bad => $r->body }}, http => $r->status };
}


for my $title (sort keys %keys) {
    my $key = $keys{$title};
    my @x = (headers => [ X => $key ]);
    my $path = percent($key);

    is($nodes[0]->get('/req', @x)->status, 200, "$title: a request");
    is($_->get('/req', @x)->status, 429, "$title: one more") for @nodes;

    is($conn->command('EXISTS', 'coord:rl:req:{' . name($key) . '}'), 1,
       "$title: its name in Redis");

    my $got = api($nodes[1], 'GET', "limits/req/$path");
    is_deeply([@$got{qw(http refused known)}],
              [200, JSON::PP::true, JSON::PP::true], "$title: API")
        or diag(explain($got));
    is($got->{digest}, name($key) =~ /^~(.{8})/ ? $1
                       : substr(sha256_hex($key), 0, 8), "$title: digest");

    $got = api($nodes[1], 'GET', 'limits/req/' . percent(name($key)));
    ok($got->{refused}, "$title: by the digest");

    $got = api($nodes[1], 'DELETE', "limits/req/$path");
    ok($got->{deleted}, "$title: deleted") or diag(explain($got));
    is($nodes[0]->get('/req', @x)->status, 200, "$title: is new");

    is($nodes[0]->get('/log', @x)->status, 200, "$title: a log");
    is($nodes[1]->get('/log', @x)->status, 429, "$title: refused");
    ok(api($nodes[0], 'DELETE', "limits/log/$path")->{deleted},
       "$title: deleted");

    # places and locks

    for my $what (qw(conn lock)) {
        my $c = $nodes[0]->connect;
        my $before = $o->count("/$what");

        $c->send("GET /$what HTTP/1.1\r\nHost: x\r\nX: $key\r\n\r\n");

        ok($t->wait_for(sub { $o->count("/$what") > $before }, 10),
           "$title: $what");

        if ($what eq 'conn') {
            is(api($nodes[1], 'GET', "conns/conn/$path")->{current}, 1,
               "$title: a place");

        } else {
            is($nodes[1]->get('/lock', @x)->status, 423, "$title: a lock");
            ok(api($nodes[1], 'DELETE', "locks/lock/$path")->{deleted},
               "$title: is taken away");
        }

        $o->release("/$what");
        is($c->response(timeout => 20)->status, 200, "$title: $what: served");
    }

    # a session, with the same as its value, and a look-up

    is($nodes[0]->get('/session', @x)->status, 200, "$title: a session");
    $got = api($nodes[1], 'GET', "sessions/session/$path");
    is($got->{http}, 200, "$title: which the API knows") or diag(explain($got));
    is($nodes[1]->get('/session', @x)->header('X-Value'),
       length $key > 512 || $key =~ /\x7f/ ? 'sha256:' . sha256_hex($key) : $key,
       "$title: its value");

    $conn->command('SET', $key, 'gold');
    ok($t->wait_for(sub {
        return $nodes[0]->get('/look', @x)->header('X-Plan') eq 'gold';
    }, 5), "$title: a look-up");
    $conn->command('DEL', $key);
    is(api($nodes[0], 'DELETE', "lookups/$path")->{http}, 200,
       "$title: is dropped");
    ok($t->wait_for(sub {
        return $nodes[0]->get('/look', @x)->header('X-Plan') eq 'none';
    }, 5), "$title: and read again");
}


# keys with NUL and with line ends, which come in a body alone

my %bodies = (
    'NUL' => "\0", 'NUL in between' => "a\0b", 'what is before' => 'a',
    'NUL at the end' => "a\0", 'line ends' => "a\r\nb: c\r\n\r\n",
    'RESP' => "\$1\r\nx\r\n*1\r\n\$8\r\nFLUSHALL\r\n",
    'a file' => "\0\xff" x 100_000,
);

for my $title (sort keys %bodies) {
    my $body = $bodies{$title};

    is($nodes[0]->post('/body', $body)->status, 200, "body: $title");
    is($_->post('/body', $body)->status, 429, "body: $title: once")
        for @nodes;

    my $name = name($body);
    is($conn->command('EXISTS', "coord:rl:body:{$name}"), 1,
       "body: $title: its name in Redis");

    my $got = api($nodes[1], 'GET', 'limits/body/' . percent($name));
    ok($got->{refused}, "body: $title: by its digest") or diag(explain($got));
    ok(api($nodes[0], 'DELETE', 'limits/body/' . percent($name))->{deleted},
       "body: $title: deleted");
    is($nodes[1]->post('/body', $body)->status, 200, "body: $title: is new");
}

is(api($nodes[0], 'GET', 'limits/req/' . percent('q' x 4097))->{http}, 414,
   'one that is longer has no name for the API');

for my $bad ('a%00b', '%', '%zz', '%e2%8') {
    my $r = $nodes[0]->get("/api/limits/req/$bad");
    is($r->status, 400, "no path: $bad") or diag($r->body);
}


# all that is shown is well formed

for my $n (@nodes) {
    my $r = $n->get('/status?format=json');
    ok(eval { JSON::PP->new->utf8->decode($r->body) }, "$n->{name}: JSON")
        or diag($@);
    unlike($r->body, qr/[\x00-\x09\x0b-\x1f\x7f-\xff]/,
           "$n->{name}: of printable characters");

    my @lines = split /\n/, $n->get('/status?format=prometheus')->body;
    is_deeply([grep { !/^(?:\#\ (?:HELP|TYPE)\ [a-z_]+\ .*
                         |[a-z_]+(?:\{[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"
                                   (?:,[a-z_]+="(?:[^"\\\n]|\\[\\"n])*")*\})?
                          \ [0-9.]+)$/x } @lines], [], "$n->{name}: metrics");

    like($n->get('/status?format=html')->body, qr/<\/html>/,
         "$n->{name}: a page");
    unlike($n->get('/status?format=html')->body, qr/<b>&/,
           "$n->{name}: whose keys are text");

    is_deeply([grep { !/^\d{4}\/\d\d\/\d\d / } split /\n/, $n->log], [],
              "$n->{name}: each line of the log begins as one");
    unlike($n->log, qr/key: (?![0-9a-f]{8}\b)/, "$n->{name}: and has a digest");
    unlike($n->log, qr/[\x00-\x08\x0b-\x1f]/, "$n->{name}: and no controls");
}

done_testing();
