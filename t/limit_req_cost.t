#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What a request takes of a limit: cost=, charge=after and reserve=, with every
# algorithm, on two nodes with one Redis and in the memory of one node.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect;

my $origin = $t->origin(default => sub {
    my ($req) = @_;
    my $used = $req->{args}{used};

    { status => $req->{args}{s} || 200, body => 'x' x ($req->{args}{size} || 1),
      delay => $req->{args}{d} || 0, hold => $req->{args}{held},
      headers => [defined $used ? ('X-Tokens' => $used) : ()] }
});

my %zone = (
    leaky_bucket => ['rate=1r/h', 'burst=9 nodelay'],
    token_bucket => ['rate=1r/h', 'burst=9'],
    fixed_window => ['rate=10r/h', ''],
    sliding_window => ['rate=10r/h', ''],
    sliding_log => ['rate=10r/h', ''],
);

my @algorithms = grep { !$ENV{ONLY} || /$ENV{ONLY}/ } sort keys %zone;


# what is wrong is told with what is right

my %wrong = (
    'cost=many' => qr/invalid cost value "many", it must be a number/,
    'cost=-1' => qr/invalid cost value "-1"/,
    'charge=later' => qr/"later" in "charge=", it must be "before" or "after"/,
    'reserve=5' => qr/"reserve=" needs "cost="/,
    'reserve=5 cost=$arg_c charge=after'
        => qr/"reserve=" and "charge=after" exclude each other/,
    'price=1' => qr/allowed are .*"cost=", "reserve=", "charge="/,
);

for my $text (sort keys %wrong) {
    like($t->conf_error(http => "coord_limit_req_zone \$arg_k zone=z rate=1r/s;"
                              . " coord_limit_req zone=z $text;"
                              . " server { listen 127.0.0.1:%%PORT%%; }"),
         $wrong{$text}, $text);
}


sub conf {
    my ($store) = @_;

    my $zones = join '', map {
        "coord_limit_req_zone \$arg_k zone=$_:1m $zone{$_}[0] algorithm=$_;\n"
    } sort keys %zone;

    my $locations = join '', map { my $z = "zone=$_ $zone{$_}[1]"; <<"EOF"
        location /$_/cost { coord_limit_req $z cost=\$arg_c; empty_gif; }
        location /$_/closed {
            coord_limit_req $z cost=\$arg_c on_failure=closed;
            empty_gif;
        }
        location /$_/after {
            coord_limit_req $z charge=after cost=\$upstream_http_x_tokens;
            proxy_pass http://%%ORIGIN%%;
        }
        location /$_/failures {
            coord_limit_req $z charge=after cost=\$failed;
            proxy_pass http://%%ORIGIN%%;
        }
        location /$_/reserve {
            coord_limit_req $z reserve=\$arg_r cost=\$upstream_http_x_tokens;
            proxy_pass http://%%ORIGIN%%;
        }
        location /$_/both {
            coord_limit_req $z reserve=4 cost=\$upstream_http_x_tokens;
            coord_limit_req zone=none;
            proxy_pass http://%%ORIGIN%%;
        }
        location /$_/error {
            coord_limit_req $z charge=after cost=\$failed;
            proxy_intercept_errors on;
            error_page 401 = \@failed;
            proxy_pass http://%%ORIGIN%%;
        }
EOF
    } sort keys %zone;

    return <<"EOF";
        $store
        $zones
        coord_limit_req_zone \$arg_k zone=none:1m rate=\$arg_none;
        coord_limit_req_zone \$arg_k zone=entries:1m rate=5000r/h
                             algorithm=sliding_log;
        coord_limit_req_zone \$arg_k zone=asked:1m rate=\$arg_rate
                             algorithm=sliding_log;
        coord_limit_req_zone \$arg_k zone=bytes:1m rate=1000r/h
                             algorithm=fixed_window;

        map \$status \$failed { ~^40[13] 1; default 0; }

        add_header X-Status \$coord_limit_req_status always;

        server {
            listen 127.0.0.1:%%PORT%%;
            $locations
            location /bytes {
                coord_limit_req zone=bytes charge=after cost=\$body_bytes_sent;
                proxy_pass http://%%ORIGIN%%;
            }
            location /entries {
                coord_limit_req zone=entries cost=\$arg_c on_failure=closed;
                empty_gif;
            }
            location /asked {
                coord_limit_req zone=asked cost=\$arg_c on_failure=closed;
                empty_gif;
            }
            location \@failed { return 403; }
            location /coord/ { coord_api write; }
        }
EOF
}

