#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What "nginx -t" says of session directives: what cannot be, and what would
# not do what it seems to.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $n = 0;


# cookies that cannot be

for my $c ([ 'si=d', qr/"si=d" cannot stand in a cookie as its name/ ],
           [ "'si\"d'", qr/cannot stand in a cookie as its name/ ],
           [ "'s id'", qr/cannot stand in a cookie as its name/ ],
           [ "sid 'path=a;b'", qr/cannot stand in a cookie/ ],
           [ 'sid samesite=some', qr/invalid parameter "samesite=some"/ ],
           [ 'sid secured', qr/invalid parameter "secured"/ ],
           [ 'sid expires=never', qr/invalid time "never" in "expires="/ ],
           [ 'off secure', qr/takes no parameters with "off"/ ])
{
    my ($good, $out) = check("coord_session_cookie $c->[0];");
    ok(!$good, "not: $c->[0]");
    like($out, $c->[1], "says why: $c->[0]");
}


# cookies that browsers drop

for my $c ([ 'sid samesite=none', qr/"sid": "samesite=none" takes "secure"/ ],
           [ 'sid partitioned', qr/"sid": "partitioned" takes "secure"/ ],
           [ '__Host-sid', qr/begins with "__Host-"/ ],
           [ '__host-sid secure path=/a', qr/begins with "__Host-"/ ],
           [ '__Host-sid secure domain=a.b', qr/begins with "__Host-"/ ],
           [ '__Secure-sid', qr/begins with "__Secure-"/ ],
           [ 'sid rolling', qr/"rolling" of the cookie "sid" does nothing/ ])
{
    my ($good, $out) = check("coord_session_cookie $c->[0];");
    ok($good, "accepted: $c->[0]");
    like($out, qr/\[warn\].*$c->[1]/, "with a warning: $c->[0]");
}

for my $c ('sid', 'sid secure samesite=none', '__Host-sid secure',
           '__Secure-sid Secure Path=/a', 'sid partitioned Secure',
           'sid rolling expires=1d', 'sid SameSite=Lax HttpOnly Expires=1h',
           'off')
{
    is((check("coord_session_cookie $c;"))[1], '', "good: $c");
}



# sessions that cannot be what they seem

my $zones = 'coord_session_zone $arg_k zone=z:1m; '
            . 'coord_session_zone a$coord_session_id zone=id:1m; ';

for my $c ([ 'coord_session zone=id;', qr/no request has a session in zone "id"/ ],
           [ 'coord_session zone=z user=$upstream_http_x_user;',
             qr/"user=\$upstream_http_x_user" is empty/ ],
           [ 'coord_session zone=z bind=${upstream_addr};',
             qr/"bind=\$\{upstream_addr\}" is empty/ ],
           [ 'coord_session zone=z bind=$ssl_client_fingerprint;',
             qr/empty without "ssl_verify_client"/ ],
           [ 'coord_session zone=z user=$upstream_http_x_user '
             . 'create=$upstream_http_x_id over=reject;',
             qr/"over=" of "coord_session" does nothing/ ])
{
    my ($good, $out) = check($c->[0], $zones);
    ok($good, "accepted: $c->[0]");
    like($out, qr/\[warn\].*$c->[1]/, "with a warning: $c->[0]");
    is(scalar(() = $out =~ /\[warn\]/g), 1, "one: $c->[0]");
}

for my $c ('coord_session zone=id; coord_session_cookie sid;',
           'coord_session zone=z bind=$upstream learn=$upstream_addr;'
           . 'set $upstream 1;',
           'coord_session zone=z user=$upstream_http_x_user '
           . 'create=$upstream_cookie_x new=accept missing=pass;',
           'coord_session zone=z user=$upstream_http_x_user; '
           . 'coord_session_cookie sid rotate=$upstream_http_x_user;',
           'coord_session zone=z user=$arg_u max_per_user=2 over=evict;',
           'coord_session off;',
           'coord_session zone=z revoked=1h bind=$arg_ssl_client_x;')
{
    is((check($c, $zones))[1], '', "good: $c");
}

for my $c ([ 'coord_session zone=z revoked=0;', qr/invalid time "0" in "revoked="/ ],
           [ 'coord_session zone=z new=pass;',
             qr/invalid value "pass" in "new=", it must be "accept" or "rej/ ],
           [ 'coord_session zone=z user=$arg_u max_per_user=1 over=all;',
             qr/invalid value "all" in "over=", it must be "evict" or "rej/ ],
           [ 'coord_session off zone=z;', qr/invalid parameter "off"/ ],
           [ 'coord_session off; coord_session zone=z;', qr/is duplicate/ ])
{
    my ($good, $out) = check($c->[0], $zones);
    ok(!$good, "not: $c->[0]");
    like($out, $c->[1], "says why: $c->[0]");
}


# a key without a variable

like((check('', 'coord_session_zone sid zone=all;'))[1],
     qr/\[warn\].*key "sid" of "coord_session_zone" is constant/,
     'one session for all: a warning');


# names of cookies that are none of variables

my $dot = qr/\[warn\].*"\$(\w+)" in "[^"]*" ends at the "\."/;

for my $c ([ '', 'coord_session_zone $cookie_connect.sid zone=d:1m;',
             'cookie_connect' ],
           [ 'coord_session zone=z create=$upstream_cookie_connect.sid;', $zones,
             'upstream_cookie_connect' ],
           [ 'coord_idempotency on; coord_idempotency_scope $cookie_a.b;', '',
             'cookie_a' ])
{
    my ($good, $out) = check($c->[0], $c->[1]);
    ok($good, "accepted: $c->[2]");
    is(($out =~ $dot)[0], $c->[2], "with a warning: $c->[2]");
}

for my $key ('${cookie_sid}.v1', '$cookie_a.$cookie_b', '$cookie_a.1',
             '$host.x$cookie_a')
{
    is((check('', "coord_session_zone $key zone=d:1m;"))[1], '', "good: $key");
}


# coord_sticky in front of a balancer

for my $c ([ 'coord_sticky $arg_p; least_conn;', 1 ],
           [ 'coord_sticky $arg_p; hash $arg_k;', 1 ],
           [ 'least_conn; coord_sticky $arg_p;', 0 ],
           [ 'coord_sticky $arg_p; keepalive 4;', 0 ],
           [ 'zone u 64k; random; coord_sticky $arg_p; keepalive 4;', 0 ])
{
    my (undef, $out) = check('proxy_pass http://u;',
                             "upstream u { server 127.0.0.1:1; $c->[0] }");
    my $said = $out =~ /\[warn\].*"coord_sticky" does nothing in upstream "u"/;
    is($said ? 1 : 0, $c->[1], "sticky: $c->[0]");
}

done_testing();


# (good, what is said but that all is well)

sub check {
    my ($location, $http) = @_;

    my $name = 'conf' . $n++;
    my $node = Coord::Node->new(name => $name, test => $t,
                                dir => $t->file($name),
                                http => ($http // '') . <<"EOT");
        variables_hash_max_size 2048;
        server { listen 127.0.0.1:%%PORT%%; location / { $location } }
EOT
    my ($good, $out) = $node->check;

    return ($good, join "\n", grep { !/syntax is ok|test is successful/ }
                              split /\n/, $out);
}
