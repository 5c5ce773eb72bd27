#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The leaky bucket is stock limit_req: the same arrivals through both get the
# same decisions and the same delays, from Redis as from memory.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
$t->redis;

# each limit in the words of both; [prefix, store]
my @kinds = (['', ''], ['coord_', ''], ['coord_', 'store=local']);
my @names = qw(stock redis memory);

my %limits = (
    plain => 'zone=%s2',
    burst => 'zone=%s10 burst=5',
    nodelay => 'zone=%s10 burst=5 nodelay',
    twostage => 'zone=%s10 burst=6 delay=3',
    slow => 'zone=%sm burst=1 nodelay',
);

my ($zones, $locations) = ('', '');

for my $i (0 .. $#kinds) {
    my ($prefix, $store) = @{$kinds[$i]};
    my $name = $names[$i];

    for my $zone ([2 => '2r/s'], [10 => '10r/s'], [m => '30r/m']) {
        $zones .= "${prefix}limit_req_zone \$arg_k zone=$name$zone->[0]:1m "
                  . "rate=$zone->[1] $store;\n";
    }

    for my $limit (sort keys %limits) {
        $locations .= "location /$name/$limit { ${prefix}limit_req "
                      . sprintf($limits{$limit}, $name) . "; empty_gif; }\n";
    }

    $locations .= "location /$name/both { "
                  . "${prefix}limit_req zone=${name}10 burst=5; "
                  . "${prefix}limit_req zone=${name}2 burst=3; empty_gif; }\n";
    $locations .= "location /$name/dry { ${prefix}limit_req_dry_run on; "
                  . "${prefix}limit_req zone=${name}2; empty_gif; "
                  . "add_header X-Status \$${prefix}limit_req_status; }\n";
}

my $n = $t->node(name => 'n', http => <<"EOF")->start;
    coord_store main { server %%REDIS%%; timeout 5s; connect_timeout 5s; }
    limit_req_status 429;
    $zones
    server {
        listen 127.0.0.1:%%PORT%%;
        $locations
    }
EOF


# the arrivals: so many at once, then a pause in seconds

my @script = ([8, 0.35], [1, 0.05], [6, 0.9], [3, 0]);


# runs the script on all kinds at the same time, returns for each burst and
# kind the number of passed requests and their waits in steps of 1/10 second

sub run {
    my ($limit, $key) = @_;

    my @result;

    for my $burst (@script) {
        my ($count, $pause) = @$burst;

        my @req = map { my $name = $_;
                        map { $n->req("/$name/$limit?k=$key") } 1 .. $count }
                  @names;

        my $start = time;
        my @r = $t->parallel(\@req);

        for my $name (@names) {
            my @of = splice @r, 0, $count;
            my @passed = sort { $a <=> $b }
                         map { $_->{time} } grep { $_->status == 200 } @of;

            push @result, { name => $name,
                            passed => scalar @passed,
                            refused => scalar(grep { $_->status == 429 } @of),
                            waits => \@passed };
        }

        my $left = $pause - (time - $start);
        sleep($left) if $left > 0;
    }

    return @result;
}


# how a kind differs from stock over the whole script, '' if it does not

sub difference {
    my ($stock, $coord) = @_;

    for my $i (0 .. $#$stock) {
        my ($s, $c) = ($stock->[$i], $coord->[$i]);
        my $where = "burst $i: stock passed $s->{passed} @{$s->{waits}}, "
                    . "coord passed $c->{passed} @{$c->{waits}}";

        return $where if $c->{passed} != $s->{passed}
                         || $c->{refused} != $s->{refused};

        return $where if grep {
            abs($c->{waits}[$_] - $s->{waits}[$_]) > 0.06
        } 0 .. $#{$s->{waits}};
    }

    return '';
}


# A loaded machine may deliver an arrival late to one of the kinds: what
# differs by chance does not differ three times.

for my $limit (sort(keys %limits), 'both') {
    my %left = map { $_ => 'never ran' } @names[1, 2];

    for my $try (1 .. 3) {
        my (%of, $answered);

        for my $r (run($limit, "$limit$try")) {
            push @{$of{$r->{name}}}, $r;
            $answered += $r->{passed} + $r->{refused};
        }

        is($answered, 3 * 18, "$limit: all are answered");

        for my $name (sort keys %left) {
            $left{$name} = difference($of{stock}, $of{$name});
            delete $left{$name} if $left{$name} eq '';
        }

        last if !%left;
    }

    is($left{$_} || '', '', "$limit, $_: decisions and delays of limit_req")
        for @names[1, 2];
}


# dry run and the words of the log

for my $name (@names) {
    my @status = map { $n->get("/$name/dry?k=dry")->header('X-Status') } 1 .. 2;
    is_deeply(\@status, ['PASSED', 'REJECTED_DRY_RUN'], "$name: dry run");
}

for my $words (qr/limiting requests, excess: \d+\.\d{3} by zone "ZONE"/,
               qr/limiting requests, dry run, excess: \d\.\d{3} by zone "ZONE"/,
               qr/delaying request, excess: \d\.\d{3}, by zone "ZONE"/)
{
    for my $name (@names) {
        (my $re = "$words") =~ s/ZONE/$name\\w+/;
        ok(scalar $n->log_lines(qr/$re/), "$name: $re");
    }
}

done_testing();
