#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# TLS to Redis: names and certificates are checked before anything is sent;
# all connections of a store use it; sessions are used again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::TLS;
use Coord::Util qw(free_port slurp spew);
use IO::Socket::INET;

my $debug = ($ENV{TEST_LOG_LEVEL} // '') eq 'debug';
my $t = Coord->new;
my $tls = Coord::TLS->new($t->dir);
my $o = $t->origin(default => { body => 'x' x 400_000 });

$tls->cert('good', san => 'DNS:redis.test,IP:127.0.0.1');
$tls->cert('name', san => 'DNS:redis.test');
$tls->cert('wild', san => 'DNS:*.redis.test');
$tls->cert('expired', san => 'IP:127.0.0.1', days => -1);
$tls->cert('other', san => 'IP:127.0.0.1', ca => 'otherca');
$tls->cert('self', san => 'IP:127.0.0.1', ca => 'self');
$tls->cert('client');
$tls->cert('stranger', ca => 'otherca');


# a server for each certificate, with a plain port for the test itself

my (%redis, %port);

sub server {
    my ($name, @conf) = @_;

    my $cert = $name eq 'mutual' ? 'good' : $name;

    $port{$name} = free_port();
    $redis{$name} = eval {
        $t->redis($tls->redis($cert, $port{$name}), 'requirepass s3cret',
                  @conf)
    } or plan(skip_all => "a redis-server with TLS is needed: $@");
    $t->set(uc($name) . '_TLS' => $port{$name});
}

server($_, 'tls-auth-clients no')
    for qw(good name wild expired other self);
server('mutual', 'tls-auth-clients yes');


# servers that are none: what they are sent

my %heard;

sub listener {
    my ($name, $say) = @_;

    my $sock = IO::Socket::INET->new(Listen => 64, LocalAddr => '127.0.0.1',
                                     ReuseAddr => 1) or die "listen: $!";
    my $file = $heard{$name} = $t->file($name);
    spew($file, '');

    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        my @open;

        while (my $c = $sock->accept) {
            push @open, $c;
            syswrite($c, $say) if length $say;

            my $set = '';
            vec($set, fileno($c), 1) = 1;
            next if !select($set, undef, undef, 2);

            sysread($c, my $buf, 65536) or next;
            open(my $fh, '>>', $file) or die $!;
            syswrite($fh, $buf);
            close $fh;
        }

        exit 0;
    }

    $t->track($pid);
    $t->set(uc($name) . '_TLS' => $sock->sockport);
}

listener('silent', '');
listener('plain', "+OK\r\n+OK\r\n+OK\r\n\$4\r\nINFO\r\n*2\r\n:1\r\n:1\r\n");


# a store each

my $ca = 'ssl_trusted_certificate ' . $tls->file('ca.pem') . ';';

sub cert {
    my ($name) = @_;

    return "$ca ssl_certificate " . $tls->file("$name.pem") . '; '
           . 'ssl_certificate_key ' . $tls->file("$name.key") . ';';
}

my %store = (
    good => [ good => $ca ],
    named => [ name => "$ca ssl_name redis.test;" ],
    wildcard => [ wild => "$ca ssl_name eu.redis.test;" ],
    tls12 => [ good => "$ca ssl_protocols TLSv1.2; "
                       . 'ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;' ],
    tls13 => [ good => "$ca ssl_protocols TLSv1.3;" ],
    trusting => [ self => 'ssl_verify off;' ],
    mutual => [ mutual => cert('client') ],

    badname => [ good => "$ca ssl_name other.test;" ],
    noip => [ name => $ca ],
    expired => [ expired => $ca ],
    other => [ other => $ca ],
    self => [ self => $ca ],
    system => [ good => '' ],
    nocert => [ mutual => $ca ],
    stranger => [ mutual => cert('stranger') ],
    old => [ good => "$ca ssl_protocols TLSv1.1;" ],
    silent => [ silent => "$ca ssl_name redis.test;" ],
    plain => [ plain => $ca ],
);

my @works = qw(good named wildcard tls12 tls13 trusting mutual);

my $cert = 'certificate of the server refused:';
my %refused = (
    badname => qr/$cert hostname mismatch/i,
    noip => qr/$cert IP address mismatch/,
    expired => qr/$cert certificate has expired/,
    other => qr/$cert unable to get local issuer/,
    self => qr/$cert self.signed certificate/,
    system => qr/$cert /,
    nocert => qr/: .*alert/,
    stranger => qr/: .*alert/,
    old => qr/TLS handshake failed: /,
    silent => qr/TLS handshake failed/,
    plain => qr/TLS handshake failed: .*(?:wrong version|packet length)/i,
);

my (@conf, @locations);

for my $name (sort keys %store) {
    my ($server, $lines) = @{$store{$name}};
    my $port = '%%' . uc($server) . '_TLS%%';

    push @conf, "coord_store $name {
        server rediss://:s3cret\@127.0.0.1:$port; $lines
        timeout 2s; connect_timeout 3s; }
    coord_limit_req_zone \$arg_k zone=$name:1m rate=1r/h store=$name;";
    push @locations, "location /$name {
        coord_limit_req zone=$name on_failure=closed; empty_gif; }";
}

my $n = $t->node(name => 'n', http => join("\n", @conf, 'server {',
    'listen 127.0.0.1:%%PORT%%;', @locations, '}'))->start;

