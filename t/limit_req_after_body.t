#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Limits with "after_body": keys and costs from the body of a request, in
# memory and in a file, with a length, chunked and over HTTP/2; behind
# idempotency; and what nginx -t warns of.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(default => { body => 'x',
                                     headers => ['X-Used' => 2] });


sub conf {
    return <<"EOF";
        $_[0]

        map \$request_body \$login {
            ~(?:^|&)user=(?<u>[^&]+) \$u;
        }
        map \$request_body \$tool {
            ~"method":\\s*"tools/call".*"name":\\s*"(?<called>[^"]+)" \$called;
        }
        map \$request_body \$price {
            ~"limit":\\s*(?<n>\\d+) \$n;
        }

        coord_limit_req_zone \$login zone=login:1m rate=1r/h;
        coord_limit_req_zone \$tool zone=tool:1m rate=2r/h
                             algorithm=fixed_window;
        coord_limit_req_zone \$arg_k zone=price:1m rate=10r/h
                             algorithm=fixed_window;
        coord_limit_conn_zone \$login zone=conn:1m;

        coord_lookup \$plan plan:\$login default=1r/h;
        coord_limit_req_zone \$login zone=plan:1m rate=\$plan
                             algorithm=fixed_window;

        add_header X-Status \$coord_limit_req_status:\$coord_idempotency_status
                   always;
        client_body_buffer_size 1k;
        client_max_body_size 200k;
        keepalive_timeout 60s;

        server {
            listen 127.0.0.1:%%PORT%%;
            $_[1]

            location /login {
                coord_limit_req zone=login after_body;
                proxy_pass http://%%ORIGIN%%;
            }
            location /tool {
                coord_limit_req zone=tool after_body;
                proxy_pass http://%%ORIGIN%%;
            }
            location /price {
                coord_limit_req zone=price cost=\$price after_body;
                proxy_pass http://%%ORIGIN%%;
            }
            location /charge {
                coord_limit_req zone=price cost=\$price charge=after after_body;
                proxy_pass http://%%ORIGIN%%;
            }
            location /plan {
                coord_limit_req zone=plan after_body;
                proxy_pass http://%%ORIGIN%%;
            }
            location /unbuffered {
                coord_limit_req zone=login after_body;
                proxy_request_buffering off;
                proxy_pass http://%%ORIGIN%%;
            }
            location /conn {
                coord_limit_conn conn 1 after_body;
                coord_limit_conn_log_level info;
                proxy_pass http://%%ORIGIN%%;
            }
            location /pay {
                coord_idempotency on;
                coord_idempotency_scope off;
                coord_limit_req zone=login after_body;
                proxy_pass http://%%ORIGIN%%;
            }
            location /coord/ { coord_api write; }
        }
EOF
}

my $http2 = $t->conf_error(http => 'server { listen 127.0.0.1:%%PORT%% http2; }')
            eq '' ? 'listen 127.0.0.1:%%PORT_2%% http2;' : '';

my %node = (
    redis => [map { $t->node(name => $_, workers => 2,
                             http => conf('coord_store main { server '
                                        . '%%REDIS%%; timeout 30s; '
                                        . 'connect_timeout 30s; }', $http2))
                      ->start } qw(a b)],
    memory => [$t->node(name => 'm', workers => 2, http => conf('', ''))
                 ->start],
);

sub chunked {
    my ($n, $path, $body, $size) = @_;

    my $text = join '', map { sprintf("%x\r\n%s\r\n", length, $_) }
                            unpack "(a$size)*", $body;
    my $c = $n->connect;

    $c->send("POST $path HTTP/1.1\r\nHost: a\r\n"
           . "Transfer-Encoding: chunked\r\n\r\n${text}0\r\n\r\n");
    my $r = $c->response('POST', 5);
    $c->close;

    return $r;
}


my $admin = $redis->connect(die => 1);

$admin->command('SET', "plan:${_}redis", '2r/h') for qw(gold large);

