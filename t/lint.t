#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The sources keep their form, and the checker sees what does not.

use strict;
use warnings;

use File::Path qw(make_path);
use File::Temp qw(tempdir);
use FindBin;
use Test::More;

# only computes, and others beside it measure times
setpriority(0, 0, 10);

my $root = "$FindBin::Bin/..";
my $files = 0;
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
like(style("f()\n{\n" . "    a();\n" x 81 . "}\n"),
     qr/:2: function over 80/, 'function');
is(style("f()\n{\n" . "    a();\n" x 80 . "}\n"), '', 'function of 80');
like(style("/* a */\n" x 701), qr/:701: file over/, 'file');
is(style("/* a */\n" x 700), '', 'file of 700');
like(style("#include <ngx_http.h>\n"), qr/:1: .*HTTP/, 'layer');
is(style("#include <ngx_http.h>\n", 'ngx_http_coord_x.c'), '', 'HTTP layer');
like(style("#include <hiredis/read.h>\n"), qr/:1: hiredis/, 'hiredis');
like(style("f()\n{\n    sleep(1);\n}\n"), qr/:3: a call that blocks/, 'sleep');



# folders, calls and contracts: files of a small tree, by name

sub structure {
    my (%files) = @_;

    my $top = "$dir/tree" . ++$files;

    for my $name (keys %files) {
        my ($folder) = $name =~ m{^(.*)/};

        make_path("$top/$folder");
        open(my $fh, '>', "$top/$name") or die "$top/$name: $!";
        print $fh $files{$name};
        close $fh;
    }

    my $out = `$^X $root/.ci/lint --structure $top`;
    $out =~ s/^\Q$top\E\///mg;

    return $out;
}

# a function that calls others, as nginx writes it

sub function {
    my ($name, @calls) = @_;

    return "void\n$name(void)\n{\n" . join('', map { "    $_();\n" } @calls)
           . "}\n";
}

my @folders = qw(base redis store http lock status);

for my $n (1 .. $#folders) {
    my ($low, $high) = @folders[$n - 1, $n];

    is(structure("$low/l.h" => '', "$high/h.h" => "#include \"l.h\"\n",
                 "$high/h.c" => function('h', 'l'),
                 "$low/l.c" => function('l')), '', "$high/ uses $low/");
    is(structure("$high/h.h" => '', "$low/l.h" => "\n#include \"h.h\"\n"),
       "$low/l.h:2: h.h is not below this folder\n",
       "$low/ does not include $high/");
    is(structure("$high/h.c" => function('h'),
                 "$low/l.c" => function('l', 'h')),
       "$low/l.c:3: h() is not below this folder\n",
       "$low/ does not call $high/");
}

is(structure('lock/l.h' => '', 'session/s.h' => "#include \"l.h\"\n"),
   "session/s.h:1: l.h is not below this folder\n",
   'a feature does not include another');
is(structure('lock/l.c' => function('l'),
             'session/s.c' => function('s', 'l')),
   "session/s.c:3: l() is not below this folder\n",
   'a feature does not call another');
is(structure('http/h.h' => "#define m(a)  \\\n    l(a)\n",
             'lock/l.c' => function('l'),
             'session/s.c' => function('s', 'm')),
   "session/s.c:3: l() is not below this folder\n", 'nor by a macro');
is(structure('http/h.h' => "/* m */\nstatic ngx_inline " . function('m', 'l'),
             'lock/l.c' => function('l'),
             'session/s.c' => function('s', 'm')),
   "session/s.c:3: l() is not below this folder\n", 'nor by an inline');
is(structure('lock/l.c' => function('l'),
             'session/s.c' => "static " . function('l')
                              . function('s', 'l', 'a.l', 'a->l')
                              . "/* l(); */\nx[] = { l };\n"),
   '', 'other things of that name, tables and comments are no calls');

my %circle = ('http/a.c' => function('a', 'b'),
              'http/b.c' => function('b', 'c'));