for my $name (@works) {
    ok($t->wait_for(sub { $n->get("/$name?k=" . rand)->status == 200 }, 10),
       "$name: a decision");
    is($n->get("/$name?k=1")->status, 200, "$name: first");
    is($n->get("/$name?k=1")->status, 429, "$name: counted in Redis");
}

for my $name (sort keys %refused) {
    my $line = qr/\[error\] [^\n]*coord redis: [^\n]*coord store: "$name"/;

    ok($n->wait_log($line, 10), "$name: a line");

    # a busy machine may not come so far at the first try; at the debug level
    # nginx tells it, in lines of its own
    ok($t->wait_for(sub { grep { /$line/ && /$refused{$name}/ }
                          $n->log_lines(qr/coord redis/) }, 20),
       "$name: says why") if !$debug;
    is($n->get("/$name?k=1")->status, 503, "$name: on_failure");
}

is(scalar(() = $n->log =~ /^(?![^\n]*coord redis)[^\n]*SSL_/mg), 0,
   'nginx logs none of its own beside it') if !$debug;
$n->allow(qr/SSL_\w+\(\) failed/) if $debug;


# nothing was said to the wrong ones

for my $name (qw(expired other)) {
    my $admin = $redis{$name}->connect;
    $admin->command('AUTH', 's3cret');

    # the server has been asked by the test when it started

    my $stats = $admin->command('INFO', 'commandstats');
    unlike($stats, qr/cmdstat_client|cmdstat_time/, "$name: no command");
    like($stats, qr/cmdstat_auth:calls=1,/, "$name: no AUTH but the test's");
}

for my $name (qw(silent plain)) {
    my $got = slurp($heard{$name});

    like($got, qr/^\x16\x03/, "$name: a ClientHello");
    unlike($got, qr/s3cret|AUTH|CLIENT/, "$name: and nothing else");
}

like(slurp($heard{silent}), qr/redis\.test/, 'SNI: the name is asked for');
unlike(slurp($heard{plain}), qr/127\.0\.0\.1/, 'SNI: not with an address');

unlike($n->log, qr/s3cret/, 'no password in the log');

$n->stop;


# every connection of a store: decisions, records, messages

my $m = $t->node(name => 'm', log_level => 'debug', http => <<"EOF")->start;
    coord_store main { server rediss://:s3cret\@127.0.0.1:%%GOOD_TLS%%; $ca
                       timeout 2s; connect_timeout 2s; }
    coord_limit_conn_zone \$arg_k zone=c:1m;
    coord_limit_req_zone \$arg_k zone=r:1m rate=1000r/s;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_conn c 1 wait=5s; empty_gif; }
        location /many { coord_limit_req zone=r burst=1000 nodelay; empty_gif; }
        location /post { coord_idempotency on; coord_idempotency_scope off;
                         coord_idempotency_max_response 4m;
                         proxy_pass http://%%ORIGIN%%; }
    }
EOF

ok($t->wait_for(sub { $m->get('/?k=1')->status == 200 }, 10), 'a lease');

my %head = (headers => { 'Idempotency-Key' => 'big' });
my $first = $m->post('/post', 'body', %head);
my $again = $m->post('/post', 'body', %head);
is(length($first->body), 400_000, 'a record of many TLS records');
is($again->header('Idempotency-Replayed'), 'true', 'a record');
is($again->body, $first->body, 'byte for byte');

my $admin = $redis{good}->connect;
$admin->command('AUTH', 's3cret');

sub clients {
    return grep { /name=ngx_coord:main/ }
           split /\n/, $admin->command('CLIENT', 'LIST');
}

ok($t->wait_for(sub { clients() == 3 }, 5), 'three connections');
is(scalar(grep { !/laddr=127\.0\.0\.1:$port{good} / } clients()), 0,
   'all of them by TLS');

my %ok;
$ok{$_->status}++ for $m->parallel(300, '/many?k=1');
is_deeply(\%ok, { 200 => 300 }, 'many at once');

$admin->command('CLIENT', 'KILL', 'SKIPME', 'yes');
ok($t->wait_for(sub { clients() == 3 }, 10), 'connected again');
ok($m->wait_log(qr/TLS TLSv1\.3, resumed:1/, 5), 'the session is used again');
is($m->post('/post', 'body', %head)->body, $first->body, 'all as before');

my @old = $m->reload;
ok($m->wait_gone(10, @old), 'old workers end');
ok($t->wait_for(sub { $m->get('/?k=1')->status == 200 }, 10), 'new ones work');


# nginx -t

sub told {
    my ($lines) = @_;

    return $t->conf_error(http => "coord_store s { $lines }");
}

my $server = 'server rediss://127.0.0.1:1;';

like(told("$server ssl_trusted_certificate /nowhere.pem;"),
     qr/\/nowhere\.pem/, 'a file that is not there');
like(told("$server ssl_verify maybe;"), qr/"on" or "off"/, 'ssl_verify');
like(told("$server ssl_verify_depth x;"), qr/from 0 to 100/, 'the depth');
like(told("$server ssl_protocols TLSv9;"), qr/invalid ssl_protocols "TLSv9"/,
     'a protocol');
like(told("$server ssl_certificate " . $tls->file('good.pem') . ';'),
     qr/go together/, 'a certificate without its key');

my ($good, $out) = $t->node(name => 'w', http =>
    "coord_store s { server redis://127.0.0.1:1; $ca }")->check;
ok($good, 'ssl_ lines without rediss://');
like($out, qr/\[warn\].*without TLS/, 'are told');

done_testing();
