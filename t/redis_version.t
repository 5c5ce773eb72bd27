#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A server that is too old: what it cannot do is told once, by name, and is a
# failure of the store; it is not asked in vain, and the rest works.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;


sub node {
    my ($name, $version) = @_;

    my $fake = $t->fake_redis(upstream => $redis->{port});
    my $info = "# Server\r\nredis_version:$version\r\nos:x\r\n";

    $fake->fault(action => 'replace', cmd => 'INFO', times => 0,
                 data => $version eq 'denied'
                         ? "-NOPERM no permission for 'info'\r\n"
                         : '$' . length($info) . "\r\n$info\r\n");

    my $n = $t->node(name => $name, workers => 1, http => <<"EOF")->start;
    coord_store main { server redis://@{[$fake->addr]}; key_prefix $name:;
                       timeout 5s; connect_timeout 5s; }
    coord_limit_req_zone \$arg_k zone=bucket rate=1r/h;
    coord_limit_req_zone \$arg_k zone=fixed rate=1r/h algorithm=fixed_window;
    coord_limit_req_zone \$arg_k zone=log rate=1r/h algorithm=sliding_log;
    coord_limit_req_zone \$arg_k zone=win rate=1r/h algorithm=sliding_window;
    coord_limit_conn_zone \$arg_k zone=conn;
    coord_lock_zone \$arg_k zone=lock;
    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status
            \$coord_limit_req_status\$coord_limit_conn_status\$coord_lock_status;
        location /bucket { coord_limit_req zone=bucket; empty_gif; }
        location /fixed { coord_limit_req zone=fixed; empty_gif; }
        location /log { coord_limit_req zone=log; empty_gif; }
        location /win { coord_limit_req zone=win; empty_gif; }
        location /conn { coord_limit_conn conn 1; empty_gif; }
        location /lock { coord_lock zone=lock; empty_gif; }
        location /both { coord_limit_req zone=bucket;
                         coord_limit_req zone=log; empty_gif; }
        location /closed { coord_limit_conn conn 1 on_failure=closed;
                           empty_gif; }
        location = /health { coord_health; }
        location = /status { coord_status; }
    }
EOF

    $t->wait_for(sub { ($n->get('/bucket?k=' . rand)->header('X-Status') || '')
                       eq 'PASSED' }, 20);

    return ($n, $fake);
}


sub status { return $_[0]->get($_[1])->header('X-Status') }


my ($old, $fake) = node('old', '6.0.16');

is(status($old, "/$_?k=a"), 'PASSED', "$_ works") for qw(bucket fixed);
is(status($old, "/$_?k=a"), 'BYPASSED', "$_ does not")
    for qw(log win conn lock);
is(status($old, "/closed?k=a"), undef, 'and goes by on_failure');
is($old->get('/closed?k=a')->status, 503, 'closed');
is(scalar $fake->commands('ZRANGESTORE'), 0, 'Redis is not asked in vain');

my ($line) = grep { / version \d/ } split /\n/, $old->log;
like($line, qr/\[error\].* version 6\.0, 6\.2 is needed: .*ZRANGESTORE/, 'told');
like($line, qr/\b$_\b/, "by name: $_")
    for qw(coord_limit_conn coord_lock sliding_window sliding_log);

$fake->drop_all;
$t->wait_for(sub { (status($old, '/bucket?k=' . rand) || '') eq 'PASSED' }, 10);
is(scalar(grep { /6\.2 is needed/ } split /\n/, $old->log), 1, 'once');

my $json;
ok($t->wait_for(sub { $old->get('/health')->status == 503 }, 10),
   'the store is not healthy');
$json = decode_json($old->get('/status?format=json')->body);
cmp_ok($json->{stores}[0]{operations}{unavailable}, '>=', 4,
       'each was a failure of the store');


# newer ones, and those that do not tell

for my $version ('6.2.0', '7.0.15', '10.1.2', 'denied', 'unknown', '') {
    my ($n) = node('v' . ($version =~ s/\W//gr), $version);

    is(status($n, "/$_?k=a"), 'PASSED', "$version: $_ works")
        for qw(bucket log win conn);
    unlike($n->log, qr/is needed/, 'nothing is told');
    $n->allow(qr/NOPERM/);
}

done_testing();
