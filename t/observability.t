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
    coord_store main { server %%REDIS%%; timeout 5s; connect_timeout 5s; }
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

my $log = $n->dir . '/json.log';
my @lines;
ok($t->wait_for(sub { @lines = split /\n/, slurp($log); @lines == 5 }, 10),
   'five lines');

my @records = map { eval { JSON::PP->new->utf8(0)->decode($_) } } @lines;
is(scalar(grep { ref } @records), 5, 'each is JSON');
is($records[2]{limit_req_status}, 'PASSED', 'passed');
is($records[2]{limit_req_source}, 'redis', 'by whom');
is($records[2]{limit_conn_current}, '1', 'at a time');
is($records[3]{limit_req_status}, 'REJECTED', 'rejected');
is($records[3]{limit_req_zone}, 'one', 'where');
is($records[3]{status}, 429, 'with what');
is($records[4]{limit_req_status}, '', 'not met');


# decision lines in the error log

my $line = ($n->log_lines(qr/limiting requests/))[0];
like($line, qr/by zone "one", key: [0-9a-f]{8}, outcome: REJECTED, store: main /,
     'a decision line');


# metrics that rules and dashboard use are there

my %metric = map { $_ => 1 } slurp("$root/docs/metrics.md")
                             =~ /^\| `(coord_\w+)` \|/mg;
$metric{"coord_store_latency_seconds_$_"} = 1 for qw(bucket sum count);

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

SKIP: {
    skip 'promtool is missing (Debian package prometheus)', 3
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

    # rules at work

    my $test = $t->dir . '/test.yml';
    open $fh, '>', $test or die $!;
    print $fh <<"EOF";
rule_files: [ $root/examples/prometheus-alerts.yml ]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'coord_store_up{store="main",instance="a"}'
        values: '2 0 0 0 0'
      - series: 'coord_store_up{store="main",instance="b"}'
        values: '1x10'
      - series: 'coord_workers{instance="a"}'
        values: '2x10'
      - series: 'coord_workers{instance="b"}'
        values: '2x10'
    alert_rule_test:
      - eval_time: 4m
        alertname: CoordStoreDown
        exp_alerts:
          - exp_labels: { severity: critical, store: main, instance: a }
            exp_annotations:
              summary: No worker on a reaches store main
              description: Features of this store follow their on_failure policy. Look at the error log for "coord redis", and at the Redis server.
      - eval_time: 9m
        alertname: CoordStoreDegraded
        exp_alerts:
          - exp_labels: { severity: warning, store: main, instance: b }
            exp_annotations:
              summary: Only some workers on b reach a store
EOF
    close $fh;
    $out = `promtool test rules $test 2>&1`;
    is($?, 0, 'promtool test rules') or diag($out);
}

done_testing();
