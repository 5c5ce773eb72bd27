#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# "make demo" shows what it says: the curl lines that it prints are run.

use strict;
use warnings;

use FindBin;
use Test::More;

local $ENV{DEMO_ONCE} = 1;

my $out = `$^X -I $FindBin::Bin/lib $FindBin::Bin/../examples/demo.pl 2>&1`;

is($?, 0, 'the demo as a check');
like($out, qr/^demo: ok$/m, 'its lines') or diag($out);

{
    local $ENV{TOPOLOGY} = 'cluster';

    $out = `$^X -I $FindBin::Bin/lib $FindBin::Bin/../examples/demo.pl 2>&1`;

    is($?, 0, 'the demo with a cluster');
    like($out, qr/^demo: ok$/m, 'its lines') or diag($out);
}

done_testing();
