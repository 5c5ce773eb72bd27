#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A large response that is kept back until the store knows something (a purge,
# a session that it creates), and that is too large to be stored as the result
# of its key, or as a page: the client has all of it, with both stores.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
$t->redis;
my $origin = $t->origin(default => sub {
    my ($req) = @_;

    return { headers => ['X-Sid', 'sid' . ($req->{args}{k} || '')] };
});

my ($zones, $locations) = ('', '');

for my $s ('redis', 'memory') {
    my $store = $s eq 'redis' ? 'main' : 'local';
    my $key = 'coord_idempotency on; coord_idempotency_scope off; '
              . 'coord_idempotency_max_response 1k; '
              . "coord_idempotency_store $store;";

    $zones .= "coord_cache_zone zone=pages_$s store=$store;\n"
        . "coord_session_zone \$http_x_sid zone=made_$s store=$store;\n";

    my %kept = (
        purge => "coord_cache \$uri zone=pages_$s;",
        session => "coord_session zone=made_$s "
                   . 'create=$upstream_http_x_sid learn=$upstream_addr;',
        both => "coord_cache \$uri zone=pages_$s; "
                . "coord_session zone=made_$s "
                . 'create=$upstream_http_x_sid learn=$upstream_addr;',
    );

    for my $way ('page', 'unpage') {
        $locations .= "location /$way/$s { $kept{session} "
            . "coord_cache \$uri\$arg_k zone=pages_$s max=1k; "
            . ($way eq 'page' ? '' : 'proxy_buffering off; ')
            . "proxy_pass http://%%ORIGIN%%; }\n";
    }

    for my $kept (sort keys %kept) {
        $locations .= "location /$kept/$s { $key $kept{$kept} "
            . "proxy_pass http://%%ORIGIN%%; }\n"
            . "location /un$kept/$s { $key $kept{$kept} proxy_buffering off; "
            . "proxy_pass http://%%ORIGIN%%; }\n"
            . "location /gzip$kept/$s { $key $kept{$kept} gzip on; "
            . "gzip_types *; gzip_min_length 1; gzip_proxied any; "
            . "proxy_pass http://%%ORIGIN%%; }\n";
    }
}

my $n = $t->node(name => 'n', workers => 2, http => <<"EOF")->start;
    coord_store main { server %%REDIS%%; timeout 20s; connect_timeout 20s; }
    $zones
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        $locations
    }
EOF

my $h2 = 'http://127.0.0.1:' . $n->port(2);
my $k = 0;

for my $s ('redis', 'memory') {
    for my $way (map { ($_, "un$_", "gzip$_") } qw(purge session both)) {
        for my $body (map { ("size=$_", "size=$_&chunked=1") }
                      900, 5000, 9000, 20000, 300000) {
            my ($size) = $body =~ /(\d+)/;
            my $path = "/$way/$s?$body&k=" . ++$k;
            my %key = ('Idempotency-Key' => "key$k");

            my $res = $n->post($path, 'x', headers => \%key, timeout => 30);

            is(join(' ', $res->status, length $res->body, $res->{complete}),
               "200 $size 1", "$path: all of it");
            is($n->post($path, 'x', headers => \%key)
                  ->header('Idempotency-Replayed'),
               $size > 1024 ? 'omitted' : 'true', "$path: once");
        }

        my $path = "$h2/$way/$s?size=20000&k=" . ++$k;

        is(length $n->h2($path, '-d', 'x', '-H', "Idempotency-Key: h2$k")
                    ->body, 20000, "$way, $s: HTTP/2");
    }
}

# a page that is too large, of a request that creates a session

for my $s ('redis', 'memory') {
    for my $way ('page', 'unpage') {
        for my $body (map { ("size=$_", "size=$_&chunked=1") }
                      900, 9000, 20000, 300000) {
            my ($size) = $body =~ /(\d+)/;
            my $path = "/$way/$s?$body&k=" . ++$k;

            is(length $n->get($path, timeout => 30)->body, $size,
               "$path: all of it");
        }
    }
}

done_testing();
