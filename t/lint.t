#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The sources keep their form, and the checker sees what does not.

use strict;
use warnings;

use File::Temp qw(tempdir);
use FindBin;
use Test::More;

my $root = "$FindBin::Bin/..";
my $dir = tempdir('coord-lint-XXXXXX', TMPDIR => 1, CLEANUP => 1);

sub style {
    my ($text, $name) = @_;

    my $file = "$dir/" . ($name || 'ngx_coord_x.c');

    open(my $fh, '>', $file) or die "$file: $!";
    print $fh $text;
    close $fh;

    my $out = `$^X $root/.ci/lint --style $file`;
    $out =~ s/^\Q$dir\E\///mg;

    return $out;
}

my $good = "static int\nf(int n)\n{\n    if (n == 0) {\n        return 1;\n"
           . "    }\n\n    return n\n           + 1;\n}\n";

is(style($good), '', 'good code');
like(style("/* a */\n" . 'x' x 81 . "\n"),
     qr/^ngx_coord_x.c:2: line over 80/, 'columns');
like(style("f()\n{\n    a(); // b\n}\n"), qr/:3: \/\/ comment/, 'comment');
is(style("f()\n{\n    a(\"http://b\");\n}\n"), '', 'no comment in a string');
like(style("f()\n{\n    if(a) {\n    }\n}\n"), qr/:3: no blank/, 'keyword');
like(style("f()\n{\n    return a &&\n           b;\n}\n"),
     qr/:3: break before/, 'operator');
like(style("f()\n{\n    if (a) {\n        b();\n    } else {\n    }\n}\n"),
     qr/:5: no empty line before else/, 'else');
like(style("f()\n{\n    if ((a = b()) == c) {\n    }\n}\n"),
     qr/:3: assignment/, 'assignment');
like(style("f()\n{\n   return;\n}\n"), qr/:3: indented/, 'indent');
like(style("f()\n{\n    assert(a);\n}\n"), qr/:3: assert/, 'assert');
like(style("f()\n{\n" . "    a();\n" x 131 . "}\n"),
     qr/:2: function over 130/, 'function');
is(style("f()\n{\n" . "    a();\n" x 130 . "}\n"), '', 'function of 130');
like(style("/* a */\n" x 801), qr/:801: file over/, 'file');
like(style("#include <ngx_http.h>\n"), qr/:1: .*HTTP/, 'layer');
is(style("#include <ngx_http.h>\n", 'ngx_http_coord_x.c'), '', 'HTTP layer');
like(style("#include <hiredis/read.h>\n"), qr/:1: hiredis/, 'hiredis');
like(style("f()\n{\n    sleep(1);\n}\n"), qr/:3: a call that blocks/, 'sleep');

my $out = `cd $root && $^X .ci/lint --quick`;
is($?, 0, 'the sources are clean') or diag($out);

done_testing();
