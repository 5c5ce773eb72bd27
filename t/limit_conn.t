#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_limit_conn: grammar, decisions, what the client sees, and that the
# place is free again whatever ends the request.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use IO::Socket::INET;
use JSON::PP;
use POSIX ();
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $origin = $t->origin(routes => {
    '/slow' => { delay => 1.5, body => 'slow' },
    '/quick' => { body => 'quick' },
    '/half' => { parts => [[0, 'a' x 100], [2, 'b' x 100]] },
    '/never' => { delay => 30 },
    '/redirect' => { headers => ['X-Accel-Redirect', '/last'] },
});

# an upgraded connection that echoes

my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1')
    or die "listen: $!";
$t->set(ECHO => $listener->sockport);
my $echo = fork;
die "fork: $!" if !defined $echo;

if (!$echo) {
    while (my $s = $listener->accept) {
        my $buf = '';
        sysread $s, $buf, 4096, length $buf while $buf !~ /\r\n\r\n/;
        syswrite $s, "HTTP/1.1 101 Switching Protocols\r\n"
                     . "Upgrade: echo\r\nConnection: upgrade\r\n\r\n";
        while (sysread $s, $buf, 4096) { syswrite $s, $buf }
    }
    POSIX::_exit(0);
}

$t->track($echo);
close $listener;

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_limit_conn_zone $arg_k zone=one:1m lease=10s;
    coord_limit_conn_zone $arg_j zone=two:1m lease=10s;
    coord_limit_conn_zone $arg_k zone=mem:1m store=local;
    coord_limit_req_zone $arg_k zone=rate:1m rate=1r/h;
    log_format c '$uri $status $coord_limit_conn_status '
                 '$coord_limit_conn_zone $coord_limit_conn_current';
    proxy_read_timeout 1s;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        access_log %%NODEDIR%%/c.log c;

        location = /slow { coord_limit_conn one 2; proxy_read_timeout 30s;
                           proxy_pass http://%%ORIGIN%%; }
        location = /quick { coord_limit_conn one 1;
                            proxy_pass http://%%ORIGIN%%; }
        location = /mem { coord_limit_conn mem 2; proxy_read_timeout 30s;
                          proxy_pass http://%%ORIGIN%%/slow; }
        location = /half { coord_limit_conn one 1; proxy_read_timeout 30s;
                           proxy_buffering off;
                           proxy_pass http://%%ORIGIN%%; }
        location = /bad { coord_limit_conn one 1;
                          proxy_pass http://127.0.0.1:1; }
        location = /never { coord_limit_conn one 1;
                            proxy_pass http://%%ORIGIN%%; }
        location = /never30 { coord_limit_conn one 1; proxy_read_timeout 30s;
                              proxy_pass http://%%ORIGIN%%/never; }
        location = /up { coord_limit_conn one 1; proxy_read_timeout 30s;
                         proxy_http_version 1.1;
                         proxy_set_header Upgrade echo;
                         proxy_set_header Connection upgrade;
                         proxy_pass http://127.0.0.1:%%ECHO%%; }
        location = /redirect { coord_limit_conn one 1;
                               proxy_pass http://%%ORIGIN%%; }
        location = /last { internal; coord_limit_conn one 1;
                           coord_limit_conn two 1; empty_gif; }
        location = /both { coord_limit_conn one 2; coord_limit_conn two 1;
                           proxy_read_timeout 30s;
                           proxy_pass http://%%ORIGIN%%/slow; }
        location = /rate { coord_limit_conn one 5;
                           coord_limit_req zone=rate; empty_gif; }
        location = /n { coord_limit_conn one $arg_n; proxy_read_timeout 30s;
                        proxy_pass http://%%ORIGIN%%/slow; }
        location = /dry { coord_limit_conn one 1; coord_limit_conn_dry_run on;
                          coord_limit_conn_log_level warn;
                          proxy_read_timeout 30s;
                          proxy_pass http://%%ORIGIN%%/slow; }
        location = /page { coord_limit_conn one 1; proxy_read_timeout 30s;
                           coord_limit_conn_status 503;
                           error_page 503 /full.html;
                           proxy_pass http://%%ORIGIN%%/slow; }
        location = /full.html { coord_limit_conn one 1;
                               proxy_pass http://%%ORIGIN%%/quick; }
        location = /sub { coord_limit_conn one 1; auth_request /auth;
                          empty_gif; }
        location = /auth { coord_limit_conn one 1; empty_gif; }
    }
EOF

my $n = $t->node(name => 'n', workers => 1, http => $http)->start;

sub held {
    my ($key, $zone) = @_;
    $zone ||= 'one';
    return $r->command('ZCARD', "coord:cc:$zone:{$key}");
}

sub free_soon {
    my ($key, $name) = @_;
    ok($t->wait_for(sub { held($key) == 0 }, 6), "released: $name");
}

sub holds {
    my ($key, $count, $name) = @_;
    ok($t->wait_for(sub { held($key) == $count }, 10), "held: $name");
}


# what is allowed in nginx.conf

my $zone = 'coord_limit_conn_zone $uri zone=z;';

sub conf {
    my ($text, $like, $head) = @_;
    $head = $zone if !defined $head;
    like($t->conf_error(http => "$head server { listen 127.0.0.1:%%PORT%%; "
                                . "$text }"), $like, $text || $head);
}

conf('coord_limit_conn z 1;', qr/^$/);
conf('coord_limit_conn z 65535 on_failure=local;', qr/^$/);
conf('coord_limit_conn z $arg_a;', qr/^$/);
conf('coord_limit_conn z 0;', qr/invalid number of connections "0"/);
conf('coord_limit_conn z x;', qr/invalid number of connections "x"/);
conf('coord_limit_conn z 65536;', qr/must be less than 65536/);
conf('coord_limit_conn z;', qr/invalid number of arguments/);
conf('coord_limit_conn y 1;', qr/unknown zone "y"/);
conf('coord_limit_conn zone=z 5;',
     qr/the zone of .* is its name alone, as in "coord_limit_conn z 10"/);
conf('coord_limit_conn zone=z;', qr/is its name alone/);
conf('coord_limit_conn off;', qr/^$/);
conf('coord_limit_conn off; coord_limit_conn z 1;', qr/is duplicate/);
conf('coord_limit_conn z 1; coord_limit_conn off;', qr/is duplicate/);
conf('coord_limit_conn z 1; coord_limit_conn z 2;', qr/is duplicate/);
conf('coord_limit_conn z 1 foo=1;', qr/invalid parameter "foo=1"/);
conf('coord_limit_conn z 1 after_auth;', qr/^$/);
conf('coord_limit_conn z 1 on_failure=maybe;', qr/invalid value "maybe"/);
conf('coord_limit_conn_status 200;', qr/value must be between 400 and 599/);
conf('', qr/must have "zone" parameter/,
     'coord_limit_conn_zone $uri lease=1s;');
conf('', qr/invalid lease "0"/, 'coord_limit_conn_zone $uri zone=a lease=0;');
conf('', qr/invalid lease "2d"/,
     'coord_limit_conn_zone $uri zone=a lease=2d;');
conf('', qr/unknown store "no"/,
     'coord_limit_conn_zone $uri zone=a store=no;');


# two at a time

my @all = $n->parallel(5, '/slow?k=a');
is(scalar(grep { $_->status == 200 } @all), 2, 'two pass');
my ($no) = grep { $_->status != 200 } @all;
is($no->status, 429, 'the others are refused');
is($no->header('Retry-After'), 1, 'Retry-After');
is($no->header('Content-Type'), 'application/problem+json', 'problem');
my $problem = decode_json($no->body);
is($problem->{type}, 'https://iana.org/assignments/http-problem-types'
                     . '#temporary-reduced-capacity', 'problem type');
is($problem->{status}, 429, 'problem status');
is($no->header('RateLimit-Policy'), '"one";q=2;qu="concurrent-requests"',
   'RateLimit-Policy');
is($no->header('RateLimit'), '"one";r=0', 'RateLimit');
is(scalar $n->log_lines(qr/limiting connections by zone "one", client: .*, key: /), 3,
   'a line for each refusal');
free_soon('a', 'normal end');
is($r->command('EXISTS', 'coord:cc:one:{a}'), 0, 'nothing is left');

my ($ok) = grep { $_->status == 200 } @all;
like($ok->header('RateLimit'), qr/^"one";r=[01]$/, 'RateLimit when passed');

is(scalar(grep { $_->status == 200 } $n->parallel(5, '/mem?k=a')), 2,
   'two at a time on the memory store');
is(scalar(grep { $_->status == 200 } $n->parallel(5, '/mem?k=a')), 2,
   'and again: they were released');

is($n->get('/slow')->status, 200, 'an empty key is not limited');
is($n->get('/quick?k=b')->header('RateLimit'), '"one";r=0', 'the last place');


# keep-alive: one after the other

my $c = $n->connect;
is($c->request(path => '/quick?k=c')->status, 200, "kept alive, $_")
    for 1 .. 5;
free_soon('c', 'idle keep-alive connection');

$c->send("GET /quick?k=c HTTP/1.1\r\nHost: a\r\n\r\n" x 5);
is($c->response->status, 200, "pipelined, $_") for 1 .. 5;
$c->close;


# whatever ends it

$c = $n->connect;
$c->send("GET /never30?k=d HTTP/1.1\r\nHost: a\r\n\r\n");
holds('d', 1, 'waiting for the upstream');
is($n->get('/quick?k=d')->status, 429, 'meanwhile refused');
$c->close;
free_soon('d', 'client closed before the response');

$c = $n->connect;
$c->send("GET /never30?k=d HTTP/1.1\r\nHost: a\r\n\r\n");
holds('d', 1, 'waiting again');
$c->reset;
free_soon('d', 'client reset');

$c = $n->connect;
$c->send("GET /half?k=e HTTP/1.1\r\nHost: a\r\n\r\n");
like($c->read(5), qr/^HTTP\/1.1 200/, 'the response has begun');
is(held('e'), 1, 'held during the response');
$c->reset;
free_soon('e', 'client reset during the response');

is($n->get('/bad?k=f')->status, 502, 'upstream error');
free_soon('f', 'upstream error');

is($n->get('/never?k=g')->status, 504, 'upstream timeout');
free_soon('g', 'upstream timeout');

$c = $n->connect;
$c->send("GET /up?k=h HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n"
         . "Upgrade: echo\r\n\r\n");
like($c->read(5), qr/101 Switching/, 'upgraded');
$c->send('ping');
is($c->read(5), 'ping', 'echo');
is(held('h'), 1, 'held while upgraded');
$c->close;
free_soon('h', 'upgraded connection closed');

is($n->get('/redirect?k=i&j=i')->header('Content-Type'), 'image/gif',
   'internal redirect');
is($n->get('/redirect?k=i&j=i')->status, 200, 'internal redirect again');
free_soon('i', 'internal redirect');
is(held('i', 'two'), 0, 'decided once: the target does not ask again');

is($n->get('/sub?k=i')->status, 200, 'a subrequest does not count');
free_soon('i', 'with a subrequest');

$c = $n->connect;
$c->send("GET /page?k=p HTTP/1.1\r\nHost: a\r\n\r\n");
holds('p', 1, 'before error_page');
my $page = $n->get('/page?k=p');
is($page->status . $page->body, '503quick', 'error_page');
is(held('p'), 1, 'error_page takes no place');
$c->close;
free_soon('p', 'error_page');

SKIP: {
    skip 'no curl', 2 if system('curl --version >/dev/null 2>&1') != 0;

    my $pid = fork;
    if (!$pid) {
        exec 'curl', '-s', '-o', '/dev/null', '--http2-prior-knowledge',
             'http://127.0.0.1:' . $n->port(2) . '/never30?k=s';
    }
    $t->track($pid);
    holds('s', 1, 'HTTP/2 stream');
    kill 'KILL', $pid;
    waitpid $pid, 0;
    free_soon('s', 'HTTP/2 connection gone');
}


# several limits: all or nothing

my @both = $t->parallel([$n->req('/both?k=1&j=1'), $n->req('/both?k=1&j=1'),
                         $n->req('/both?k=2&j=1')]);
is(scalar(grep { $_->status == 200 } @both), 1, 'the second limit counts');
ok($t->wait_for(sub { held(1) + held(2) + held(1, 'two') == 0 }, 6),
   'all are released');

$c = $n->connect;
$c->send("GET /both?k=3&j=3 HTTP/1.1\r\nHost: a\r\n\r\n");
holds(3, 1, 'one of two');
is($n->get('/both?k=3&j=3')->status, 429, 'refused by the second');
ok($t->wait_for(sub { held(3) == 1 }, 6), 'the first was given back');
$c->close;
free_soon(3, 'both');

is($n->get('/rate?k=r')->status, 200, 'rate and connections');
is($n->get('/rate?k=r')->status, 429, 'refused by the rate');
free_soon('r', 'refused by the rate');


# number as a variable

is(scalar(grep { $_->status == 200 } $n->parallel(5, '/n?k=n&n=3')), 3,
   'number from a variable');
is($n->get('/n?k=n&n=0')->status, 429, 'none at all');
is($n->get('/n?k=n&n=')->status, 200, 'empty: not limited');
is($n->get('/n?k=n&n=x')->status, 200, 'invalid: not limited');
ok($n->wait_log(qr/invalid number of connections "x" in zone "one"/, 10),
   'and logged');


# dry run

is(scalar(grep { $_->status == 200 } $n->parallel(3, '/dry?k=y')), 3,
   'dry run refuses nobody');
ok($n->wait_log(qr/\[warn\] .*limiting connections, dry run, by zone "one"/,
                10), 'dry run is logged');


# variables

$n->stop;
open my $fh, '<', $n->file('c.log') or die "c.log: $!";
my @log = <$fh>;
ok((grep { $_ eq "/slow 200 PASSED one 2\n" } @log), 'PASSED');
ok((grep { $_ eq "/slow 429 REJECTED one 2\n" } @log), 'REJECTED');
ok((grep { $_ eq "/dry 200 REJECTED_DRY_RUN one 1\n" } @log), 'DRY_RUN');
ok((grep { $_ eq "/slow 200 - - -\n" } @log), 'not limited');

done_testing();
