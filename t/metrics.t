#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Counters: exact over all workers, kept over a reload; what a killed worker
# held is not counted for ever; one table behind text, JSON and documentation.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;
my $root = "$FindBin::Bin/..";

my $origin = $t->origin(routes => {
    '/slow' => { delay => 30, body => 'slow' },
});

my $plain = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_store spare { }

    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=two:1m rate=1r/h store=spare;
    coord_limit_req_zone $arg_k zone=tiny:64k rate=1r/h store=spare;
    coord_limit_req_zone $arg_k zone=delay:1m rate=1r/s;
    coord_limit_conn_zone $arg_k zone=conn:1m lease=5s;

    server {
        listen 127.0.0.1:%%PORT%%;

        location / { coord_limit_req zone=one burst=9 nodelay; empty_gif; }
        location /two { coord_limit_req zone=two; empty_gif; }
        location /tiny { coord_limit_req zone=tiny; empty_gif; }

        location /dry {
            coord_limit_req zone=one;
            coord_limit_req_dry_run on;
            empty_gif;
        }

        location /delay { coord_limit_req zone=delay burst=5; empty_gif; }

        location /conn {
            coord_limit_conn conn 3;
            proxy_pass http://%%ORIGIN%%/slow;
        }

        location /status { coord_status; }
    }
EOF

my $more = "    coord_limit_req_zone \$arg_k zone=new:1m rate=1r/s;\n" . $plain;

my $n = $t->node(name => 'n', workers => 3, http => $plain)->start;

sub status {
    return decode_json($n->get('/status.json')->body);
}

sub zone {
    my ($name) = @_;
    my ($zone) = grep { $_->{zone} eq $name } @{ status()->{zones} };
    return $zone;
}

sub store {
    my ($name) = @_;
    my ($store) = grep { $_->{name} eq $name } @{ status()->{stores} };
    return $store;
}


# exact over all workers

my @all = $n->parallel(300, '/?k=a');

is(scalar(grep { $_->status == 200 } @all), 10, 'burst passes');
is(scalar(grep { $_->status == 429 } @all), 290, 'the rest is refused');

my $z = zone('one');
is($z->{decisions}{passed}, 10, 'passed are counted');
is($z->{decisions}{rejected}, 290, 'rejected are counted');
is($z->{total}, 300, 'every decision once');
is($z->{refused}, 290, 'refused ones among them');

$n->get('/two?k=a') for 1 .. 3;
$z = zone('two');
is_deeply([@{$z->{decisions}}{qw(passed rejected)}], [1, 2], 'memory store');
is(store('spare')->{operations}{ok}, 3, 'operations of a memory store');

$n->get('/dry?k=dry') for 1 .. 3;
$z = zone('one');
is($z->{decisions}{rejected_dry_run}, 2, 'dry run');
is($z->{refused}, 290, 'a dry run refuses nothing');

$n->get('/?k=');
is(zone('one')->{total}, 303, 'an empty key is not decided');

$n->parallel(3, '/delay?k=d');
$z = zone('delay');
is($z->{decisions}{passed} + $z->{decisions}{delayed}, 3, 'delayed: three');
cmp_ok($z->{decisions}{delayed}, '>=', 1, 'delayed are counted as such');

# who was refused is refused again without an operation

cmp_ok(store('main')->{operations}{ok} + zone('one')->{deny_cache}, '>=', 303,
       'operations');


# the ring: what was decided in the last minute

ok($t->wait_for(sub {
    my $history = zone('one')->{history};
    my ($sum, $no) = (0, 0);
    $sum += $_->[0], $no += $_->[1] for @$history;
    return $sum == 303 && $no == 290;
}, 10), 'the seconds of the last minute add up');

cmp_ok(zone('one')->{rate}{minute}, '>=', 303 / 60 - 0.01, 'rate');


# leases of the living, not of the dead

my @held = map {
    my $c = $n->connect;
    $c->send("GET /conn?k=h HTTP/1.1\r\nHost: a\r\n\r\n");
    $c
} 1 .. 3;

ok($t->wait_for(sub { zone('conn')->{leases} == 3 }, 10), 'three leases');
is($n->get('/conn?k=h')->status, 429, 'no place left');
is(zone('conn')->{decisions}{rejected}, 1, 'refused by limit_conn');

is(status()->{workers}, 3, 'workers');
ok($t->wait_for(sub { store('main')->{up} == 3 }, 10), 'all are connected');

my $before = zone('one')->{decisions};

$n->allow(qr/exited on signal 9/);
$n->kill_worker('KILL', $_) for $n->workers;

ok($t->wait_for(sub { store('main')->{up} == 3 }, 10),
   'killed workers are not up');
is(status()->{workers}, 3, 'killed workers do not count');
is(zone('conn')->{leases}, 0, 'killed workers hold nothing');
is_deeply(zone('one')->{decisions}, $before, 'counters stay');

$_->close for @held;


# the memory of a zone: how much is taken, and what had to go

$z = zone('tiny');
cmp_ok($z->{used_ratio}, '<', 0.01, 'nothing is taken');
is($z->{evictions}, 0, 'nothing had to go');

