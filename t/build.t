#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What "config" asks for and what leaves the shared object.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(slurp spew);

use Cwd qw(abs_path);
use File::Copy qw(copy);

# only computes, and others beside it measure times
setpriority(0, 0, 10);

my $t = Coord->new;
my $root = abs_path("$FindBin::Bin/..");
my ($tree) = grep { -f "$_/auto/feature" }
             glob("$root/build/tree/nginx"), glob("$root/build/tree/*"),
             '/usr/share/nginx/src';

ok($t->module, 'the module is built') or BAIL_OUT('run make');


# the shared object

my $nm = `nm -D --defined-only @{[$t->module]}`;
is(join(' ', sort $nm =~ / [A-Z] (\w+)(?:@|$)/mg),
   'ngx_module_names ngx_module_order ngx_modules',
   'three symbols leave the shared object');

my ($good, $out) = $t->node(name => 'empty')->check;
ok($good, 'loads with no directive and no Redis') or diag($out);

my $conf = slurp("$root/config");
like($conf, qr/ngx_module_name="ngx_http_coord_module /,
     'the first name is that of the file');


# config, as configure runs it

sub configure {
    my ($dir, $link, %env) = @_;

    my $work = $t->file('configure' . ++$t->{configures});
    my $source = delete $env{source} || $tree;
    my $ld = delete $env{ld} || '';
    mkdir $work;

    my $script = spew("$work/run", <<"END");
cd $source
NGX_AUTOTEST=$work/autotest
NGX_AUTOCONF_ERR=$work/autoconf.err
NGX_AUTO_CONFIG_H=$work/auto_config.h
NGX_INCLUDE_UNISTD_H='#include <unistd.h>'
NGX_RPATH=NO
OPENSSL=NONE
CC=cc
NGX_TEST_LD_OPT=$ld
ngx_addon_dir=$dir
ngx_module_link=$link
. $dir/config
echo "names:" \$ngx_http_coord_module_MODULES \$HTTP_AUX_FILTER_MODULES
echo "libs:" \$ngx_http_coord_module_LIBS \$CORE_LIBS
END

    local @ENV{keys %env} = values %env;

    my $text = `sh $script 2>&1`;

    return ($? >> 8, $text);
}

my ($rc, $text) = configure($root, 'DYNAMIC');
is($rc, 0, 'dynamic: accepted') or diag($text);
like($text, qr/^names: ngx_http_coord_module ngx_http_coord_limit_req_module/m,
     'dynamic: names');
like($text, qr/^libs:.*-lhiredis.*-lcrypto.*exports\.map/m, 'dynamic: libs');

($rc, $text) = configure($root, 'ADDON');
is($rc, 0, 'static: accepted') or diag($text);
like($text, qr/^names: ngx_http_coord_module ngx_http_coord_limit_req_module/m,
     'static: names');
like($text, qr/^libs:.*-lhiredis.*-lcrypto/m, 'static: libs');
unlike($text, qr/exports\.map/, 'static: no version script');

($rc, $text) = configure($root, 'DYNAMIC',
                         COORD_HIREDIS_LIBS => '-lno_such_library');
isnt($rc, 0, 'no hiredis: stops');
like($text, qr/requires the hiredis library.*libhiredis-dev/s,
     'no hiredis: remedy');

($rc, $text) = configure($root, '');
isnt($rc, 0, 'a very old nginx: stops');
like($text, qr/needs nginx 1\.22\.0/, 'a very old nginx: remedy');

my $old = $t->file('old');
mkdir "$old$_" for '', '/src', '/src/core';
symlink("$tree/auto", "$old/auto") or die "$old/auto: $!";

for my $version (1021006, 1022000) {
    spew("$old/src/core/nginx.h", "#define nginx_version      $version\n");
    ($rc, $text) = configure($root, 'DYNAMIC', source => $old);

    if ($version < 1022000) {
        isnt($rc, 0, "nginx $version: stops");
        like($text, qr/needs nginx 1\.22\.0/, "nginx $version: remedy");

    } else {
        is($rc, 0, "nginx $version: accepted") or diag($text);
    }
}

# a linker that wants to see what the script names, as lld does

($rc, $text) = configure($root, 'DYNAMIC', ld => '-Wl,--no-undefined-version');
like($text, qr/^libs:.*exports\.map/m, 'a strict linker: a version script');

my $copy = $t->file('copy');
mkdir "$copy$_" for '', '/ngx_coord_module', '/lua-free-scripts',
                    map { substr($_, length $root) }
                        glob "$root/ngx_coord_module/*/";

for my $file (map { glob "$root/$_" } 'config', 'ngx_coord_module/*.map',
              'ngx_coord_module/*/*', 'lua-free-scripts/*')
{
    copy($file, $copy . substr($file, length $root)) or die "$file: $!";
}

($rc, $text) = configure($copy, 'DYNAMIC');
is($rc, 0, 'a copy is accepted') or diag($text);

my $script = "$copy/lua-free-scripts/gcra_open.redis";
(my $changed = slurp($script)) =~ s/\bPEXPIRE\b/EXPIRE/;
isnt($changed, slurp($script), 'an operation is changed');
spew($script, $changed);

($rc, $text) = configure($copy, 'DYNAMIC');
isnt($rc, 0, 'table out of step: stops');
like($text, qr/out of step.*generate\.sh/s, 'table out of step: remedy');



# the options of a source tree: our own, those that it was configured with,
# those of the binary

my $src = $t->file('src');
mkdir "$src$_" for '', '/objs', '/src', '/src/core';
spew("$src/configure", '');
chmod 0755, "$src/configure";
my $nginx = $t->file('nginx');

sub binary {
    my ($version) = @_;

    spew($nginx, "#!/bin/sh\necho 'nginx version: nginx/$version' >&2\n"
         . "echo 'configure arguments: --with-c=\"d e\" --add-module=f' >&2\n");
    chmod 0755, $nginx;
}

sub flags {
    local @ENV{qw(NGINX_SRC NGINX_BINARY SANITIZE)} = ($src, @_, '');
    return `$root/.ci/nginx-tree --flags 2>&1`;
}

spew("$src/src/core/nginx.h", "#define NGINX_VERSION      \"1.22.1\"\n");
like(flags(''), qr/^--with-compat$/m, 'a plain tree: our options');

spew("$src/objs/ngx_auto_config.h",
     "#define NGX_CONFIGURE \" --with-a --with-cc-opt='-DB -g' "
     . "--add-dynamic-module=/m --with-x=dynamic\"\n");
is(flags(''), "--with-a\n--with-cc-opt=-DB -g\n",
   'a configured tree: its options');

binary('1.22.1');
is(flags($nginx), "--with-c=d e\n", 'a binary: its options');

binary('1.22.0');
like(flags($nginx), qr/error: \S+ is nginx 1\.22\.0, but not /,
     'a binary of another version');

done_testing();
