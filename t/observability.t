#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What comes with the module to watch it: log format, variables, alert rules,
# dashboard.  All of it names what there is, and nothing else.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use JSON::PP;

my $root = "$FindBin::Bin/..";
my $t = Coord->new;
my $redis = $t->redis;

sub slurp {
    my ($name) = @_;
    open my $fh, '<', $name or die "$name: $!";
    local $/;
    return scalar <$fh>;
}


# variables: those of the C tables are those of the documentation

my %variable;

for my $file (glob "$root/ngx_coord_module/*/*.c") {
    my $source = slurp($file);
    $variable{$1} = 1
        while $source =~ /\{ ngx_string\("(coord_\w+)"\), NULL,/g;
}

my $doc = slurp("$root/docs/variables.md");
my %documented = $doc =~ /^\| `\$(coord_\w+)` \| (.*) \|$/mg;

cmp_ok(scalar keys %variable, '>=', 12, 'variables found');
is_deeply([sort keys %documented], [sort keys %variable],
          'each variable is documented');

my $format = slurp("$root/examples/coord_json.conf");
$format =~ s/^#.*\n//mg;
my %logged = map { $_ => 1 } $format =~ /\$(coord_\w+)/g;

is_deeply([sort keys %logged],
          [sort grep { $documented{$_} !~ /not logged/ } keys %documented],
          'and logged, or said not to be');


# the log: each line is JSON

my $n = $t->node(name => 'n', http => <<"EOF")->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_req_zone \$arg_k zone=one:1m rate=1r/h;
    coord_limit_conn_zone \$arg_k zone=conn:1m;

    include $root/examples/coord_json.conf;

    server {
        listen 127.0.0.1:%%PORT%%;
        access_log %%NODEDIR%%/json.log coord_json;
        location / {
            coord_limit_req zone=one;
            coord_limit_conn conn 3;
            empty_gif;
        }
        location /none { empty_gif; }
    }
EOF

$n->get('/?k=%22%0A"\\');
$n->get('/?k=a', headers => { Host => "x\"y\x80" });
$n->get('/?k=b');
$n->get('/?k=b');
$n->get('/none');
$n->get('/none/%c3%a4');
$n->get('/none/%ff%C3%28?k=secret');
$n->get("/none/\xfe");

my $log = $n->dir . '/json.log';
my @lines;
ok($t->wait_for(sub { @lines = split /\n/, slurp($log); @lines == 8 }, 10),
   'eight lines');

my @records = map { eval { JSON::PP->new->utf8->decode($_) } } @lines;
is(scalar(grep { ref } @records), 8, 'each is JSON');
is($records[0]{uri}, '/', 'the path');
isnt($records[0]{host}, '', 'the host');
is($records[1]{host}, '', 'a host that is no text');
is($records[5]{uri}, "/none/\xe4", 'a path in UTF-8');
is($records[6]{uri}, '/none/%ff%C3%28', 'one that is not, as it was sent');
is($records[7]{uri}, '', 'one that was sent so');
is($records[2]{limit_req_status}, 'PASSED', 'passed');
is($records[2]{limit_req_source}, 'redis', 'by whom');
is($records[2]{limit_conn_current}, '1', 'at a time');
is($records[3]{limit_req_status}, 'REJECTED', 'rejected');
is($records[3]{limit_req_zone}, 'one', 'where');
is($records[3]{status}, 429, 'with what');
is($records[4]{limit_req_status}, '', 'not met');


# README: what stands behind each line of its tables is there

{
    my $bench = slurp("$root/bench/run.pl");
    my @tables = slurp("$root/README.md")
                 =~ /^(\|[^\n]*shown by \|\n.*?)\n\n/msg;
    my (@lines, @lost);

    for my $line (map { (split /\n/)[2 .. tr/\n//] } @tables) {
        my $shown = (split /\s*\|\s*/, $line)[-1];
        my @tests = $shown =~ /`(t\/\w+\.t)`/g;
        my @rows = $shown =~ /"([^"]+)"/g;

        push @lines, $line;
        push @lost, $line if !@tests && !@rows;
        push @lost, grep { !-f "$root/$_" } @tests;
        push @lost, grep { $bench !~ /name => '\Q$_\E'/ } @rows;
    }

    cmp_ok(scalar @lines, '>=', 25, 'lines of README');
    is(join("\n", @lost), '', 'each has a test or a row of the bench');
}


# decision lines in the error log

my $line = ($n->log_lines(qr/limiting requests/))[0];
like($line, qr/by zone "one", client: .*, key: [0-9a-f]{8}, outcome: REJECTED, store: main /,
     'a decision line');


# metrics that rules and dashboard use are there

my %metric = map { $_ => 1 } slurp("$root/docs/metrics.md")
                             =~ /^\| `(coord_\w+)` \|/mg;
my %shown = %metric;
my %labels = slurp("$root/docs/metrics.md")
             =~ /^\| `(coord_\w+)` \| \w+ \| ([^|]*) \|/mg;

$metric{"coord_store_latency_seconds_$_"} = 1 for qw(bucket sum count);
$labels{coord_store_latency_seconds_bucket}
    = $labels{coord_store_latency_seconds};

my $rules = slurp("$root/examples/prometheus-alerts.yml");
my $dashboard = slurp("$root/examples/grafana-dashboard.json");
my $panels = eval { decode_json($dashboard) };

ok($panels && @{ $panels->{panels} } >= 8, 'the dashboard is JSON');

my @exprs = map { map { $_->{expr} } @{ $_->{targets} } }
                @{ $panels->{panels} };

for my $used (map { /\b(coord_\w+)/g }
              (map { /^ +expr: (.*?)^ +for:/gms } $rules), @exprs)
{
    $metric{$used} or fail("$used is no metric") and last;
}

cmp_ok(scalar @exprs, '>=', 10, 'queries of the dashboard');

# each metric is on it, by labels that it has

my @wrong;

for my $expr (@exprs) {
    my @used = $expr =~ /\b(coord_\w+)\{/g;
    my %has = map { $_ => 1 } 'instance',
              map { $labels{$_} =~ /`(\w+)`/g } @used;

    delete @shown{map { s/_bucket$//r } @used};

    push @wrong, map { "$_ in $expr" } grep { !$has{$_} }
                 map { split /, / } $expr =~ /by \(([^)]*)\)/g;
    push @wrong, map { "$_ in $expr" } grep { !$has{$_} }
                 $expr =~ /(\w+)=~?"/g;
}

is(join(' ', @wrong), '', 'labels');
is(join(' ', sort keys %shown), '', 'no metric is left out');

# colours: single values and what has a bound; panels beside each other

my @panels = grep { $_->{type} ne 'row' } @{ $panels->{panels} };
my (@grey, %taken, @over);

for my $panel (@panels) {
    my ($x, $y, $w, $h) = @{ $panel->{gridPos} }{qw(x y w h)};
    my $steps = $panel->{fieldConfig}{defaults}{thresholds}{steps} || [];
    my %colour = map { $_->{color} => 1 } @$steps;

    push @grey, $panel->{title} if $panel->{type} eq 'stat' && keys %colour < 2;

    for my $cell (map { my $i = $_; map { "$i $_" } $y .. $y + $h - 1 }
                  $x .. $x + $w - 1) {
        push @over, $panel->{title} if $taken{$cell}++;
    }

    push @over, $panel->{title} if $x + $w > 24;
}

is("@grey", '', 'single values have thresholds');
is("@over", '', 'no panel over another');

for my $about ('Round trip', 'Late replies', 'Workers', 'Decisions',
               'Unprotected') {
    ok((grep { $_->{title} =~ /^$about.*by node/
               && $_->{targets}[0]{expr} =~ /by \(instance\b/ } @panels),
       "$about by node");
}

my ($outcomes) = grep { $_->{title} =~ /by outcome/ } @panels;
my %colour = map { $_->{matcher}{options}
                   => $_->{properties}[0]{value}{fixedColor} }
             @{ $outcomes->{fieldConfig}{overrides} };

is("@colour{qw(passed rejected bypassed)}", 'green red orange',
   'outcomes have their colours');

SKIP: {
    skip 'promtool is missing (Debian package prometheus)', 4
        unless grep { -x "$_/promtool" } split /:/, $ENV{PATH};

    my $out = `promtool check rules $root/examples/prometheus-alerts.yml 2>&1`;
    is($?, 0, 'promtool check rules') or diag($out);

    # the queries of the dashboard, as rules

    my $file = $t->dir . '/dashboard.yml';
    open my $fh, '>', $file or die $!;
    print $fh "groups:\n- name: d\n  rules:\n";
    my $i = 0;

    for my $expr (@exprs) {
        $expr =~ s/\$__rate_interval/1m/g;
        $expr =~ s/'/''/g;
        printf $fh "  - record: r%d\n    expr: '%s'\n", $i++, $expr;
    }

    close $fh;
    $out = `promtool check rules $file 2>&1`;
    is($?, 0, 'queries of the dashboard') or diag($out);

    # rules at work: two nodes with four workers each and two stores.  What
    # is healthy raises nothing, what is wrong just its own alert, of its own
    # node and store, and only after its time.

    my %alerts = $rules =~ /^ +- alert: (\w+)\n +expr:(.*?)^ +for:/gms;
    my $one = '{A,feature="limit_req",zone="one",outcome=';
    my $main = '{A,store="main"';

    # each series goes on for half an hour and is healthy for another one

    my @cases = (
        [ {} ],

        [ { 'up{A}' => '1 0x29 1x30' },
          'CoordNodeAway', 'critical', { job => 'coord', instance => 'a' },
          'Node a does not answer' ],

        [ { "coord_store_up$main}" => '1 0x29 1x30',
            "coord_store_workers$main}" => '4 0x29 4x30' },
          'CoordStoreDown', 'critical', of('a', 'main'),
          'No worker on a reaches store main' ],

        # too short
        [ { "coord_store_up$main}" => '1 1 0 1x58' } ],

        [ { 'coord_store_workers{B,store="spare"}' => '4 3x29 4x30' },
          'CoordStoreDegraded', 'warning', of('b', 'spare'),
          'Only some workers on b reach store spare' ],

        [ { "coord_breaker_open$main}" => '0 1x29 0x30' },
          'CoordBreakerOpen', 'warning', of('a', 'main'),
          'Circuit breaker to store main is open on a' ],

        [ { "coord_store_operations_total$main,result=\"timeout\"}"
            => '0+12x30 360x30' },
          'CoordStoreErrors', 'warning', { instance => 'a', store => 'main' },
          'More than 1% of the operations on store main fail' ],

        # too few
        [ { "coord_store_operations_total$main,result=\"timeout\"}"
            => '0+3x60' } ],

        [ { "coord_store_latency_seconds_bucket$main,le=\"0.025\"}"
            => '0+580x30 17400+600x30' },
          'CoordStoreSlow', 'warning', { instance => 'a', store => 'main' },
          '1% of the operations on store main take over 25 ms' ],

        [ { "coord_store_late_replies_total$main}" => '0+12x30 360x30' },
          'CoordLateReplies', 'warning', { instance => 'a', store => 'main' },
          'Replies of store main come to a after their operation has timed '
          . 'out' ],

        # too few
        [ { "coord_store_late_replies_total$main}" => '0+5x60' } ],

        [ { "coord_decisions_total$one\"bypassed\"}" => '0+1x30 30x30' },
          'CoordUnprotected', 'warning',
          { instance => 'a', feature => 'limit_req', zone => 'one' },
          'Requests pass limit_req zone one without a decision' ],

        [ { 'coord_zone_evictions_total{A,feature="limit_req",zone="one"}'
            => '0+5x30 150x30' },
          'CoordZoneFull', 'warning',
          { instance => 'a', feature => 'limit_req', zone => 'one' },
          'The memory of limit_req zone one is full, keys are forgotten before '
          . 'their time' ],

        [ { "coord_events_lost_total$main}" => '0+1x30 30x30' },
          'CoordEventsLost', 'warning', { instance => 'a', store => 'main' },
          'Messages that a publishes are not taken by store main' ],

        [ { "coord_decisions_total$one\"rejected\"}"
            => '0+2500x30 75000+60x30' },
          'CoordManyRefused', 'info',
          { feature => 'limit_req', zone => 'one' },
          'Over half of the requests of limit_req zone one are refused' ],
    );

    my $text = "rule_files: [ $root/examples/prometheus-alerts.yml ]\n"
               . "evaluation_interval: 1m\ntests:\n";

    for my $case (@cases) {
        my ($series, @want) = @$case;
        my %series = (healthy(), %$series);

        $text .= "  - interval: 1m\n    input_series:\n";

        for (sort keys %series) {
            my $name = s/([AB])(?=[,}])/job="coord",instance="\l$1"/r;
            $text .= "      - series: '$name'\n"
                     . "        values: '$series{$_}'\n";
        }

        $text .= "    alert_rule_test:\n";

        for my $alert (sort keys %alerts) {
            my $is = @want && $want[0] eq $alert;

            $text .= "      - eval_time: $_\n"
                     . "        alertname: $alert\n        exp_alerts:"
                     . ($is && $_ eq '28m' ? expected(@want) : " []\n")
                for '28m', '58m';
        }
    }

    is(join(' ', sort map { $_->[1] || () } @cases),
       join(' ', sort keys %alerts), 'each alert is raised in a test');

    my $test = $t->dir . '/test.yml';
    open $fh, '>', $test or die $!;
    print $fh $text;
    close $fh;
    $out = `promtool test rules $test 2>&1`;
    is($?, 0, 'promtool test rules: raised, and ended') or diag($out);
}

done_testing();


# labels of an alert of one store on one node

sub of {
    my ($instance, $store) = @_;

    return { job => 'coord', instance => $instance, store => $store };
}


# series of two nodes, A and B, where nothing is wrong

sub healthy {
    my %series;

    for my $node ('A', 'B') {
        $series{"coord_workers{$node}"} = '4x60';
        $series{"up{$node}"} = '1x60';

        for my $store ('main', 'spare') {
            my $labels = "$node,store=\"$store\"";
            my %of = ('store_up' => '1x60', 'store_workers' => '4x60',
                      'breaker_open' => '0x60', 'events_lost_total' => '3x60',
                      'store_late_replies_total' => '7x60');

            $series{"coord_$_\{$labels}"} = $of{$_} for keys %of;
            $series{"coord_store_operations_total{$labels,result=\"$_->[0]\"}"}
                = $_->[1] for ['ok', '0+600x60'], ['timeout', '0x60'];
            $series{"coord_store_latency_seconds_bucket{$labels,le=\"$_\"}"}
                = '0+600x60' for '0.025', '0.05', '+Inf';
        }

        $series{"coord_zone_evictions_total{$node,feature=\"limit_req\","
                . "zone=\"one\"}"} = '7x60';

        $series{"coord_decisions_total{$node,feature=\"limit_req\","
                . "zone=\"one\",outcome=\"$_->[0]\"}"} = $_->[1]
            for ['passed', '0+600x60'], ['rejected', '0+60x60'],
                ['bypassed', '0x60'];
    }

    return %series;
}


# an alert as promtool expects it, with the description that the rules have

sub expected {
    my ($alert, $severity, $labels, $summary) = @_;

    my ($rule) = $rules =~ /alert: $alert\n(.*?)(?:\n\n|\z)/s;
    my ($description) = $rule =~ /description: >-\n(.*)/s;
    my %labels = (%$labels, severity => $severity);

    my $text = "\n          - exp_labels: { "
               . join(', ', map { "$_: $labels{$_}" } sort keys %labels)
               . " }\n            exp_annotations:\n"
               . "              summary: $summary\n";

    $text .= '              description: '
             . join(' ', split ' ', $description) . "\n" if $description;

    return $text;
}
