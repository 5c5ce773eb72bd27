#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_health answers at once, whatever Redis does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use JSON::PP;
use Time::HiRes qw(time);

my $t = Coord->new;
my $redis = $t->redis;

my $n = $t->node(name => 'n', workers => 2, http => <<'EOF')->start;
    coord_store main {
        server           %%REDIS%%;
        timeout          2s;
        connect_timeout  2s;
    }

    coord_limit_req_zone $arg_k zone=one:1m rate=1r/s;

    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_req zone=one; empty_gif; }
        location = /health { coord_health; }
        location = /metrics { coord_status; }
    }
EOF

sub health {
    my $response = $n->get('/health');
    return ($response, decode_json($response->body));
}

my ($response, $json);

ok($t->wait_for(sub {
    ($response, $json) = health();
    return $response->status == 200 && $json->{stores}[0]{server}
           && $json->{stores}[0]{up} == 2;
}, 20), 'healthy');

is($response->header('Content-Type'), 'application/json', 'type');
is($response->header('Cache-Control'), 'no-store', 'not cached');
is($json->{status}, 'up', 'status');

my $store = $json->{stores}[0];
is($store->{name}, 'main', 'name');
is($store->{up}, 2, 'both workers are connected');
is($store->{server}{role}, 'master', 'role');
like($store->{server}{version}, qr/^\d+\.\d+\.\d+/, 'version');
cmp_ok($store->{server}{used_memory}, '>', 100000, 'memory');
cmp_ok($store->{server}{rtt_seconds}, '>', 0, 'round trip');
ok(defined $store->{server}{$_}, $_) for qw(hits misses evicted clients);
is($store->{breaker_open}, 0, 'breaker');
unlike($response->body, qr/$redis->{port}/, 'the address is not shown');

is($n->request('HEAD', '/health')->status, 200, 'HEAD');
my $post = $n->post('/health', 'x' x 100_000);
is($post->status, 405, 'POST is not allowed');
is($post->header('Allow'), 'GET, HEAD', 'Allow');
is($post->header('Content-Type'), 'application/problem+json', 'a problem');


# a server that hangs: known without asking it

$redis->freeze;
my $worst = 0;

ok($t->wait_for(sub {
    my $start = $t->ran;
    ($response, $json) = health();
    my $took = $t->ran - $start;
    $worst = $took if $took > $worst;
    return $response->status == 503;
}, 30), 'a server that hangs');

is($json->{status}, 'down', 'status');
is($json->{stores}[0]{state}, 'down', 'state of the store');
ok($json->{stores}[0]{server}{version}, 'what was known is still shown');
cmp_ok($worst, '<', 1.5, 'no answer waited for the server');

kill 'CONT', $redis->{pid};

ok($t->wait_for(sub { (health())[0]->status == 200 }, 30), 'healthy again');


# a server without memory, which evicts nothing: nobody has to ask it for more

my $conn = $redis->connect;
my @stays;
$conn->pipeline(map { ['SET', "other:$_", 'x' x 10_000, 'PX', 3_600_000] }
                    1 .. 300);
my ($used) = $conn->command('INFO', 'memory') =~ /^used_memory:(\d+)/m;
$conn->command('CONFIG', 'SET', 'maxmemory', $used - 1_000_000);
ok($t->wait_for(sub { (health())[0]->status == 503 }, 20),
   'a server that is full');
$json = decode_json($n->get('/health')->body);
is($json->{stores}[0]{state}, 'down', 'its state');

for (1 .. 15) {
    $n->get("/?k=$_");
    $t->rest(0.2);
    push @stays, (health())[0]->status;
}

is_deeply([grep { $_ != 503 } @stays], [], 'as long as it is, asked or not');
$conn->command('CONFIG', 'SET', 'maxmemory-policy', 'volatile-ttl');
ok($t->wait_for(sub { (health())[0]->status == 200 }, 20),
   'one that makes room is up');
