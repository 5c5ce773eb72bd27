#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What "make bench" brings along: the relay that stands for a Redis further
# away, the drawing of a profile, and a short run of two rows.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(alive free_port slurp spew wait_dead);

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(time);

my $root = "$FindBin::Bin/..";
my $t = Coord->new;
my $relay = $t->file('delay');

is(system('cc', qw(-D_GNU_SOURCE -O1 -Wall -Wextra -Werror -o), $relay,
          "$root/bench/delay.c"), 0, 'the relay is built');

sub relay {
    my ($to, $us) = @_;

    my $port = free_port();
    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        no warnings 'exec';

        exec $relay, $port, $to, $us;
        POSIX::_exit(127);
    }

    $t->wait_for(sub { client($port) }, 10) or die "no relay\n";

    return ($port, $pid);
}

sub client {
    return IO::Socket::INET->new(PeerAddr => ($_[1] || '127.0.0.1')
                                             . ":$_[0]");
}

sub server {
    my ($listener) = @_;

    IO::Select->new($listener)->can_read(20) or die "nobody connects\n";

    return scalar $listener->accept;
}

# all up to the end of the stream

sub all {
    my ($sock) = @_;

    my $text = '';

    while (IO::Select->new($sock)->can_read(20)) {
        sysread($sock, $text, 65536, length $text) or return $text;
    }

    return "no end: $text";
}

sub busy {
    my @stat = split ' ', slurp("/proc/$_[0]/stat") =~ s/.*\) //sr;

    return $stat[11] + $stat[12];
}


my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 10,
                                     LocalPort => free_port());
my ($port, $pid) = relay($listener->sockport, 300_000);
$t->track($pid);

# the client of relay() that looked whether it is there

close(server($listener));


# half of it there, half of it back

{
    my $c = client($port);
    my $start = time;

    syswrite($c, 'ping');
    my $s = server($listener);
    sysread($s, my $text, 100);
    my $there = time - $start;

    is($text, 'ping', 'what goes there');
    cmp_ok($there, '>=', 0.15, 'half a round trip later');

    my $half = time;
    syswrite($s, 'pong');
    sysread($c, $text, 100);

    is($text, 'pong', 'what comes back');
    cmp_ok(time - $half, '>=', 0.15, 'half a round trip later, too');

    # chunks do not wait for those before them

    my ($took) = $t->in_time(1.2, sub {
        my $begin = time;

        for my $n (1 .. 10) {
            syswrite($c, "$n,");
            $t->rest(0.02);
        }

        my $got = '';
        sysread($s, $got, 100, length $got) while $got !~ /10,$/;
        is($got, '1,2,3,4,5,6,7,8,9,10,', 'in order');

        return time - $begin;
    });

    cmp_ok($took, '<', 1.2, 'ten of them are not ten delays');

    # the end in one direction leaves the other one open

    shutdown($c, 1);
    is(all($s), '', 'the end goes there');
    syswrite($s, 'late');
    close $s;
    is(all($c), 'late', 'and what is said afterwards comes back, and its end');
}


# more than sockets hold, both ways at once, to a reader who waits

{
    my ($n, $c) = (8 << 20, client($port));
    my $s = server($listener);
    my $there = join '', map { pack 'N', $_ } 1 .. $n / 4;
    my $back = reverse $there;

    my @writers = map {
        my ($sock, $text) = @$_;
        my $child = fork();
        die "fork: $!" if !defined $child;

        if ($child == 0) {
            while (length $text) {
                my $sent = syswrite($sock, $text) or last;
                substr($text, 0, $sent, '');
            }
            shutdown($sock, 1);
            POSIX::_exit(0);
        }
        $child;
    } [ $c, $there ], [ $s, $back ];

    $t->rest(0.5);

    ok(all($s) eq $there, 'all of it goes there');
    ok(all($c) eq $back, 'all of it comes back');
    waitpid($_, 0) for @writers;
}


# neither an end nor a reset leaves anything behind, or anything to do

