#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A mirrored copy of a request that waits for its own limit while the client
# request comes to another location: what is asked there is asked all the same.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
$t->redis;
my $origin = $t->origin(routes => { '/hold' => { delay => 1 } });
my ($zones, $locations) = ('', '');

for my $s ('redis', 'memory') {
    my $store = $s eq 'redis' ? 'main' : 'local';

    $zones .= "coord_limit_req_zone \$server_port zone=copy_$s rate=20r/s "
        . "store=$store;\n"
        . "coord_lock_zone \$arg_k zone=lock_$s store=$store;\n"
        . "coord_session_zone \$arg_k zone=session_$s store=$store;\n"
        . "coord_limit_req_zone \$arg_k zone=late_$s rate=1r/h "
        . "store=$store;\n";

    $locations .= "location = /copy_$s { internal; "
        . "coord_limit_req zone=copy_$s burst=1000; "
        . "proxy_pass http://%%ORIGIN%%/copied; }\n";

    my %features = (
        key => "coord_idempotency required; coord_idempotency_scope off; "
               . "coord_idempotency_store $store;",
        lock => "coord_lock zone=lock_$s;",
        session => "coord_session zone=session_$s bind=\$http_x_me;",
        late => "coord_limit_req zone=late_$s after_auth;",
    );

    for my $f (sort keys %features) {
        $locations .= "location /$f/$s { mirror /copy_$s; "
            . "mirror_request_body off; error_page 404 = \@$f$s; "
            . "root %%NODEDIR%%/none; log_not_found off; "
            . "try_files /none \@$f$s; }\n"
            . "location /slow$f/$s { mirror /copy_$s; "
            . "mirror_request_body off; error_page 502 504 = \@$f$s; "
            . "proxy_pass http://127.0.0.1:1; }\n"
            . "location \@$f$s { $features{$f} "
            . 'rewrite ^ /' . ($f =~ /key|lock/ ? 'hold' : 'now') . ' break; '
            . "proxy_pass http://%%ORIGIN%%; }\n";
    }
}

my $n = $t->node(name => 'n', http => <<"EOF")->start;
    coord_store main { server %%REDIS%%; timeout 20s; connect_timeout 20s; }
    $zones
    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        $locations
    }
EOF

sub at_once {
    my ($path, @headers) = @_;

    my @got = $t->parallel([map {
        $n->req($path, method => 'POST', body => 'x', headers => $_)
    } @headers], timeout => 30);

    return join ' ', sort map { $_->status } @got;
}

for my $s ('redis', 'memory') {
    for my $way ('', 'slow') {
        my %key = ('Idempotency-Key' => "key$way");

        $origin->reset_counters;
        is(at_once("/${way}key/$s", (\%key) x 3), '200 409 409',
           "$way key, $s: one of three");
        is($origin->count('/hold'), 1, "$way key, $s: one execution");
        is(at_once("/${way}lock/$s?k=$way-", ({}) x 3), '200 423 423',
           "$way lock, $s: one of three");
        is(at_once("/${way}session/$s?k=$way-",
                   map { { 'X-Me' => $_ } } 1 .. 3), '200 403 403',
           "$way session, $s: one of three");
        is(at_once("/${way}late/$s?k=$way-", ({}) x 3), '200 429 429',
           "$way limit, $s: one of three");
    }
}

is($n->h2('http://127.0.0.1:' . $n->port(2) . '/slowkey/redis', '-d', 'x',
          '-H', 'Content-Type:', '-H', 'Idempotency-Key: keyslow')->header('Idempotency-Replayed'),
   'true', 'HTTP/2: a replay');

done_testing();