$conn->command('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
$conn->command('CONFIG', 'SET', 'maxmemory', 0);
ok($t->wait_for(sub { (health())[0]->status == 200 }, 20), 'it has memory again');


# who sees it hang has its breaker open, and does not ask: another one does

my $h = $t->node(name => 'h', workers => 2, http => <<'EOF')->start;
    coord_store main {
        server   %%REDIS%%;
        timeout  100ms;
        breaker  failures=2 cooldown=20s;
    }

    coord_limit_req_zone $arg_k zone=one:1m rate=1r/s;

    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_req zone=one; empty_gif; }
        location = /health { coord_health; }
    }
EOF

for my $round (1 .. 4) {
    $t->wait_for(sub { $h->get('/health')->status == 200 }, 40)
        or fail('healthy');

    my $c = $h->connect;
    $redis->freeze;
    my $start = $t->ran;
    $c->request(path => '/?k=1', timeout => 5) for 1 .. 3;
    $t->wait_for(sub { $h->get('/health')->status == 503 }, 15);
    cmp_ok($t->ran - $start, '<', 2, "round $round: down within two seconds");

    kill 'CONT', $redis->{pid};
    $h->reload;
}


# a proxy whose server is gone answers all with an error: that is no server

my $proxy = $t->fake_redis(upstream => $redis->{port});
my $p = $t->node(name => 'p', http => <<'EOF')->start;
    coord_store main { server %%FAKE%%; timeout 1s; }

    coord_limit_req_zone $arg_k zone=one:1m rate=1r/s;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_limit_req_status always;
        location / { coord_limit_req zone=one on_failure=closed; empty_gif; }
        location = /health { coord_health; }
        location = /metrics { coord_status; }
    }
EOF

ok($t->wait_for(sub { $p->get('/health')->status == 200 }, 30),
   'through a proxy');

# a server may have no such command, and is none the worse for it

$proxy->fault(action => 'replace', cmd => 'INFO', times => 0,
              data => "-ERR unknown command 'INFO'\r\n");
my $asked = () = $proxy->commands('INFO');
$t->wait_for(sub { $asked < (() = $proxy->commands('INFO')) }, 20);
is($p->get('/?k=info')->status, 200, 'a server without INFO limits');
is($p->get('/health')->status, 200, 'and is up');
$proxy->clear;
$p->reload;
ok($t->wait_for(sub {
    $json = decode_json($p->get('/health')->body);
    return $json->{stores}[0]{server} && $json->{stores}[0]{up};
}, 30), 'INFO again');

$proxy->fault(action => 'replace', times => 0,
              data => "-ERR no host behind the proxy\r\n");

ok($t->wait_for(sub { $p->get('/health')->status == 503 }, 30),
   'errors to all that is asked');
$json = decode_json($p->get('/health')->body);
is($json->{status}, 'down', 'status');
my $r = $p->get('/?k=2');
is_deeply([$r->status, $r->header('X-Status')], [503, 'UNAVAILABLE'],
          'its limits are not decided');
ok($t->wait_for(sub {
    $p->get('/?k=2');
    return $p->get('/metrics?format=prometheus')->body
           =~ /^coord_breaker_opens_total\{store="main"\} [1-9]/m;
}, 30), 'the breaker opens');

$proxy->clear;
ok($t->wait_for(sub { $p->get('/health')->status == 200
                      && $p->get('/?k=3')->status == 200 }, 30), 'back');
$p->quit;


# a server that is gone

$redis->stop('KILL');

ok($t->wait_for(sub {
    ($response, $json) = health();
    return $response->status == 503 && $json->{stores}[0]{up} == 0;
}, 30), 'a server that is gone');

is($json->{stores}[0]{up}, 0, 'no worker is connected');
like($n->get('/metrics?format=prometheus')->body, qr/^coord_store_up\{store="main"\} 0$/m,
     'and so say the metrics');

done_testing();
