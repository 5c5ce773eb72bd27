#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Runs the C tests of t/unit/, which "make unit" has built with sanitizers.

use strict;
use warnings;

use File::Basename qw(basename);
use FindBin;
use Test::More;

# only computes, and others beside it measure times
setpriority(0, 0, 10);

my $root = "$FindBin::Bin/..";
my $dir = $ENV{TEST_UNIT};

if (!$dir) {
    $dir = "$root/build/unit";
    is(system('make', '-s', '-C', $root, 'unit'), 0, 'make unit');
}

my @sources = grep {
    open(my $fh, '<', $_) or die "$_: $!";
    grep { /^main\(/ } <$fh>;
} glob "$FindBin::Bin/unit/*.c";

ok(scalar @sources, 'there are unit tests');

$ENV{CMOCKA_MESSAGE_OUTPUT} = 'stdout';
$ENV{UBSAN_OPTIONS} = 'print_stacktrace=1';

for my $source (@sources) {
    my $name = basename($source, '.c');
    my $out = `cd $root && timeout 300 $dir/$name 2>&1`;
    my $status = $?;

    my $passed = () = $out =~ /^\[\s+OK \]/mg;
    my ($n) = $out =~ /^\[\s+PASSED\s+\] (\d+) test/m;

    ok($status == 0 && ($n || 0) > 0, "$name: " . ($n || $passed) . ' tests')
        or diag("status $status\n$out");
}

done_testing();
