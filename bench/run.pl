#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# "make bench": requests per second against stock nginx, and a peer, in the
# same run, as ratios.  All variants are measured in turn in each round, so that
# a slow minute of the machine hits them alike; the median of the rounds counts.
# docs/bench.md says what the rows mean.
#
# BENCH_SECONDS (3): of one measurement; BENCH_ROUNDS (5); BENCH_ONLY: a regex
# over the names of the rows and of "scripts", "sizes", "zones", "listeners";
# BENCH_FLAME=dir: a flame graph of each row there, and nothing is measured.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../t/lib", "$FindBin::Bin/lib";

use Bench qw(flame measure prepare report seen);
use Bench::Nodes;
use Bench::Peer;
use Bench::Redis;
use Bench::Scale;
use Coord;
use Coord::Cluster;
use Coord::TLS;
use Coord::Util qw(free_port);

$| = 1;

my $seconds = $ENV{BENCH_SECONDS} || 3;
my $rounds = $ENV{BENCH_ROUNDS} || 5;
my $only = $ENV{BENCH_ONLY};

my $t = Coord->new(time_limit => 3600, log_level => 'crit');

die "bench: wrk is missing, run \"make bench\"\n"
    if system('wrk -v >/dev/null 2>&1') >> 8 == 127;
die "bench: perf is missing, install linux-perf\n"
    if $ENV{BENCH_FLAME} && system('perf --version >/dev/null 2>&1');
die "bench: build the module first\n" if !$t->module;

my $redis = $t->redis;
my $frozen = $t->redis;
my $cluster = Coord::Cluster->start($t, masters => 3);

# the same server by TLS; undef: Debian's redis-server has it, others may not

my $tls = Coord::TLS->new($t->dir);
my $tls_port = free_port();
my $secure = eval {
    $tls->cert('redis', san => 'IP:127.0.0.1');
    $t->redis($tls->redis('redis', $tls_port), 'tls-auth-clients no');
};

$t->set(TLS => "server rediss://127.0.0.1:$tls_port;"
               . ' ssl_trusted_certificate ' . $tls->file('ca.pem') . ';');

# a server block that serves a 43 byte picture through all phases; "return"
# would answer before the limits run

sub server {
    my ($limit) = @_;

    return <<"END";
    access_log off;
    keepalive_requests 100000000;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { $limit empty_gif; }
        location = /kib { root %%NODEDIR%%; }
    }
END
}

# an origin for what proxies

my $origin = $t->node(name => 'origin', plain => 1, http => server(''))->start;

sub proxy {
    my ($session, $sticky, $zone) = @_;

    return <<"END";
    $zone
    upstream origin {
        server @{[ '127.0.0.1:' . $origin->port ]};
        server 127.0.0.1:1 backup;
        $sticky
        keepalive 64;
    }
    access_log off;
    keepalive_requests 100000000;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / {
            $session
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_pass http://origin;
        }
    }
END
}

# a response of 1 KiB that does not come from the origin

{
    open my $fh, '>', $origin->file('kib') or die "bench: kib: $!";
    print $fh 'x' x 1024;
    close $fh;
}

sub stored {
    my ($http, $location) = @_;

    return <<"END";
    $http
    access_log off;
    keepalive_requests 100000000;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / {
            $location
            proxy_pass http://@{[ '127.0.0.1:' . $origin->port ]}/kib;
        }
    }
END
}

my $replay = 'coord_idempotency on; coord_idempotency_key bench;'
             . ' coord_idempotency_scope off;'
             . ' coord_idempotency_methods GET;';

my $plenty = 'zone=one burst=1000000 nodelay;';
my $stock = 'limit_req_zone $binary_remote_addr zone=one:1m';
my $coord = 'coord_limit_req_zone $binary_remote_addr zone=one:1m';
my $keys = 'coord_limit_req_zone $connection zone=one:1m';
my $level = 'limit_req_log_level info;';

# the same Redis, a round trip away; what was not decided fails

my %away = map { $_ => Bench::Peer::away($t, $redis->{port}, $_) } 0, 1, 5;
my $sha = Bench::Redis::gcra($redis);