is(structure(%circle, 'http/c.c' => function('c')), '', 'no cycle');
is(structure(%circle, 'http/c.c' => function('c', 'a')),
   "http/a.c:3: in a call cycle\n    a() calls b() of b.c\n"
   . "http/b.c:3: in a call cycle\n    b() calls c() of c.c\n"
   . "http/c.c:3: in a call cycle\n    c() calls a() of a.c\n",
   'a cycle of three files');
is(structure('http/a.c' => function('a', 'b'),
             'http/b.c' => function('b', 'a')),
   "http/a.c:3: in a call cycle\n    a() calls b() of b.c\n"
   . "http/b.c:3: in a call cycle\n    b() calls a() of a.c\n",
   'a cycle of two files');
is(structure('http/a.c' => function('a', 'b'),
             'http/b.c' => "int\nb(void)\n{\n    p->f = a;\n}\n"),
   "http/a.c:3: in a call cycle\n    a() calls b() of b.c\n"
   . "http/b.c:3: in a call cycle\n    b() calls a() of a.c\n",
   'a cycle through a handler');
is(structure('redis/ngx_coord_redis_conn.c' => function('a', 'b'),
             'redis/ngx_coord_redis_io.c' => function('b', 'a')), '',
   'a connection and its reading and writing are one');

for my $folder (qw(http lock status)) {
    for my $name (qw(ngx_coord_redis_push ngx_coord_memory_run)) {
        is(structure("$folder/a.c" => function('a', $name)),
           "$folder/a.c:4: $name is no business of this folder\n",
           "$name in $folder/");
    }
}

is(structure('http/a.h' => "#include \"ngx_coord_redis.h\"\n"),
   "http/a.h:1: ngx_coord_redis is no business of this folder\n",
   'the header of a store in http/');
is(structure('http/a.c' => "/* ngx_coord_redis_push */\n"), '',
   'a comment may say it');
is(structure('store/a.c' => function('a', 'ngx_coord_redis_push')), '',
   'store/ may know it');

is(structure('base/a.h' => "/* what */\nint f(int a,\n    int b);\nint g();\n"
                           . "\n/*\n * what\n */\n\nint h();\n"
                           . "\nextern int  a[];\nextern int (*f)(int);\n"
                           . "\n\ntypedef struct {\n    int  (*p)(void);\n"
                           . "} a_t;\n\n\n#define A(x)  f(x)\n"), '',
   'contracts');
is(structure('base/a.h' => "/* what */\nint f();\n\nint g(int a,\n"
                           . "    int b);\n"),
   "base/a.h:4: no contract for g\n", 'a function without one');
is(structure('base/a.h' => "/* a */\n#define A  1\n\nint g();\n"),
   "base/a.h:4: no contract for g\n", 'that of a constant is none');
is(structure('base/a.h' => "typedef int (*g_pt)(void);\n"),
   "base/a.h:1: no contract for g_pt\n", 'a type of functions without one');


# the sources; a machine without git sees as much

my $out = `cd $root && $^X .ci/lint --quick`;
is($?, 0, 'the sources are clean') or diag($out);
like($out, qr/^lint: clean, \d+ open, \d{3,} sources, \d{3,} texts$/m,
     'they were looked at');
diag("$1 open") if $out =~ /, ([1-9]\d*) open,/;

mkdir "$dir/bin";
open(my $fh, '>', "$dir/bin/git") or die "$dir/bin/git: $!";
print $fh "#!/bin/sh\nexit 127\n";
close $fh;
chmod 0755, "$dir/bin/git";

$out = `cd $root && PATH=$dir/bin:\$PATH $^X .ci/lint --quick`;
is($?, 0, 'they are so without git') or diag($out);
like($out, qr/^lint: clean, \d+ open, \d{3,} sources, \d{3,} texts$/m,
     'and were looked at');

done_testing();
