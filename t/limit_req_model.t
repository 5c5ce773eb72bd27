#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Rates against a model of them: requests in random order to two nodes with two
# workers each, with every algorithm, with costs, holds, reloads to another
# rate and workers that are killed.  None is admitted too many, and none
# refused that had to pass, within what is not known of the moment at which a
# request was decided.
#
# COORD_MODEL_SEED: the order of a run that was told; COORD_MODEL_STEPS: a
# longer one.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use List::Util qw(max min);
use Time::HiRes qw(sleep time);

my $seed = $ENV{COORD_MODEL_SEED} || int(rand(2 ** 31));
my $steps = $ENV{COORD_MODEL_STEPS} || 700;

srand($seed);
diag("COORD_MODEL_SEED=$seed");

my $t = Coord->new(time_limit => 300 + $steps);
my $redis = $t->redis;

my $W = 3;                        # seconds of a window
my $slack = 0.04;                 # of clocks and rounding, seconds
my @rates = ([120, 8], [240, 5]); # a minute, a window
my $rate = 0;
my $burst = 9;

my %layout = (leaky_bucket => 'bucket', token_bucket => 'bucket',
              fixed_window => 'fixed', sliding_window => 'sliding',
              sliding_log => 'log');
my @algorithms = sort keys %layout;


sub conf {
    my ($bucket, $window) = @{$rates[$rate]};
    my ($zones, $locations) = ('', '');

    for my $z (@algorithms) {
        my $is = $layout{$z} eq 'bucket';
        my $r = $is ? "${bucket}r/m" : "${window}r/${W}s";
        my $b = !$is ? '' : "burst=$burst" . ($z =~ /leaky/ ? ' nodelay' : '');

        $zones .= "coord_limit_req_zone \$arg_k zone=$z:1m rate=$r"
                . " algorithm=$z;\n";
        $locations .= <<"EOF";
            location /$z/take { coord_limit_req zone=$z $b cost=\$arg_c;
                                empty_gif; }
            location /$z/after { coord_limit_req zone=$z $b cost=\$arg_c
                                                 charge=after;
                                 empty_gif; }
            location /$z/hold { coord_limit_req zone=$z $b cost=0;
                                coord_limit_req_hold zone=$z for=\$arg_h;
                                empty_gif; }
EOF
    }

    return <<"EOF";
        coord_store main { server %%REDIS%%; timeout 300ms; connect_timeout 5s; }
        $zones
        coord_limit_req_log_level info;
        server {
            listen 127.0.0.1:%%PORT%%;
            $locations
            location /coord/ { coord_api; }
        }
EOF
}

my @nodes = map { $t->node(name => $_, workers => 2, http => conf())->start }
                qw(a b);

$_->allow(qr/exited on signal/) for @nodes;


# the model: of each key what is surely used, and what may be

my %key;
my ($admitted, $refused, $held, $wrong) = (0, 0, 0, 0);

sub limit { $layout{$_[0]} eq 'bucket' ? $burst + 1 : $rates[$rate][1] }

# what is used, at least and at most, for a request between two moments; undef:
# not to be told, as a window ends just then

sub used {
    my ($z, $s, $from, $to) = @_;

    if ($layout{$z} eq 'bucket') {
        my $per = $rates[$rate][0] / 60;

        return (max(0, $s->{lo} - $per * ($to - $s->{from})),
                max(0, $s->{hi} - $per * ($from - $s->{to})));
    }

    if ($layout{$z} eq 'log') {
        return (sum(grep { $_->[0] > $to + $slack - $W } @{$s->{log}}),
                sum(grep { $_->[1] > $from - $slack - $W } @{$s->{log}}));
    }

    if ($layout{$z} eq 'fixed') {
        return (0, 0) if !$s->{from} || $from > $s->{to} + $W + $slack;
        return ($s->{n}, $s->{n}) if $to < $s->{from} + $W - $slack;
        return;
    }

    my $i = int(($from - $slack) / $W);

    return if $i != int(($to + $slack) / $W);

    my ($cur, $prev) = map { $s->{n}{$i - $_} || 0 } 0, 1;

    return map { $cur + $prev * (1 - max(0, min(1, $_ / $W - $i))) }
               $to + $slack, $from - $slack;
}

sub sum { my $n = 0; $n += $_->[2] for @_; return $n }

sub take {
    my ($z, $s, $n, $from, $to, @used) = @_;

    if ($layout{$z} eq 'bucket') {
        @$s{qw(lo hi from to)} = ($used[0] + $n, $used[1] + $n, $from, $to);

    } elsif ($layout{$z} eq 'log') {
        push @{$s->{log}}, [$from, $to, $n] if $n;

    } elsif ($layout{$z} eq 'fixed') {
        if (!$s->{from} || $from > $s->{to} + $W + $slack) {
            @$s{qw(n from to)} = (0, $from, $to);
        }
        $s->{n} += $n;

    } else {
        $s->{n}{int($from / $W)} += $n;
    }
}

sub fresh { { lo => 0, hi => 0, from => 0, to => 0, log => [], n =>
              $layout{$_[0]} eq 'fixed' ? 0 : {}, until => [0, 0] } }

sub wrong {
    my ($z, $what, $s, @more) = @_;

    diag("seed $seed: $z: $what: @more");
    $wrong++;
}


my $serial = 0;
my %name;

