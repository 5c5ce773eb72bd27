#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The same script of requests through stock limit_conn and coord_limit_conn, on
# Redis and in memory: the same decisions.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(routes => { '/hold' => { delay => 60 },
                                    '/auth' => { status => 401 } });

sub server {
    my ($c) = @_;

    return <<"EOF";
    server {
        listen 127.0.0.1:%%PORT%%;
        ${c}_status 429;
        location = /one { ${c} a 1; empty_gif; }
        location = /two { ${c} a 2; ${c} b 3; empty_gif; }
        location = /hold { ${c} a 3; ${c} b 2;
                           proxy_pass http://%%ORIGIN%%; }
        location = /free { proxy_pass http://%%ORIGIN%%/hold; }
        location = /dry { ${c} a 1; ${c}_dry_run on; empty_gif; }
        location = /page { ${c} a 1; error_page 429 \@full; empty_gif; }
        location \@full { ${c} a 1; proxy_pass http://%%ORIGIN%%; }
        location /inherit { ${c} a 1; location /inherit/x { empty_gif; } }
        location = /denied { ${c} a 1; deny all; empty_gif; }
        location = /status { ${c} a 1; ${c}_status 503; empty_gif; }
    }
EOF
}

my %zones = (
    stock => 'limit_conn_zone $arg_a zone=a:1m; '
             . 'limit_conn_zone $arg_b zone=b:1m;',
    memory => 'coord_limit_conn_zone $arg_a zone=a:1m; '
              . 'coord_limit_conn_zone $arg_b zone=b:1m;',
);

$zones{redis} = "coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; } "
                . $zones{memory};

my %node = map {
    my $c = $_ eq 'stock' ? 'limit_conn' : 'coord_limit_conn';
    $_ => $t->node(name => $_, plain => $_ eq 'stock',
                   http => $zones{$_} . server($c))->start
} sort keys %zones;

# "+n path": opens connection n, "-n": closes it, "path": a whole request.
# Nothing has to be waited for: the one worker ends a request, and gives its
# place back, before it reads what follows.

my @script = (
    '/one?a=1', '/one?a=1', '/one', '/dry?a=1', '+1 /hold?a=1&b=1',
    '/one?a=1', '/one?a=2', '/one', '/two?a=1&b=1', '+2 /hold?a=1&b=1',
    '/two?a=1&b=1', '/two?a=1&b=2', '/two?a=2&b=1', '!/hold?a=1&b=1',
    '/dry?a=1', '/page?a=1', '/page?a=3', '/inherit/x?a=1', '/inherit/x?a=3',
    '/denied?a=1', '/denied?a=3', '/status?a=1', '+3 /hold?a=1&b=2',
    '!/hold?a=1&b=3', '!/hold?a=1&b=2', '/one?a=1', '-1', '/one?a=1',
    '/two?a=1&b=1', '-2', '/one?a=1', '/two?a=1&b=1', '-3', '/one?a=1',
    '/two?a=1&b=1', '/one?a=1',
);

my (%result, %open);

for my $name (sort keys %node) {
    my $node = $node{$name};

    for my $step (@script) {

        if ($step =~ /^\+(\d+) (.*)/) {
            my $held = $origin->count('/hold');
            $open{$1} = $node->connect;
            $open{$1}->send("GET $2 HTTP/1.1\r\nHost: a\r\n\r\n");
            $t->wait_for(sub { $origin->count('/hold') > $held }, 20)
                or fail("$name: $step arrives");

        } elsif ($step =~ /^-(\d+)/) {
            my $aborted = $origin->aborted;
            delete($open{$1})->close;
            $t->wait_for(sub { $origin->aborted > $aborted }, 20)
                or fail("$name: $step is noticed");

        } else {
            (my $path = $step) =~ s/^!//;
            my $r = $node->get($path, timeout => 10);
            push @{$result{$name}}, "$step " . $r->status;
        }
    }
}

is(scalar @{$result{stock}}, 30, 'the whole script');
is(scalar(grep { / 429$/ } @{$result{stock}}) > 8, 1, 'some are refused');
is_deeply($result{memory}, $result{stock}, 'memory store as stock limit_conn');
is_deeply($result{redis}, $result{stock}, 'Redis as stock limit_conn');

done_testing();
