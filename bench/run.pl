#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# "make bench": requests per second against stock nginx in the same run, as
# ratios.  All variants are measured in turn in each round, so that a slow
# minute of the machine hits them alike; the median of the rounds counts.
#
# BENCH_SECONDS (3): of one measurement; BENCH_ROUNDS (5); BENCH_ONLY: a regex
# over the names of the rows, and nothing else but "listeners".

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../t/lib";

use Coord;
use Coord::Cluster;
use Coord::TLS;
use Coord::Util qw(free_port slurp);
use IO::Socket::INET;
use Time::HiRes qw(sleep time);

$| = 1;

my $seconds = $ENV{BENCH_SECONDS} || 3;
my $rounds = $ENV{BENCH_ROUNDS} || 5;
my $connections = 64;
my $only = $ENV{BENCH_ONLY};

my $t = Coord->new(time_limit => 3600, log_level => 'crit');

die "bench: wrk is missing, run \"make bench\"\n"
    if system('wrk -v >/dev/null 2>&1') >> 8 == 127;
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

# a limit, and with it requests at a time, a lock, a session and the key of an
# operation that is executed

sub several {
    my ($more) = @_;

    $more = 'coord_limit_conn c 1000; coord_lock zone=l;'
            . ' coord_session zone=s bind=$server_port;'
            . ' coord_idempotency on; coord_idempotency_scope off;'
            . ' coord_idempotency_methods GET;'
            . ' coord_idempotency_key $request_id;' if $more;

    return 'coord_store main { server %%REDIS%%; timeout 1s;'
           . ' key_prefix several:; }'
           . 'coord_limit_conn_zone $binary_remote_addr zone=c:1m;'
           . 'coord_lock_zone $connection zone=l:1m;'
           . 'coord_session_zone $connection zone=s:1m;'
           . "$coord rate=1000000r/s;"
           . server("coord_limit_req $plenty " . ($more || ''));
}