$n->get("/tiny?k=$_") for 1 .. 1000;
$z = zone('tiny');
cmp_ok($z->{used_ratio}, '>', 0.9, 'all is taken');
cmp_ok($z->{evictions}, '>', 100, 'keys had to go');
cmp_ok($z->{evictions}, '<', 1000, 'not all of them');

my $tiny = $n->get('/status.prom')->body;
like($tiny, qr/^coord_zone_used_ratio\{feature="limit_req",zone="tiny"\} [01]\.\d{6}$/m,
     'used in metrics');
like($tiny, qr/^coord_zone_evictions_total\{feature="limit_req",zone="tiny"\} $z->{evictions}$/m,
     'evictions in metrics');


# reload

$n->conf(http => $more);
my @old = $n->reload;
$n->wait_gone(20, @old);

is_deeply(zone('one')->{decisions}, $before, 'counters outlive a reload');
is(zone('new')->{total}, 0, 'a new zone begins with zero');
$n->get('/?k=b');
is(zone('one')->{decisions}{passed}, $before->{passed} + 1, 'and go on');


# text and JSON say the same

my $text = $n->get('/status.prom')->body;
my $json = status();
my %value = $text =~ /^(coord_\S+\{[^}]*\}|coord_\w+) (\S+)$/mg;

for my $zone (@{ $json->{zones} }) {
    for my $outcome (sort keys %{ $zone->{decisions} }) {
        my $name = "coord_decisions_total{feature=\"$zone->{feature}\","
                   . "zone=\"$zone->{zone}\",outcome=\"$outcome\"}";
        is($value{$name}, $zone->{decisions}{$outcome},
           "$zone->{zone} $outcome in both");
    }
}

is($value{'coord_store_up{store="main"}'}, 1, 'a store is up, or it is not');
is($value{'coord_store_up{store="spare"}'}, 1, 'memory is up');
is($value{'coord_store_workers{store="main"}'}, $json->{stores}[0]{up},
   'so many workers reach it');

my $count = $value{'coord_store_latency_seconds_count{store="main"}'};
is($value{'coord_store_latency_seconds_bucket{store="main",le="+Inf"}'},
   $count, 'histogram');


# names: table, text, documentation

open my $fh, '<', "$root/docs/metrics.md" or die "docs/metrics.md: $!";
my $doc = do { local $/; <$fh> };
close $fh;

is($doc, scalar `cd $root && $^X .ci/metrics-doc`,
   'docs/metrics.md is what .ci/metrics-doc makes');

my @documented = sort $doc =~ /^\| `(coord_\w+)` \| (?:counter|gauge|hist)/mg;
my @shown = sort $text =~ /^# TYPE (\w+)/mg;
is_deeply(\@shown, \@documented, 'all metrics, and no other, are documented');

SKIP: {
    skip 'promtool is missing (Debian package prometheus)', 1
        unless grep { -x "$_/promtool" } split /:/, $ENV{PATH};

    open my $out, '>', $t->dir . '/metrics' or die $!;
    print $out $text;
    close $out;

    my $said = `promtool check metrics < @{[$t->dir]}/metrics 2>&1`;
    is($? . $said, '0', 'promtool check metrics');
}



# zones of all features in one text

my $all = $t->node(name => 'all', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_req_zone $arg_k zone=a:1m rate=1r/s;
    coord_limit_conn_zone $arg_k zone=a:1m;
    coord_lock_zone $arg_k zone=a:1m;
    coord_session_zone $arg_k zone=a:1m;

    server {
        listen 127.0.0.1:%%PORT%%;

        location / {
            coord_limit_req zone=a burst=9 nodelay;
            coord_limit_conn a 10;
            coord_lock zone=a;
            coord_session zone=a bind=$arg_b;
            coord_idempotency on;
            coord_idempotency_scope off;
            proxy_pass http://%%ORIGIN%%/x;
        }

        location = /status { coord_status keys; }
    }
EOF

$all->post("/?k=1&b=$_", 'x', headers => { 'Idempotency-Key' => 'i' })
    for 1, 1, 2;

$text = $all->get('/status?format=prometheus')->body;
$json = decode_json($all->get('/status?format=json')->body);

is_deeply([sort map { $_->{feature} } @{ $json->{zones} }],
          [qw(idempotency limit_conn limit_req lock session)],
          'zones of all features');

my %outcome;
$outcome{$1}{$2} = 1
    while $text =~ /^coord_decisions_total\{feature="(\w+)".*outcome="(\w+)"/mg;

for my $feature (sort keys %outcome) {
    my ($row) = $doc =~ /^\| `$feature` \| (.*) \|$/m;

    is(join(' ', sort $row =~ /`(\w+)`/g),
       join(' ', sort keys %{ $outcome{$feature} }), "$feature: its outcomes");
}

my %times;
$times{$_}++ for $text =~ /^(coord_[^ ]+) /mg;
is(join(' ', grep { $times{$_} > 1 } sort keys %times), '', 'each series once');

SKIP: {
    skip 'promtool is missing (Debian package prometheus)', 1
        unless grep { -x "$_/promtool" } split /:/, $ENV{PATH};

    open my $out, '>', $t->dir . '/metrics' or die $!;
    print $out $text;
    close $out;

    my $said = `promtool check metrics < @{[$t->dir]}/metrics 2>&1`;
    is($? . $said, '0', 'promtool check metrics');
}

done_testing();
