#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What reads the lines of limit_req and limit_conn reads ours: fail2ban, with
# the filter that Debian ships and with the one that also knows delays and
# connections, finds as many in our logs as in nginx's.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(spew);

plan(skip_all => 'fail2ban-regex is not installed')
    if system('command -v fail2ban-regex >/dev/null 2>&1') != 0;

my $t = Coord->new;
$t->redis;
my $origin = $t->origin(routes => { '/slow' => { delay => 60 } });

my $line = '^\s*\[[a-z]+\] \d+#\d+: \*\d+';
my $zone = 'by zone "[^"]+", client: <HOST>,';

my %filter = (
    debian => '/etc/fail2ban/filter.d/nginx-limit-req.conf',
    newer => "$line limiting (?:requests, excess: [\\d\\.]+|connections) $zone",
    delays => "$line delaying request, excess: [\\d\\.]+, $zone",
);

my %want = (debian => 4, newer => 6, delays => 2);

for my $way (qw(stock memory redis)) {
    my $http = <<'EOF2';
    limit_req_zone $arg_k zone=lr:1m rate=1r/m;
    limit_req_zone $arg_k zone=slow:1m rate=1r/s;
    limit_conn_zone $arg_k zone=lc:1m;
    limit_req_log_level error;
    limit_conn_log_level error;

    server {
        listen 127.0.0.1:%%PORT%%;

        location / { limit_req zone=lr burst=1 nodelay; empty_gif; }
        location /delay { limit_req zone=slow burst=2; empty_gif; }
        location /slow { limit_conn lc 1; proxy_pass http://%%ORIGIN%%; }
    }
EOF2

    my $store = '';

    if ($way ne 'stock') {
        $http =~ s/\blimit_/coord_limit_/g;
        $store = $way eq 'redis'
                 ? "coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }\n"
                 : "coord_store main { }\n";
    }

    my $n = $t->node(name => $way, http => "$store$http")->start;

    # a referrer and a long request come before what is ours

    $n->get('/?k=1&' . 'x' x 3000,
            headers => { Referer => 'http://b/', Host => 'a' }) for 1 .. 6;
    $n->parallel(3, '/delay?k=1');

    my @held;

    for (1 .. 3) {
        my $c = $n->connect;
        $c->send("GET /slow?k=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        push @held, $c;
        $t->wait_for(sub { $origin->count('/slow')
                           || scalar $n->log_lines(qr/limiting connections/) },
                     10);
    }

    $t->wait_for(sub { 2 <= $n->log_lines(qr/limiting connections/) }, 10);

    for my $name (sort keys %filter) {
        my $found = matched($n, $name);

        # newer ones ship a filter that finds more
        $want{$name} = $found
            if $way eq 'stock' && $name eq 'debian' && $found > 4;

        is($found, $want{$name}, "$way: the filter \"$name\"");
    }

    next if $way eq 'stock';

    my ($refused) = $n->log_lines(qr/limiting requests/);
    like(substr($refused, -60), qr/, outcome: REJECTED, store: main \($way\)$/,
         "$way: our fields are at the end of a long line");

    my ($delayed) = $n->log_lines(qr/delaying request/);
    like($delayed, qr/, wait: \d+ms, outcome: DELAYED, store: main/,
         "$way: the wait is one of them");
}

done_testing();


# how many lines of the error log of a node fail2ban finds

sub matched {
    my ($n, $name) = @_;

    my $file = $t->file("$name.log");
    spew($file, join '', map { "$_\n" } $n->log_lines(qr/./));

    my $regex = $filter{$name};
    $regex =~ s/'/'"'"'/g;

    my $told = `fail2ban-regex '$file' '$regex' 2>&1`;

    return $told =~ /^Lines: \d+ lines, \d+ ignored, (\d+) matched/m ? $1
                                                                     : $told;
}
