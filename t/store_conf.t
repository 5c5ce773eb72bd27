#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What "nginx -t" tells of a store: where, what to write, and no secret.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;


# every message names the file and the line of "server", once

sub told {
    my ($server, $http) = @_;

    return $t->conf_error(http => "\n\n    coord_store s {\n        timeout 50ms;\n"
                                  . "        server $server;\n    }\n"
                                  . ($http || ''));
}


my $said = told('redis://no.such.host.invalid');
like($said,
     qr/\[emerg\] host not found in server "\S+" of store "s" in \S+:\d+$/m,
     'a host that is not found');
my ($line) = $said =~ /invalid" of store "s" in \S+:(\d+)/;
my ($wrong) = told('redis://127.0.0.1/x') =~ /invalid database .*:(\d+)$/m;
is($line, $wrong, 'in the line of "server"');

$said = told('redis://backend', 'upstream backend { server 127.0.0.1:1; }');
like($said, qr/host not found in server "backend"/, 'the name of an upstream');
like($said, qr/write the address of the server, like "redis:/,
     'what to write in its place');
unlike(told('redis://backend'), qr/upstream/, 'not where there is none');

for my $line ('mode cluster;', 'mode sentinel=m;', 'ssl_verify off;') {
    like($t->conf_error(http => "coord_store s { $line }"),
         qr/store "s" has "mode" or "ssl_..." but no "server" in \S+:\d+$/m,
         "$line, without a server");
}

my $node = $t->node(name => 'resolver', http => <<'EOC');
    resolver 127.0.0.1:1;
    upstream backend { server 127.0.0.1:1; }
    coord_store s { server redis://backend; }
EOC
my ($good, $out) = $node->check;
ok($good, 'with a resolver the name may be known later');
like($out, qr/\[warn\].*write the address of the server.* in \S+:\d+$/m,
     'but it is told');


# a line that stands twice, a part of the block in another file

for my $twice ('timeout 1s; timeout 2s;', 'key_prefix a; key_prefix a;',
               'mode cluster; mode cluster;',
               'breaker failures=1; breaker cooldown=1s;')
{
    my ($name) = split / /, $twice;
    like($t->conf_error(http => "coord_store s { server redis://127.0.0.1:1; "
                              . "$twice }"),
         qr/"$name" of store "s" is duplicate in \S+:\d+$/m, "twice: $name");
}

open my $part, '>', $t->dir . '/store.part' or die $!;
print $part "server redis://:s3cret\@127.0.0.1:1;\ntimeout 20ms;\n";
close $part;

$node = $t->node(name => 'part', http => <<'EOC');
    coord_store s { include %%TESTDIR%%/store.part; max_pending 10; }
EOC
($good, $out) = $node->check;
ok($good, 'include');
my $all = `@{[$t->binary]} -T -c @{[$node->file('nginx.conf')]} 2>&1`;
like($all, qr/redis:\/\/:\*+\@127/, 'nginx -T prints it');
unlike($all, qr/s3cret/, 'without its password');
like($t->conf_error(http => 'coord_store s { include %%TESTDIR%%/store.part; '
                          . 'timeout 1s; }'),
     qr/"timeout" of store "s" is duplicate/, 'its lines are of the block');
like($t->conf_error(http => 'coord_store s { include a b; }'),
     qr/unknown directive "include"|invalid number of arguments/,
     'include of what is no file');


# times

sub warned {
    my ($text) = @_;

    my $n = $t->node(name => 'n' . ++$line, http => <<"EOC");
    coord_store s { server redis://127.0.0.1:1; $text }
EOC
    my ($ok, $print) = $n->check;

    return $ok ? $print : "refused: $print";
}

like(warned('timeout 50;'), qr/\[warn\] .*timeout "50" of store "s" .*50000ms/,
     '50 is 50 seconds');
like(warned('timeout 1001ms;'), qr/\[warn\]/, 'more than a second');
unlike(warned('timeout 1s;'), qr/warn|refused/, 'a second');
unlike(warned('connect_timeout 5s;'), qr/warn|refused/, 'nobody waits for it');


# percent-encoding

for my $user (':p%zz', ':p%4', ':p%', 'u%g0:p', '%:p') {
    like(told("\"redis://$user\@127.0.0.1:1\""),
         qr/invalid percent-encoding .* of store "s"/, "refused: $user");
}

is(told('redis://u%2f:p%25%40@127.0.0.1:1'), '', 'accepted: valid ones');


# several lines: one user, one database

for my $mode ('sentinel=m', 'cluster') {
    my $said = sub {
        return $t->conf_error(http => "coord_store s { mode $mode;\n"
                                      . join('', map { "server redis://$_;\n" }
                                             @_)
                                      . '}');
    };

    like($said->('a:one@127.0.0.1:1', 'b:two@127.0.0.1:2'),
         qr/"s" has one user or password in \S+:\d+ and another one in \S+:\d+/,
         "$mode: two users");
    like($said->('a:one@127.0.0.1:1', '127.0.0.1:3', 'a:two@127.0.0.1:2'),
         qr/has one user or password in \S+:\d+ and another one/,
         "$mode: two passwords");
    unlike($said->('a:s3cret@127.0.0.1:1', 'a:t3ll@127.0.0.1:2'),
           qr/s3cret|t3ll/, "$mode: which are not told");
    is($said->('a:one@127.0.0.1:1', '127.0.0.1:2', 'a:one@127.0.0.1:3'), '',
       "$mode: the same user, or none");
    like($said->('127.0.0.1:1/0', '127.0.0.1:2', '127.0.0.1:3/4'),
         qr/"s" has the database 0 in \S+:(\d+) and the database 4 in \S+:\d+/,
         "$mode: two databases");
}

is($t->conf_error(http => 'coord_store s { mode sentinel=m; '
                          . 'server redis://127.0.0.1:1; '
                          . 'server redis://127.0.0.1:2/3; }'), '',
   'the database of the master in one of them');


# secrets: what is quoted in the file is quoted in what nginx -T prints

for my $password ('s3cret\\"tail', 's3cret\\\\tail', '\\\\', 's3cret\\\'tail',
                  's3\\tcret', 'e', ':s3cret:', 's3cret@tail', '\\"')
{
    my $n = $t->node(name => 'hide' . ++$line, http => <<"EOC");
    # a line of many words and an e: kept
    coord_store s { server "redis://app:$password\@127.0.0.1:1"; }
    coord_store u { server redis://:other\@127.0.0.1:1; }
EOC
    my $print = `@{[$t->binary]} -T -c @{[$n->file('nginx.conf')]} 2>&1`
        if $n->check;
    my $dir = $t->dir;
    $print =~ s/\Q$dir\E//g;

    unlike($print, qr/s3|cret|tail|:other/, "hidden: $password");
    like($print, qr/redis:\/\/app:\*+\@127\.0\.0\.1:1"/, 'all of it');
    like($print, qr/# a line of many words and an e: kept/, 'and no more');
}

done_testing();
