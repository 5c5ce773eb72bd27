package Bench;

# Copyright (C) ngx_coord_module contributors

# What "make bench" measures of a row, and how it prints that.
#
#   prepare($row, $t)      starts its node and warms it up, or says in {skip}
#                          why there is none
#   measure($row, $s)      one measurement of so many seconds; its results are
#                          added to those that the row has
#   flame($row, $s, $dir)  dir/name.svg: where its worker is in so many seconds
#   report(@rows)          the table, and what the servers of the rows did
#   median(@n)
#   used($info)            CPU seconds of the main thread, from an INFO
#   cpu($pid)              CPU seconds of a process
#   seen($only, $name)     is it asked for
#
# A row:
#   name; http, main: the configuration; plain: without the module
#   redis       whose commands and CPU count; undef: skipped
#   why         what is said then
#   base        name or index of the row that it is compared with; reach
#   connections of wrk (64)
#   refused     all of its requests are
#   frozen      a server that is stopped once the row has connections
#   peer        of others: skipped if nginx does not take it
#   probe       sub ($seconds): in place of wrk, no node

use strict;
use warnings;

use Exporter qw(import);
use FindBin;
use POSIX ();

use Coord::Util qw(slurp);

our @EXPORT_OK = qw(cpu flame measure median prepare report seen used);
our $CONNECTIONS = 64;

my $nodes = 0;


sub seen {
    my ($only, $name) = @_;

    return !$only || $name =~ /$only/;
}