sub far {
    my ($ms) = @_;

    return (
        { name => "coord_limit_req, Redis, $ms ms",
          base => "Lua EVALSHA, $ms ms", $ms ? () : (reach => 3),
          redis => $redis,
          http => "coord_store main { server redis://127.0.0.1:$away{$ms};"
                  . " timeout 1s; key_prefix far$ms:; }"
                  . "$keys rate=1000000r/s; coord_on_failure closed;"
                  . server("coord_limit_req $plenty") },

        { name => "Lua EVALSHA, $ms ms", redis => $redis,
          Bench::Peer::lua($sha, $away{$ms}) },
    );
}

# a limit, and with it requests at a time, a lock, a session and the key of an
# operation that is executed

sub several {
    my ($more, $server, $prefix) = @_;

    $server ||= '%%REDIS%%';
    $prefix ||= 'several:';

    $more = 'coord_limit_conn c 1000; coord_lock zone=l;'
            . ' coord_session zone=s bind=$server_port;'
            . ' coord_idempotency on; coord_idempotency_scope off;'
            . ' coord_idempotency_methods GET;'
            . ' coord_idempotency_key $request_id;' if $more;

    return "coord_store main { server $server; timeout 1s;"
           . " key_prefix $prefix; }"
           . 'coord_limit_conn_zone $binary_remote_addr zone=c:1m;'
           . 'coord_lock_zone $connection zone=l:1m;'
           . 'coord_session_zone $connection zone=s:1m;'
           . "$coord rate=1000000r/s;"
           . server("coord_limit_req $plenty " . ($more || ''));
}

my $none = 'no module, no limit';
my $passing = 'stock limit_req, passing';

