#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What nginx -t says to every directive of stores and rate limits.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(spew);

my $t = Coord->new;

my $zone = 'coord_limit_req_zone $arg_k zone=z:1m rate=1r/s;';
my $window = 'coord_limit_req_zone $arg_k zone=w:1m rate=1r/s '
             . 'algorithm=fixed_window;';


# http => the message; no message: accepted

my @cases = (
    ['coord_store s { }', ''],
    ['coord_store s { server redis://127.0.0.1:1/3; timeout 20ms; '
     . 'connect_timeout 1s; max_pending 10; key_prefix app:; '
     . 'breaker failures=3 cooldown=1s; mode standalone; }', ''],
    ['coord_store s { server unix:/tmp/none.sock:2; }', ''],
    ['coord_store s { server redis://[::1]:6379; }', ''],
    ['coord_store s { server http://127.0.0.1; }',
     qr/invalid server of store "s": it must begin with "redis:\/\/"/],
    ['coord_store s { server redis://127.0.0.1:1/x; }',
     qr/invalid database "x" .* from 0 to 65535/],
    ['coord_store s { server redis://user@127.0.0.1; }',
     qr/no password after the user name/],
    ['coord_store s { server redis://no.such.host.invalid; }',
     qr/host not found in server "no.such.host.invalid" of store "s"/],
    ['coord_store s { server redis://127.0.0.1; '
     . 'server redis://127.0.0.2; }', qr/second "server"/],
    ['coord_store s { username app; server redis://127.0.0.1; }',
     qr/has a user name but no password/],
    ['coord_store s { username app; }', qr/has a user but no "server"/],
    ['coord_store s { timeout 0; }',
     qr/invalid timeout "0" of store "s", it must be from 1ms to 60s/],
    ['coord_store s { connect_timeout x; }', qr/invalid connect_timeout "x"/],
    ['coord_store s { max_pending 0; }',
     qr/invalid max_pending "0" .* from 1 to 1000000/],
    ['coord_store s { breaker failures=0; }',
     qr/invalid breaker parameter "failures=0"/],
    ['coord_store s { breaker; }', qr/invalid number of arguments in "breaker"/],
    ['coord_store s { key_prefix "a{b"; }', qr/invalid key_prefix "a\{b"/],
    ['coord_store s { nothing 1; }',
     qr/unknown directive "nothing" in coord_store/],
    ['coord_store s { mode ring; }',
     qr/invalid mode "ring" .*"standalone", "sentinel=<master>" or "cluster"/],
    ['coord_store s { password_file none; server redis://127.0.0.1; }',
     qr/open\(\) ".*none" failed/],
    ['coord_store s { } coord_store s { }', qr/duplicate store name "s"/],
    ['coord_store local { }', qr/duplicate store name "local"/],
    ['coord_store { }', qr/invalid number of arguments in "coord_store"/],

    ['coord_on_failure maybe;', qr/invalid value "maybe"/],
    ['coord_limit_headers on;', qr/invalid value "on"/],
    ['coord_limit_req_status 200;', qr/must be between 400 and 599|must be/],
    ['coord_limit_req_log_level debug;', qr/invalid value "debug"/],
    ['coord_limit_req_dry_run yes;', qr/must be "on" or "off"/],

    [$zone, ''],
    ["$zone $zone", qr/zone "z" is already declared in/],
    ['coord_limit_req_zone $arg_k rate=1r/s;', qr/must have "zone" parameter/],
    ['coord_limit_req_zone $arg_k zone=z;', qr/must have "rate" parameter/],
    ['coord_limit_req_zone $arg_k zone=:1m rate=1r/s;', qr/invalid zone name/],
    ['coord_limit_req_zone $arg_k zone=z:x rate=1r/s;',
     qr/invalid zone size "z:x"/],
    ['coord_limit_req_zone $arg_k zone=z:1k rate=1r/s;',
     qr/zone "z:1k" is too small, at least 32k is needed/],
    (map { ["coord_limit_req_zone \$arg_k zone=z rate=$_;",
            qr/invalid rate "\Q$_\E", it must be like "10r\/s".*2000000000 in/] }
     '0r/s', '1', '1r', '1r/', '1r/x', '-1r/s', '1.5r/s', '1r/0s', 'r/s',
     '1r/9999999d', '99999999999r/x', '1r/ss'),
    (map { ["coord_limit_req_zone \$arg_k zone=z rate=$_;",
            qr/too large rate "\Q$_\E", it must be of at most 2000000000, in/] }
     '2000000001r/s', '99999999999r/10d', '99999999999999999999r/s'),
    ['coord_limit_req_zone $arg_k zone=z rate=2000000000r/s;', ''],
    (map { ["coord_limit_req_zone \$arg_k zone=z rate=$_;", ''] }
     qw(10r/s 30r/m 1000r/h 5000r/d 10r/5s)),
    ['coord_limit_req_zone $arg_k zone=z rate=1r/s algorithm=magic;',
     qr/invalid algorithm "magic", it must be "leaky_bucket", "token_bucket"/],
    ['coord_limit_req_zone $arg_k zone=z rate=1r/s store=other;',
     qr/unknown store "other" of zone "z" in .*nginx.conf:\d+/],
    ['coord_limit_req_zone $arg_k zone=z rate=1r/s wrong=1;',
     qr/invalid parameter "wrong=1", allowed are "zone="/],
    ['coord_limit_req_zone $no_such_variable zone=z rate=1r/s;',
     qr/unknown "no_such_variable" variable/],

    ["$zone server { coord_limit_req burst=1; }",
     qr/must have "zone" parameter/],
    ["$zone server { coord_limit_req zone=; }", qr/must have "zone" parameter/],
    ["$zone server { coord_limit_req zone=y; }",
     qr/unknown zone "y" in .*nginx.conf:\d+/],
    ["$zone server { coord_limit_req zone=z; coord_limit_req zone=z; }",
     qr/"coord_limit_req" directive is duplicate/],
    ["$zone server { coord_limit_req zone=z; coord_limit_req off; }",
     qr/"coord_limit_req" directive is duplicate/],
    ["$zone server { coord_limit_req off; coord_limit_req zone=z; }",
     qr/"coord_limit_req" directive is duplicate/],
    ["$zone server { coord_limit_req off burst=1; }",
     qr/invalid parameter "off", allowed are/],
    ["$zone coord_limit_req zone=z; server { coord_limit_req off; }", ''],
    ["$zone server { coord_limit_req zone=z burst=5 delay=2 nodelay; }",
     qr/"delay=" and "nodelay" exclude each other/],
    ["coord_limit_conn_zone \$arg_k zone=c; server { coord_limit_req zone=c; }",
     qr/unknown zone "c" in .*: that of .*nginx.conf:\d+ is one of "coord_limit_conn_zone", not/],

    # names that would break keys, fields or JSON
    (map { [ "coord_limit_req_zone \$arg_k 'zone=$_:1m' rate=1r/s;",
             qr/invalid zone name in "zone=.*printable ASCII/ ] }
         'a"b', 'a\\\\b', 'a{b', 'a}', "a\tb", "caf\xc3\xa9"),
    ['coord_limit_req_zone $arg_k "zone=a b.c-d_e/f@g<h>:1m" rate=1r/s;', ''],
    ["$zone server { coord_limit_req zone=z burst=x; }",
     qr/invalid burst value "x", it must be a number from 0/],
    ["$zone server { coord_limit_req zone=z delay=0; }",
     qr/invalid delay value "0"/],
    ["$zone server { coord_limit_req zone=z cheap; }",
     qr/invalid parameter "cheap", allowed are/],
    ["$zone server { coord_limit_req zone=z on_failure=maybe; }",
     qr/invalid value "maybe" in "on_failure=", it must be "open"/],
    ["$window server { coord_limit_req zone=w burst=5; }",
     qr/"burst=" is not allowed with zone "w" in .*nginx.conf:\d+/],
    ["$window server { coord_limit_req zone=w delay=5; }",
     qr/"delay=" is not allowed with zone "w"/],
    ['coord_limit_req_zone $arg_k zone=z rate=1r/s algorithm=token_bucket;'
     . 'server { coord_limit_req zone=z burst=5 delay=2; }',
     qr/only "leaky_bucket" delays requests/],

    # all that a request asks for has to fit into one transaction
    [many(16), ''],
    [many(17), qr/too many "coord_limit_req" in one place, at most 16/],

    # a zone may be used before it is declared
    ["server { coord_limit_req zone=z burst=5; } $zone", ''],
    ["$zone coord_limit_req zone=z; coord_on_failure local; "
     . 'coord_limit_headers legacy; server { location / { '
     . 'coord_limit_req zone=z burst=1 delay=1 on_failure=closed; } }', ''],
);

for my $case (@cases) {
    my ($http, $message) = @$case;

    my $out = $t->conf_error(http => $http);

    if ($message eq '') {
        is($out, '', "accepted: $http");

    } else {
        like($out, $message, "refused: $http");
        like($out, qr/\[emerg\]/, '.. by nginx -t');
    }
}


# secrets: neither nginx -T nor an error shows a password

spew($t->file('pass'), "s3cret-in-file\nsecond line\n");
chmod 0644, $t->file('pass');

my $n = $t->node(name => 'secret', http => <<'EOF');
    coord_store one { server redis://app:s3cret%2Din-url@127.0.0.1:1; }
    coord_store two { server redis://127.0.0.1:1; username u;
                      password_file %%TESTDIR%%/pass; }
EOF

my $out = join '', `@{[$t->binary]} -T -c @{[$n->file('nginx.conf')]} 2>&1`;
like($out, qr/redis:\/\/app:\*+\@127/, 'nginx -T hides the password of a URL');
unlike($out, qr/s3cret/, 'no secret in nginx -T');
like($out, qr/password file ".*pass" is open to everybody/,
     'a warning about the mode of the file');

spew($t->file('empty'), "\n");
like($t->conf_error(http => 'coord_store s { server redis://127.0.0.1; '
                            . "password_file @{[$t->file('empty')]}; }"),
     qr/no password in the first line/, 'an empty password file');

# a key of geo whose value looks like a variable, in the file of the zone

my %geo = (
    'default $binary_remote_addr;' => 1,
    '10.0.0.0/8 "";  default "${binary_remote_addr}";' => 1,
    "ranges; # default \$uri;\n 10.0.0.0-10.255.255.255 a\\;b; default c;" => 0,
    'default 1; proxy 127.0.0.1; 127.0.0.0/8 2;' => 0,
);

my $nodes = 0;

for my $text (sort keys %geo) {
    for my $use ('geo $here', 'geo $arg_a $here', 'geo $there',
                 'map $uri $here')
    {
        next if $use =~ /^map/ && $text !~ /^default \$/;

        my $n = $t->node(name => 'geo' . ++$nodes, http => <<"EOF");
            $use { $text }
            map \$uri \$@{[$use =~ /there/ ? 'here' : 'there']} { default 1; }
            coord_limit_req_zone \$here\$host zone=z:1m rate=1r/s;
            @{["# a file of several buffers\n" x 500]}
            server { listen 127.0.0.1:%%PORT%%; }
EOF
        my ($good, $out) = $n->check;
        my $warned = $out =~ /\[warn\].* those of "\$here" that begin with "\$"/;

        ok($good, "$use { $text }: allowed") or diag($out);
        is($warned ? 1 : 0, $geo{$text} && $use =~ /^geo.*\$here/ ? 1 : 0,
           "$use { $text }: warned of, or not") or diag($out);
    }
}

done_testing();


sub many {
    my ($n) = @_;

    return join(' ', map({ "coord_limit_req_zone \$arg_k zone=m$_:1m rate=1r/s;" }
                         1 .. $n),
                'server {', map({ "coord_limit_req zone=m$_;" } 1 .. $n), '}');
}