for my $store (sort keys %node) {
    my ($one, $two) = @{$node{$store}}[0, -1];

    # a form field, wherever the body lies

    my $pad = 'p=' . 'x' x 100_000;

    is($one->post('/login', 'user=bob&pass=1')->status, 200, "$store: a form");
    is($two->post('/login', 'user=bob&pass=2')->status, 429,
       "$store: the same name");
    is($two->post('/login', 'user=eve&pass=2')->status, 200,
       "$store: another one");
    is($one->post('/login', "$pad&user=eve")->status, 429,
       "$store: in a body in a file");
    is($one->post('/login', "$pad&user=amy")->status, 200,
       "$store: another one");
    is(chunked($two, '/login', 'user=amy', 3)->status, 429, "$store: chunked");
    is(chunked($two, '/login', "$pad&user=amy", 7000)->status, 429,
       "$store: chunked, in a file");
    is(chunked($one, '/login', "$pad&user=ann", 7000)->status, 200,
       "$store: another one");
    is($one->post('/unbuffered', "$pad&user=ann")->status, 429,
       "$store: where the upstream gets it unbuffered");
    is($one->post('/login', 'x' x 210_000)->status, 413,
       "$store: above client_max_body_size");
    is($one->get('/login')->status, 200, "$store: no body, no key");

    my ($got) = grep { $_->{body} =~ /user=ann/ } $origin->requests('/login');
    is(length $got->{body}, length "$pad&user=ann",
       "$store: the upstream gets all of it") if $store eq 'memory';

    # JSON-RPC by its method

    my $call = '{"jsonrpc":"2.0","id":1,"method":"tools/call",'
             . '"params":{"name":"search"}}';
    my @s = map { $_->post('/tool', $call)->status } $one, $two, $one;

    is("@s", '200 200 429', "$store: calls of a tool");
    is($two->post('/tool', $call =~ s/search/read/r)->status, 200,
       "$store: of another one");
    is($two->post('/tool', '{"method":"ping"}')->status, 200,
       "$store: no tool");

    # a cost

    is($one->post('/price?k=1', '{"limit": 7}')->status, 200,
       "$store: a cost of 7");
    is($two->post('/price?k=1', '{"limit": 4}')->status, 429,
       "$store: not 4 more");
    is($two->post('/price?k=1', "{\"limit\": 3, \"x\": \"$pad\"}")->status, 200,
       "$store: 3");
    is($one->post('/charge?k=2', "{\"limit\": 9, \"x\": \"$pad\"}")->status, 200,
       "$store: charged after");
    my $left;
    $t->wait_for(sub { ($left) = $two->get('/coord/limits/price/2')->body
                                 =~ /"remaining": ?(\d+)/; $left == 1 }, 3);
    is($left, 1, "$store: as the body says");

    # a rate that is looked up by it

    for my $body ("user=gold$store", "$pad&user=large$store") {
        my ($user) = $body =~ /user=(.*)/;
        my @s = map { $_->post('/plan', $body)->status } $one, $two, $one;

        is("@s", $store eq 'redis' ? '200 200 429' : '200 429 429',
           "$store: a rate by the user of the body");
    }

    # requests at a time

    my @r = $t->parallel([map { $one->req('/conn?delay=1.5', method => 'POST',
                                          body => "user=$_") } qw(a a b)]);
    is(join(' ', sort map { $_->status } @r), '200 200 429',
       "$store: coord_limit_conn");

    # behind idempotency

    my @pay = map { $_->post('/pay', 'user=pay',
                             headers => { 'Idempotency-Key' => "k$store" }) }
                  $one, $two, $one;

    is(join(' ', map { $_->header('X-Status') } @pay),
       'PASSED:NEW :REPLAYED :REPLAYED', "$store: a replay takes nothing");
    is($two->post('/pay', 'user=pay',
                  headers => { 'Idempotency-Key' => "l$store" })->status, 429,
       "$store: a new one does");
}

SKIP: {
    my $curl = grep { -x "$_/curl" } split /:/, $ENV{PATH};
    skip 'no HTTP/2', 2 if !$http2 || !$curl;

    my $port = $node{redis}[0]->port(2);
    my @s = map { my $u = $_; `curl -s -o /dev/null -w '%{http_code}' \\
        --http2-prior-knowledge -d 'p=@{['y' x 3000]}&user=$u' \\
        http://127.0.0.1:$port/login` } qw(h2 h2 h3);

    is("@s", '200 429 200', 'over HTTP/2');
}


# when the request is over the body is shown once, if a cost is of it

my $debug = $t->node(name => 'd', log_level => 'debug', http => <<'EOF')->start;
    map $request_body $price { ~"limit":\s*(?<n>\d+) $n; }
    coord_limit_req_zone $arg_k zone=price:1m rate=10r/h algorithm=fixed_window;
    coord_limit_req_zone $arg_k zone=other:1m rate=10r/h algorithm=fixed_window;
    client_body_buffer_size 1k;
    sendfile on;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /twice {
            coord_limit_req zone=price cost=$price charge=after after_body;
            coord_limit_req zone=other cost=$price charge=after after_body;
            proxy_pass http://%%ORIGIN%%;
        }
        location /answer {
            coord_limit_req zone=price cost=$upstream_http_x_used
                            charge=after after_body;
            coord_limit_req zone=other cost=1 charge=after after_body;
            proxy_pass http://%%ORIGIN%%;
        }
        location /coord/ { coord_api; }
    }
EOF

