#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Look-ups in the content of subrequests: a location that is asked by
# auth_request, included by SSI or mirrored to has them with the first request,
# and the client request keeps its own.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(spew);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

my $seen = sub {
    my ($req) = @_;
    return join '|', map { ($req->{headers}{"x-$_"} || ['-'])->[0] }
                         qw(plan part made);
};

my $origin = $t->origin(routes => {
    '/auth' => sub {
        my ($req) = @_;
        return { status => $seen->($req) =~ /^gold/ ? 200 : 403,
                 headers => ['X-Auth', $seen->($req)] };
    },
    '/make' => sub { return { body => "made for $_[0]{args}{u}" } },
    map { ($_ => sub { return { body => $seen->($_[0]) } }) }
        qw(/page /part /copy),
});

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 20s; connect_timeout 20s; }
    coord_lookup $plan plan:$http_x_user default=free;
    coord_lookup $part part:$arg_p default=none;
    coord_lookup $made $make_key load=/make?u=$http_x_user;
    map $uri $make_key { volatile; /auth made:$http_x_user; default ""; }

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        proxy_set_header X-Plan $plan;
        proxy_set_header X-Part $part;
        proxy_set_header X-Made $made;
        add_header X-Auth $auth always;

        location /page {
            auth_request /auth;
            auth_request_set $auth $upstream_http_x_auth;
            proxy_pass http://%%ORIGIN%%;
        }

        location = /auth {
            internal;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Plan $plan;
            proxy_set_header X-Part $part;
            proxy_set_header X-Made $made;
            proxy_pass http://%%ORIGIN%%;
        }

        location /mirrored { mirror /copy; empty_gif; }
        location /ssi { ssi on; default_type text/html; root %%NODEDIR%%; }
        location / { proxy_pass http://%%ORIGIN%%; }
    }
EOF

my @nodes = map { $t->node(name => $_, workers => 2, http => $http)->start }
            qw(a b);
my @pids = map { sort $_->workers } @nodes;

$r->command(SET => "plan:$_" => 'gold') for qw(ann bob eve h2);
$r->command(SET => "part:$_" => "part $_") for qw(main inc copy);
spew($_->file('ssi'), '[<!--#include virtual="/part?p=inc" -->]') for @nodes;

for my $node (@nodes) {
    my $name = $node->name;
    my $res = $node->get('/page?p=main', headers => { 'X-User' => 'ann' });

    is($res->status, 200, "$name: who is asked by auth_request has the value");
    is($res->header('X-Auth'), 'gold|none|made for ann',
       "$name: by his own arguments, and what is loaded");
    is($res->body, 'gold|part main|-', "$name: and the request its own");

    is($node->get('/ssi', headers => { 'X-User' => 'bob' })->body,
       '[gold|part inc|-]', "$name: an include");
    is($node->get('/page', headers => { 'X-User' => 'cat' })->status, 403,
       "$name: where there is none, the default");
}

is($nodes[0]->get('/mirrored?p=copy')->status, 200, 'mirrored');
ok($t->wait_for(sub { $origin->requests('/copy') }, 10), 'the copy comes');
is($seen->($origin->requests('/copy')), 'free|part copy|-', 'with its values');

is($nodes[0]->h2('http://127.0.0.1:' . $nodes[0]->port(2) . '/page',
                 '-H', 'X-User: h2')->status, 200, 'HTTP/2');

# who writes the key changes it there, too

$r->command(SET => 'plan:ann', 'free');

for my $node (@nodes) {
    ok($t->wait_for(sub {
        $node->get('/page', headers => { 'X-User' => 'ann' })->status == 403
    }, 10), $node->name . ': no longer');
}

# a client that leaves while his subrequest waits

$redis->freeze;
my @gone = map { $nodes[0]->connect } 1 .. 8;
$gone[$_]->send("GET /page HTTP/1.1\r\nHost: x\r\nX-User: gone$_\r\n\r\n")
    for 0 .. $#gone;
$t->rest(0.3);
$_->reset for @gone;
$t->rest(0.3);
kill 'CONT', $redis->{pid};

is($_->get('/page', headers => { 'X-User' => 'eve' })->status, 200,
   $_->name . ': goes on') for @nodes;
is(join(' ', map { sort $_->workers } @nodes), "@pids", 'no worker has died');

done_testing();
