#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A response that waits for the store and whose client leaves meanwhile: what
# stands behind it goes on as without us, and its request ends.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(default => sub {
    my ($req) = @_;

    return { headers => [ 'X-Id' => $req->{args}{id} ], body => 'x' x 50_000 };
});

my ($locations, @kinds) = ('');

for my $buffering (qw(on off)) {
    for my $ignore (qw(on off)) {
        push @kinds, "$buffering$ignore";
        $locations .= <<"EOF";
        location /$buffering$ignore {
            coord_session zone=one create=\$upstream_http_x_id;
            proxy_pass http://%%ORIGIN%%;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 600s;
            proxy_buffering $buffering;
            proxy_ignore_client_abort $ignore;
        }
EOF
    }
}

my $n = $t->node(workers => 1, http => <<"EOF")->start;
    coord_store main { server %%REDIS%%; timeout 60s; connect_timeout 5s; }
    coord_session_zone \$http_x_id zone=one:1m ttl=1h;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        $locations
        location = /stub { stub_status; }
        location = /warm { coord_session zone=one; empty_gif; }
    }
EOF

sub writing {
    my ($writing) = $n->get('/stub')->body =~ /Writing: (\d+)/;

    return $writing - 1;
}

my %sent = (
    'HTTP/1.1' => sub {
        my $c = $n->connect;
        $c->send("GET $_[0] HTTP/1.1\r\nHost: x\r\n\r\n");
        return sub { $c->reset };
    },
    'HTTP/2' => sub {
        my $h2 = Coord::HTTP2->new(port => $n->port(2));
        my $s = $h2->request($_[0]);
        return sub { $h2->reset($s); $h2->close };
    },
);

$n->get('/warm', headers => { 'X-Id' => 'warm' });

for my $version (sort keys %sent) {
    for my $kind (@kinds) {
        my $path = "/$kind/" . ($version =~ tr/0-9//cdr);

        $redis->freeze;

        my $leaves = $sent{$version}->("$path?id=$kind$version");
        ok($t->wait_for(sub { $origin->count($path) == 1 }, 20),
           "$version, $kind: the response waits");

        $leaves->();
        $t->rest(0.2);
        kill 'CONT', $redis->{pid};

        ok($t->wait_for(sub { writing() == 0 }, 20), 'and its request ends');
    }
}

done_testing();