sub prepare {
    my ($row, $t) = @_;

    if (exists $row->{redis} && !$row->{redis}) {
        $row->{skip} = $row->{why} || 'there is no such Redis';
    }

    return if $row->{skip} || $row->{probe};

    my %node = map { $_ => $row->{$_} } qw(plain main http);

    # a module of others may not fit to this nginx

    if ($row->{peer}) {
        my $error = $t->conf_error(%node);

        if ($error) {
            $row->{skip} = $error =~ /\[\w+\] (?:\d+#\d+: )?(.*)/ ? $1
                                                                  : $error;
            $row->{skip} =~ s/ in \S+:\d+$//;
            return;
        }
    }

    $row->{node} = $t->node(%node, name => 'row' . $nodes++)->start;

    # connections to Redis, memory of the pools
    wrk($row, 1);

    # the breaker opens now, while requests come, and stays open
    if ($row->{frozen}) {
        kill 'STOP', $row->{frozen}{pid};
        wrk($row, 1);
    }
}


# requests per second, how many, how many were not 2xx, p99 in ms

sub wrk {
    my ($row, $seconds) = @_;

    my $c = $row->{connections} || $CONNECTIONS;
    my $out = `wrk -t 1 -c $c -d ${seconds}s --latency @{[
                   $row->{node}->url ]} 2>&1`;

    my ($rps) = $out =~ /^Requests\/sec:\s+([\d.]+)/m
        or die "bench: wrk says:\n$out";
    my ($total) = $out =~ /(\d+) requests in/;
    my ($other) = $out =~ /Non-2xx or 3xx responses: (\d+)/;
    my ($p99, $unit) = $out =~ /^\s+99%\s+([\d.]+)(us|ms|s)/m;

    # those that had no response at all

    my @lost = $out =~ /^\s+Socket errors: (.*)/m ? $1 =~ /(\d+)/g : ();

    $row->{lost} += $_ for @lost;

    $p99 *= { us => 0.001, ms => 1, s => 1000 }->{$unit};

    return ($rps, $total, $other || 0, $p99);
}


sub measure {
    my ($row, $seconds) = @_;

    my $before = info($row);
    my ($rps, $total, $other, $p99)
        = $row->{probe} ? $row->{probe}->($seconds) : wrk($row, $seconds);

    # a row whose requests fare otherwise than its name says measures nothing

    my $expected = $row->{refused} ? $total : 0;

    if (abs($other - $expected) > 0.01 * $total) {
        die "bench: $row->{name}: $other of $total answers are not 2xx\n";
    }

    push @{$row->{rps}}, $rps;
    push @{$row->{p99}}, $p99;

    my $after = info($row);

    $row->{lost} += $other - $expected if !$row->{refused};
    $row->{decisions} += $total;
    $row->{commands} += $after->{commands} - $before->{commands}
                        - $after->{servers};         # INFO itself
    $row->{cpu} += $after->{cpu} - $before->{cpu};
    $row->{nginx} += $after->{nginx} - $before->{nginx};
}


# perf and bench/flame; nothing that is measured counts, wrk runs beside them

sub flame {
    my ($row, $seconds, $dir) = @_;

    my ($worker) = $row->{node}->workers;
    my $file = $row->{node}->file('perf.data');
    my $svg = "$dir/" . $row->{name} =~ s/\W+/_/gr . '.svg';

    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        no warnings 'exec';

        open(STDOUT, '>', "$file.log");
        open(STDERR, '>&', \*STDOUT);

        exec 'perf', 'record', '-F', 499, '--call-graph', 'dwarf', '-o', $file,
             '-p', $worker, '--', 'sleep', $seconds;
        POSIX::_exit(127);
    }

    # on a busy machine perf may begin late

    do { wrk($row, $seconds + 1) } until waitpid($pid, POSIX::WNOHANG());

    system("perf script --no-inline -F comm,ip,sym,dso -i $file 2>$file.log"
           . " | $FindBin::Bin/flame '$row->{name}' >$svg") == 0
        or die "bench: perf says:\n", slurp("$file.log");

    print "$svg\n";
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

    for my $worker ($row->{node} ? $row->{node}->workers : ()) {
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


sub cpu {
    my @stat = split ' ', slurp("/proc/$_[0]/stat") =~ s/.*\) //sr;

    return ($stat[11] + $stat[12]) / 100;
}


sub median {
    my @v = sort { $a <=> $b } @_;

    return ($v[$#v / 2] + $v[@v / 2]) / 2;
}


sub report {
    my (@rows) = @_;

    printf "%-36s %9s %7s %6s  %-34s %6s %6s\n",
           '', 'req/s', 'p99 ms', 'us', 'against', 'ratio', 'reach';

    for my $row (@rows) {
        if ($row->{skip}) {
            printf "%-36s skipped: %s\n", $row->{name}, $row->{skip};
            next;
        }

        my $base = base($row, @rows);

        my $ratio = $base ? sprintf '%.2f', median(ratios($row, $base)) : '';

        my $us = $row->{node} ? sprintf '%.1f', 1e6 * each_one($row, 'nginx')
                              : '';

        printf "%-36s %9.0f %7.2f %6s  %-34s %6s %6s\n", $row->{name},
               median(@{$row->{rps}}), median(@{$row->{p99}}), $us,
               $base ? $base->{name} : '', $ratio,
               $base && $row->{reach} || '';
    }

    print "\n";
    costs($_, base($_, @rows))
        for grep { $_->{redis} && $_->{node} && $_->{decisions} } @rows;
    print "\n";
    sums(map { $_->{name} => $_ } grep { $_->{decisions} } @rows);
}


# round by round: neighbors in time are compared

sub ratios {
    my ($row, $base) = @_;

    return map { $row->{rps}[$_] / $base->{rps}[$_] } 0 .. $#{$row->{rps}};
}


# the row that this one is compared with, if it was measured

sub base {
    my ($row, @rows) = @_;

    return if !defined $row->{base};

    my ($base) = grep { $_->{name} eq $row->{base} } @rows;

    return $base && $base->{rps} ? $base : undef;
}


sub costs {
    my ($row, $base) = @_;

    printf "%-36s %.2f Redis commands and %.1f us of Redis CPU a request\n",
           $row->{name}, each_one($row, 'commands'),
           1e6 * each_one($row, 'cpu');

    return if !$base || !$base->{redis} || !$base->{node};

    printf "%-36s %.2f of the Redis CPU and %.2f of the worker of %s\n", '',
           (map { each_one($row, $_) / (each_one($base, $_) || 1e-9) }
            qw(cpu nginx)), $base->{name};
}


# what several rows tell together

sub sums {
    my (%row) = @_;

    my ($one, $three) = @row{'coord_limit_req, 64 keys',
                             'coord_limit_req, 64 keys, cluster'};
    my ($plain, $once) = @row{'plain proxy_pass',
                              'idempotency, executions, Redis'};
    my ($own, $resty) = @row{'coord_limit_req, Redis, 0 ms',
                             'lua-resty-redis, 0 ms'};
    my ($bare, $asked) = @row{'round trip of 1 ms, bare',
                              'coord_limit_req, one by one, 1 ms'};
    my ($direct, $open) = @row{'no limit, one by one',
                               'breaker open, one by one'};

    if ($own && $resty) {
        printf "requests with a decision: %.2f of those of lua-resty-redis,"
               . " reach 3; %.2f of the worker's time for one\n",
               median(ratios($own, $resty)),
               each_one($own, 'nginx') / each_one($resty, 'nginx');
    }

    if ($one && $three) {
        printf "CPU of a decision, Redis and nginx, cluster of three: %.2f of"
               . " that of one Redis, reach 1.15\n",
               each_one($three, qw(cpu nginx)) / each_one($one, qw(cpu nginx));
    }

    if ($plain && $once) {
        printf "an execution under a key adds %.2f of the worker's time of a"
               . " proxied request, reach 1.5\n",
               each_one($once, 'nginx') / each_one($plain, 'nginx') - 1;
    }

    if ($direct && $bare && $asked) {
        printf "a decision adds %.3f ms in the mean and %.3f ms at p99 to a"
               . " request and a round trip of 1 ms, reach 0.1\n",
               median(added('mean', $asked, $direct, $bare)),
               median(added('p99', $asked, $direct, $bare));
    }

    if ($direct && $open) {
        printf "an open breaker adds %.3f ms to a request, reach 0.1;"
               . " %d of %d requests were lost\n",
               median(added('mean', $open, $direct)), $open->{lost},
               $open->{decisions};
    }
}


# what a row takes beyond the others, round by round, in ms; of rows with one
# connection

sub added {
    my ($what, $row, @others) = @_;

    return map {
        my $i = $_;
        my ($all, @parts) = map { $what eq 'p99' ? $_->{p99}[$i]
                                                 : 1000 / $_->{rps}[$i] }
                            $row, @others;
        $all -= $_ for @parts;
        $all;
    } 0 .. $#{$row->{rps}};
}


# the sum of some costs, a request

sub each_one {
    my ($row, @what) = @_;
    my $sum = 0;

    $sum += $row->{$_} / $row->{decisions} for @what;

    return $sum;
}


1;