my @rows = (
    { name => 'no module, no limit', plain => 1, http => server('') },

    { name => 'module loaded, no directive', http => server(''),
      base => $none, reach => 0.98 },

    { name => 'stock limit_req, passing', plain => 1, base => $none,
      http => "$stock rate=1000000r/s;" . server("limit_req $plenty") },

    { name => 'coord_limit_req, memory', base => $passing,
      http => "$coord rate=1000000r/s;" . server("coord_limit_req $plenty") },

    { name => 'coord_limit_req, Redis', base => $passing, reach => 0.65,
      redis => $redis,
      http => 'coord_store main { server %%REDIS%%; timeout 1s;'
              . ' key_prefix passing:; }'
              . "$coord rate=1000000r/s;"
              . server("coord_limit_req $plenty") },

    # the master threads of Redis do the same work; what is added is nginx's

    { name => 'coord_limit_req, Redis by TLS', base => 'coord_limit_req, Redis',
      reach => 0.85, redis => $secure, why => 'this Redis has no TLS',
      http => 'coord_store main { %%TLS%% timeout 1s;'
              . ' key_prefix passing:; }'
              . "$coord rate=1000000r/s;"
              . server("coord_limit_req $plenty") },

    far(0),

    { name => 'lua-resty-redis, 0 ms', base => 'Lua EVALSHA, 0 ms',
      redis => $redis, Bench::Peer::resty($sha, $away{0}) },

    far(1),

    far(5),

    { name => 'round trip of 1 ms, bare', connections => 1, redis => $redis,
      probe => Bench::Peer::round_trips($away{1}) },

    { name => 'coord_limit_req, one by one, 1 ms', connections => 1,
      base => 'round trip of 1 ms, bare', %{(far(1))[0]}{qw(http redis)} },

    { name => 'coord_limit_req, 64 keys', base => $passing, redis => $redis,
      http => 'coord_store main { server %%REDIS%%; timeout 1s;'
              . ' key_prefix keys:; }'
              . "$keys rate=1000000r/s;"
              . server("coord_limit_req $plenty") },

    { name => 'coord_limit_req, 64 keys, cluster',
      base => 'coord_limit_req, 64 keys', redis => $cluster,
      http => 'coord_store main { mode cluster; %%CLUSTER%% timeout 1s;'
              . ' key_prefix keys:; }'
              . "$keys rate=1000000r/s;"
              . server("coord_limit_req $plenty") },

    Bench::Scale::rows($t, $secure, sub {
        "coord_store main { $_[0] timeout 1s; key_prefix keys:; }"
        . "$keys rate=1000000r/s;" . server("coord_limit_req $plenty")
    }, sub { seen($only, @_) }),

    { name => 'one feature, one connection', connections => 1,
      redis => $redis, http => several(0) },

    # requests one after the other: the inverse of 1.3 times the time

    { name => 'five features, one connection', connections => 1,
      base => 'one feature, one connection', reach => 0.77,
      redis => $redis, http => several(1) },

    # limits before the access phase, what is scoped to an identity behind it:
    # two round trips

    { name => 'one feature, 1 ms', connections => 1, redis => $redis,
      http => several(0, "redis://127.0.0.1:$away{1}", 'away:') },

    { name => 'five features, 1 ms', connections => 1,
      base => 'one feature, 1 ms', reach => 0.77, redis => $redis,
      http => several(1, "redis://127.0.0.1:$away{1}", 'away:') },

    { name => 'coord_limit_req, prefetch', base => $passing, reach => 0.95,
      redis => $redis,
      http => 'coord_store main { server %%REDIS%%; timeout 1s;'
              . ' key_prefix prefetch:; }'
              . "$coord rate=100000r/s prefetch=4000;"
              . server("coord_limit_req $plenty") },

    { name => 'stock limit_req, refusing', plain => 1, refused => 1,
      http => "$stock rate=1r/m; limit_req_status 429; $level"
              . server('limit_req zone=one;') },

    { name => 'coord_limit_req, memory, refusing', refused => 1,
      base => 'stock limit_req, refusing',
      http => "$coord rate=1r/m; coord_$level"
              . server('coord_limit_req zone=one;') },

    { name => 'coord_limit_req, Redis, refusing', refused => 1,
      base => 'stock limit_req, refusing', reach => 0.95, redis => $redis,
      http => 'coord_store main { server %%REDIS%%; timeout 1s;'
              . ' key_prefix refusing:; }'
              . "$coord rate=1r/m; coord_$level"
              . server('coord_limit_req zone=one;') },

    { name => 'Redis frozen, breaker open', base => $none, frozen => $frozen,
      reach => 0.95,
      http => 'coord_store main { server %%REDIS_2%%;'
              . ' breaker failures=5 cooldown=60s; }'
              . "$coord rate=1000000r/s;"
              . server("coord_limit_req $plenty") },

    # one after the other: what it takes, not how many there are

    { name => 'no limit, one by one', plain => 1, connections => 1,
      http => server('') },

    { name => 'breaker open, one by one', connections => 1,
      base => 'no limit, one by one', frozen => $frozen,
      http => 'coord_store main { server %%REDIS_2%%;'
              . ' breaker failures=5 cooldown=60s; }'
              . "$coord rate=1000000r/s;"
              . server("coord_limit_req $plenty") },

    { name => 'stock limit_conn', plain => 1, base => $none,
      http => 'limit_conn_zone $binary_remote_addr zone=c:1m;'
              . server('limit_conn c 1000;') },

    { name => 'coord_limit_conn, memory', base => 'stock limit_conn',
      http => 'coord_limit_conn_zone $binary_remote_addr zone=c:1m;'
              . server('coord_limit_conn c 1000;') },

    { name => 'coord_limit_conn, Redis', base => 'stock limit_conn',
      reach => 0.5, redis => $redis,
      http => 'coord_store main { server %%REDIS%%; timeout 1s;'
              . ' key_prefix conn:; }'
              . 'coord_limit_conn_zone $binary_remote_addr zone=c:1m;'
              . server('coord_limit_conn c 1000;') },

    { name => 'coord_lock, Redis', base => 'stock limit_conn',
      redis => $redis,
      http => 'coord_store main { server %%REDIS%%; timeout 1s;'
              . ' key_prefix lock:; }'
              . 'coord_lock_zone $request_id zone=c:8m;'
              . server('coord_lock zone=c;') },

    { name => 'plain proxy_pass', plain => 1, http => proxy('', '', '') },

    { name => 'session, sticky, memory', base => 'plain proxy_pass',
      http => proxy('coord_session zone=s learn=$upstream_addr;',
                    'coord_sticky $coord_session_value;',
                    'coord_session_zone $remote_port zone=s:1m;') },

    { name => 'session, sticky, Redis', base => 'plain proxy_pass',
      reach => 0.75, redis => $redis,
      http => proxy('coord_session zone=s learn=$upstream_addr;',
                    'coord_sticky $coord_session_value;',
                    'coord_store main { server %%REDIS%%; timeout 1s;'
                    . ' key_prefix session:; }'
                    . 'coord_session_zone $remote_port zone=s:1m;') },

    { name => 'idempotency, executions, Redis', base => 'plain proxy_pass',
      redis => $redis,
      http => proxy('coord_idempotency on; coord_idempotency_scope off;'
                    . ' coord_idempotency_methods GET;'
                    . ' coord_idempotency_key $request_id;', '',
                    'coord_store main { server %%REDIS%%; timeout 1s;'
                    . ' key_prefix once:; }') },

    { name => 'proxy_cache HIT, 1 KiB', plain => 1,
      http => stored('proxy_cache_path %%NODEDIR%%/cache keys_zone=c:1m;',
                     'proxy_cache c; proxy_cache_valid 200 1h;') },

    { name => 'replay, 1 KiB, memory', base => 'proxy_cache HIT, 1 KiB',
      http => stored('', $replay) },

    { name => 'coord_cache HIT, 1 KiB, memory',
      base => 'proxy_cache HIT, 1 KiB', reach => 0.95,
      http => stored('coord_cache_zone zone=c:1m;',
                     'coord_cache k zone=c valid=1h;') },

    { name => 'coord_cache HIT, 1 KiB, near Redis',
      base => 'proxy_cache HIT, 1 KiB', reach => 0.95, redis => $redis,
      http => stored('coord_store main { server %%REDIS%%; timeout 1s;'
                     . ' key_prefix cache:; } coord_cache_zone zone=c:1m;',
                     'coord_cache k zone=c valid=1h;') },

    # who may not track reads it each time

    { name => 'coord_cache HIT, 1 KiB, Redis',
      base => 'proxy_cache HIT, 1 KiB', reach => 0.8, redis => $redis,
      http => stored('coord_store main { timeout 1s; key_prefix far:;'
                     . ' server redis://plain:plain@127.0.0.1:%%REDIS_PORT%%;'
                     . ' } coord_cache_zone zone=c:1m;',
                     'coord_cache k zone=c valid=1h;') },

    { name => 'add_header of a map', plain => 1,
      http => 'map bench:$request_method $plan { bench:GET gold; }'
              . server('add_header X-Plan $plan;') },

    { name => 'add_header of a look-up', base => 'add_header of a map',
      reach => 0.98, redis => $redis,
      http => 'coord_store main { server %%REDIS%%; timeout 1s;'
              . ' key_prefix lookup:; }'
              . 'coord_lookup $plan bench:$request_method ttl=1h;'
              . server('add_header X-Plan $plan;') },

    { name => 'replay, 1 KiB, Redis', base => 'proxy_cache HIT, 1 KiB',
      reach => 1.0, redis => $redis,
      http => stored('coord_store main { server %%REDIS%%; timeout 1s;'
                     . ' key_prefix replay:; }', $replay) },
);

