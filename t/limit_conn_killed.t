#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Workers that die while they hold the lock of a zone in shared memory, in the
# middle of a change: others go on, nothing is lost but what was the dead's.
#
# A worker is brought to a chosen instruction without a debugger: the code in
# its memory is overwritten there, with a jump to itself or with a breakpoint.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use Coord::Util qw(alive slurp);
use POSIX ();
use Time::HiRes qw(sleep time);

use constant { LOOP => "\xeb\xfe", TRAP => "\xcc" };

my $t = Coord->new;
my $origin = $t->origin(routes => { '/hold' => { delay => 60 } });

my $n = $t->node(name => 'n', workers => 2, main => 'worker_rlimit_core 0;',
                 http => <<'EOF')->start;
    coord_limit_conn_zone $arg_k zone=one:1m lease=1s;
    coord_limit_conn_zone $arg_k zone=two:1m lease=1s;

    server {
        listen 127.0.0.1:%%PORT%% backlog=1024;
        proxy_read_timeout 100s;
        location = /hold { coord_limit_conn one 5;
                           proxy_pass http://%%ORIGIN%%; }
        location = /try { coord_limit_conn one 5; empty_gif; }
        location = /wait { coord_limit_conn one 5 wait=20s; empty_gif; }
        location = /both { coord_limit_conn one 5; coord_limit_conn two 5;
                           empty_gif; }
        location = /none { empty_gif; }
    }
EOF

my @paths = ('/try?k=', '/wait?k=', '/both?k=', '/try?k=' . 'long' x 40);

# a request of any kind; few keys, so that they meet

sub any { $paths[int rand @paths] . int rand 10 }

sub open_request {
    my ($path) = @_;
    my $c = $n->connect;
    $c->send(Coord::HTTP::format(path => $path));
    return $c;
}

# exactly five places, and nobody has one

sub is_whole {
    my ($name) = @_;

    for my $k (0 .. 9) {
        my (@c, $sixth);

        my $good = $t->wait_for(sub {
            my $count = $origin->connections;
            @c = map { open_request("/hold?k=$k") } 1 .. 5;
            my $five = $t->wait_for(sub {
                $origin->connections == $count + 5 }, 2);
            $sixth = $n->get("/try?k=$k")->status;
            $_->close for @c;
            $t->wait_for(sub { $origin->connections == $count }, 10);
            return $five && $sixth == 429;
        }, 15);

        next if $good;

        fail("$name: five places for key $k");
        return;
    }

    pass("$name: five places for each key, none is taken");
}

# what the master says of those who have died with the lock

sub in_lock { scalar $n->log_lines(qr/"coord_cc_\w+" was locked by \d+$/) }
$n->allow(qr/shared memory zone "coord_cc_\w+" was locked by \d+$/);

sub repairs { scalar $n->log_lines(qr/left locked by a dead process/) }


# functions that run under the lock, and in which something is to be repaired

my $changes = qr/^ngx_coord_(?:table_(?:find|insert|alloc|remove|add|drop|write
                                       |leave)
                              |memory_(?:lease|slot|wait)_\w+)\b/x;

# code(): offsets of their instructions, by function

sub code {
    my (%code, $function);

    open(my $fh, '-|', 'objdump', '-d', '--no-show-raw-insn', $t->module)
        or return;

    while (<$fh>) {
        if (/^[0-9a-f]+ <(.*)>:$/) {
            $function = $1;

        } elsif (/^\s+([0-9a-f]+):\s/ && $function) {
            push @{$code{$function}}, hex $1;
        }
    }

    $_ !~ $changes and delete $code{$_} for keys %code;

    close $fh;

    return %code;
}


# patch($pid, $offset, $bytes): returns what was there

sub patch {
    my ($pid, $offset, $bytes) = @_;

    my $module = $t->module;
    my ($base) = slurp("/proc/$pid/maps")
                 =~ m{^([0-9a-f]+)-\S+ \S+ 0+ .*\Q$module\E$}m or return;

    no warnings 'portable';
    my $address = hex($base) + $offset;

    open(my $fh, '+<:raw', "/proc/$pid/mem") or return;
    sysseek($fh, $address, 0) or return;
    sysread($fh, my $old, length $bytes) or return;
    sysseek($fh, $address, 0) or return;
    syswrite($fh, $bytes) or return;

    return $old;
}


# the processor time of a process, in ticks

sub ticks { (split ' ', slurp("/proc/$_[0]/stat") =~ s/.*\)//sr)[11] || 0 }


my %code = code();
my ($first) = $n->workers;
my $why = (POSIX::uname())[4] ne 'x86_64' ? 'not x86-64'
          : $ENV{TEST_VALGRIND} ? 'valgrind does not run the code in memory'
          : !$code{ngx_coord_table_insert} ? 'no objdump, or no symbols'
          : !defined patch($first, 0, "\x7f")
            ? 'the memory of a worker cannot be written' : '';

is_whole('at first');


# killed at the beginning of a change, while the other one waits for the lock

for my $function (qw(ngx_coord_table_insert ngx_coord_table_remove)) {
    SKIP: {
        skip "$function: $why", 6 if $why;

        my ($one, $two) = $n->workers;
        my $repairs = repairs();

        # not before it has stopped: it might be the one that is woken

        $n->hold_worker($two);

        patch($one, $code{$function}[0], LOOP);
        my $ticks = ticks($one);
        my $dropped = open_request('/both?k=new');

        ok($t->wait_for(sub { ticks($one) > $ticks + 20 }, 30),
           "$function: one worker is in it");

        kill 'CONT', $two;
        my @c = map { open_request("/try?k=$function$_") } 1 .. 10;
        sleep 0.5;
        is(scalar(grep { defined $_->read(0) } @c), 0,
           'the other one waits for the lock');

        $n->kill_worker('KILL', $one);

        is(join(' ', map { $_->response(timeout => 10)->status } @c),
           join(' ', (200) x 10), 'it goes on when the first one is killed');
        is($dropped->closed(10), 1, 'with its request');
        is(scalar $n->log_lines(qr/was locked by $one$/), 1, 'which had the lock');
        is(repairs(), $repairs + 1, 'the zone has been repaired');
    }
}


# at any instruction

SKIP: {
    skip $why, 4 if $why;

    my (@at, %result, @where);
    my $killed = 0;

    for my $function (sort keys %code) {
        my @all = @{$code{$function}};
        push @at, map { [$function, $all[rand @all]] } 1 .. 5;
    }

    $n->allow(qr/exited on signal 5/);
    my $locked = in_lock();

    for (sort { $a->[1] <=> $b->[1] } @at) {
        my ($function, $offset) = @$_;
        my %old = map { $_ => patch($_, $offset, TRAP) } $n->workers;

        my @all = $t->parallel([map { $n->req(any()) } 1 .. 8]);
        $result{$_->{error} eq 'timeout' ? 'timeout' : $_->status}++ for @all;

        for my $pid (keys %old) {
            next if alive($pid) && patch($pid, $offset, $old{$pid})
                    && alive($pid);
            $killed++;
            push @where, sprintf('%s %x', $function, $offset);
        }

        $t->wait_for(sub { 2 == grep { !exists $old{$_} || alive($_) }
                                $n->workers }, 20);
    }

    cmp_ok($killed, '>', @at / 4, "$killed died at one of "
                                  . @at . ' instructions');
    is($result{timeout}, undef, 'every request ended')
        or diag(join "\n", @where);
    ok($t->wait_for(sub { in_lock() - $locked >= $killed }, 5),
       'all of them with the lock');
    is_whole('after that') or diag(join "\n", @where);
}


# at random, under load

my $end = time + 5;
my $kills = 0;
my @load;

for (1 .. 2) {
    my $seed = int rand 2 ** 31;
    my $pid = fork;
    die "fork: $!" if !defined $pid;

    if (!$pid) {
        my $timeouts = 0;

        srand($seed);

        while (time < $end) {
            $timeouts += grep { $_->{error} eq 'timeout' }
                         $t->parallel([map { $n->req(any()) } 1 .. 20]);
        }

        POSIX::_exit($timeouts > 250 ? 250 : $timeouts);
    }

    $t->track($pid);
    push @load, $pid;
}

while (time < $end) {
    my @workers = $n->workers;
    $n->kill_worker('KILL', $workers[rand @workers]) if @workers == 2;
    $kills++;
    sleep rand 0.1;
}

is(join(' ', map { waitpid($_, 0); $? } @load), '0 0',
   "$kills workers killed under load: every request ended");
is($n->get('/none')->status, 200, 'the node is there');
is_whole('after that');

done_testing();