for my $step (1 .. $steps) {
    my $z = $algorithms[rand @algorithms];
    my $slot = "$z:" . int rand 3;
    my $name = $name{$slot} ||= 'k' . ++$serial;
    my $s = $key{"$z$name"} ||= fresh($z);
    my $n = $nodes[rand @nodes];
    my $limit = limit($z);
    my $kind = rand();

    # at times something happens to the nodes

    if ($step % 90 == 0) {
        $rate = !$rate;
        for my $node (@nodes) {
            $node->conf(http => conf());
            $node->reload;
        }
        # a bucket tells its rate to within a thirty-second part
        for my $b (grep { $_->{hi} } values %key) {
            my $now = time;
            my $per = $rates[!$rate][0] / 60;
            $b->{lo} = max(0, $b->{lo} - max($per, $rates[$rate][0] / 60)
                                         * ($now - $b->{from})) * 0.95;
            $b->{hi} = $b->{hi} * 1.05;
            @$b{qw(from to)} = ($now, $now);
        }
        next;
    }

    if ($step % 70 == 0) {
        my @pids = $n->workers;
        $n->kill_worker('KILL', $pids[rand @pids]);
        next;
    }

    # no request at the end of a window

    if ($layout{$z} eq 'sliding') {
        my $rest = $W - (time - $W * int(time / $W));
        sleep $rest + 0.1 if $rest < 0.2;
    }

    my $cost = $kind < 0.8 ? int(rand(4)) : int(rand($limit + 3));
    my $path = $kind < 0.06 ? 'hold' : $kind < 0.2 ? 'after' : 'take';
    my $hold = 1 + int rand 2;

    my $from = time;
    my $r = $n->get("/$z/$path?k=$name&c=$cost"
                  . ($path eq 'hold' ? "&h=$hold" : ''));
    my $to = time;
    my $passed = $r->status == 200;

    if (!$passed && $r->status != 429) {
        wrong($z, 'status ' . $r->status, $s);
        next;
    }

    my @used = used($z, $s, $from, $to);
    my $may_hold = $from < $s->{until}[1] + $slack;
    my $must_hold = $to < $s->{until}[0] - $slack;

    # what is held takes nothing, but a window that is nearly over does not get
    # back what it gave; a request that was not decided tells no quota

    my $nearly = $layout{$z} eq 'fixed' && $may_hold && $s->{from}
                 && $to > $s->{from} + $W - 0.5;

    if (!@used || $nearly || !$r->header('RateLimit')) {
        # nobody knows what was counted: another key from here on
        delete $name{$slot};
        next;
    }

    my $asked = $path eq 'take' ? $cost : $path eq 'after' ? 1 : 0;
    my $eps = $layout{$z} eq 'bucket' ? 0.06 : 1e-6;

    # a look begins no window, nor does what never fits
    my $begins = $path eq 'take' && $cost && $cost <= $limit;

    if ($passed) {
        $admitted++;

        wrong($z, 'admitted while held', $s, $name) if $must_hold;
        wrong($z, "admitted, $path, cost $asked of $limit, used @used", $s,
              $name, $step)
            if $used[0] + $asked > $limit + $eps;

        take($z, $s, $path eq 'take' ? $cost : 0, $from, $to, @used)
            if $layout{$z} ne 'fixed' || $begins;

    } else {
        $refused++;
        $held++ if $may_hold;

        wrong($z, "refused, $path, cost $asked of $limit, used @used", $s,
              $name, $step)
            if !$may_hold && $used[1] + $asked <= $limit - $eps;

        # one that is held begins a window where Redis was asked, and none
        # where the node knew of the hold: another key from here on
        delete $name{$slot}
            if $layout{$z} eq 'fixed' && $begins && $may_hold
               && (!$s->{from} || $to > $s->{from} + $W - $slack);
    }

    # what is done when it is over is waited for

    if ($path eq 'hold') {
        my $sets = time;

        if ($t->wait_for(sub { $n->get("/coord/limits/$z/$name")->body
                               =~ /"held": ?true/ || time > $sets + $hold }, 5))
        {
            @{$s->{until}} = (max($s->{until}[0], $from + $hold),
                              max($s->{until}[1], time + $hold));
        }

    } elsif ($path eq 'after' && $passed && $cost) {
        my @now;

        # it arrives behind the response: the API tells when it has

        my $there = $t->wait_for(sub {
            my ($left) = $n->get("/coord/limits/$z/$name")->body
                         =~ /"remaining": ?(\d+)/;
            @now = used($z, $s, $from, time);

            !@now || $left <= max(0, $limit - $now[0] - $cost + 0.1)
        }, 5);

        wrong($z, "a charge of $cost is missing", $s, $name, $step) if !$there;

        if (@now) {
            take($z, $s, $cost, $from, time, @now);

        } else {
            delete $name{$slot};
        }
    }

    sleep rand 0.1;
}


is($wrong, 0, "$steps steps: no answer is wrong");
cmp_ok($admitted, '>', $steps / 8, 'many were admitted');
cmp_ok($refused, '>', $steps / 20, 'many were refused');
cmp_ok($held, '>', 0, 'some because they were held');

my $admin = $redis->connect;
my @ttl = map { $admin->command('PTTL', $_) } @{$admin->command('KEYS', '*')};
is(scalar(grep { $_ == -1 } @ttl), 0, 'every key has a life');

done_testing();