$redis->connect->command(SET => 'bench:GET', 'gold');
$redis->connect->command(qw(ACL SETUSER plain on >plain ~* &* +@all
                            -client|tracking));

@rows = grep { seen($only, $_->{name}) } @rows;
prepare($_, $t) for @rows;

if ($ENV{BENCH_FLAME}) {
    flame($_, $seconds, $ENV{BENCH_FLAME}) for grep { $_->{node} } @rows;
    exit 0;
}

printf "%d rounds of %g s, 1 worker, %d connections, keep-alive\n\n",
       $rounds, $seconds, $Bench::CONNECTIONS;

for my $round (1 .. $rounds) {
    for my $row (grep { !$_->{skip} } @rows) {
        measure($row, $seconds);
        print '.';
    }
}

kill 'CONT', $frozen->{pid};

print "\n\n";
report(@rows);
Bench::Scale::scale($redis, @rows);

Bench::Redis::scripts($redis) if seen($only, 'scripts');
Bench::Redis::sizes($t, $redis, $origin) if seen($only, 'sizes');
Bench::Nodes::zones($t) if seen($only, 'zones');
Bench::Nodes::listeners($t, $redis) if seen($only, 'listeners');

my ($late, $bad) = $t->finish;
print "$_\n" for @$late, @$bad;

exit(@$late || @$bad ? 1 : 0);
