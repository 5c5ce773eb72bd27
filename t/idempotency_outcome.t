#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency: whose a key is, and which responses are outcomes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;

use JSON::PP;
use MIME::Base64 qw(encode_base64);

my $t = Coord->new;
$t->redis;

my $final = "HTTP/1.1 201 Created\r\nConnection: close\r\n"
            . "Content-Length: 4\r\n\r\nmade";

my $origin = $t->origin(routes => {
    '/hints' => { raw => "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
                         . $final },
    '/continue' => { raw => "HTTP/1.1 100 Continue\r\n\r\n" . $final },
    '/processing' => { raw => "HTTP/1.1 102 Processing\r\n\r\n" . $final },
    '/all' => { raw => "HTTP/1.1 100 Continue\r\n\r\n"
                       . "HTTP/1.1 102 Processing\r\n\r\n"
                       . "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
                       . $final },
    '/socket' => { status => 101, headers => [ Upgrade => 'echo' ],
                   parts => [ [ 0, 'hello' ], [ 30, 'bye' ] ],
                   until_close => 1 },
    '/whole' => sub {
        my ($req) = @_;
        my @seen = grep { /^(?:range|if-)/ } sort keys %{$req->{headers}};

        return { body => "seen: @seen" };
    },
    '/web' => sub {
        my ($req) = @_;
        my $args = $req->{args};

        my $body = web($args->{message} || 'a message', $args->{trailer});
        $body = substr($body, 0, -1) if $args->{cut};
        $body = encode_base64($body, '') if $args->{type} =~ /text/;

        my $type = $args->{type} =~ s/%2b/+/r;

        return { headers => [ 'Content-Type' => "application/$type",
                              defined $args->{header}
                              ? ('Grpc-Status' => $args->{header}) : () ],
                 body => defined $args->{header} ? '' : $body };
    },
    '/fields' => sub {
        my $h = $_[0]{headers};

        return { body => join ' ', (map { $h->{"x-$_"}[0] || '-' } 1 .. 30),
                                   $h->{range} ? 'range' : () };
    },
});

