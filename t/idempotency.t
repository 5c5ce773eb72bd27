#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency on Redis and in memory: one execution, replay, refusals.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;
my $binary = join '', map { chr } 0 .. 255, 13, 10, 0, 255;

my $origin = $t->origin(routes => {
    '/binary' => { body => $binary, status => 201,
                   headers => [ 'Content-Type' => 'image/png',
                                'Location' => '/made/1', 'X-A' => 'a',
                                'X-A' => 'b', 'Set-Cookie' => 'secret=1',
                                'Keep-Alive' => 'timeout=5' ] },
    '/hops' => { body => 'b', headers => [ 'Connection' => 'x-one , X-TWO,',
                 'X-One' => 1, 'X-End' => 'end', 'X-Two' => 2,
                 'Connection' => 'x-three', 'X-Three' => 3 ] },
    '/charset' => { body => "\xc1", headers => [
                    'Content-Type' => 'text/html',
                    'X-Accel-Charset' => 'koi8-r' ] },
    '/empty' => { body => '' },
    '/none' => { status => 204 },
    '/chunked' => { body => 'chunk' x 2000, chunked => 100 },
    '/text' => { body => 'some text ' x 300,
                 headers => [ 'Content-Type' => 'text/plain; charset=utf-8',
                              ETag => '"v1"' ] },
    '/slow' => { body => 'slow', delay => 1.5 },
    '/cut' => { body => 'x' x 1000, close_at => 100 },
});

