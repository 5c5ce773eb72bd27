#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A request that a limit of a later phase refuses: what those before it let it
# have is given back, and nothing is charged for it.  Nor is what Redis counts
# when the request has been refused for want of its answer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(default => sub { { delay => $_[0]{args}{d} || 0 } });

my %later = (
    rate => 'coord_limit_req zone=none burst=9 nodelay after_auth;',
    conn => 'coord_limit_conn none $arg_n after_auth;',
    body => 'coord_limit_conn none $arg_n after_body;',
    lock => 'coord_lock zone=none;',
);

my %before = (
    before => '',
    after => 'charge=after cost=3',
    reserve => 'reserve=4 cost=3',
);

sub conf {
    my ($store) = @_;

    my $locations = '';

    for my $later (sort keys %later) {
        $locations .= "location /$later/$_ {"
                      . " coord_limit_req zone=z $before{$_};"
                      . " coord_limit_conn held 9;"
                      . " $later{$later} proxy_pass http://%%ORIGIN%%; }\n"
            for sort keys %before;
    }

    return <<"EOF";
        $store
        coord_limit_req_zone \$arg_k zone=z:1m rate=10r/h
                             algorithm=fixed_window;
        coord_limit_req_zone \$arg_k zone=none:1m rate=\$arg_n\$rate;
        coord_limit_conn_zone \$arg_k zone=held:1m;
        coord_limit_conn_zone \$arg_k zone=none:1m;
        coord_lock_zone \$arg_l zone=none:1m;
        map \$arg_n \$rate { default r/s; "" ""; }

        server {
            listen 127.0.0.1:%%PORT%%;
            $locations
            location /dry/ {
                coord_limit_conn_dry_run on;
                coord_limit_req zone=z charge=after cost=3;
                coord_limit_conn none \$arg_n after_auth;
                proxy_pass http://%%ORIGIN%%;
            }
            location /coord/ { coord_api; }
        }
EOF
}

my %node = (
    redis => [map { $t->node(name => $_, workers => 2,
                             http => conf('coord_store main { server '
                                        . '%%REDIS%%; timeout 30s; connect_timeout 30s; }'))->start }
              qw(a b)],
    memory => [$t->node(name => 'm', workers => 2, http => conf(''))->start],
);

sub left {
    my ($n, $key) = @_;
    return $n->get("/coord/limits/z/$key")->body
           =~ /"remaining": ?(\d+)/ ? $1 : '';
}

sub held {
    my ($n, $key) = @_;
    return $n->get("/coord/conns/held/$key")->body =~ /"current": ?[1-9]/;
}

sub becomes {
    my ($n, $key, $want, $name) = @_;
    my $left;
    $t->wait_for(sub { $left = left($n, $key); $left == $want }, 10);
    is($left, $want, $name);
}


for my $store (sort keys %node) {
    my ($one, $two) = @{$node{$store}}[0, -1];

    for my $later (sort keys %later) {
        my $hold;

        if ($later eq 'lock') {
            $hold = $two->connect;
            $hold->send("GET /lock/before?l=$store&d=60 HTTP/1.1\r\n"
                      . "Host: a\r\n\r\n");
            $t->wait_for(sub { grep { ($_->{args}{l} || '') eq $store }
                                    $origin->requests('/lock/before') }, 5);
        }

        for my $before (sort keys %before) {
            my $key = "$later-$before";
            my $name = "$store: $before, $later";
            my $path = "/$later/$before?k=$key";

            is($one->get("$path&l=free$later$before&n=9")->status, 200,
               "$name: passes");
            becomes($two, $key, $before eq 'before' ? 9 : 7,
                    "$name: and is counted");
            ok($t->wait_for(sub { !held($two, $key) }, 10),
               "$name: and has ended");
            my $r = $one->get("$path&l=$store&n=0");
            is($r->status, $later eq 'lock' ? 423 : 429, "$name: is refused");

            # told as it is then, not as it was while the request had it

            like($r->header('RateLimit'),
                 $before eq 'before' ? qr/^"z";r=9;/ : qr/^"z";r=7;/,
                 "$name: the refusal tells what is left");
            like($r->header('RateLimit'), qr/, "held";r=9(,|$)/,
                 "$name: and how many may come beside");

            # given back behind the answer: over the other worker the next
            # one could be there before it

            becomes($two, $key, $before eq 'before' ? 9 : 7,
                    "$name: what was reserved is given back");

            # the first one's lock is released behind its answer

            is($one->get("$path&l=next$later$before&n=9")->status, 200,
               "$name: the next one passes");
            becomes($two, $key, $before eq 'before' ? 8 : 4,
                    "$name: and is not");
        }

        $hold->close if $hold;
    }

    is($one->get('/dry/?k=dry&n=0')->status, 200, "$store: dry run");
    becomes($two, 'dry', 7, "$store: is counted");
}



# no answer in time, but one later

my @alg = qw(leaky_bucket token_bucket fixed_window sliding_window sliding_log);

my $late = $t->node(name => 'late', http => join '',
    'coord_store main { server %%REDIS%%; timeout 1s; connect_timeout 30s; }',
    (map { "coord_limit_req_zone \$arg_k zone=$_:1m rate=10r/h algorithm=$_;\n" }
         @alg),
    'server { listen 127.0.0.1:%%PORT%%; location /coord/ { coord_api; }',
    (map { my $policy = $_;
           "location /$policy { coord_on_failure $policy; empty_gif; "
           . join('', map { "coord_limit_req zone=$_ "
                            . (/bucket/ ? 'burst=9 ' : '')
                            . (/leaky/ ? 'nodelay' : '') . ';' } @alg)
           . "}\n" } qw(open closed)),
    '}')->start;

sub rest {
    my ($key) = @_;
    return join ' ', map { $late->get("/coord/limits/$_/$key")->body
                           =~ /"remaining": ?(\d+)/ ? $1 : '?' } @alg;
}

for (['closed', 503, '9 9 9 9 9'], ['open', 200, '8 8 8 8 8']) {
    my ($policy, $status, $want) = @$_;

    is($late->get("/$policy?k=$policy")->status, 200, "$policy: an answer");

    $redis->freeze;
    my $r = $late->get("/$policy?k=$policy");
    kill 'CONT', $redis->{pid};

    is($r->status, $status, "$policy: none in time");

    my $rest;
    $t->wait_for(sub { ($rest = rest($policy)) eq $want }, 5);
    is($rest, $want, "$policy: what was refused is not counted, what went on is");
}

done_testing();