SKIP: {
    $debug->get('/coord/');
    skip 'nginx without --with-debug', 6
        if !$t->wait_for(sub { $debug->log_lines(qr/\[debug\]/) }, 1);

    my $body = '{"limit": 3, "x": "' . 'z' x 90_000 . '"}';

    for (['/twice', 2, '7'], ['/answer', 1, '8']) {
        my ($path, $reads, $left) = @$_;

        $debug->post("$path?k=$path", $body);
        ok($t->wait_for(sub {
            $debug->get("/coord/limits/price/%2F" . substr($path, 1))->body
            =~ /"remaining": ?$left/
        }, 3), "$path: is charged");
        is(scalar($debug->log_lines(
               qr/coord shows body in a file: @{[length $body]}$/)),
           $reads, "$path: so often it is shown");
        is(scalar($debug->log_lines(qr/read: \d+, \S+ @{[length $body]}, 0/)),
           0, "$path: and not copied");

        $body .= ' ';
    }
}


# members of a JSON text, where nginx takes them apart itself

SKIP: {
    my $json = 'json_set $user $request_body user.name; '
             . 'json_set $want $request_body want[0]; ';

    skip 'nginx without json_set', 3
        if $t->conf_error(http => "$json server { listen 127.0.0.1:%%PORT%%; }")
           ne '';

    my $n = $t->node(name => 'j', http => <<"EOF")->start;
        $json
        coord_limit_req_zone \$user zone=user:1m rate=10r/h
                             algorithm=fixed_window;
        client_body_buffer_size 1k;
        server {
            listen 127.0.0.1:%%PORT%%;
            location / {
                coord_limit_req zone=user cost=\$want after_body;
                proxy_pass http://%%ORIGIN%%;
            }
        }
EOF
    my $x = 'x' x 5000;
    my @s = map { $n->post('/', $_)->status }
                ('{"user": {"name": "bob"}, "want": [7]}',
                 '{"want": [4], "user": {"name": "bob"}}',
                 qq({"x": "$x", "user": {"name": "bob"}, "want": [4]}),
                 qq({"x": "$x", "user": {"name": "eve"}, "want": [4]}));

    is("@s[0 .. 1]", '200 429', 'json_set: a key and a cost');
    is($s[2], 429, 'json_set: of a body in a file');
    is($s[3], 200, 'json_set: another key');
}


# dav takes the body as a file, and whoever has read it before makes one

SKIP: {
    skip 'nginx has no dav', 5
        if `$t->{binary} -V 2>&1` !~ /http_dav/;

    my $dav = $t->node(name => 'dav', http => <<'EOF')->start;
        coord_limit_req_zone $request_body zone=body:1m rate=1r/h;

        server {
            listen 127.0.0.1:%%PORT%%;
            root %%NODEDIR%%/files;

            location / {
                coord_limit_req zone=body after_body;
                client_body_in_file_only clean;
                create_full_put_path on;
                dav_methods PUT;
            }
        }
EOF

    for my $body ('short', 'long' x 5000) {
        is(join(' ', map { $dav->request('PUT', '/a', body => $body)->status }
                     1 .. 2),
           $body eq 'short' ? '201 429' : '204 429', 'dav: a file, once');
        is(Coord::Util::slurp($dav->file('files/a')), $body, 'dav: all of it');
    }

    ok($t->wait_for(sub { !(() = glob($dav->file('client_body/*'))) }, 5),
       'dav: nothing is left');
}


# warnings

my %warned = (
    '$request_body z' => qr/uses "\$request_body".*say "after_body"/,
    '$request_body z after_body' => undef,
    '$request_body_file z' => undef,
    '$arg_k z cost=$request_body' => qr/uses "\$request_body"/,
    '$remote_user z' => qr/"\$remote_user" needs "after_auth"/,
    '$remote_user z after_auth' => undef,
    '$http_x_forwarded_for z' => qr/writes "\$http_x_forwarded_for" as he likes/,
    '$binary_remote_addr z' => undef,
    '$arg_k z cost=$status' => qr/"\$status" needs "charge=after" or "reserve="/,
    '$arg_k z cost=$status charge=after' => undef,
    '$arg_k z reserve=3 cost=$upstream_http_x' => undef,
);

my $i = 0;

for my $text (sort keys %warned) {
    my ($key, $zone, $rest) = split / /, $text, 3;
    my $n = $t->node(name => 'w' . $i++,
                     http => "coord_limit_req_zone $key zone=z:1m rate=1r/s;"
                           . " server { listen 127.0.0.1:%%PORT%%; location / {"
                           . " coord_limit_req zone=z " . ($rest // '')
                           . "; } }");
    my ($good, $out) = $n->check;

    ok($good, "$text: allowed");
    $warned{$text} ? like($out, $warned{$text}, "$text: warned of")
                   : unlike($out, qr/\[warn\]/, "$text: no warning");
}

done_testing();