my $locations = <<'EOC';
    location / { coord_idempotency on; proxy_pass http://%%ORIGIN%%; }

    location /text {
        coord_idempotency on;
        gzip on; gzip_min_length 1; gzip_types text/plain;
        add_header X-Added added;
        proxy_pass http://%%ORIGIN%%;
    }

    location /cookie {
        coord_idempotency on;
        coord_idempotency_pass_header Set-Cookie;
        coord_idempotency_hide_header X-A;
        proxy_pass http://%%ORIGIN%%/binary;
    }

    location /required {
        coord_idempotency required;
        coord_idempotency_doc_url https://example.com/idempotency;
        proxy_pass http://%%ORIGIN%%;
    }

    location /charset {
        coord_idempotency on;
        charset utf-8;
        proxy_pass http://%%ORIGIN%%;
    }

    location /small {
        coord_idempotency on;
        coord_idempotency_max_response 1000;
        proxy_pass http://%%ORIGIN%%;
    }

    location /wait/ {
        coord_idempotency on;
        coord_idempotency_wait 20s;
        proxy_pass http://%%ORIGIN%%/;
    }

    location /limited {
        coord_idempotency on;
        client_max_body_size 1k;
        proxy_pass http://%%ORIGIN%%;
    }

    location /tempfile {
        coord_idempotency on;
        client_body_buffer_size 1k;
        client_max_body_size 10m;
        proxy_pass http://%%ORIGIN%%;
    }

    location /put {
        coord_idempotency on;
        coord_idempotency_methods PUT;
        proxy_pass http://%%ORIGIN%%;
    }

    location /gif {
        coord_idempotency on;
        coord_idempotency_methods GET;
        empty_gif;
    }
EOC

for my $store ('redis', 'memory') {
    my $http = ($store eq 'redis' ? 'coord_store main { server %%REDIS%%; '
                                    . 'timeout 30s; connect_timeout 30s; }' : '')
        . <<'EOC' . "server { listen 127.0.0.1:%%PORT%%; $locations }";
    charset_map koi8-r utf-8 { C1 D0B0; }
    log_format status '$uri $coord_idempotency_status';
    coord_idempotency_scope all$http_authorization;
    access_log %%NODEDIR%%/status.log status;
EOC

    my $n = $t->node(name => $store, workers => 2, http => $http)->start;

    subtest $store => sub { common($n, $store) };
    $n->stop;
}


my $serial;

sub key { return [ 'Idempotency-Key' => "k" . ++$serial, @_ ] }


sub common {
    my ($n, $store) = @_;


    # replay

    for my $path ('/binary', '/empty', '/none', '/chunked', '/cookie',
                  '/x?status=404', '/x?status=302')
    {
        $origin->reset_counters;

        my $h = key();
        my $first = $n->post($path, 'body', headers => $h);
        my $second = $n->post($path, 'body', headers => $h);

        ok($first->{complete} && $second->{complete}, "$path: complete");
        is($first->header('Idempotency-Replayed'), undef, "$path: first");
        is($second->header('Idempotency-Replayed'), 'true', "$path: replay");
        is($second->status, $first->status, "$path: status");
        is($second->body, $first->body, "$path: body");
        is($second->header('Content-Length'), length($first->body),
           "$path: length") if $path ne '/none';
        is($second->header('Transfer-Encoding'), undef, "$path: framing");
        is($origin->count, 1, "$path: once");

        my @differ = grep {
            !/^(?:date|content-length|transfer-encoding|set-cookie|x-a)$/
            && ($first->header($_) || '') ne ($second->header($_) || '')
        } keys %{$first->{headers}};

        is("@differ", '', "$path: headers");
    }

    my $h = key();
    my $r;
    $n->post('/binary', 'b', headers => $h);
    $r = $n->post('/binary', 'b', headers => $h);
    is($r->body, $binary, 'binary body');
    is($r->status, 201, 'status');
    is($r->header('Content-Type'), 'image/png', 'type');
    is($r->header('X-A'), 'a, b', 'repeated field');
    like($r->header('Location'), qr!/made/1$!, 'Location');
    is($r->header('Set-Cookie'), undef, 'no Set-Cookie');
    is($r->header('Keep-Alive'), undef, 'no field of the connection');

    $h = key();
    $n->post('/hops', 'b', headers => $h);
    $r = $n->post('/hops', 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', 'fields that are named');
    is($r->header("X-$_"), undef, "in Connection: X-$_") for qw(One Two Three);
    is($r->header('X-End'), 'end', 'others are kept');

    $h = key();
    my $charset = $n->post('/charset', 'b', headers => $h);
    $r = $n->post('/charset', 'b', headers => $h);
    is($charset->header('Content-Type'), 'text/html; charset=koi8-r',
       'X-Accel-Charset');
    is($r->header('Content-Type'), 'text/html; charset=koi8-r',
       'X-Accel-Charset, replayed');

    $h = key();
    $n->get('/gif', headers => $h);
    $r = $n->get('/gif', headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', 'made by nginx: replay');
    is($r->header('Last-Modified'), 'Mon, 28 Sep 1970 06:00:00 GMT',
       'made by nginx: Last-Modified');
    is(length $r->body, 43, 'made by nginx: body');
    $r = $n->get('/gif', headers => [ @$h,
                 'If-Modified-Since' => 'Mon, 28 Sep 1970 06:00:00 GMT' ]);
    is($r->status, 200, 'conditions are for the first run');

    $h = key();
    $n->post('/cookie', 'b', headers => $h);
    $r = $n->post('/cookie', 'b', headers => $h);
    is($r->header('Set-Cookie'), 'secret=1', 'Set-Cookie passed');
    is($r->header('X-A'), undef, 'X-A hidden');


    # through the output filters again

    $h = key('Accept-Encoding' => 'gzip');
    my $first = $n->post('/text', 'b', headers => $h);
    my $second = $n->post('/text', 'b', headers => $h);
    is($second->header('Content-Encoding'), 'gzip', 'gzip');
    is($second->header('X-Added'), 'added', 'add_header');
    is($second->body, $first->body, 'gzip, body');
    is($second->header('ETag'), 'W/"v1"', 'gzip weakens the ETag');

    (undef, undef, my @plain) = @$h;
    $r = $n->post('/text', 'b', headers => [ @$h[0, 1] ]);
    is($r->body, 'some text ' x 300, 'replayed without gzip');
    is($r->header('Content-Type'), 'text/plain; charset=utf-8', 'charset');
    is($r->header('ETag'), '"v1"', 'ETag as it was');


    # keys

    $origin->reset_counters;
    $n->post('/k', 'b', headers => [ 'Idempotency-Key' => 'quoted' ]);
    $r = $n->post('/k', 'b', headers => [ 'Idempotency-Key' => '"quoted"' ]);
    is($r->header('Idempotency-Replayed'), 'true', 'quoted key is the same');
    $r = $n->post('/k', 'b', headers => [ 'Idempotency-Key' => '"q\\"\\\\"' ]);
    is($r->status, 200, 'escapes');
    $r = $n->post('/k', 'b', headers => [ 'Idempotency-Key' => 'q"\\' ]);
    is($r->header('Idempotency-Replayed'), 'true', 'escapes mean themselves');

    for my $good ('k' x 255, '"' . ('q' x 255) . '"',
                  '"' . ('\\"' x 255) . '"')
    {
        is($n->post('/k', 'b', headers => [ 'Idempotency-Key' => $good ])
             ->status, 200, 'key of 255 bytes');
    }

    # space around a value is none of it, space within one is

    $n->post('/k', 'b', headers => [ 'Idempotency-Key' => 'sp ace' ]);

    for my $same ("\t  sp ace\t ", '"sp ace"', ' "sp ace" ') {
        $r = $n->post('/k', 'b', headers => [ 'Idempotency-Key' => $same ]);
        is($r->header('Idempotency-Replayed'), 'true', "the same: $same");
    }

    for my $other ('space', '" sp ace"', 'sp  ace', 'Sp ace') {
        $r = $n->post('/k', 'b', headers => [ 'Idempotency-Key' => $other ]);
        is($r->status, 200, "another: $other");
        is($r->header('Idempotency-Replayed'), undef, "runs: $other");
    }

    my $executed = $origin->count;

    for my $bad ('', '""', 'k' x 256, '"' . ('q' x 256) . '"',
                 '"' . ('\\"' x 256) . '"', '"a", "b"', '"a" b', "a\x7f",
                 "\"a\x{e4}\"", "a\tb", "a\x{c3}\x{a4}", '"open',
                 '"a";p=1', '"a"b', '"a\\b"')
    {
        $r = $n->post('/k', 'b', headers => [ 'Idempotency-Key' => $bad ]);
        is($r->status, 400, 'bad key: ' . substr($bad, 0, 10));
        is(decode_json($r->body)->{code}, 'invalid-key', 'code');
    }

    for my $twice ([ 'a', 'a' ], [ 'a', 'b' ], [ '"a"', '' ]) {
        $r = $n->post('/k', 'b', headers => [
                 map { ('Idempotency-Key' => $_) } @$twice ]);
        is($r->status, 400, "two lines: @$twice");
        is(decode_json($r->body)->{code}, 'invalid-key', 'code');
    }

    $r = $n->post('/required', 'b');
    is($r->status, 400, 'required');
    is($r->header('Content-Type'), 'application/problem+json', 'problem');
    is(decode_json($r->body)->{code}, 'missing-key', 'missing-key');
    is(decode_json($r->body)->{title}, 'Idempotency-Key is missing', 'title');
    is($r->header('Link'), '<https://example.com/idempotency>; '
       . 'rel="describedby"', 'Link');

    is($origin->count, $executed, 'refused requests are not executed');

    is($n->post('/k', 'b')->status, 200, 'no key');
    is($n->get('/k', headers => key())->status, 200, 'GET');
    is($origin->count, $executed + 2, 'not protected');


    # methods

    $h = key();
    $n->request('PUT', '/put', body => 'b', headers => $h);
    $r = $n->request('PUT', '/put', body => 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', 'PUT');
    $h = key();
    $n->post('/put', 'b', headers => $h);
    $r = $n->post('/put', 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), undef, 'POST not listed');


    # another request

    $h = key();
    $first = $n->post('/m', 'one', headers => $h);

    for my $other (sub { $n->post('/m', 'two', headers => $h) },
                   sub { $n->post('/m?a=1', 'one', headers => $h) },
                   sub { $n->post('/other', 'one', headers => $h) },
                   sub { $n->request('PATCH', '/m', body => 'one',
                                     headers => $h) },
                   sub { $n->post('/m', 'one', headers => [
                             @$h, 'Content-Type' => 'text/plain' ]) })
    {
        $r = $other->();
        is($r->status, 422, 'mismatch');
        is(decode_json($r->body)->{code}, 'fingerprint-mismatch', 'code');
    }

    $r = $n->post('/m', 'one', headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', 'record unharmed');
    is($r->body, $first->body, 'and its body');

    $r = $n->post('/m', 'one', headers => $h, host => 'other');
    is($r->header('Idempotency-Replayed'), 'true',
       'another name of the same server');

    $r = $n->post('/m', 'one', headers => [ @$h, Authorization => 'other' ]);
    is($r->status, 200, 'another scope');
    is($r->header('Idempotency-Replayed'), undef, 'executes');


    # in flight

    $origin->reset_counters;
    $h = key();
    my @r = $n->parallel(200, '/slow', method => 'POST', body => 'b',
                         headers => $h);
    is(scalar(grep({ $_->status == 200 } @r)), 1, 'one of 200');
    is(scalar(grep({ $_->status == 409 } @r)), 199, 'others conflict');
    is($origin->count('/slow'), 1, 'one execution');
    my ($conflict) = grep { $_->status == 409 } @r;
    is(decode_json($conflict->body)->{code}, 'conflict', 'code');
    cmp_ok($conflict->header('Retry-After'), '<=', 3,
           'Retry-After: as long as it runs, not as its lease');
    cmp_ok($conflict->header('Retry-After'), '>=', 1, 'Retry-After');
    $r = $n->post('/slow', 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', 'replay afterwards');

    $origin->reset_counters;
    $h = key();
    @r = $n->parallel(20, '/wait/slow', method => 'POST', body => 'b',
                      headers => $h);
    is(scalar(grep({ $_->status == 200 && $_->body eq 'slow' } @r)), 20,
       'wait: all get it');
    is(scalar(grep({ ($_->header('Idempotency-Replayed') || '') eq 'true' }
                   @r)), 19, 'wait: 19 replays');
    is($origin->count('/slow'), 1, 'wait: one execution');

    $h = key();
    my $conn = $n->connect;
    $conn->send(Coord::HTTP::format(method => 'POST', path => '/slow',
                                    body => 'b', headers => $h));
    $t->wait_for(sub { $origin->count('/slow') == 2 }, 10);
    $r = $n->post('/slow', 'different', headers => $h);
    is($r->status, 422, 'mismatch in flight');
    is($conn->response('POST', 10)->status, 200, 'its twin goes on');
    $r = $n->post('/slow', 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', 'and is stored');


    # released

    for my $status (500, 502, 503, 504, 408, 409, 423, 425, 429) {
        $origin->reset_counters;
        $h = key();
        is($n->post("/x?status=$status", 'b', headers => $h)->status, $status,
           "status $status") for 1, 2;
        is($origin->count, 2, "released by $status");
    }

    $origin->reset_counters;
    $h = key();
    $n->post('/cut', 'b', headers => $h) for 1, 2;
    is($origin->count, 2, 'a cut response is not stored');


    # too large to be kept

    $origin->reset_counters;
    $h = key();
    $r = $n->post('/small?size=300000', 'b', headers => $h);
    is(length $r->body, 300000, 'large: all of it for the first');
    $r = $n->post('/small?size=300000', 'b', headers => $h);
    is($r->status, 200, 'large: status');
    is($r->body, '', 'large: no body');
    is($r->header('Idempotency-Replayed'), 'omitted', 'large: omitted');
    is($origin->count, 1, 'large: once');

    for my $size (999, 1000) {
        $h = key();
        $n->post("/small?size=$size&chunked=7", 'b', headers => $h);
        $r = $n->post("/small?size=$size&chunked=7", 'b', headers => $h);
        is($r->body, 'x' x $size, "kept: $size");
    }


    # bodies

    $origin->reset_counters;
    my $big = join '', map { chr(rand 256) } 1 .. 100_000;
    $h = key();
    is($n->post('/tempfile', $big, headers => $h)->status, 200, 'temp file');
    $r = $n->post('/tempfile', $big, headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', 'temp file: replay');
    substr($big, 99_000, 1) = chr(ord(substr($big, 99_000, 1)) ^ 1);
    is($n->post('/tempfile', $big, headers => $h)->status, 422,
       'temp file: one bit makes a difference');
    substr($big, 99_000, 1) = chr(ord(substr($big, 99_000, 1)) ^ 1);
    my ($req) = reverse $origin->requests('/tempfile');
    ok($req->{body} eq $big, 'temp file: the upstream gets it');

    my $chunked = sprintf("%x\r\n%s\r\n0\r\n\r\n", length $big, $big);
    $r = $n->post('/tempfile', $chunked, headers => [ @$h,
                  'Transfer-Encoding' => 'chunked' ]);
    is($r->header('Idempotency-Replayed'), 'true', 'chunked is the same');

    $h = key();
    is($n->post('/limited', 'x' x 2000, headers => $h)->status, 413,
       'too large');
    is($n->post('/limited', sprintf("%x\r\n%s\r\n0\r\n\r\n", 2000,
                'x' x 2000), headers => [ @$h,
                'Transfer-Encoding' => 'chunked' ])->status, 413,
       'too large, chunked');
    is($n->post('/limited', 'x', headers => $h)->status, 200,
       'and nothing claimed');

    $conn = $n->connect;
    $conn->send("POST /tempfile HTTP/1.1\r\nHost: localhost\r\n"
                . "Connection: close\r\nIdempotency-Key: expect\r\n"
                . "Content-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    like($conn->read(10), qr/^HTTP\/1.1 100 /, '100-continue');
    $conn->send('body');
    is($conn->response('POST', 10)->status, 200, '100-continue: response');


    # log

    my $all = '- CONFLICT INVALID MISMATCH MISSING NEW REPLAYED';
    my $seen;

    $t->wait_for(sub {
        my %status = map { $_ => 1 } map { (split)[1] }
                     split /\n/, Coord::Util::slurp($n->file('status.log'));

        $seen = join(' ', sort keys %status);
        return $seen eq $all;
    }, 5);

    is($seen, $all, 'values of $coord_idempotency_status');
    like($n->log, qr/idempotency:\ replaying\ response\ by\ zone
                    \ "idempotency",\ client:\ .*,\ key:\ [0-9a-f]{8},
                    \ outcome:\ REPLAYED,\ store:\ /x, 'log line');
    unlike($n->log, qr/quoted/, 'no key in the log');
}


my $r = $redis->connect;
my @keys = @{$r->command('KEYS', '*')};
ok(scalar(grep({ m!^coord:id:idempotency:\{~[0-9a-f]{32}\}(?::r)?$! } @keys)),
   'keys');
is(join(' ', grep { $r->command('PTTL', $_) == -1 } @keys), '',
   'all keys expire');

done_testing();
