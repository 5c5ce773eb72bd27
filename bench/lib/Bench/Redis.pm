package Bench::Redis;

# Copyright (C) ngx_coord_module contributors

# What operations cost in Redis.
#
#   gcra($redis)           loads a Lua script that decides as the bucket does:
#                          KEYS[1], the interval in us, the burst; its SHA1
#   scripts($redis)        CPU of a bucket decision and of a lease, beside Lua
#   sizes($t, $redis, $origin)   memory of a bucket and of a lease

use strict;
use warnings;

use FindBin;

use Bench qw(median used);
use Coord::Util qw(slurp);


sub gcra {
    my ($redis) = @_;

    return $redis->connect(die => 1)->command('SCRIPT', 'LOAD', <<'END');
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
}


# Redis CPU of a decision and of a lease, beside a Lua script that does the
# same, at one pipeline depth: 64 operations, the nonce of a turn behind them

sub scripts {
    my ($redis) = @_;

    my ($depth, $turns) = (64, 400);
    my $c = $redis->connect(die => 1);
    my $gcra = gcra($redis);
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
                        steps => [ qw(INCRBY u63 0), $max - 10 ** 9,
                                   qw(INCRBY u63 0), 10 ** 9 + 1000 - $max ],
                        at => $at);
        },
        'a bucket, EVALSHA' => sub {
            return ['EVALSHA', $gcra, 1, "l$_[0]", 1000, 1000000];
        },
        'a lease' => sub {
            my ($k, $id) = ("c$_[0]", ++$n);
            my %v = (k => $k, now => 10 ** 15, id => $id, from => -1000,
                     asks => [-1, $id], leases => [2 * 10 ** 15, $id],
                     last => 0, ttl => 60000);

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

    return [map { /^\{(.+?)(\.\.)?\}$/ ? $2 ? @{$value{$1}} : $value{$1} : $_ }
            @$command];
}


# what a bucket and a lease take in Redis, by MEMORY USAGE; a lease is held by a
# request whose body does not come

sub sizes {
    my ($t, $redis, $origin) = @_;

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
    printf "\na bucket takes %d bytes of Redis memory, with its key,"
           . " reach 80\n", bytes($admin, 'm:rl:b:{a}');

    my @held;

    for my $n (100, 1000) {
        while (@held < $n) {
            push @held, $node->connect;
            $held[-1]->send("POST /l?k=a HTTP/1.1\r\nHost: a\r\n"
                            . "Content-Length: 1\r\n\r\n");
        }

        $t->wait_for(sub { $admin->command('ZCARD', 'm:cc:l:{a}') == $n }, 20)
            or die "bench: no $n leases";

        printf "a lease takes %.0f bytes, where %d have the same key, reach"
               . " 120\n", bytes($admin, 'm:cc:l:{a}') / $n, $n;
    }

    $_->close for @held;
}


sub bytes { $_[0]->command('MEMORY', 'USAGE', $_[1], 'SAMPLES', 0) }


1;
