#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency: retries that are not the bytes of the first try, or do not
# come the way that it came: one execution, and one answer.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;
use Coord::HTTP2;
use POSIX ();

my $t = Coord->new;
my $redis = $t->redis;

my $large = join '', map { sprintf '%08d', $_ } 1 .. 60_000;

my @parts = map { [ 0.1, substr($large, 48_000 * $_, 48_000) ] } 0 .. 9;
my %answers = ('/large' => { parts => \@parts },
               '/slow' => { delay => 0.5, body => 'slow' });

my $origin = $t->origin(default => sub {
    return $answers{$_[0]{path}}
           || { status => 201, body => $_[0]{body} || 'none' };
});

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 2s; connect_timeout 5s; }
    coord_idempotency_scope off;
    coord_idempotency_methods GET POST PUT PATCH DELETE;
    coord_idempotency_wait 10s;
    client_body_buffer_size 1k;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        server_name one.example two.example *.example;
        coord_idempotency on;
        large_client_header_buffers 4 16k;

        location / { proxy_pass http://%%ORIGIN%%; }
        location /value { coord_idempotency_fingerprint $uri$http_content_digest;
                          proxy_pass http://%%ORIGIN%%; }
        location = /moved { return 308 /kept; }
        location = /moved307 { return 307 http://two.example:%%PORT%%/kept; }
    }
EOT

my ($a, $b) = map { $t->node(name => $_, workers => 2, http => $http)->start }
              qw(a b);

my $n = 0;

# two tries: what the second one gets, and how often the origin was asked

sub twice {
    my ($first, $second, $path) = @_;

    my $before = scalar $origin->requests($path);
    my @r = map { ref $_ eq 'CODE' ? $_->() : $_ } $first, $second;

    return join ' ', (map { $_->status } @r),
                     $r[1]->header('Idempotency-Replayed') || 'no',
                     scalar($origin->requests($path)) - $before;
}

sub ask {
    my ($node, $method, $path, $body, %h) = @_;

    my %opt = (timeout => 20);
    $opt{host} = delete $h{Host} if $h{Host};

    return sub { $node->request($method, $path, %opt, headers => \%h,
                                defined $body ? (body => $body) : ()) };
}

# methods

for my $m (qw(GET PUT PATCH DELETE POST)) {
    my @h = ('Idempotency-Key' => 'm' . ++$n);
    my $body = $m =~ /GET|DELETE/ ? undef : 'body';

    is(twice(ask($a, $m, "/m$m", $body, @h), ask($b, $m, "/m$m", $body, @h), "/m$m"),
       '201 201 true 1', "$m: once");
}

my @h = ('Idempotency-Key' => 'head');
is(twice(ask($a, 'HEAD', '/head', undef, @h), ask($b, 'HEAD', '/head', undef, @h), '/head'),
   '201 201 no 2', 'HEAD: left alone');

# the field's name in any case, the key's own counts, quotes do not

for my $case ([ 'IDEMPOTENCY-KEY', 'k-1', 'idempotency-key', 'k-1', 1 ],
              [ 'Idempotency-Key', '"k-2"', 'Idempotency-key', 'k-2', 1 ],
              [ 'Idempotency-Key', 'K-3', 'Idempotency-Key', 'k-3', 0 ],
              [ 'Idempotency-Key', ' "k 4"  ', 'Idempotency-Key', 'k 4', 1 ],
              [ 'Idempotency-Key', '"k\\"5"', 'Idempotency-Key', 'k"5', 1 ])
{
    my ($name, $key, $other, $again, $same) = @$case;

    is(twice(ask($a, 'POST', '/name', 'x', $name => $key),
             ask($b, 'POST', '/name', 'x', $other => $again), '/name'),
       $same ? '201 201 true 1' : '201 201 no 2', "$name: $key, $other: $again");
}

# the server by other names, and by HTTP/2

@h = ('Idempotency-Key' => 'host');
is(twice(ask($a, 'POST', '/host', 'x', @h, Host => 'one.example'),
         ask($b, 'POST', '/host', 'x', @h, Host => 'sub.example:81'), '/host'),
   '201 201 true 1', 'by another name of the server');

@h = ('Idempotency-Key' => 'absolute');
is(twice(ask($a, 'POST', '/abs', 'x', @h, Host => 'one.example'), sub {
       my $c = $b->connect;
       $c->send("POST http://two.example/abs HTTP/1.1\r\nHost: x\r\n"
                . "Idempotency-Key: absolute\r\nContent-Length: 1\r\n\r\nx");
       $c->response('POST', 10) }, '/abs'),
   '201 201 true 1', 'by an absolute URI');

{
    my $h2 = Coord::HTTP2->new(port => $b->port(2));
    my $r = ask($a, 'POST', '/h2', 'x', 'Idempotency-Key' => 'h2')->();
    my $s = $h2->ended($h2->request('/h2', method => 'POST', body => 'x',
                                    headers => ['idempotency-key' => 'h2']), 10);
    is("$s->{status} $s->{headers}{'idempotency-replayed'}", '201 true', 'by HTTP/2');
}

# the body in other pieces

@h = ('Idempotency-Key' => 'pieces');
is(twice(ask($a, 'POST', '/pieces', 'y' x 5000, @h), sub {
       my $c = $b->connect;
       $c->send("POST /pieces HTTP/1.1\r\nHost: one.example\r\nExpect: 100-continue\r\n"
                . "Idempotency-Key: pieces\r\nTransfer-Encoding: chunked\r\n\r\n");
       like($c->read(10), qr/^HTTP\/1.1 100 /, 'Expect: 100-continue');
       $c->send("1f4\r\n" . 'y' x 500 . "\r\n") for 1 .. 10;
       $c->send("0\r\n\r\n");
       $c->response('POST', 10) }, '/pieces'),
   '201 201 true 1', 'in chunks, and when it is asked for');

# multipart

sub multipart { return "--$_[0]\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n"
                       . "1\r\n--$_[0]--\r\n" }

for my $case ([ '/multi', '201 422 no 1' ], [ '/value', '201 201 true 1' ]) {
    my ($path, $want) = @$case;
    my @r = map { ask($_->[0], 'POST', $path, multipart($_->[1]),
                      'Idempotency-Key' => "multi$path",
                      'Content-Digest' => 'sha-256=:abc=:',
                      'Content-Type' => "multipart/form-data; boundary=$_->[1]") }
            [ $a, 'one' ], [ $b, 'two' ];
    is(twice(@r, $path), $want, "$path: another boundary");
}

# redirects that keep the method

for my $code (308, 307) {
    my $path = $code == 308 ? '/moved' : '/moved307';
    my @args = (qw(-L -s -o /dev/null -d x), '-w', "'%{http_code} '",
                '-H', "'Idempotency-Key: moved$code'");
    my $before = scalar $origin->requests('/kept');
    my $out = join '', map {
        my $port = $_->port;
        `curl @args --connect-to ::127.0.0.1:$port http://one.example:$port$path`
    } $a, $b;

    is($out . (scalar($origin->requests('/kept')) - $before), '201 201 1',
       "$code: once");
}

# a stream that its client resets in the middle of the response

{
    my $h2 = Coord::HTTP2->new(port => $a->port(2));
    my $id = $h2->request('/large', method => 'POST', body => 'x',
                          headers => ['idempotency-key' => 'reset']);
    ok($h2->wait(sub { length $h2->stream($id)->{body} }, 10), 'the response has begun');
    $h2->reset($id);
    my $r = ask($b, 'POST', '/large', 'x', 'Idempotency-Key' => 'reset')->();
    is(join(' ', $r->status, $r->header('Idempotency-Replayed') || 'no',
            scalar $origin->requests('/large')),
       '200 true 1', 'RST_STREAM: once');
    ok($r->body eq $large, 'whole');
    my $s = $h2->ended($h2->request('/large', method => 'POST', body => 'x',
                       headers => ['idempotency-key' => 'reset']), 10);
    ok($s->{body} eq $large, 'the connection goes on, and has it as well');
}

# while nodes reload

{
    my %got;

    for my $round (1 .. 4) {
        my @keys = map { 'reload' . ++$n } 1 .. 10;
        my @all = map { my $k = $_; map { $_->req('/slow', method => 'POST', body => 'x',
            headers => { 'Idempotency-Key' => $k }) } $a, $b, $a, $b } @keys;
        my $pid = fork() // die "fork: $!";

        if (!$pid) {
            select undef, undef, undef, 0.1;
            $_->signal('HUP') for $a, $b;
            POSIX::_exit(0);
        }

        $got{join ' ', $_->status, $_->body}++ for $t->parallel(\@all, timeout => 20);
        waitpid $pid, 0;
    }
    is_deeply(\%got, { '200 slow' => 160 }, 'while nodes reload: all have their answer');
    is(scalar($origin->requests('/slow')), 40, 'and each ran once');
}

done_testing();
