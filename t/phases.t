#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The place of the limits among the handlers of their phase: behind realip,
# wherever its directives stand, and behind the stock limits; and what a
# client that sends "Expect: 100-continue" hears of a refusal.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
$t->redis;

my $origin = $t->origin;
my %stores = (redis => '', memory => 'store=local');

my $realip = 'set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For;';
my %http;

# features by what they do with a second request of one address, while the
# first goes on where that is needed

my %features = (
    limit_req => [429, 'coord_limit_req zone=req_%s;', 0],
    limit_conn => [429, 'coord_limit_conn conn_%s 1;', 1],
    lock => [423, 'coord_lock zone=lock_%s;', 1],
);

for my $where (qw(http server location)) {
    my ($zones, $locations) = ('', '');

    for my $store (sort keys %stores) {
        my $s = "${where}_$store";

        $zones .= "coord_limit_req_zone \$binary_remote_addr zone=req_$s "
            . "rate=1r/h $stores{$store};\n"
            . "coord_limit_conn_zone \$remote_addr zone=conn_$s "
            . "$stores{$store};\n"
            . "coord_lock_zone \$remote_addr zone=lock_$s $stores{$store};\n"
            . "coord_session_zone \$remote_addr zone=session_$s "
            . "$stores{$store};\n";

        my $here = $where eq 'location' ? $realip : '';

        for my $name (sort keys %features) {
            my $limit = sprintf $features{$name}[1], $s;

            $locations .= "location /$name/$store { $here $limit "
                          . "proxy_pass http://%%ORIGIN%%; }\n";
        }

        # which of two addresses a session belongs to shows its value

        $locations .= "location /session/$store { $here "
            . "coord_session zone=session_$s bind=\$remote_addr; "
            . "add_header X-Value \$coord_session_value; empty_gif; }\n";
    }

    my ($in_http, $in_server) = ('', '');
    $in_http = $realip if $where eq 'http';
    $in_server = $realip if $where eq 'server';

    $http{$where} = $t->node(name => $where, http => <<"EOF")->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    $in_http
    $zones
    server {
        listen 127.0.0.1:%%PORT%%;
        $in_server
        $locations
    }
EOF
}

# all at once: requests that hold something take a second

sub ask {
    my @addresses = @_;
    my (@sets, @requests, %status);

    for my $where (sort keys %http) {
        for my $store (sort keys %stores) {
            for my $name (sort keys %features) {
                my $path = "/$name/$store"
                           . ($features{$name}[2] ? '?delay=1' : '');

                for my $address (@addresses) {
                    push @sets, "$name, $store, realip in $where";
                    push @requests, $http{$where}->req($path,
                        headers => { 'X-Forwarded-For' => $address });
                }
            }
        }
    }

    my @r = $t->parallel(\@requests);

    push @{$status{$sets[$_]}}, $r[$_]->status for 0 .. $#sets;

    return \%status;
}

my $each = ask(map { "10.0.0.$_" } 1 .. 3);
my $same = ask(('10.0.0.9') x 2);

for my $set (sort keys %$each) {
    my ($name) = $set =~ /^(\w+)/;

    is("@{$each->{$set}}", '200 200 200', "$set: each address its own");
    is(join(' ', sort @{$same->{$set}}), "200 $features{$name}[0]",
       "$set: one address is one");
}

for my $where (sort keys %http) {
    for my $store (sort keys %stores) {
        for my $address (qw(10.0.0.1 10.0.0.2)) {
            my $r = $http{$where}->get("/session/$store",
                        headers => { 'X-Forwarded-For' => $address });
            is($r->header('X-Value'), $address,
               "session, $store, realip in $where: $address");
        }
    }
}


# a stock limit beside ours: what it refuses is not counted by ours

my $locations = '';
my $own = '';

for my $store (sort keys %stores) {
    $own .= "coord_limit_req_zone all zone=req_$store rate=100r/m "
        . "algorithm=fixed_window $stores{$store};\n"
        . "coord_limit_conn_zone all zone=conn_$store $stores{$store};\n"
        . "limit_req_zone all zone=stock_$store:64k rate=1r/m;\n";

    $locations .= "location /req/$store { "
        . "limit_req zone=stock_$store; limit_req_status 509; "
        . "coord_limit_req zone=req_$store; empty_gif; "
        . "add_header X-Left \$coord_limit_req_remaining always; }\n"
        . "location /left/$store { coord_limit_req zone=req_$store; "
        . "empty_gif; add_header X-Left \$coord_limit_req_remaining; }\n"
        . "location /conn/$store { limit_conn slots 1; limit_conn_status 509; "
        . "coord_limit_conn conn_$store 1; proxy_pass http://%%ORIGIN%%; }\n"
        . "location /expect/$store { client_max_body_size 1m; "
        . "coord_limit_req zone=refused_$store; "
        . "proxy_pass http://%%ORIGIN%%; }\n"
        . "location /key/$store { coord_idempotency required; "
        . "coord_idempotency_store "
        . ($store eq 'memory' ? 'local' : 'main') . "; "
        . "proxy_pass http://%%ORIGIN%%; }\n";

    $own .= "coord_limit_req_zone all zone=refused_$store rate=1r/h "
            . "$stores{$store};\n";
}

my $n = $t->node(name => 'beside', http => <<"EOF")->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    limit_conn_zone \$uri zone=slots:64k;
    $own
    server {
        listen 127.0.0.1:%%PORT%%;
        $locations
    }
EOF

for my $store (sort keys %stores) {
    my %seen;

    $seen{$n->get("/req/$store")->status}++ for 1 .. 11;

    is_deeply(\%seen, { 200 => 1, 509 => 10 }, "$store: the stock limit");
    is($n->get("/left/$store")->header('X-Left'), 98,
       "$store: only what it let pass is counted");

    my @r = $t->parallel([map { $n->req("/conn/$store?delay=1") } 1 .. 3]);

    is(join(' ', sort map { $_->status } @r), '200 509 509',
       "$store: stock limit_conn refuses first");
}


# Expect: 100-continue

for my $store (sort keys %stores) {
    is($n->get("/expect/$store")->status, 200, "$store: the only place");

    for my $case (["/expect/$store", 429], ["/key/$store", 400]) {
        my ($path, $status) = @$case;
        my $c = $n->connect;

        $c->send("POST $path HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
                 . "Expect: 100-continue\r\nConnection: close\r\n\r\n");

        like($c->read(10), qr/^HTTP\/1\.1 $status /,
             "$path: the final status, no 100");
        $c->close;
    }
}

done_testing();
