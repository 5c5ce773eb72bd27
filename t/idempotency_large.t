#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency: large responses.  Who has all of one and asks again at
# once, on another node, finds it stored; the end of it does not wait for a
# store that does not answer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use Coord::Util qw(spew);
use Time::HiRes qw(time);

my $t = Coord->new;
my $redis = $t->redis;

my %body = map { $_ => join '', map { chr(97 + ($_ * 7) % 26) } 1 .. $_ }
           (1_000, 6_000, 20_000, 70_000, 300_000, 1_000_000);

my $origin = $t->origin(default => sub {
    my ($req) = @_;
    my ($size) = $req->{path} =~ /(\d+)$/;

    # until the test says so
    select(undef, undef, undef, 0.01)
        while $req->{path} =~ /frozen/ && !-e $t->file("go$size");

    return { body => $body{$size},
             $req->{path} =~ /chunked/ ? (chunked => 50_000) : (),
             $req->{path} =~ /fields/
                 ? (headers => [ 'X-Large' => 'x' x 6000 ]) : () };
});

my %opt = (workers => 2, http => <<'EOC');
    coord_store main { server %%REDIS%%; timeout 2s; connect_timeout 5s; }
    coord_idempotency on;
    coord_idempotency_scope off;
    coord_idempotency_max_response 2m;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        location / { proxy_pass http://%%ORIGIN%%; }
        location /unbuffered { proxy_buffering off;
                               proxy_pass http://%%ORIGIN%%; }
        location /gzip { gzip on; gzip_types *; gzip_proxied any;
                         proxy_pass http://%%ORIGIN%%; }
        location /fields { proxy_buffers 8 16k; proxy_buffer_size 16k;
                           coord_idempotency_max_response 16k;
                           proxy_pass http://%%ORIGIN%%; }
        location /fields/unbuffered { proxy_buffers 8 16k; proxy_buffer_size 16k;
                                      proxy_buffering off;
                                      coord_idempotency_max_response 16k;
                                      proxy_pass http://%%ORIGIN%%; }
        location = /ready { coord_idempotency off; empty_gif; }
    }
EOC

my @node = map { $t->node(name => $_, %opt)->start } qw(a b);

my $n = 0;

for my $way ('', '/unbuffered', '/chunked', '/gzip') {
    for my $size (sort { $a <=> $b } grep { $_ > 4096 } keys %body) {
        my $path = "$way/$size";
        my ($bad, $again, $late) = (0, 0, 0);

        # connections are there before: the second request comes at once

        for (1 .. 10) {
            my @h = (method => 'POST', path => $path, body => 'x',
                     headers => { 'Idempotency-Key' => 'k' . ++$n,
                                  $way eq '/gzip' ? ('Accept-Encoding' => 'gzip')
                                                  : () });
            my @c = map { $_->connect } @node, @node;

            my @r = map {
                $c[$_]->send(Coord::HTTP::format(@h));
                $c[$_]->response(method => 'POST', timeout => 10)
            } 0 .. $#c;

            $bad++ if grep { $_->body ne $r[0]->body } @r;
            $again++ if grep { !$_->header('Idempotency-Replayed') } @r[1 .. 3];
            $late++ if grep { $_->status != 200 } @r;
            $bad++ if $way ne '/gzip' && $r[0]->body ne $body{$size};
            $_->close for @c;
        }

        is("$bad $again $late", '0 0 0', "$path: whole, and stored at once");
    }
}

is(scalar($origin->requests), $n, 'one execution each');


# a large record without a body, since that is larger than what is kept

for my $path ('/fields/300000', '/fields/unbuffered/300000',
              '/fields/chunked/1000000')
{
    my ($size) = $path =~ /(\d+)$/;
    my @h = (headers => { 'Idempotency-Key' => "k$path" });
    my $start = $t->ran;
    my @r = map { $_->post($path, 'x', @h, timeout => 20) } @node;

    is($r[0]->body, $body{$size}, "$path: whole");
    cmp_ok($t->ran - $start, '<', 4, 'and at once');
    is($r[1]->header('Idempotency-Replayed'), 'omitted', 'stored without it');
}


# Redis stands still between the claim and the result

my $c = $node[0]->connect;
my $seen = scalar $origin->requests('/chunked/1000000');
$c->send(Coord::HTTP::format(method => 'POST', path => '/chunked/1000000',
                             body => 'x', headers => {
                                 'Idempotency-Key' => 'frozen' }));
$t->wait_for(sub { $origin->requests('/chunked/1000000') > $seen }, 10);
$redis->freeze;
my $start = $t->ran;
my $r = $c->response(method => 'POST', timeout => 10);
kill 'CONT', $redis->{pid};
is($r->body, $body{1_000_000}, 'Redis stands still: the response is whole');
cmp_ok($t->ran - $start, '<', 3, 'and not late');
ok($t->wait_for(sub {
    $r = $node[1]->post('/chunked/1000000', 'x',
                        headers => { 'Idempotency-Key' => 'frozen' });
    $r->header('Idempotency-Replayed') }, 10), 'it is stored afterwards');
is($r->body, $body{1_000_000}, 'as a whole');


# the end of a response waits for that, unless the record is a small one; the
# origin answers when Redis stands still

for my $case ([ '/frozen/20000', 1 ], [ '/unbuffered/frozen/6000', 1 ],
              [ '/frozen/1000', 0 ])
{
    my ($path, $waits) = @$case;
    my ($size) = $path =~ /(\d+)$/;
    my @h = (headers => { 'Idempotency-Key' => "k$path" });

    my $c = $node[0]->connect;
    $c->send(Coord::HTTP::format(method => 'POST', path => $path, body => 'x',
                                 @h));
    $t->wait_for(sub { scalar $origin->requests($path) }, 10);
    $redis->freeze;
    my ($start, $ran) = (time, $t->ran);
    spew($t->file("go$size"), '');
    my $r = $c->response(method => 'POST', timeout => 10);
    my ($took, $used) = (time - $start, $t->ran - $ran);
    kill 'CONT', $redis->{pid};

    is($r->body, $body{$size}, "$path: whole");

    if ($waits) {
        cmp_ok($took, '>', 1.7, "$path: not before it is stored");
    } else {
        cmp_ok($used, '<', 1.7, "$path: does not wait");
    }

    ok($t->wait_for(sub {
        $r = $node[1]->post($path, 'x', @h);
        $r->header('Idempotency-Replayed') }, 10), "$path: stored afterwards");
    is($r->body, $body{$size}, "$path: as a whole");
    is(scalar($origin->requests($path)), 1, "$path: one execution");
}

done_testing();
