#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# What a fencing number is for: a request that had the lock and writes after it
# has run out is refused by an upstream that remembers the highest number.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;

# the second node reaches Redis through one that can be frozen

my $relay = $t->fake_redis(upstream => $redis->{port});

# what is written, and the highest number seen, by what is locked

my (%value, %highest);

my $origin = $t->origin(routes => {
    '/fenced' => sub {
        my ($req) = @_;
        my $k = $req->{args}{k};
        my $token = $req->{headers}{'x-token'}[0] || 0;

        return { status => 412, body => "stale $token" }
            if $token <= ($highest{$k} || 0);

        $highest{$k} = $token;
        $value{$k} = $req->{body};

        return { body => $token };
    },
    '/unfenced' => sub {
        my ($req) = @_;
        $value{$req->{args}{k}} = $req->{body};
        return { body => $req->{headers}{'x-token'}[0] };
    },
    '/value' => sub { return { body => $value{$_[0]{args}{k}} } },
});

my $http = <<'EOF';
    coord_store main { server %%SERVER%%; timeout 2s; connect_timeout 5s;
                       breaker failures=3 cooldown=200ms; }
    coord_lock_zone $arg_k zone=one:1m lease=1s;

    server {
        listen 127.0.0.1:%%PORT%%;
        client_body_timeout 100s;
        location = /status { coord_status; }
        location / {
            coord_lock zone=one wait=30s on_failure=closed;
            proxy_set_header X-Token $coord_lock_token;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOF

my $n1 = $t->node(name => 'a', http => $http,
                  vars => { SERVER => $t->vars->{REDIS} })->start;
my $n2 = $t->node(name => 'b', http => $http,
                  vars => { SERVER => $t->vars->{FAKE} })->start;

# locks that the node itself knows to have: Redis has granted them before that

sub held {
    my ($node) = @_;
    my $status = decode_json($node->get('/status?format=json')->body);
    my ($zone) = grep { $_->{zone} eq 'one' } @{$status->{zones}};
    return $zone->{leases};
}

# has the lock, and its write is on the way: the end of the body is missing

sub begin {
    my ($node, $path, $body) = @_;
    my $c = $node->connect;
    $c->send("POST $path HTTP/1.1\r\nHost: a\r\nContent-Length: "
             . length($body) . "\r\n\r\n" . substr($body, 0, -1));
    return $c;
}

sub value { Coord::HTTP::request(port => $origin->port,
                                 path => "/value?k=$_[0]")->body }

is($n1->post('/fenced?k=0', 'first')->status, 200, 'the first write');
is($n2->post('/fenced?k=0', 'second')->status, 200, 'the next one');
is(value(0), 'second', 'both were taken');


# a holder that does not renew: its process stands still, or its connection to
# Redis does; the other node has the lock then

my ($worker) = $n1->workers;

my @ways = (
    ['stopped', $n1, $n2, sub { kill 'STOP', $worker },
     sub { kill 'CONT', $worker }],
    ['frozen', $n2, $n1, sub { $relay->freeze }, sub { $relay->thaw }],
);

for (@ways) {
    my ($way, $holder, $other, $halt, $go_on) = @$_;
    my %c;

    ok($t->wait_for(sub { held($holder) == 0 }, 10), "$way: has no lock");

    for my $path (qw(fenced unfenced)) {
        $c{$path} = begin($holder, "/$path?k=$way-$path", 'late');
        ok($t->wait_for(sub { held($holder) == keys %c }, 10),
           "$way: has the lock, $path");
    }

    $halt->();

    for my $path (qw(fenced unfenced)) {
        my $res = $other->post("/$path?k=$way-$path", 'new', timeout => 30);
        is($res->status, 200, 'another one has it when it has run out');
        is(value("$way-$path"), 'new', 'and writes');
    }

    # what does not come to Redis does not keep the request from going on

    $go_on->() if $way eq 'stopped';
    $c{$_}->send('e') for keys %c;

    my $res = $c{fenced}->response(timeout => 20);
    is($res->status, 412, 'the late write is refused');
    is(value("$way-fenced"), 'new', 'what was written stays');
    my ($old) = $res->body =~ /^stale (\d+)$/;
    my ($new) = map { $_->{headers}{'x-token'}[0] }
                grep { $_->{args}{k} eq "$way-fenced" && $_->{body} eq 'new' }
                $origin->requests('/fenced');
    cmp_ok($new, '>', $old || $new, 'its number was lower');

    is($c{unfenced}->response(timeout => 20)->status, 200,
       'an upstream that does not look takes it');
    is(value("$way-unfenced"), 'late', 'and has lost a write');

    $go_on->();

    ok($t->wait_for(sub {
        ($res = $holder->post("/fenced?k=$way-fenced", 'last'))->status == 200
    }, 20), 'with a new number it writes again');
    cmp_ok($res->body, '>', $new, 'the highest');
    is(value("$way-fenced"), 'last', 'as it should be');
}

done_testing();
