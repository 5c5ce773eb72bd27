#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The recipes of docs/recipes.md: each file of examples/ whose header has
# commands and, behind "=>", what they print, does that, but for ports that are
# free here.  Statuses stand as they come, words in quotes are in the output.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(patient slurp);

my $root = "$FindBin::Bin/..";
my $t = Coord->new;

plan(skip_all => 'curl is missing')
    if !grep { -x "$_/curl" } split /:/, $ENV{PATH};

my @files = grep { slurp($_) =~ /^#\s+=> /m } glob "$root/examples/*.conf";
my $page = slurp("$root/docs/recipes.md");

cmp_ok(scalar @files, '>=', 7, 'recipes with commands');

for my $file (@files) {
    my ($name) = $file =~ m{([^/]+)$};

    like($page, qr{\(\.\./examples/\Q$name\E\)}, "$name: on the page");
    recipe($name, slurp($file));
}

# the page names no file that there is not, and each one but the demo's and
# that of the log

my %named = map { $_ => 1 } $page =~ m{\(\.\./examples/([^)]+)\)}g;

is(join(' ', grep { !-f "$root/examples/$_" } sort keys %named), '',
   'each link leads to a file');
is(join(' ', grep { !$named{$_} } map { m{([^/]+)$} }
        glob "$root/examples/*.conf"), 'demo.conf', 'each file is on the page');

# what the page on other modules says: as many as they admit

{
    my ($block) = slurp("$root/docs/migrate_redis_modules.md")
                  =~ /^```nginx\n(.*?)^```/ms;

    my $redis = $t->redis;
    my $origin = $t->origin;

    $block = patient($block);
    $block =~ s{redis://127\.0\.0\.1:6379}{redis://127.0.0.1:$redis->{port}};
    $block =~ s{127\.0\.0\.1:8081}{%%ORIGIN%%}g;
    $block =~ s/server \{\n/server {\n    listen 127.0.0.1:%%PORT%%;\n/;

    my $n = $t->node(name => 'others', http => $block)->start;
    my %want = (gcra => 21, bucket => 7, window => 7);

    for my $which (sort keys %want) {
        my $passed = grep { $n->get("/$which/")->status == 200 } 1 .. 25;
        is($passed, $want{$which}, "other modules: $which");
    }

    is(scalar(grep { $n->get('/block/')->status == 200 } 1 .. 4), 3,
       'other modules: a block begins');
    ok($t->wait_for(sub {
        ($n->get('/block/')->header('Retry-After') || 0) > 200
    }, 10), 'other modules: and lasts');
    ok($n->get('/bucket/')->header('X-RateLimit-Limit'),
       'other modules: fields');
}

done_testing();


# another Redis for each, so that nobody has been there

sub recipe {
    my ($name, $text) = @_;

    my $redis = $t->redis;
    my ($head) = $text =~ /\A(.*?)^load_module/ms;

    $text = patient($text =~ s{^load_module.*\n}{}mr);
    $text =~ s{redis://127\.0\.0\.1:6379}{'redis://127.0.0.1:' . $redis->{port}}ge;
    $text =~ s{127\.0\.0\.1:8080}{127.0.0.1:%%PORT%%}g;
    $text =~ s{127\.0\.0\.1:((?:80|90)\d\d)}{127.0.0.1:%%PORT_$1%%}g;

    my $n = $t->node(name => $name =~ s/\W.*//r, conf => $text)->start;
    my $port = $n->port;
    my @commands = $head =~ /^#   (\S.*)\n#   => (.*)\n/mg;

    cmp_ok(scalar @commands, '>=', 2, "$name: commands");

    while (my ($command, $want) = splice @commands, 0, 2) {
        my $run = $command =~ s/127\.0\.0\.1:8080/127.0.0.1:$port/gr;

        $run =~ s/redis-cli -p 6379/redis-cli -p $redis->{port}/;
        $run = 'cd ' . $n->dir . " && $run";

        my $out = `$run 2>&1`;
        my $status = join ' ', $out =~ /^HTTP\/1\.1 (\d+)/mg;
        my @words = $want =~ /"([^"]*)"/g;

        is($status, join(' ', $want =~ /\b(\d{3})\b(?=[^"]*(?:"[^"]*"[^"]*)*$)/g),
           "$name: $command") or diag($out);

        for my $word (@words) {
            like($out, qr/\Q$word\E/, "$name: \"$word\"");
        }
    }

    drained($n, $text) if $name eq 'drain.conf';

    $n->stop;
}


# a peer that is drained keeps its sessions and gets no new ones

sub drained {
    my ($n, $text) = @_;

    my %cookie;

    for (1 .. 40) {
        my $r = $n->get('/');
        my ($cookie) = $r->header('Set-Cookie') =~ /^(sid=[^;]+)/;

        $cookie{$r->body} ||= $cookie;
        last if keys %cookie == 2;
    }

    is(join('', sort keys %cookie), "peer one\npeer two\n", 'drain: two peers');

    my $drain = $text =~ s/(server 127\.0\.0\.1:%%PORT_9001%%)(;\s+# to drain)/$1 down$2/r;

    isnt($drain, $text, 'drain: as the comment says');
    $n->conf(conf => $drain);
    ok($n->wait_gone(60, $n->reload), 'drain: reloaded');

    my %seen;

    for (1 .. 6) {
        $seen{new}{$n->get('/')->body}++;
        $seen{old}{$n->get('/', headers => { Cookie => $cookie{"peer one\n"} })
                   ->body}++;
    }

    is_deeply(\%seen, { new => { "peer two\n" => 6 },
                        old => { "peer one\n" => 6 } },
              'drain: new ones go elsewhere, old ones stay');
}