{
    my @c = map { client($port) } 1 .. 3;
    my @s = map { server($listener) } @c;

    shutdown($c[0], 1);
    setsockopt($c[1], SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
    close $c[1];
    is(all($s[1]), '', 'a reset is an end');

    my $ticks = busy($pid);
    $t->rest(1);
    cmp_ok(busy($pid) - $ticks, '<', 5, 'who has nothing to do does nothing');

    close $_ for @c, @s;

    ok($t->wait_for(sub {
        my @open = grep { readlink($_) =~ /^socket:/ } glob "/proc/$pid/fd/*";
        return @open == 1;
    }, 20), 'only the listening socket is left');
}


is(client($port, '127.0.0.2'), undef, 'it listens on one address of loopback');

close $listener;
is(all(client($port)), '', 'nobody behind it: a client is closed');


# it ends with who started it

{
    pipe(my $in, my $out);
    my $child = fork();
    die "fork: $!" if !defined $child;

    if ($child == 0) {
        my (undef, $grandchild) = relay(1, 0);
        syswrite($out, "$grandchild\n");
        sleep 600;
    }

    $t->track($child);

    my $orphan = <$in>;
    chomp $orphan;
    ok(alive($orphan), 'a relay of another process');

    kill 'KILL', $child;
    waitpid($child, 0);
    ok(wait_dead(20, $orphan), 'ends with it');
}


# a profile: what stands above what, and how wide

{
    my $frames = sub { join '', map { "\t  1f2e $_\n" } @_ };
    my $samples = join "\n",
        (("nginx\n" . $frames->('write (/lib/libc.so.6)',
                                'ngx_http_coord_walk (/m.so)',
                                '[unknown] (/usr/sbin/nginx)',
                                '[unknown] (/usr/sbin/nginx)')) x 3),
        "nginx\n" . $frames->('a<b> (/x.so)', '[unknown] (/usr/sbin/nginx)');

    my $out = $t->file('flame.svg');
    open(my $fh, '|-', "$^X $root/bench/flame 'a & b' >$out") or die "$!";
    print $fh $samples;
    ok(close $fh, 'a profile is drawn');

    my $svg = slurp($out);

    like($svg, qr/>a &amp; b: 4 samples</, 'its title');
    is(join(' ', map { s/ samples//r }
                 $svg =~ /<title>(.*?), [\d.]+ %<\/title>/g),
       'all, 4 [nginx], 4 a&lt;b&gt;, 1 ngx_http_coord_walk, 3 write, 3',
       'the functions; a file without symbols is one');
    like($svg, qr/<title>write, 3 .*? x="300.0" y="(\d+)"\s+width="900.0"/,
         'as wide as its share');
    is(system("$^X $root/bench/flame </dev/null >/dev/null 2>&1") >> 8 != 0, 1,
       'without samples there is none');
}


# two rows of it

SKIP: {
    skip 'no wrk, see "make bench"', 6
        if system('wrk -v >/dev/null 2>&1') >> 8 == 127;

    # others beside it measure times
    setpriority(0, 0, 10);

    local @ENV{qw(BENCH_ONLY BENCH_SECONDS BENCH_ROUNDS BENCH_DELAY)}
        = ('Redis, 1 ms|EVALSHA, 1 ms', 1, 1, $relay);

    my $out = `$^X -I $root/t/lib $root/bench/run.pl 2>&1`;

    is($?, 0, 'the bench runs') or diag($out);

    my $lua = $out =~ /^Lua EVALSHA, 1 ms +skipped: \S/m;

    like($out, qr/^coord_limit_req, Redis, 1 ms +\d+ +[\d.]+ /m, 'a row');
    like($out, $lua ? qr/^coord_limit_req, Redis, 1 ms +\d+ +[\d.]+ +[\d.]+ *$/m
                    : qr/^Lua EVALSHA, 1 ms +\d+ +[\d.]+ +[\d.]+ *$/m,
         'its peer, or why there is none');
    like($out, $lua ? qr/^coord_limit_req, .* us of Redis CPU a request$/m
                    : qr/^ +[\d.]+ of the Redis CPU and [\d.]+ of the worker/m,
         'and what it costs in comparison');

    skip 'no perf, or not allowed to', 2
        if system("perf record -o /dev/null true >/dev/null 2>&1");

    local @ENV{qw(BENCH_ONLY BENCH_FLAME)} = ('Redis, 0 ms', $t->dir);

    # on a busy machine the worker may have run too seldom to be seen there

    my $there = qr/<title>ngx_http_coord_walk, /;

    for (1 .. 5) {
        local $ENV{BENCH_SECONDS} = $_;
        $out = `$^X -I $root/t/lib $root/bench/run.pl 2>&1`;
        last if slurp($t->file('coord_limit_req_Redis_0_ms.svg')) =~ $there;
    }

    is($out, $t->file("coord_limit_req_Redis_0_ms.svg\n"), 'a flame graph');
    like(slurp($t->file('coord_limit_req_Redis_0_ms.svg')), $there,
         'of the worker');
}


done_testing();
