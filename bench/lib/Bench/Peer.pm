package Bench::Peer;

# Copyright (C) ngx_coord_module contributors

# The peers that Debian has, and a Redis that is further away.
#
#   lua($sha, $port)       what a row needs: nginx with lua-nginx-module,
#                          bench/evalsha.lua and the script of that SHA1 in the
#                          Redis of that port; skip if that is not there
#   resty($sha, $port)     the same, with lua-resty-redis
#   away($t, $port, $ms)   a port behind which that one is, a round trip away
#   round_trips($port)     a probe: the bare round trip, one after the other

use strict;
use warnings;

use FindBin;
use IO::Socket::INET;
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(time);

use Coord::Util qw(free_port wait_for);


my @modules = qw(/usr/lib/nginx/modules /usr/share/nginx/modules);
my @libraries = ($ENV{BENCH_LUA} || (), '/usr/share/lua/5.1');


sub lua {
    my ($sha, $port) = @_;

    return handler($sha, $port, 'decide', '');
}


sub resty {
    my ($sha, $port) = @_;

    my ($dir) = grep { -e "$_/nginx/redis.lua" } @libraries
        or return (skip => 'lua-nginx-redis cannot be had');

    return handler($sha, $port, 'library', "$dir/?.lua;");
}


sub handler {
    my ($sha, $port, $function, $path) = @_;

    my ($dir) = grep { -e "$_/ngx_http_lua_module.so" } @modules
        or return (skip => 'lua-nginx-module is not installed');

    return (plain => 1, peer => 1,
            main => "load_module $dir/ndk_http_module.so;\n"
                    . "load_module $dir/ngx_http_lua_module.so;\n"
                    . "events { worker_connections 2048; }\n",
            http => <<"END");
    lua_package_path "$FindBin::Bin/?.lua;$path;";
    init_by_lua_block { require("evalsha").init($port, "$sha") }
    access_log off;
    keepalive_requests 100000000;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / {
            access_by_lua_block { require("evalsha").$function() }
            empty_gif;
        }
    }
END
}


sub away {
    my ($t, $port, $ms) = @_;

    return $port if !$ms;

    my $near = free_port();
    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        no warnings 'exec';

        exec $ENV{BENCH_DELAY} || "$FindBin::Bin/../build/bench/delay",
             $near, $port, 1000 * $ms;
        POSIX::_exit(127);
    }

    $t->track($pid);

    wait_for(sub {
        return IO::Socket::INET->new(PeerAddr => "127.0.0.1:$near");
    }, 5) or die "bench: the relay does not start, run \"make bench\"\n";

    return $near;
}


sub round_trips {
    my ($port) = @_;

    return sub {
        my ($seconds) = @_;

        my $redis = IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port")
            or die "bench: $!";
        setsockopt($redis, IPPROTO_TCP, TCP_NODELAY, 1);

        my ($start, $now, @took) = (time);

        do {
            my $sent = time;
            my $reply = '';

            syswrite($redis, "PING\r\n");

            while ($reply !~ /\n/) {
                sysread($redis, $reply, 100, length $reply)
                    or die "bench: Redis closed the connection\n";
            }

            $now = time;
            push @took, $now - $sent;

        } while ($now < $start + $seconds);

        @took = sort { $a <=> $b } @took;

        return (@took / ($now - $start), scalar @took, 0,
                1000 * $took[0.99 * @took]);
    };
}


1;
