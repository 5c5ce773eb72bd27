package Bench::Scale;

# Copyright (C) ngx_coord_module contributors

# What CPU times of the rows "64 keys" predict for many decisions.  Nothing but
# multiplication: docs/redis.md has the assumptions.
#
#   rows($t, $secure, $conf, $wanted)   more of those rows: conf->(store) is the
#                                       configuration with that store, wanted->
#                                       (name) whether a row is asked for
#   scale($redis, @rows)                prints what those that were measured say

use strict;
use warnings;

use POSIX qw(ceil);

use Coord::Sentinel;

our $DECISIONS = 10_000_000;     # a second
our $LOAD = 0.7;                 # of a core

my $one = 'coord_limit_req, 64 keys';


sub rows {
    my ($t, $secure, $conf, $wanted) = @_;

    my @rows = { name => "$one, TLS", base => $one, redis => $secure,
                 why => 'this Redis has no TLS',
                 http => $conf->('%%TLS%%') };

    return @rows if !$wanted->("$one, Sentinel");

    my $s = Coord::Sentinel->start($t);

    return @rows, { name => "$one, Sentinel", base => $one,
                    redis => $s->{servers}[0],
                    http => $conf->('mode sentinel=mymaster; ' . $s->lines) };
}


# bytes of the largest connection of the worker, as Redis counts them

sub memory {
    my ($redis) = @_;

    my ($most) = sort { $b <=> $a }
                 map { /cmd=(?:bitfield|echo)\b/ && / tot-mem=(\d+)/ ? $1 : 0 }
                 split /\n/, $redis->connect->command('CLIENT', 'LIST');

    return $most || 0;
}


sub scale {
    my ($redis, @rows) = @_;

    my %row = map { $_->{name} => $_ } grep { $_->{decisions} } @rows;
    my @what = grep { $row{$_->[1]} }
               (['one Redis', $one], ['TLS', "$one, TLS"],
                ['Sentinel', "$one, Sentinel"], ['cluster', "$one, cluster"]);

    return if !@what;

    my $bytes = memory($redis);

    printf "\n%d decisions a second, each core busy for %d %% of the time:\n",
           $DECISIONS, 100 * $LOAD;

    for (@what) {
        my ($name, $row) = ($_->[0], $row{$_->[1]});
        my ($nginx, $cpu) = map { 1e6 * $row->{$_} / $row->{decisions} }
                            qw(nginx cpu);
        my ($workers, $masters) = map { ceil($DECISIONS * $_ / 1e6 / $LOAD) }
                                  $nginx, $cpu;

        printf "%-10s %5.1f us of a worker and %4.1f us of Redis each: %d"
               . " workers, and ", $name, $nginx, $cpu, $workers;

        if ($name eq 'cluster') {
            printf "%d masters, each with %d connections of %.1f kB\n",
                   $masters, $workers, $bytes / 1e3;

        } else {
            printf "one server is enough for %d\n", $LOAD * 1e6 / $cpu;
        }
    }
}


1;