my $http = <<'EOF';
    log_format status '$uri $coord_idempotency_status';
    access_log %%NODEDIR%%/status.log status;
    proxy_http_version 1.1;
    proxy_cache_path %%NODEDIR%%/cache keys_zone=cache:1m;

    server {
        listen 127.0.0.1:%%PORT%%;
        coord_idempotency on;

        location / { proxy_pass http://%%ORIGIN%%; }

        location /required {
            coord_idempotency required;
            proxy_pass http://%%ORIGIN%%;
        }

        location /shadow {
            coord_idempotency required shadow;
            proxy_pass http://%%ORIGIN%%;
        }

        location /digest {
            coord_idempotency_key $coord_request_digest;
            coord_idempotency_scope $http_authorization$http_cookie;
            proxy_pass http://%%ORIGIN%%;
        }

        location /global {
            coord_idempotency_scope off;
            proxy_pass http://%%ORIGIN%%;

            location /global/inner { proxy_pass http://%%ORIGIN%%; }

            location /global/scoped {
                coord_idempotency_scope $http_authorization;
                proxy_pass http://%%ORIGIN%%;
            }
        }

        location /strict/ {
            coord_idempotency_scope off;
            coord_idempotency_on_unknown conflict;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /small/ {
            coord_idempotency_scope off;
            coord_idempotency_on_unknown conflict;
            coord_idempotency_max_response 1k;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /grpc/ {
            coord_idempotency_scope off;
            coord_idempotency_on_unknown conflict;
            grpc_pass grpc://127.0.0.1:%%PORT_2%%;
        }

        location /file/ {
            coord_idempotency_scope off;
            coord_idempotency_on_unknown conflict;
            coord_idempotency_methods GET;
            alias %%NODEDIR%%/;
        }

        location /cached/ {
            coord_idempotency_scope off;
            coord_idempotency_on_unknown conflict;
            coord_idempotency_methods GET POST;
            proxy_cache cache;
            proxy_cache_valid 1h;
            proxy_cache_methods GET POST;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /forced/ {
            coord_idempotency_scope off;
            coord_idempotency_on_unknown conflict;
            coord_idempotency_methods GET;
            proxy_force_ranges on;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /upgrade/ {
            coord_idempotency_scope off;
            coord_idempotency_on_unknown conflict;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /get/ {
            coord_idempotency_scope off;
            coord_idempotency_methods GET;
            proxy_pass http://%%ORIGIN%%/;
        }
    }

    server {
        listen 127.0.0.1:%%PORT_2%% http2;

        location / {
            default_type application/grpc;
            ssi on;                          # no Content-Length
            ssi_types application/grpc;
            add_trailer Grpc-Status $arg_trailer;
            add_header Grpc-Status $arg_header;
            return 200 "message";
        }
    }
EOF

my $serial;
my $n;

for my $store ('redis', 'memory') {
    $n = $t->node(name => $store, workers => 2, http =>
        ($store eq 'redis' ? 'coord_store main { server %%REDIS%%; '
                             . 'timeout 30s; connect_timeout 30s; }' : '') . $http);
    Coord::Util::spew($n->file('whole.txt'), '0123456789' x 10);
    $n->start;

    subtest "$store: scope" => \&scope;
    subtest "$store: statuses" => \&statuses;
    subtest "$store: gRPC" => \&grpc;
    subtest "$store: gRPC-Web" => \&grpc_web;
    subtest "$store: 1xx" => \&interim;
    subtest "$store: upgraded connections" => \&upgrade;
    subtest "$store: parts" => \&parts;

    $n->stop;
}

done_testing();


sub key { return ('Idempotency-Key' => 'k' . ++$serial) }

sub replayed { return $_[0]->header('Idempotency-Replayed') || '' }


# a scope that is empty is nobody's

sub scope {
    my @k = key();
    my $r;

    for my $path ('/x', '/digest') {
        for my $i (1 .. 2) {
            $r = $n->post($path, 'b', headers => \@k);
            is($r->status, 200, "$path, no scope: runs");
            is(replayed($r), '', "$path, no scope: no replay");
        }
    }

    # one user's response is not another's

    my $before = $origin->count;

    for my $case ([ '/digest', 'Cookie' ], [ '/x', 'Authorization' ]) {
        my ($path, $field) = @$case;

        for my $who ('alice', 'bob', '') {
            my @h = (@k, $who ? ($field => $who) : ());

            is(replayed($n->post("$path?s=1", 'b', headers => \@h)), '',
               "$path, '$who': runs");
            is(replayed($n->post("$path?s=1", 'b', headers => \@h)),
               $who ? 'true' : '', "$path, '$who': again");
        }
    }

    is($origin->count, $before + 8, 'each for itself');

    # Cookie is no scope unless it is said to be one

    for my $who ('alice', 'bob') {
        $r = $n->post('/y', 'b', headers => [ @k, Cookie => $who ]);
        is(replayed($r), '', 'a cookie is no scope by itself');
    }

    $before = $origin->count;
    $r = $n->post('/required', 'b', headers => \@k);
    is($r->status, 400, 'required: 400');
    is(decode_json($r->body)->{code}, 'missing-scope', 'missing-scope');
    is($n->post('/required', 'b', headers => [ Authorization => 'a' ])->status,
       400, 'required: a scope without a key');
    is($origin->count, $before, 'required: nothing runs');

    is($n->post('/required', 'b', headers => [ @k, Authorization => 'r' ])
         ->status, 200, 'required: with a scope');
    is($n->post('/shadow', 'b', headers => \@k)->status, 200,
       'shadow: runs');

    # keys that are everybody's on purpose

    for my $path ('/global', '/global/inner') {
        @k = key();
        $n->post($path, 'b', headers => \@k);
        $r = $n->post($path, 'b', headers => [ @k, Authorization => 'a' ]);
        is(replayed($r), 'true', "$path: no scope wanted");
    }

    @k = key();
    $n->post('/global/scoped', 'b', headers => \@k);
    is(replayed($n->post('/global/scoped', 'b', headers => \@k)), '',
       'a scope within');

    for my $line ('/x UNSCOPED', '/digest UNSCOPED', '/required UNSCOPED',
                  '/required MISSING', '/shadow UNSCOPED', '/global NEW')
    {
        ok($t->wait_for(sub { Coord::Util::slurp($n->file('status.log'))
                              =~ /^\Q$line\E$/m }, 5), $line);
    }

    like($n->log, qr/\[error\].*not\ protected,\ its\ scope\ is\ empty,\ by
                    \ zone\ "idempotency"/x, 'logged');
    like($n->log, qr/\[error\].*refusing request without a scope by zone/,
         'logged, refused');
}


sub statuses {
    for my $status (401, 403, 407, 408, 409, 423, 425, 429, 500, 503) {
        my @k = key();
        my $path = "/global?status=$status";

        $origin->reset_counters;
        $n->post($path, 'b', headers => \@k) for 1, 2;
        is($origin->count, 2, "$status: the key is free");
    }

    for my $status (400, 402, 404, 410, 412, 422, 451) {
        my @k = key();
        my $path = "/global?status=$status";

        $origin->reset_counters;
        $n->post($path, 'b', headers => \@k) for 1, 2;
        is($origin->count, 1, "$status: kept");
    }
}


sub grpc {
    my ($first, $second);

    for my $where (qw(header trailer)) {
        for my $status (0 .. 17, 'x') {
            my @k = key();
            my $path = "/grpc/x?$where=$status";
            my $kept = grep { $status eq $_ } 0, 3, 5, 6, 9, 11;

            # over another worker the second one may come before the outcome

            $first = $n->post($path, 'b', headers => \@k);
            $t->wait_for(sub {
                $second = $n->post($path, 'b', headers => \@k);
                return $second->status != 409;
            }, 10);

            is($first->status, 200, "$where, $status: first");
            is($second->status, 200, "$where, $status: second");
            is(replayed($second), $kept ? 'true' : '',
               "$where, $status: " . ($kept ? 'kept' : 'free'));
        }
    }

    my @k = key();
    ($first, $second) = map { $n->post('/grpc/x', 'b', headers => \@k) } 1, 2;
    is($first->status, 200, 'no status: first');
    is($second->status, 409, 'no status: unknown');
}


# the same in the last frame of the body

sub web {
    my ($message, $status) = @_;

    my $trailers = defined $status ? "grpc-status: $status\r\n"
                                     . "grpc-message: said\r\n" : '';

    return pack('CN/a*', 0, $message)
           . (defined $status ? pack('CN/a*', 0x80, $trailers) : '');
}


sub grpc_web {
    my @types = qw(grpc-web grpc-web%2bproto grpc-web-text
                   grpc-web-text%2bproto;charset=utf-8);

    for my $type (@types) {
        for my $status (0 .. 17, 'x') {
            my $kept = grep { $status eq $_ } 0, 3, 5, 6, 9, 11;

            for my $where (qw(trailer header)) {
                is(twice("/strict/web?type=$type&$where=$status"),
                   $kept ? 'true' : '200',
                   "$type, $where, $status: " . ($kept ? 'kept' : 'free'));
            }
        }

        is(twice("/strict/web?type=$type"), '409', "$type, none: unknown");
        is(twice("/strict/web?type=$type&trailer=0&cut=1"), '409',
           "$type, cut short: unknown");

        # longer than what is kept of a response

        my $long = 'x' x 2000;

        is(twice("/small/web?type=$type&message=$long&trailer=14"), '200',
           "$type, long: free");
        is(twice("/small/web?type=$type&message=$long&trailer=0"), 'omitted',
           "$type, long: kept, without its body");
    }
}


# how the second one fares: a replay, or its status

sub twice {
    my ($uri) = @_;

    my @k = key();
    my ($first, $second) = map { $n->post($uri, 'b', headers => \@k) } 1, 2;

    return 'first: ' . $first->status if $first->status != 200;
    return replayed($second) || $second->status;
}


# not yet the answer: the claim stays

sub interim {
    for my $path ('/strict/hints', '/strict/continue', '/strict/processing',
                  '/strict/all')
    {
        my @k = key();

        $origin->reset_counters;
        $n->post($path, 'b', headers => \@k);
        my $r = $n->post($path, 'b', headers => \@k);
        ok($r->status == 409 || replayed($r) eq 'true', "$path: no second run");
        is($origin->count, 1, "$path: once");
    }
}


# no result, and it ends with its client as without a key

sub upgrade {
    my @k = key();
    my $gone = $origin->aborted;

    $origin->reset_counters;

    my @c = map {
        my $c = $n->connect;

        $c->send("POST /upgrade/socket HTTP/1.1\r\nHost: x\r\n"
                 . "Upgrade: echo\r\nConnection: upgrade\r\n"
                 . "Content-Length: 0\r\n$k[0]: $k[1]\r\n\r\n");

        my $in = '';
        my $end = time + 10;

        while ($in !~ /hello|\}/ && time < $end) {
            my $bytes = $c->read(1);
            last if defined $bytes && $bytes eq '';
            $in .= $bytes // '';
        }

        like($in, qr/^HTTP\/1\.1 101 .*hello$/s, "connection $_");
        $c;
    } 1, 2;

    is($origin->count, 2, 'both are open');

    undef @c;
    ok($t->wait_for(sub { $origin->aborted == $gone + 2 }),
       'the upstream hears that the clients have left');
}


sub parts {
    my ($r, $first);
    my $body = '0123456789' x 10;

    for my $field ([ Range => 'bytes=2-5' ], [ Range => 'bytes=0-1,5-6' ],
                   [ 'If-Modified-Since' => 'Mon, 28 Sep 2037 06:00:00 GMT' ],
                   [ 'If-Unmodified-Since' => 'Mon, 28 Sep 1970 06:00:00 GMT' ],
                   [ 'If-Match' => '"x"' ], [ 'If-None-Match' => '*' ])
    {
        my @k = key();
        my $name = "@$field";

        $first = $n->get('/file/whole.txt', headers => [ @k, @$field ]);
        is($first->status, 200, "$name: file, whole");
        is($first->body, $body, "$name: file, body");
        $r = $n->get('/file/whole.txt', headers => \@k);
        is(replayed($r), 'true', "$name: file, replayed");
        is($r->body, $body, "$name: file, its body");

        for my $path ('/cached/c?size=100', '/forced/f?size=100') {
            $n->get($path) for 1, 2;
            @k = key();
            $first = $n->get($path, headers => [ @k, @$field ]);
            is($first->status, 200, "$name, $path: whole");
            $r = $n->get($path, headers => \@k);
            is(replayed($r), 'true', "$name, $path: replayed");
            is($r->body, 'x' x 100, "$name, $path: body");
        }

        # the cache serves a POST as well, and conditions of it are seen there

        @k = key();
        $first = $n->post('/cached/c?size=100', 'b',
                          headers => [ @k, @$field ]);
        is($first->status, 200, "$name, cached POST: whole");
        $r = $n->post('/cached/c?size=100', 'b', headers => \@k);
        is(replayed($r), 'true', "$name, cached POST: replayed");
        is($r->body, 'x' x 100, "$name, cached POST: body");

        is($n->get('/get/whole', headers => [ key(), @$field ])->body,
           'seen: ', "$name: not for the upstream of a GET");
        is($n->get('/get/whole', headers => [ @$field ])->body,
           'seen: ' . lc $field->[0], "$name: without a key it is");
        is($n->post('/strict/whole', 'b', headers => [ key(), @$field ])->body,
           'seen: ' . ($field->[0] eq 'Range' ? '' : lc $field->[0]),
           "$name: of a POST");
    }

    # all lines, and the fields around them stay

    my @many = map { ("X-$_" => $_) } 1 .. 30;

    for my $at (0, 1, 15, 30) {
        my @h = @many;
        splice @h, 2 * $at, 0, 'Range', 'bytes=1-2', 'Range', 'bytes=2-3';

        is($n->get('/get/fields', headers => [ @h, key() ])->body,
           "@{[1 .. 30]}", "the other fields stay, $at");
        is($n->get('/get/fields', headers => \@h)->body,
           "@{[1 .. 30]} range", "without a key all do, $at");
    }

    # several that go, in front, behind, between, apart

    my %value = ('Range' => 'bytes=1-2', 'If-Range' => '"e"',
                 'If-Modified-Since' => 'Mon, 28 Sep 2037 06:00:00 GMT',
                 'If-None-Match' => '"e"');

    for my $order ([qw(If-Modified-Since If-None-Match)],
                   [qw(If-None-Match If-Modified-Since)],
                   [qw(Range If-Range)], [qw(If-Range Range)],
                   [qw(If-Range If-Modified-Since Range If-None-Match)])
    {
        my @more = map { ($_ => $value{$_}) } @$order;
        my $seen = join ' ', sort map { lc } @$order;

        is($n->get('/get/whole', headers => [ @more, key() ])->body,
           'seen: ', "@$order: gone");
        is($n->get('/get/whole', headers => [ key(), @more ])->body,
           'seen: ', "@$order: gone behind the key");
        is($n->get('/get/whole', headers => \@more)->body,
           "seen: $seen", "@$order: without a key all are seen");

        for my $at ([0, 0], [18, 0], [19, 0], [30, 0], [0, 30], [15, 1]) {
            my @h = @many;
            splice @h, 2 * $at->[0], 0, @more[0, 1];
            splice @h, 2 * ($at->[0] + $at->[1] + 1), 0, @more[2 .. $#more];

            is($n->get('/get/whole', headers => [ @h, key() ])->body,
               'seen: ', "@$order: gone, @$at");
            is($n->get('/get/fields', headers => [ @h, key() ])->body,
               "@{[1 .. 30]}", "@$order: the other fields stay, @$at");
        }
    }

    # an upstream that sends a part by itself has not said what became of it

    for my $status (206, 304) {
        my @k = key();

        $origin->reset_counters;
        $n->post("/strict/x?status=$status", 'b', headers => \@k) for 1, 2;
        is($origin->count, 1, "$status: no second run");
    }
}
