#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The numbers of docs/sizing.md: what is measured is at most what stands there,
# and not much less.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp);

use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis('save ""');
my $admin = $redis->connect;
my $origin = $t->origin(default => { body => 'x' x 1024 });

# the same names stand in two tables

my $page = slurp("$FindBin::Bin/../docs/sizing.md");

sub table {
    my ($rows) = $page =~ /^\| feature \| $_[0].*?\n\|[- |]+\n(.*?)\n\n/ms;

    return map { my ($name, @n) = split /\s*\|\s*/; ($name => \@n) }
           $rows =~ /^\| (.*?) \|$/mg;
}

my %want = table('bytes');
my %memory = table('keys');

my $zones = <<'EOF';
    coord_limit_req_zone $arg_k zone=buck:4m rate=1r/m;
    coord_limit_req_zone $arg_k zone=wind:4m rate=1000r/m
                         algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=slid:4m rate=1000r/m
                         algorithm=sliding_window;
    coord_limit_req_zone $arg_k zone=slog:4m rate=1000r/m
                         algorithm=sliding_log;
    coord_limit_conn_zone $arg_k zone=conn:4m;
    coord_lock_zone $arg_k zone=lock:4m;
    coord_session_zone $arg_k zone=sess:4m;

    server {
        listen 127.0.0.1:%%PORT%%;

        location /bucket { coord_limit_req zone=buck burst=1000
                                           nodelay;
                           empty_gif; }
        location /window { coord_limit_req zone=wind; empty_gif; }
        location /sliding { coord_limit_req zone=slid; empty_gif; }
        location /log { coord_limit_req zone=slog; empty_gif; }
        location /conn { coord_limit_conn conn 10; empty_gif; }
        location /lock { coord_lock zone=lock; empty_gif; }
        location /session { coord_session zone=sess bind=$arg_v; empty_gif; }
        location = /status { coord_status; }
EOF

my $n = $t->node(name => 'redis', http => <<"EOF")->start;
    coord_store main { server %%REDIS%%; timeout 5s; connect_timeout 5s; }
$zones
        location /pay {
            coord_idempotency on;
            coord_idempotency_scope off;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOF

my %of = (
    'limit_req, leaky_bucket and token_bucket' => '/bucket',
    'limit_req, fixed_window' => '/window',
    'limit_req, sliding_window' => '/sliding',
    'limit_req, sliding_log, 1 request in it' => '/log',
    'limit_conn, 1 request at once' => '/conn',
    'lock' => '/lock',
    'idempotency, a result of 1 KiB' => '/pay',
    'session, anonymous' => '/session',
);

is(join(' / ', sort keys %want), join(' / ', sort keys %of),
   'every row of the page is measured');

sub key { sprintf 'customer-%011d', $_[0] }

sub ask {
    my ($node, $path, $i) = @_;
    my $v = 'v' x 20;

    return $node->get("$path?k=" . key($i) . "&v=$v") if $path ne '/pay';
    return $node->post($path, 'amount=1',
                       headers => { 'Idempotency-Key' => key($i) });
}

my $watch = $redis->watch;

# the page tells those of 7.0
my ($version) = $admin->command('INFO', 'server') =~ /redis_version:(\S+)/;

sub bytes {
    my $sum = 0;

    $sum += $admin->command('MEMORY', 'USAGE', $_, 'SAMPLES', 0) // 0
        for @{ $admin->command('KEYS', 'coord:[^s]*') },
            @{ $admin->command('KEYS', 'coord:ss:*') };

    return $sum;
}

sub within {
    my ($measured, $doc, $slack, $name) = @_;

    ok($measured <= $doc && $measured >= $doc * $slack,
       sprintf '%s: %.1f, said to be %s', $name, $measured, $doc);
}

for my $name (sort keys %want) {
    my $path = $of{$name};
    my ($bytes, $commands) = @{ $want{$name} };
    my $requests = 100;

    $admin->command('FLUSHALL');
    ask($n, $path, $_) for 1 .. $requests;

    my $held = $path =~ /conn|lock/ ? undef : bytes() / $requests;

    $watch->seen;

    # a key in use; an idempotency key is new for each run
    ask($n, $path, $path eq '/pay' ? 1000 + $_ : 1) for 1 .. $requests;

    my $used = map { @$_ } $watch->seen;

    within($used / $requests, $commands, 0.6, "$name, commands");
    within($held, $bytes, 0.6, "$name, bytes") if defined $held && $version =~ /^7\.0\./;
}


# the memory of a zone

my $m = $t->node(name => 'memory', http => "$zones    }\n")->start;

my %in = (
    'limit_req, leaky_bucket' => [ '/bucket', 'buck', 2000 ],
    'session, anonymous' => [ '/session', 'sess', 500 ],
);

for my $name (sort keys %in) {
    my ($path, $zone, $keys) = @{ $in{$name} };

    ask($m, $path, $_) for 1 .. $keys;

    my ($z) = grep { $_->{zone} eq $zone }
              @{ decode_json($m->get('/status?format=json')->body)->{zones} };

    # of 4 MiB

    my $per = $keys / ($z->{used_ratio} * 4);

    ok($per >= $memory{$name}[0] && $per <= $memory{$name}[0] * 1.6,
       sprintf '%s: %d keys per MiB, said to be %s', $name, $per,
               $memory{$name}[0]);
}

done_testing();
