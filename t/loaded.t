#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A module that is loaded and not used changes nothing: "nginx -t" says what
# it says without the module; where it is used, its variables are found by
# name at run time as well.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;

# map variables as a busy configuration has them

my @words = qw(upstream_pool client_group cache_bypass_reason tenant
               backend_name log_this is_bot cors_origin region plan);

for my $n (0, 10, 20, 30, 40) {
    my $maps = join "", map {
        my $name = "api_$words[$_ % @words]_$_";
        "map \$uri \$$name { default $_; }\n"
    } 1 .. $n;

    my %said = map {
        my $use = $_ eq 'used' ? 'coord_idempotency on;' : '';
        my $node = $t->node(name => "maps$n$_", plain => $_ eq 'plain',
            http => "$maps server { listen 127.0.0.1:%%PORT%%; $use }");
        my ($good, $text) = $node->check;
        $text =~ s/^.*\[warn\]/[warn]/mg;
        ($_ => join '', grep { /\[warn\]/ } split /^/, $text)
    } qw(plain loaded used);

    is($said{loaded}, $said{plain}, "$n map variables: no new warning");

    # the hash grows when it is used: there may be one warning less
    ok($said{used} eq '' || $said{used} eq $said{plain},
       "$n map variables: nor when it is used") or diag($said{used});
}

my $n = $t->node(name => 'n', http => <<'EOF')->start;
    coord_limit_req_zone $arg_k zone=z rate=1r/h;
    server {
        listen 127.0.0.1:%%PORT%%;
        location / { root %%NODEDIR%%; ssi on; coord_limit_req zone=z; }
    }
EOF

$n->file('page.html');
open(my $fh, '>', $n->file('page.html')) or die $!;
print $fh 'status=<!--#echo var="coord_limit_req_status" -->';
close $fh;

is($n->get('/page.html?k=1')->body, 'status=PASSED', 'a variable by its name');

done_testing();
