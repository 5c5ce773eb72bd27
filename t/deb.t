#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What "make deb" makes: the package of this Debian release.  That it installs
# and purges is tried by "make deb-check", which needs chroots.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp);

use Cwd qw(abs_path);

# only computes, and others beside it measure times
setpriority(0, 0, 5);

my $root = abs_path("$FindBin::Bin/..");
my $src = '/usr/share/nginx/src/debian/libnginx-mod.abisubstvars';

plan(skip_all => 'not a Debian with nginx-dev') if !-e $src;
plan(skip_all => 'debhelper is not installed')
    if system('which dh dpkg-buildpackage dh_nginx > /dev/null 2>&1') != 0;
plan(skip_all => 'another nginx is tested')
    if $ENV{NGINX_SRC} || $ENV{TEST_SANITIZE};

my $t = Coord->new(time_limit => 800);
my $dir = $t->file('deb');

# with the compiler of the release: dwz does not read what all of them write

delete $ENV{CC};

my $out = `cd $root && packaging/deb $dir 2>&1`;
is($?, 0, 'the package is built') or do { diag($out); done_testing(); exit };

my ($deb) = glob("$dir/libnginx-mod-http-coord_*.deb");
ok($deb, 'libnginx-mod-http-coord');


my ($version) = slurp("$root/CHANGES") =~ /ngx_coord_module (\S+)/;
is(`dpkg-deb -f $deb Version`, "$version-1\n", 'the version of CHANGES');

my ($abi) = slurp($src) =~ /nginx:abi=(\S+)/;
like(`dpkg-deb -f $deb Depends`, qr/(^|, )\Q$abi\E(,|$)/,
     "depends on the binary interface of nginx: $abi");
like(`dpkg-deb -f $deb Depends`, qr/libhiredis/, 'and on hiredis');

my $list = `dpkg-deb -c $deb`;
like($list, qr{ \./usr/lib/nginx/modules/ngx_http_coord_module\.so$}m,
     'the module');
like($list, qr{ \./usr/share/nginx/modules-available/mod-http-coord\.conf$}m,
     'what loads it');
like($list, qr{ \./usr/share/doc/libnginx-mod-http-coord/examples/\w+\.conf$}m,
     'the examples');
unlike($list, qr{/usr/(?:local|src)/|\./etc/}, 'and nothing out of place');

my $warnings = join("\n", $out =~ /^(.*warning:.*ngx_coord.*)$/mg);
is($warnings, '', 'built with the flags of Debian without a warning');


my $tree = $t->file('tree');
system("dpkg-deb -x $deb $tree");
my $module = "$tree/usr/lib/nginx/modules/ngx_http_coord_module.so";

is(slurp("$tree/usr/share/nginx/modules-available/mod-http-coord.conf"),
   "load_module modules/ngx_http_coord_module.so;\n", 'load_module');

my $headers = `readelf -lWd $module 2>&1`;
like($headers, qr/GNU_RELRO/, 'hardened: relro');
like($headers, qr/BIND_NOW|\bNOW\b/, 'hardened: bindnow');

my $a = $t->node(name => 'packaged', conf => "load_module $module;\n"
                                           . <<'EOF')->start;
events { }
http {
    coord_limit_req_zone $arg_k zone=one:1m rate=1r/m;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { coord_limit_req zone=one; empty_gif; }
    }
}
EOF

is($a->get('/?k=1')->status, 200, 'its module admits');
is($a->get('/?k=1')->status, 429, 'and refuses');

done_testing();
