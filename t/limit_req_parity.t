#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The leaky bucket is stock limit_req, from Redis as from memory.  Both judge
# the same request, in one location, in dry run: a client that comes late
# comes late to both.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use List::Util qw(max);
use Time::HiRes qw(sleep time);

my $t = Coord->new;
$t->redis;

# each limit in the words of both, after "zone="; the arrivals below leave
# at least half a second to the nearest edge of each
my %limits = (
    plain => ['2'],
    burst => ['1 burst=5'],
    nodelay => ['1 burst=5 nodelay'],
    twostage => ['1 burst=6 delay=3'],
    slow => ['m burst=1 nodelay'],
    both => ['1 burst=5', 'm burst=3'],
);

my %rates = (1 => 1, 2 => 2, 4 => 4, m => 0.5, d => 1 / 60);
my %zone_rates = (1 => '1r/s', 2 => '2r/s', 4 => '4r/s', m => '30r/m',
                  d => '1r/m');

my %stores = (redis => '', memory => 'store=local');
my @names = qw(stock redis memory);

my ($zones, $locations) = ('', '');

for my $rate (sort keys %rates) {
    my $is = "$rate:1m rate=$zone_rates{$rate}";

    $zones .= "limit_req_zone \$arg_k zone=stock$is;\n";

    for my $store (sort keys %stores) {
        $zones .= "limit_req_zone \$arg_k zone=pair_$store$is;\n"
                  . "coord_limit_req_zone \$arg_k zone=$store$is "
                  . "$stores{$store};\n";
    }
}

for my $store (sort keys %stores) {
    for my $limit (sort keys %limits) {
        $locations .= "location /$store/$limit {\n"
            . join('', map { "limit_req zone=pair_$store$_;\n"
                             . "coord_limit_req zone=$store$_;\n" }
                           @{$limits{$limit}})
            . "limit_req_dry_run on; coord_limit_req_dry_run on;\n"
            . "add_header X-Stock \$limit_req_status;\n"
            . "add_header X-Coord \$coord_limit_req_status;\n"
            . "empty_gif; }\n";
    }
}

for my $name (@names) {
    my $prefix = $name eq 'stock' ? '' : 'coord_';

    $locations .= "location /wait/$name { ${prefix}limit_req zone=${name}4 "
                  . "burst=6 delay=2; empty_gif; }\n";
    $locations .= "location /$name/dry { ${prefix}limit_req_dry_run on; "
                  . "${prefix}limit_req zone=${name}d; empty_gif; "
                  . "add_header X-Status \$${prefix}limit_req_status; }\n";
}

my $n = $t->node(name => 'n', http => <<"EOF")->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    limit_req_status 429;
    $zones
    server {
        listen 127.0.0.1:%%PORT%%;
        $locations
    }
EOF


# what the log says of the request with this number, by zone

sub excess {
    my ($lines, $number) = @_;

    return map { /excess: (\d+\.\d{3}),? by zone "(\w+)"/ ? ($2 => $1) : () }
           grep { /[?&]n=$number / } @$lines;
}


# the arrivals: at which second so many at once

my @script = ([0, 8], [1.5, 3], [3.5, 4], [8.5, 4]);

my (%requests, $serial);
my $start = time;

for my $burst (@script) {
    my ($at, $count) = @$burst;

    my @sets = map {
        my $store = $_;
        map { my $limit = $_; map { [$store, $limit, ++$serial] } 1 .. $count }
            sort keys %limits
    } sort keys %stores;

    my $left = $start + $at - time;
    sleep($left) if $left > 0;

    my @r = $t->parallel([map {
        $n->req("/$_->[0]/$_->[1]?k=$_->[1]&n=$_->[2]")
    } @sets]);

    for my $i (0 .. $#sets) {
        my ($store, $limit, $number) = @{$sets[$i]};

        push @{$requests{"$store $limit"}},
             { at => $at, number => $number, response => $r[$i] };
    }
}

my @lines = $n->log_lines(qr/excess: /);

for my $set (sort keys %requests) {
    my ($store, $limit) = split / /, $set;
    my $late = max(map { $_->{response}{time} } @{$requests{$set}}) + 0.02;
    my (@stock, @coord, @off);
    my $compared = 0;

    for my $r (@{$requests{$set}}) {
        my $name = "at $r->{at}, $r->{number}: ";

        push @stock, $name . $r->{response}->header('X-Stock');
        push @coord, $name . $r->{response}->header('X-Coord');

        my %excess = excess(\@lines, $r->{number});

        for my $zone (grep { /^pair_/ } keys %excess) {
            (my $ours = $zone) =~ s/^pair_//;

            # what a refused request took from the other limit is given back,
            # but not before the next one of a burst was judged in Redis: the
            # limit that is named may be the other
            next if $limit eq 'both' && %excess == 2 && !$excess{$ours};

            my $rate = $rates{substr $zone, -1};

            $compared++;
            push @off, "$name$excess{$zone}, $excess{$ours}"
                if !defined $excess{$ours}
                   || abs($excess{$ours} - $excess{$zone})
                      > $late * $rate + 0.002;
        }
    }

    is_deeply(\@coord, \@stock, "$limit, $store: the decisions of limit_req");
    is_deeply(\@off, [], "$limit, $store: its excess");
    cmp_ok($compared, '>', 5, "$limit, $store: $compared compared");

    my %kinds = map { /([A-Z]\w+)$/ ? ($1 => 1) : () } @stock;
    ok($kinds{REJECTED_DRY_RUN} && keys %kinds > 1,
       "$limit, $store: " . join ', ', sort keys %kinds);
}


# the waits: what the excess above "delay" takes at 4r/s, no less, and what is
# late is so for all

my %waits;

{
    my @sets = map { my $name = $_; map { [$name, ++$serial] } 1 .. 8 } @names;
    my @r = $t->parallel([map { $n->req("/wait/$_->[0]?k=wait&n=$_->[1]") }
                              @sets]);

    @lines = $n->log_lines(qr/excess: /);

    for my $i (0 .. $#sets) {
        my ($name, $number) = @{$sets[$i]};
        my %excess = excess(\@lines, $number);
        my $wait = max(0, (($excess{"${name}4"} || 0) - 2) / 4);

        push @{$waits{$name}}, { status => $r[$i]->status, least => $wait,
                                 took => $r[$i]{time} };
    }
}

for my $name (@names) {
    my @of = sort { $a->{took} <=> $b->{took} }
             grep { $_->{status} == 200 } @{$waits{$name}};
    $waits{$name} = \@of;

    is(scalar @of, 7, "$name: all of the burst pass");
    is(scalar(grep { $_->{least} } @of), 4, "$name: four have to wait");
    is(scalar(grep { $_->{took} < $_->{least} - 0.005 } @of), 0,
       "$name: none waits less");
    is(scalar(grep { $of[$_]{took} > $waits{stock}[$_]{took} + 0.5 } 0 .. $#of),
       0, "$name: nor much longer than from limit_req");
}


# dry run, at a rate that refills nothing meanwhile, and the words of the log

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