my %node = (
    redis => [map { $t->node(name => $_, workers => 2,
                             http => conf('coord_store main { server '
                                        . '%%REDIS%%; timeout 30s; '
                                        . 'connect_timeout 30s; }'))->start }
              qw(a b)],
    memory => [$t->node(name => 'm', workers => 2, http => conf(''))->start],
);


sub left {
    my ($n, $zone, $key) = @_;

    my ($b) = ($zone{$zone}[1] || '') =~ /burst=(\d+)/;
    my $body = $n->get("/coord/limits/$zone/$key"
                     . (defined $b ? "?burst=$b" : ''))->body;

    return $body =~ /"remaining": ?(\d+)/ ? $1 : undef;
}

sub becomes {
    my ($n, $zone, $key, $want, $name) = @_;

    my $left;

    $t->wait_for(sub { $left = left($n, $zone, $key); defined $left && $left == $want }, 10);
    is($left, $want, $name);
}

sub r { $_[0]->header('RateLimit') =~ /r=(\d+)/ ? $1 : undef }


for my $store (sort keys %node) {
    my ($one, $two) = @{$node{$store}}[0, -1];

    for my $z (@algorithms) {
        my $name = "$store: $z";

        # what takes nothing begins nothing

        $one->get("/$z/after?k=w&used=0");

        for my $path ("/$z/cost?k=w&c=0", "/$z/after?k=w&used=0",
                      "/$z/cost?k=w&c=11")
        {
            my $r = $one->get($path);
            like($r->header('RateLimit'), qr/;r=10;t=0$/,
                 "$name: $path begins nothing");
        }

        # a number of places

        my $r = $one->get("/$z/cost?k=n&c=4");

        is($r->status . ':' . r($r), '200:6', "$name: a cost of 4 of 10");
        $r = $two->get("/$z/cost?k=n&c=0");
        is($r->status . ':' . r($r), '200:6', "$name: one of 0 takes nothing");
        $r = $two->get("/$z/cost?k=n&c=7");
        is($r->status . ':' . r($r), '429:6', "$name: 7 of 6 are refused");
        cmp_ok($r->header('Retry-After'), '>', 1, "$name: Retry-After");
        $r = $one->get("/$z/cost?k=n&c=");
        is($r->status . ':' . r($r), '200:5', "$name: an empty cost is 1");
        $r = $two->get("/$z/cost?k=n&c=5");
        is($r->status . ':' . r($r), '200:0', "$name: what is left");
        is($one->get("/$z/cost?k=n&c=1")->status, 429, "$name: nothing is");
        is($one->get("/$z/cost?k=n&c=0")->status, 200,
           "$name: but what costs nothing goes on");

        # more than there ever is

        $r = $two->get("/$z/cost?k=m&c=11");
        is($r->status . ':' . r($r), '429:10', "$name: more than the capacity");
        is($r->header('Retry-After'), undef, "$name: no use to come back");
        unlike($r->body, qr/Retry-After/, "$name: nor says the document");
        ok($two->wait_log(qr/by zone "$z".*, cost: 11/, 5), "$name: is logged");
        is($one->get("/$z/cost?k=m&c=99999999999999999999")->status, 429,
           "$name: any number");
        is($one->get("/$z/cost?k=m&c=10")->status, 200, "$name: took nothing");

        # what is no number

        for my $bad ('x', '-1', '1.5', '1%20') {
            $r = $one->get("/$z/cost?k=b&c=$bad");
            is($r->status . ':' . $r->header('X-Status'), '200:BYPASSED',
               "$name: '$bad' is no cost");
            is($one->get("/$z/closed?k=b&c=$bad")->status, 503,
               "$name: '$bad' with on_failure=closed");
        }

        ok($one->wait_log(qr/invalid cost "\S+" in zone "$z"/, 5),
           "$name: it is logged");

        # charged when it is known

        $r = $one->get("/$z/after?k=a&used=3");
        is($r->status . ':' . r($r), '200:10', "$name: looked for before");
        becomes($two, $z, 'a', 7, "$name: charged after");
        $two->get("/$z/after?k=a&used=0");
        $two->get("/$z/after?k=a");
        becomes($two, $z, 'a', 6, "$name: without a value it is 1");
        is($one->get("/$z/after?k=a&used=25")->status, 200, "$name: into debt");
        becomes($two, $z, 'a', 0, "$name: nothing is left");
        $r = $two->get("/$z/after?k=a&used=1");
        is($r->status, 429, "$name: in debt");

        # 29 of 10: a window of the clock weighs 9/29 of them when 69 % of the
        # next one are over, at the earliest

        cmp_ok($r->header('Retry-After'), '>=',
               $z eq 'sliding_window' ? 2482 : 3500,
               "$name: until it has drained")
            if $z !~ /bucket/;
        cmp_ok($r->header('Retry-After'), '>', 15 * 3600,
               "$name: until it has drained")
            if $z =~ /bucket/;
        is($one->get("/$z/cost?k=a&c=0")->status, 429,
           "$name: nor goes on what costs nothing");

        # failures, wherever the request ends

        my $count = $origin->count;

        $one->get("/$z/failures?k=f") for 1 .. 12;
        is(left($two, $z, 'f'), 10, "$name: success costs nothing");
        $one->get("/$z/failures?k=f&s=401") for 1 .. 3;
        becomes($two, $z, 'f', 7, "$name: failures do");
        is($two->get("/$z/error?k=f&s=401")->status, 403, "$name: redirected");
        becomes($two, $z, 'f', 6, "$name: is charged once");

        # reserved and settled

        $r = $one->get("/$z/reserve?k=r&r=6&used=2");
        is($r->status . ':' . r($r), '200:4', "$name: reserved");
        becomes($two, $z, 'r', 8, "$name: what was not used is given back");
        $two->get("/$z/reserve?k=r&r=2&used=5");
        becomes($one, $z, 'r', 3, "$name: more than was reserved");
        $two->get("/$z/reserve?k=r&r=2");
        becomes($one, $z, 'r', 1, "$name: not told: the reservation stands");
        is($two->get("/$z/reserve?k=r&r=2")->status, 429, "$name: no room");
        is($two->get("/$z/reserve?k=r&r=11")->status, 429, "$name: never");
        becomes($one, $z, 'r', 1, "$name: the refused took nothing");

        # refused by another limit: nothing is settled

        is($two->get("/$z/both?k=o&none=0r/s")->status, 429, "$name: another");
        becomes($one, $z, 'o', 10, "$name: got back");
        $two->get("/$z/both?k=o&used=1");
        becomes($one, $z, 'o', 9, "$name: and settled where nobody refuses");

        # a client that leaves

        my ($seen, $gone) = ($origin->count, $origin->aborted);
        my $c = $one->connect;
        $c->send("GET /$z/reserve?k=g&r=7&used=1&held=1 HTTP/1.1\r\n"
               . "Host: a\r\n\r\n");
        ok($t->wait_for(sub { $origin->count > $seen }), "$name: under way");
        is(left($two, $z, 'g'), 3, "$name: reserved");
        $c->close;
        $t->wait_for(sub { $origin->aborted > $gone });
        sleep 0.3;
        is(left($two, $z, 'g'), 3,
           "$name: without an answer the reservation stands");
    }

    my $r = $one->get('/bytes?k=x&size=400');
    like($r->header('RateLimit-Policy'), qr/^"bytes";q=1000;qu="content-bytes"/,
         "$store: a quota of bytes");
    becomes($two, 'bytes', 'x', 600, "$store: what was sent is charged");
    $r = $two->get('/bytes?k=x&size=1500');
    is($r->status . ':' . r($r), '200:600', "$store: what was sent counts");
    becomes($two, 'bytes', 'x', 0, "$store: all of it");
    is($two->get('/bytes?k=x')->status, 429, "$store: until it is used up");

    # a log makes so many entries at once

    for my $log ('/entries?', '/asked?rate=5000r/h&') {
        is($one->get("${log}k=x&c=1001")->status, 429,
           "$store: $log: more entries than one command makes");
        is($one->get("${log}k=x&c=1000")->status, 200,
           "$store: $log: as many as it makes");
    }
}

my @ttl = map { $admin->command('PTTL', $_) } @{$admin->command('KEYS', '*')};
is(scalar(grep { $_ == -1 } @ttl), 0, 'every key has a life');


# a worker that leaves settles

my ($a, $b) = @{$node{redis}};

my $c = $a->connect;
$c->send("GET /fixed_window/reserve?k=q&r=7&used=1&held=1 HTTP/1.1\r\n"
       . "Host: a\r\n\r\n");
becomes($b, 'fixed_window', 'q', 3, 'under way');
$a->reload;
$origin->release('/fixed_window/reserve');
is($c->response->status, 200, 'answered by a worker that leaves');
becomes($b, 'fixed_window', 'q', 9, 'it has settled');

done_testing();