my @rows = (
    { name => 'no module, no limit', plain => 1, http => server('') },

    { name => 'module loaded, no directive', http => server(''),
      base => 0, reach => 0.98 },

    { name => 'stock limit_req, passing', plain => 1, base => 0,
      http => "$stock rate=1000000r/s;" . server("limit_req $plenty") },

    { name => 'coord_limit_req, memory', base => 2,
      http => "$coord rate=1000000r/s;" . server("coord_limit_req $plenty") },

    { name => 'coord_limit_req, Redis', base => 2, reach => 0.65,
      redis => $redis,
      http => 'coord_store main { server %%REDIS%%; timeout 1s;'
              . ' key_prefix passing:; }'
              . "$coord rate=1000000r/s;"
              . server("coord_limit_req $plenty") },

    # the master threads of Redis do the same work; what is added is nginx's

    { name => 'coord_limit_req, Redis by TLS', base => 'coord_limit_req, Redis',
      reach => 0.85, redis => $secure,
      http => 'coord_store main { %%TLS%% timeout 1s;'
              . ' key_prefix passing:; }'
              . "$coord rate=1000000r/s;"
              . server("coord_limit_req $plenty") },

    { name => 'coord_limit_req, 64 keys', base => 2, redis => $redis,
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

    { name => 'one feature, one connection', connections => 1,
      redis => $redis, http => several(0) },

    # requests one after the other: the inverse of 1.3 times the time

    { name => 'five features, one connection', connections => 1,
      base => 'one feature, one connection', reach => 0.77,
      redis => $redis, http => several(1) },

    { name => 'coord_limit_req, prefetch', base => 2, reach => 0.95,
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

    { name => 'Redis frozen, breaker open', base => 0, frozen => 1,
      reach => 0.95,
      http => 'coord_store main { server %%REDIS_2%%;'
              . ' breaker failures=5 cooldown=60s; }'
              . "$coord rate=1000000r/s;"
              . server("coord_limit_req $plenty") },

    { name => 'stock limit_conn', plain => 1, base => 0,
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
      http => 'map $request_method $plan { default free; GET gold; }'
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

for my $i (0 .. $#rows) {
    my $row = $rows[$i];

    $row->{skip} = $only && $row->{name} !~ /$only/
                   || exists $row->{redis} && !$row->{redis};
    next if $row->{skip};

    $row->{node} = $t->node(name => "row$i", plain => $row->{plain},
                            http => $row->{http})->start;

    # connections to Redis, memory of the pools
    wrk($row, 1);

    # the breaker opens now, while requests come, and stays open
    if ($row->{frozen}) {
        kill 'STOP', $frozen->{pid};
        wrk($row, 1);
    }
}

printf "%d rounds of %g s, 1 worker, %d connections, keep-alive\n\n",
       $rounds, $seconds, $connections;

for my $round (1 .. $rounds) {
    for my $row (grep { !$_->{skip} } @rows) {
        measure($row);
        print '.';
    }
}

kill 'CONT', $frozen->{pid};

print "\n\n";
report();
scripts() if !$only;
memory() if !$only;
listeners() if !$only || 'listeners' =~ /$only/;

my ($late, $bad) = $t->finish;
print "$_\n" for @$late, @$bad;

exit(@$late || @$bad ? 1 : 0);


sub wrk {
    my ($row, $duration) = @_;

    my $c = $row->{connections} || $connections;
    my $out = `wrk -t 1 -c $c -d ${duration}s --latency @{[
                   $row->{node}->url ]} 2>&1`;

    my ($rps) = $out =~ /^Requests\/sec:\s+([\d.]+)/m
        or die "bench: wrk says:\n$out";
    my ($total) = $out =~ /(\d+) requests in/;
    my ($other) = $out =~ /Non-2xx or 3xx responses: (\d+)/;
    my ($p99, $unit) = $out =~ /^\s+99%\s+([\d.]+)(us|ms|s)/m;

    $p99 *= { us => 0.001, ms => 1, s => 1000 }->{$unit};
    $other ||= 0;

    return ($rps, $total, $other, $p99);
}


sub measure {
    my ($row) = @_;

    my $before = info($row);
    my ($rps, $total, $other, $p99) = wrk($row, $seconds);

    # a row whose requests fare otherwise than its name says measures nothing

    my $expected = $row->{refused} ? $total : 0;

    if (abs($other - $expected) > 0.01 * $total) {
        die "bench: $row->{name}: $other of $total answers are not 2xx\n";
    }

    push @{$row->{rps}}, $rps;
    push @{$row->{p99}}, $p99;

    my $after = info($row);

    $row->{decisions} += $total;
    $row->{commands} += $after->{commands} - $before->{commands}
                        - $after->{servers};         # INFO itself
    $row->{cpu} += $after->{cpu} - $before->{cpu};
    $row->{nginx} += $after->{nginx} - $before->{nginx};
}


# commands and CPU seconds of the servers of a row, and of its worker

sub info {
    my ($row) = @_;

    my $redis = $row->{redis};
    my @servers = !$redis ? ()
                  : $redis->isa('Coord::Cluster') ? @{$redis->{servers}}
                  : $redis;
    my %sum = (cpu => 0, commands => 0, nginx => 0, servers => scalar @servers);

    for my $server (@servers) {
        my $info = $server->connect->command('INFO', 'everything');

        $sum{cpu} += used($info);
        $info =~ /^total_commands_processed:(\d+)/m;
        $sum{commands} += $1;
    }

    for my $worker ($row->{node}->workers) {
        my ($ns) = slurp("/proc/$worker/schedstat") =~ /^(\d+)/;
        $sum{nginx} += $ns / 1e9;
    }

    return \%sum;
}


sub used {
    my ($info) = @_;

    my ($user) = $info =~ /^used_cpu_user_main_thread:([\d.]+)/m;
    my ($sys) = $info =~ /^used_cpu_sys_main_thread:([\d.]+)/m;

    return $user + $sys;
}


sub median {
    my @v = sort { $a <=> $b } @_;

    return $v[@v / 2];
}


sub report {
    printf "%-34s %9s %7s  %-34s %6s %6s\n",
           '', 'req/s', 'p99 ms', 'against', 'ratio', 'reach';

    for my $row (grep { $_->{rps} } @rows) {
        my ($against, $ratio) = ('', '');

        my ($base) = !defined $row->{base} ? ()
                     : $row->{base} =~ /^\d+$/ ? $rows[$row->{base}]
                     : grep { $_->{name} eq $row->{base} } @rows;

        if ($base && $base->{rps}) {
            $against = $base->{name};

            # round by round: neighbors in time are compared

            $ratio = sprintf '%.2f', median(map {
                $row->{rps}[$_] / $base->{rps}[$_]
            } 0 .. $#{$row->{rps}});
        }

        printf "%-34s %9.0f %7.2f  %-34s %6s %6s\n", $row->{name},
               median(@{$row->{rps}}), median(@{$row->{p99}}), $against,
               $ratio, $row->{reach} || '';
    }

    print "\n";

    for my $row (grep { $_->{decisions} && $_->{redis} } @rows) {
        printf "%-34s %.2f Redis commands, %.1f us of Redis CPU and %.1f us"
               . " of nginx a request\n",
               $row->{name}, map { $_ / $row->{decisions} }
               $row->{commands}, 1e6 * $row->{cpu}, 1e6 * $row->{nginx};
    }

    print "\n";

    my ($one, $three, $plain, $once) = map {
        my $name = $_;
        my ($row) = grep { $_->{name} eq $name && $_->{decisions} } @rows;
        $row;
    } 'coord_limit_req, 64 keys', 'coord_limit_req, 64 keys, cluster',
      'plain proxy_pass', 'idempotency, executions, Redis';

    if ($one && $three) {
        printf "CPU of a decision, Redis and nginx, cluster of three: %.2f of"
               . " that of one Redis, reach 1.15\n",
               spent($three, qw(cpu nginx)) / spent($one, qw(cpu nginx));
    }

    if ($plain && $once) {
        printf "an execution under a key adds %.2f of the worker's time of a"
               . " proxied request, reach 1.5\n",
               spent($once, 'nginx') / spent($plain, 'nginx') - 1;
    }
}


sub spent {
    my ($row, @what) = @_;
    my $sum = 0;

    $sum += $row->{$_} / $row->{decisions} for @what;

    return $sum;
}


# Redis CPU of a decision and of a lease, beside a Lua script that does the
# same, at one pipeline depth: 64 operations, the nonce of a turn behind them

sub scripts {
    my ($depth, $turns) = (64, 400);
    my $c = $redis->connect(die => 1);
    my $gcra = $c->command('SCRIPT', 'LOAD', <<'END');
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local interval = tonumber(ARGV[1])
local burst = tonumber(ARGV[2]) * interval
local tat = tonumber(redis.call('GET', KEYS[1]) or now)
if tat < now then tat = now end
if tat - now > burst then return {0, tat - now - burst, tat - now} end
tat = tat + interval
redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX',
           math.ceil((tat - now) / 1000) + 1)
return {1, 0, tat - now}
END
    my $lease = $c->command('SCRIPT', 'LOAD', <<'END');
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3] * 1000, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
END
    my @k = map { "s:{key$_}" } 0 .. 63;
    my $max = 9223372036854775807;
    my ($n, $at) = (0, (957 << 51) + 2 ** 47);

    $c->command('BITFIELD', $_, 'SET', 'u16', 96, 7, 'SET', 'u63', 0, $at)
        for @k;

    my $take = command_of('gcra_take');
    my @acquire = commands_of('lease_acquire');
    my @release = commands_of('lease_release');

    my %kind = (
        'a bucket' => sub {
            my ($k) = @_;
            $at += 10;
            return fill($take, k => $k, stamp => 7, from => 2 ** 50 - $at,
                        open => $max - 10 ** 9, at => $at,
                        close => 10 ** 9 + 1000 - $max);
        },
        'a bucket, EVALSHA' => sub {
            return ['EVALSHA', $gcra, 1, "l$_[0]", 1000, 1000000];
        },
        'a lease' => sub {
            my ($k, $id) = ("c$_[0]", ++$n);
            my %v = (k => $k, now => 10 ** 15, id => $id, from => -1000,
                     expiry => 2 * 10 ** 15, ttl => 60000);

            return (['MULTI'], (map { fill($_, %v) } @acquire), ['EXEC'],
                    map { fill($_, %v) } @release);
        },
        'a lease, EVALSHA' => sub {
            my ($k, $id) = ("z$_[0]", ++$n);

            return (['EVALSHA', $lease, 1, $k, $id, 1000, 60000],
                    ['ZREM', $k, $id]);
        },
    );

    my %cpu;

    for my $round (1 .. 3) {
        for my $name (sort keys %kind) {
            my $before = used($c->command('INFO', 'everything'));

            for my $turn (1 .. $turns) {
                my @commands = map { $kind{$name}->($_) } @k;

                my @replies = $c->pipeline(@commands,
                                           ['ECHO', '0123456789abcdef']);
                my ($bad) = grep { !ref && defined && /^[A-Z]+ / } @replies;
                die "bench: $name: $bad\n" if $bad;
            }

            push @{$cpu{$name}}, (used($c->command('INFO', 'everything'))
                                  - $before) / ($depth * $turns) * 1e6;
        }
    }

    print "\n";

    for my $what ('a bucket', 'a lease') {
        my ($own, $lua) = map { median(@{$cpu{$_}}) } $what, "$what, EVALSHA";

        printf "%s: %.1f us of Redis CPU, by EVALSHA %.1f us, %.2f of it,"
               . " reach %s\n", $what, $own, $lua, $own / $lua,
               $what eq 'a lease' ? '1.3' : '0.5';
    }
}


# the commands of a script, as lists of tokens, without MULTI and EXEC

sub commands_of {
    my ($name) = @_;

    return map { [split] } grep { !/^(?:#|MULTI$|EXEC$)/ }
           split /\n/, slurp("$FindBin::Bin/../lua-free-scripts/$name.redis");
}


sub command_of { return (commands_of(@_))[0] }


sub fill {
    my ($command, %value) = @_;

    return [map { /^\{(.+)\}$/ ? $value{$1} : $_ } @$command];
}


# what a bucket and a lease take in Redis, by MEMORY USAGE; a lease is held by a
# request whose body does not come

sub memory {
    my $node = $t->node(name => 'memory', http => <<"END")->start;
        coord_store main { server %%REDIS%%; key_prefix m:; }
        coord_limit_req_zone \$arg_k zone=b:1m rate=1r/h;
        coord_limit_conn_zone \$arg_k zone=l:1m lease=600s;
        access_log off;
        server {
            listen 127.0.0.1:%%PORT%%;
            location /b { coord_limit_req zone=b; empty_gif; }
            location /l {
                coord_limit_conn l 10000;
                proxy_pass http://127.0.0.1:@{[ $origin->port ]};
            }
        }
END
    my $admin = $redis->connect;

    $node->get('/b?k=a');
    printf "\na bucket takes %d bytes of Redis memory, with its key\n",
           bytes($admin, 'm:rl:b:{a}');

    my @held;

    for my $n (100, 1000) {
        while (@held < $n) {
            push @held, $node->connect;
            $held[-1]->send("POST /l?k=a HTTP/1.1\r\nHost: a\r\n"
                            . "Content-Length: 1\r\n\r\n");
        }

        $t->wait_for(sub { $admin->command('ZCARD', 'm:cc:l:{a}') == $n }, 20)
            or die "bench: no $n leases";

        printf "a lease takes %.0f bytes, where %d have the same key\n",
               bytes($admin, 'm:cc:l:{a}') / $n, $n;
    }

    $_->close for @held;
}


sub bytes { $_[0]->command('MEMORY', 'USAGE', $_[1], 'SAMPLES', 0) }


# clients of server-sent events: a message to all of them, and what they cost
# while there is none

sub listeners {
    my $open = `sh -c 'ulimit -n'`;
    my $n = $open < 11_000 ? int($open / 2) : 10_000;
    my $room = int(1.2 * $n);         # nginx keeps a sixteenth of them free

    my $node = $t->node(name => 'listeners', main => <<"END", http => <<'EOT');
worker_rlimit_nofile $room;
events { worker_connections $room; }
END
        coord_store main { server %%REDIS%%; timeout 2s; key_prefix e:; }
        access_log off;
        server {
            listen 127.0.0.1:%%PORT%% backlog=4096;
            location /events { coord_subscribe room heartbeat=off; }
            location /api/ { coord_api; }
        }
EOT
    $node->start;

    my ($worker) = $node->workers;
    my $admin = $redis->connect;
    my @clients;

    for my $i (1 .. $n) {
        my $c = IO::Socket::INET->new(
            PeerAddr => '127.0.0.1:' . $node->port) or die "bench: $!";
        $c->syswrite("GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
        push @clients, $c;

        next if $i % 200;
        heard($_, qr/\r\n\r\n/) for @clients[-200 .. -1];
    }

    my ($cpu, $time) = (cpu($worker), time);
    sleep 5;
    printf "\n%d listeners that hear nothing: %.2f %% of a core\n", $n,
           100 * (cpu($worker) - $cpu) / (time - $time);

    my @took;

    for my $round (1 .. 5) {
        ($cpu, $time) = (cpu($worker), time);
        $admin->command(PUBLISH => 'room', "message $round");
        heard($_, qr/data: message $round\n\n/) for @clients;
        push @took, time - $time;
        $cpu = cpu($worker) - $cpu;
    }

    printf "a message to %d listeners: %.2f s, %.2f s of one core, reach 1 s\n",
           $n, median(@took), $cpu;

    $_->close for @clients;
}


sub heard {
    my ($client, $what) = @_;

    my $text = '';

    while ($text !~ $what) {
        $client->sysread($text, 65536, length $text)
            or die "bench: a listener was cut\n";
    }
}


# seconds of a process

sub cpu {
    my @stat = split ' ', slurp("/proc/$_[0]/stat") =~ s/.*\) //sr;

    return ($stat[11] + $stat[12]) / 100;
}
