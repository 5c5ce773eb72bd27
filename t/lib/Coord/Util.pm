package Coord::Util;

# Copyright (C) ngx_coord_module contributors

# Small functions that the other packages share.

use strict;
use warnings;

use Exporter qw(import);
use Fcntl qw(LOCK_EX LOCK_NB O_CREAT O_RDWR);
use IO::Socket::INET;
use Time::HiRes qw(sleep);

use Coord::Clock qw(ran);

our @EXPORT_OK = qw(free_port wait_for slurp spew alive stopped sleeps wait_dead
                    kill_and_wait children patient);

my %held;


# free_port(): a loopback port that nothing listens on.  It stands below the
# range from which the kernel takes the ports of outgoing connections, and a
# lock keeps other tests off it while this process lives.

sub free_port {
    my $dir = "/tmp/coord-ports.$>";

    mkdir $dir, 0700;

    for (1 .. 1000) {
        my $port = 10000 + int(rand(20000));

        next if $held{$port};

        sysopen(my $fh, "$dir/$port", O_CREAT|O_RDWR, 0600) or next;
        flock($fh, LOCK_EX|LOCK_NB) or next;

        my $sock = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
                                         LocalPort => $port, Listen => 1)
            or next;
        close $sock;

        $held{$port} = $fh;

        return $port;
    }

    die "no free port";
}


# wait_for($code, $seconds): calls $code until it returns true; returns that,
# or nothing when the time is over, by a clock that stands still with the
# machine (Coord::Clock).

sub wait_for {
    my ($code, $timeout) = @_;

    my $end = ran() + (defined $timeout ? $timeout : 30);

    for ( ;; ) {
        my $rc = $code->();
        return $rc if $rc;

        return if ran() > $end;
        sleep 0.02;
    }
}


sub slurp {
    my ($file) = @_;

    open(my $fh, '<', $file) or return '';

    my $text = '';
    1 while sysread($fh, $text, 65536, length $text);

    return $text;
}


sub spew {
    my ($file, @text) = @_;

    open(my $fh, '>:raw', $file) or die "cannot write $file: $!";
    print $fh @text;
    close $fh or die "cannot write $file: $!";

    return $file;
}


# alive($pid): false also for a process that only waits to be reaped

sub alive {
    my ($pid) = @_;

    my $stat = slurp("/proc/$pid/stat");

    return $stat =~ /\)\s+([A-Za-z])/ && $1 ne 'Z' && $1 ne 'X';
}


# stopped($pid): by SIGSTOP

sub stopped {
    my ($pid) = @_;

    return slurp("/proc/$pid/stat") =~ /\)\s+T/;
}


# sleeps($pid): it waits for something

sub sleeps {
    my ($pid) = @_;

    return slurp("/proc/$pid/stat") =~ /\)\s+S/;
}


sub wait_dead {
    my ($timeout, @pids) = @_;

    return wait_for(sub { !grep { alive($_) } @pids }, $timeout);
}


# kill_and_wait($signal, $seconds, @pids): false when KILL had to be used

sub kill_and_wait {
    my ($signal, $timeout, @pids) = @_;

    @pids = grep { alive($_) } @pids;
    return 1 unless @pids;

    kill $signal, @pids;
    return 1 if wait_dead($timeout, @pids);

    kill 'KILL', @pids;
    wait_dead(5, @pids);

    return 0;
}


# children($pid): [pid, command line] of each living child

sub children {
    my ($parent) = @_;

    my @found;

    for my $pid (_child_pids($parent)) {
        next if slurp("/proc/$pid/stat") !~ /\)\s+([A-Za-z])\s+(\d+)/;
        next if $2 != $parent || $1 eq 'Z';

        (my $cmd = slurp("/proc/$pid/cmdline")) =~ tr/\0/ /;
        push @found, [$pid, $cmd];
    }

    return sort { $a->[0] <=> $b->[0] } @found;
}


# patient($text): a configuration whose stores wait for Redis longer than it
# takes on a busy machine, whatever they say

sub patient {
    my ($text) = @_;

    my $long = 'timeout 30s; connect_timeout 30s;';

    $text =~ s/\b(coord_store\s+\w+\s*\{)([^{}]*\bserver\b[^{}]*\})/
               my ($head, $lines) = ($1, $2);
               $lines =~ s,\b(?:connect_)?timeout\s+\w+;,,g;
               "$head $long$lines"/gex;

    return $text;
}


# those whom the kernel names, which not every kernel does: all processes then.
# While one of them ends it may pass over another; twice the same is all of them

sub _child_pids {
    my ($parent) = @_;

    my ($pids, $again) = ('', '');

    if (-e "/proc/$$/task/$$/children") {
        do {
            ($pids, $again) = map { slurp("/proc/$parent/task/$parent/children") }
                              1, 2;
        } while ($pids ne $again);

        return split ' ', $pids;
    }

    opendir(my $dh, '/proc') or die "cannot read /proc: $!";

    return grep { /^\d+$/ } readdir $dh;
}


1;
