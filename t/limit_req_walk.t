#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What a client sees of a rate limit, and that a client request is decided
# once, whatever nginx does with it: redirects, error pages, subrequests,
# "satisfy any", HTTP/2, a client that leaves.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(spew);
use JSON::PP;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => {
    '/limited' => { headers => ['RateLimit-Policy', '"up";q=9;w=9',
                                'RateLimit', '"up";r=8;t=7'] },
    map({ ("/has/$_" => { headers => ['x-ratelimit-limit', 500,
                                      'X-RateLimit-Remaining', $_,
                                      'X-RateLimit-Reset', 1234,
                                      'Retry-After', 77] }) } qw(0 7 many)),
    '/*' => { body => "origin\n" },
});

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    log_format s '$request_uri $status $coord_limit_req_status '
                 '$coord_limit_req_zone $coord_limit_req_remaining '
                 '$coord_limit_req_limit $coord_limit_req_reset '
                 '$coord_limit_req_source';
    access_log %%NODEDIR%%/access.log s;

    coord_limit_req_zone $arg_k$http_x_k zone=one:1m rate=1r/h;
    coord_limit_req_zone $arg_k$http_x_k zone=two:1m rate=1r/h;
    coord_limit_req_zone $arg_k$http_x_k zone=win:1m rate=2r/h algorithm=fixed_window;
    coord_limit_req_zone $arg_k$http_x_k zone=min:1m rate=100r/m
                         algorithm=fixed_window;
    coord_limit_req_zone $arg_k$http_x_k zone=slow:1m rate=1r/s;
    coord_limit_req_zone $arg_k zone=min10:1m rate=1r/m;
    coord_limit_req_zone $arg_a zone=turn_a:1m rate=1r/h;
    coord_limit_req_zone $arg_b zone=turn_b:1m rate=1r/h;
    coord_limit_req_zone $arg_k zone=rates:1m rate=$arg_rate;
    coord_limit_conn_zone $arg_k zone=seats:1m;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        root %%NODEDIR%%;

        location /one { coord_limit_req zone=one; empty_gif; }
        location /win { coord_limit_req zone=win; coord_limit_req zone=min;
                        empty_gif; }
        location /legacy { coord_limit_headers legacy;
                           coord_limit_req zone=win; coord_limit_req zone=min;
                           empty_gif; }
        location /both { coord_limit_headers legacy; coord_limit_req zone=win;
                         coord_limit_conn seats $arg_n; empty_gif; }
        location /seats { coord_limit_headers legacy;
                          coord_limit_conn seats 3; empty_gif; }
        location /has/ { coord_limit_headers legacy; coord_limit_req zone=win;
                         proxy_pass http://%%ORIGIN%%; }
        location /hasnot { coord_limit_headers legacy;
                           coord_limit_req zone=win; error_page 429 /has/0;
                           empty_gif; }
        location /has/few { coord_limit_headers legacy;
                            coord_limit_conn seats 3;
                            proxy_pass http://%%ORIGIN%%/has/7; }
        location /off { coord_limit_headers off; coord_limit_req zone=one;
                        empty_gif; }
        location /status { coord_limit_req_status 503;
                           coord_limit_req zone=one; empty_gif; }
        location /limited { coord_limit_req zone=min;
                            proxy_pass http://%%ORIGIN%%; }
        location /moved { coord_limit_req zone=min;
                          proxy_pass http://%%ORIGIN%%/; }
        location /post { coord_limit_req zone=one;
                         proxy_pass http://%%ORIGIN%%/; }

        # redirects
        location /page { error_page 429 /429.html; coord_limit_req zone=one;
                         empty_gif; }
        location = /429.html { coord_limit_req zone=two; }
        location /named { error_page 429 = @named; coord_limit_req zone=one;
                          empty_gif; }
        location @named { coord_limit_req zone=one;
                          add_header X-Named $coord_limit_req_status;
                          return 200 "named\n"; }
        location /loop { error_page 429 /loop; coord_limit_req zone=one;
                         empty_gif; }
        location /try { coord_limit_req zone=one;
                        try_files /none /target$is_args$args; }
        location /target { coord_limit_req zone=one; coord_limit_req zone=two;
                           empty_gif; }
        location /accel { coord_limit_req zone=one;
                          proxy_pass http://%%ORIGIN%%/; }
        location /index/ { coord_limit_req zone=one; }

        # subrequests
        location /ssi { ssi on; default_type text/html; root %%NODEDIR%%; }
        location /sub { coord_limit_req zone=one; empty_gif; }
        location /auth { auth_request /sub; coord_limit_req zone=two;
                         empty_gif; }
        location /auth2 { auth_request /sub2; empty_gif; }
        location /sub2 { coord_limit_req zone=slow burst=5;
                         proxy_pass http://%%ORIGIN%%/; }
        location /mirror { mirror /sub; coord_limit_req zone=one; empty_gif; }

        # satisfy
        location /deny { satisfy any; deny all;
                         auth_basic x; auth_basic_user_file %%NODEDIR%%/none;
                         coord_limit_req zone=min; empty_gif; }
        location /allow { satisfy any; allow all;
                          auth_basic x; auth_basic_user_file %%NODEDIR%%/none;
                          coord_limit_req zone=one; empty_gif; }
        location /stock { limit_conn stock 1; coord_limit_req zone=min;
                          empty_gif; }

        location /delay { coord_limit_req zone=min10 burst=5; empty_gif; }
        location /probe { coord_limit_req zone=min10 burst=5 nodelay;
                          empty_gif; }
        location /empty { empty_gif; }

        location /turns { coord_limit_req zone=turn_a;
                          coord_limit_req zone=turn_b; empty_gif; }
        location /other { coord_limit_req_status 503;
                          coord_limit_req zone=turn_a; empty_gif; }
        location /rates { coord_limit_req zone=rates; empty_gif; }
    }

    limit_conn_zone $binary_remote_addr zone=stock:1m;
EOF

mkdir $n->file('index');
spew($n->file('429.html'), "too many\n");
spew($n->file('index/index.html'), "index\n");
spew($n->file('ssi'), join '', map {
    "<!--#include virtual=\"/sub?k=ssi\" -->" } 1 .. 3);
spew($n->file('ssi2'), join '', map {
    "<!--#include virtual=\"$_\" -->" } '/sub?k=ssi', '/index/index.html');


# the refusal

is($n->get('/one?k=a')->status, 200, 'passed');
my $r = $n->get('/one?k=a');
is($r->status, 429, 'refused');
is($r->header('Content-Type'), 'application/problem+json', 'problem+json');
like($r->header('Retry-After'), qr/^3(600|59\d)$/, 'Retry-After in seconds');

my $problem = decode_json($r->body);
is($problem->{status}, 429, 'the status in the body');
is($problem->{type},
   'https://iana.org/assignments/http-problem-types#quota-exceeded', 'type');
is_deeply($problem->{'violated-policies'}, ['one'], 'violated-policies');
ok($problem->{title} && $problem->{detail}, 'title and detail');

is($n->get('/status?k=a')->status, 503, 'coord_limit_req_status');
$r = $n->request('HEAD', '/one?k=a');
is($r->status . $r->body, '429', 'HEAD has no body');

my $c = $n->connect;
is($c->request(method => 'POST', path => '/one?k=a', body => 'x' x 100000,
               keepalive => 1)->status, 429, 'a refused POST');
is($c->request(path => '/empty', keepalive => 1)->status, 200,
   'its connection goes on: the body was discarded');


# what was told before is told again only where it is the same

is($n->get("/turns?$_=1")->status, 200, "turns: $_ passed") for 'a', 'b';

for (['/turns?a=1', 429, 'turn_a'], ['/turns?b=1', 429, 'turn_b'],
     ['/other?a=1', 503, 'turn_a'], ['/turns?a=1', 429, 'turn_a'],
     ['/turns?a=1&b=1', 429, 'turn_a', 'turn_b'],
     ['/turns?b=1', 429, 'turn_b'], ['/other?a=1', 503, 'turn_a'])
{
    my ($path, $status, @zones) = @$_;
    my $said = decode_json($n->get($path)->body);

    is($said->{status}, $status, "turns: $path: status");
    is_deeply($said->{'violated-policies'}, \@zones, "turns: $path: policies");
}

for my $rate (5, 7, 5, 120) {
    is($n->get("/rates?k=$rate&rate=${rate}r/m")->header('RateLimit-Policy'),
       qq("rates";q=$rate;w=60), "turns: a rate of $rate");
}

# fields

$r = $n->get('/win?k=b');
is($r->header('RateLimit-Policy'), '"win";q=2;w=3600, "min";q=100;w=60',
   'RateLimit-Policy');
like($r->header('RateLimit'),
     qr/^"win";r=1;t=3(600|59\d), "min";r=99;t=(60|5\d)$/, 'RateLimit');
$n->get('/win?k=b');
$r = $n->get('/win?k=b');
like($r->header('RateLimit'),
     qr/^"win";r=0;t=(3[56]\d\d), "min";r=\d+;t=\d+$/, 'RateLimit, refused');
$r->header('RateLimit') =~ /"win";r=0;t=(\d+)/;
cmp_ok($r->header('Retry-After'), '>=', $1, 'Retry-After is not before t');

$r = $n->get('/legacy?k=c');
is($r->header('X-RateLimit-Limit'), 2, 'legacy: the tightest limit');
is($r->header('X-RateLimit-Remaining'), 1, 'legacy: remaining');
like($r->header('X-RateLimit-Reset'), qr/^3(600|59\d)$/, 'legacy: seconds');
ok(!defined $r->header('RateLimit'), 'legacy: no draft fields');

# a client that reads these fields takes them for a rate

$r = $n->get('/both?k=seated&n=1');
is($r->header('X-RateLimit-Limit'), 2, 'legacy: a rate, not the connections');
is($r->header('X-RateLimit-Remaining'), 1, 'legacy: which are all taken');
ok($r->header('X-RateLimit-Reset'), 'legacy: its time');
is($n->get('/seats?k=seated')->header('X-RateLimit-Limit'), 3,
   'legacy: connections where there is no rate');

# one limit is told, the upstream's or ours: of which less is left

sub legacy {
    my ($r) = @_;
    return join ' ', map { join '+', @{$r->{headers}{lc $_} || []} }
                         qw(X-RateLimit-Limit X-RateLimit-Remaining
                            X-RateLimit-Reset Retry-After);
}

like(legacy($n->get('/has/7?k=up7')), qr/^2 1 3(?:600|59\d) 77$/,
     'legacy: ours, less than what an upstream has left');
is(legacy($n->get('/has/0?k=up0')), '500 0 1234 77',
   'legacy: what an upstream has left');
like(legacy($n->get('/has/many?k=upm')), qr/^2 1 3(?:600|59\d) 77$/,
     'legacy: ours, where an upstream tells no number');
is(legacy($n->get('/has/few?k=few')), '3 2  77', 'legacy: connections');

$n->get('/hasnot?k=ref') for 1 .. 2;
like(legacy($n->get('/hasnot?k=ref')), qr/^2 0 (3\d\d\d) \1$/,
     'legacy: who refused, with a page of an upstream');

$r = $n->get('/off?k=d');
ok(!defined $r->header('RateLimit-Policy'), 'coord_limit_headers off');
is($n->get('/off?k=d')->status, 429, 'off: refused');
ok(defined $n->get('/off?k=d')->header('Retry-After'), 'off: Retry-After');

$r = $n->get('/limited?k=e');
is_deeply([@{$r->{headers}{'ratelimit-policy'}}],
          ['"up";q=9;w=9', '"min";q=100;w=60'],
          'appended to what the upstream sent');


# error_page

$n->get('/page?k=f');
$r = $n->get('/page?k=f');
is($r->status . $r->body, "429too many\n", 'error_page covers the status');
ok($r->header('Retry-After'), 'error_page: Retry-After');
like($r->header('RateLimit'), qr/^"one";r=0;t=\d+/, 'error_page: RateLimit');
is($n->get('/one?k=f')->status, 429, 'error_page: not charged again');

$n->get('/named?k=g');
$r = $n->get('/named?k=g');
is($r->status . $r->body, "200named\n", 'a named location');
is($r->header('X-Named'), 'REJECTED', 'the decision is remembered there');

$n->get('/loop?k=h');
$r = $n->get('/loop?k=h');
is($r->status . substr($r->body, 0, 6), '429GIF89a',
   'error_page to the same location: it is not decided again');


# one decision for each client request

is($n->get('/try?k=i')->status, 200, 'try_files: passed');
is($n->get('/target?k=i2')->status, 200, 'the target by itself');
my $conn = $redis->connect;
ok(!$conn->command('EXISTS', 'coord:rl:two:{i}'),
   'try_files: the target did not decide again');
is($n->get('/try?k=i')->status, 429, 'try_files: one charge');

is($n->get('/index/?k=j')->status, 200, 'index: an internal redirect');
is($n->get('/index/?k=j')->status, 429, 'index: one charge');

$r = $n->get('/ssi?k=ssi');
is($r->status, 200, 'SSI: the page');

# Redis refuses one part while another one is on its way to the client

is($n->get('/ssi2')->status, 200, 'SSI: a page with a part that is refused');
like(($n->log_lines(qr/limiting requests.*subrequest: "\/sub"/))[0],
     qr/by zone "one", client: /, 'SSI: logged as by limit_req');
is($n->get('/one?k=ssi')->status, 429, 'SSI: a subrequest is limited');
like($r->body, qr/^GIF89a.*GIF89a.*GIF89a/s,
     'SSI: one decision for all subrequests, as limit_req');

my %key = (headers => { 'X-K' => 'l' });
is($n->get('/auth', %key)->status, 200, 'auth_request and a limit');
is($n->get('/auth', %key)->status, 429, 'the limit refuses');
ok(!$conn->command('EXISTS', 'coord:rl:one:{l}'),
   'auth_request: the subrequest did not decide again');

%key = (headers => { 'X-K' => 'm' });
is($n->get('/auth2', %key)->status, 200, 'a limit in the subrequest only');
is($n->get('/auth2', %key)->status, 200, 'which may wait');
like(($n->log_lines(qr/delaying request/))[0] || '', qr/by zone "slow"/,
     'in the subrequest');

%key = (headers => { 'X-K' => 'n' });
is($n->get('/mirror', %key)->status, 200, 'mirror: passed');
is($n->get('/mirror', %key)->status, 429, 'mirror: refused');

is($n->get('/deny?k=o')->status, 401, 'satisfy any: a limit grants nothing');
$n->get('/allow?k=p');
is($n->get('/allow?k=p')->status, 429, 'satisfy any: a limit is not skipped');
is($n->get('/stock?k=q')->status, 200, 'stock limit_conn still runs');


# HTTP/2

my $h2 = 'http://127.0.0.1:' . $n->port(2);

is($n->h2("$h2/one?k=h2")->status, 200, 'HTTP/2: passed');
$r = $n->h2("$h2/one?k=h2");
is($r->status, 429, 'HTTP/2: refused');
is(decode_json($r->body)->{status}, 429, 'HTTP/2: problem+json');
ok($r->header('Retry-After'), 'HTTP/2: Retry-After');


# a client that leaves while it is delayed gives its place back

my $begun = time;
is($n->get('/delay?k=r')->status, 200, 'the bucket is empty');

for my $i (1 .. 5) {
    my $gone = $n->connect;
    $gone->send("GET /delay?k=r HTTP/1.1\r\nHost: x\r\n\r\n");
    $t->wait_for(sub { $n->log_lines(qr/delaying request.*k=r /) >= $i }, 5);
    $gone->reset;
    $t->wait_for(sub { $n->log_lines(qr/prematurely.*k=r /) >= $i }, 5);
}

# one place, less what has drained since then

my @excess = map { /excess: ([\d.]+).*k=r / ? $1 : () }
             $n->log_lines(qr/delaying request/);
my $least = 0.99 - (time - $begun) * 10 / 60;

is(scalar(grep { $_ <= 1 && $_ >= $least } @excess), 5,
   'each of five clients that leave found the place of the one before');
sleep(0.2);
my @r = $n->parallel(7, '/probe?k=r');
is(scalar(grep { $_->status == 200 } @r), 5, 'one place is taken, five not');


# variables in the access log

$n->get('/one?k=zz');
$n->get('/one?k=zz');
$n->get('/empty');
$t->wait_for(sub { $n->access_log =~ /^\/empty/m }, 5);
like($n->access_log, qr/^\/one\?k=zz 200 PASSED one 0 1 3600 redis$/m,
     'variables of a passed request');
like($n->access_log, qr/^\/one\?k=zz 429 REJECTED one 0 1 3[56]\d\d redis$/m,
     'variables of a refused request');
like($n->access_log, qr/^\/empty 200 - - - - - -$/m,
     'no variables without a limit');

done_testing();
