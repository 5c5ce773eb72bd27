#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency: what names a request and what makes two of them the same,
# and responses that their application does not want to be kept.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;

use IO::Select;
use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;


# configuration

for (
    [ 'coord_idempotency_fingerprint off; coord_idempotency_fingerprint on;',
      qr/is duplicate/ ],
    [ 'coord_idempotency_log_level debug;', qr/invalid value "debug"/ ],
)
{
    my ($text, $error) = @$_;

    like($t->conf_error(server => $text), $error, $text);
}

for my $key ('Idempotency-Key', 'x') {
    my $c = $t->node(name => "constant$key", server => <<"EOF");
        coord_idempotency on;
        coord_idempotency_key $key;
        location / { empty_gif; }
EOF
    like(($c->check)[1], qr/\[warn\].*"coord_idempotency_key" is constant/,
         "a constant key is warned of: $key");
}

for my $value ('on', 'x', '$uri') {
    my $c = $t->node(name => "f" . length $value, server => <<"EOF");
        coord_idempotency on;
        coord_idempotency_fingerprint $value;
        location / { empty_gif; }
EOF
    my $warned = qr/\[warn\].*"coord_idempotency_fingerprint" is constant/;
    is((($c->check)[1] =~ $warned) || 0, $value eq '$uri' ? 0 : 1,
       "a constant fingerprint is warned of: $value");
}

my $many = join '', map { "add_header X-$_ value-$_;\n" } 1 .. 300;

my $origin = $t->origin(routes => {
    '/refused' => sub {
        my ($req) = @_;
        return { body => '{"errors":[1]}',
                 headers => [ 'X-Retry' => $req->{args}{retry} || '',
                              'Cache-Control' => $req->{args}{cc} || '' ] };
    },
    '/long' => { body => 'long', headers => [ 'X-Long' => 'l' x 30_000 ] },
    '/big' => { body => 'b' x 500_000 },
    '/control' => { body => 'control', headers => [ 'X-Control' => "a\x01b",
                                                    'X-Good' => 'good' ] },
});

my $http = <<'EOF';
    log_format status '$uri $coord_idempotency_status';
    access_log %%NODEDIR%%/status.log status;
    coord_idempotency_scope off;
    client_max_body_size 100m;
    client_body_buffer_size 16k;

    map $request_body $order {
        ~order=(?<id>\w+) $id;
    }

    map $upstream_http_cache_control $no_store { ~no-store 1; default 0; }

    server {
        listen 127.0.0.1:%%PORT%%;
        server_name one two;
        coord_idempotency on;

        location / { proxy_pass http://%%ORIGIN%%; }

        location /body/ {
            coord_idempotency_key $order;
            proxy_pass http://%%ORIGIN%%;
        }

        location /scope/ {
            coord_idempotency_scope $order;
            proxy_pass http://%%ORIGIN%%;
        }

        location /value/ {
            coord_idempotency_fingerprint $uri$http_content_digest;
            proxy_pass http://%%ORIGIN%%;
        }

        location /valuebody/ {
            coord_idempotency_fingerprint $order;
            proxy_pass http://%%ORIGIN%%;
        }

        location /nocheck/ {
            coord_idempotency_fingerprint off;
            proxy_pass http://%%ORIGIN%%;

            location /nocheck/default/ {
                coord_idempotency_fingerprint default;
                proxy_pass http://%%ORIGIN%%;
            }
        }

        location /nostore/ {
            coord_idempotency_no_store $upstream_http_x_retry $no_store;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /quiet/ {
            coord_idempotency required;
            coord_idempotency_log_level notice;
            proxy_pass http://%%ORIGIN%%;
        }

        location /fields/ {
            proxy_buffer_size 64k;
            proxy_buffers 8 64k;
            proxy_busy_buffers_size 128k;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /large/ {
            client_max_body_size 500m;
            root %%NODEDIR%%;

            location /large/values/ {
                coord_idempotency_key $http_x_key;
                coord_idempotency_scope $http_authorization;
                coord_idempotency_fingerprint $content_length$http_x_key;
                root %%NODEDIR%%;
            }
        }

        # the body has been read before the claim

        location /read/ {
            coord_idempotency off;
            client_max_body_size 500m;
            mirror /copy;
            error_page 404 = @read;
            root %%NODEDIR%%;
        }

        location @read { root %%NODEDIR%%; }
        location = /other { coord_idempotency off; keepalive_requests 100000;
                            return 204; }
        location = /copy { internal; return 204; }

        location /many/ {
            proxy_buffer_size 64k;
            proxy_buffers 8 64k;
            proxy_busy_buffers_size 128k;
            proxy_pass http://127.0.0.1:%%PORT_2%%;
        }
    }

    server {
        listen 127.0.0.1:%%PORT_2%%;
        location / {
            %%MANY%%
            return 200 many;
        }
    }
EOF

$http =~ s/%%MANY%%/$many/;

my $serial;
my $n;

for my $store ('redis', 'memory') {
    $n = $t->node(name => $store, workers => 1, http =>
        ($store eq 'redis' ? 'coord_store main { server %%REDIS%%; '
                             . 'timeout 30s; connect_timeout 30s; }' : '') . $http)->start;

    subtest "$store: keys from the body" => \&bodies;
    subtest "$store: fingerprints" => \&fingerprints;
    subtest "$store: not to be stored" => \&no_store;
    subtest "$store: fields" => \&fields;
    subtest "$store: a large record" => sub { record($store) };
    subtest "$store: words" => \&words;
    subtest "$store: a large body" => \&large;

    $n->stop;
}


# the size of the default store's zone is what it is told to be

for my $name ('local', 'main') {
    my $store = $name eq 'main' ? 'coord_store main { }' : '';

    for my $order (0, 1) {
        my @lines = ('coord_idempotency on;',
                     "coord_idempotency_store $name size=3m;");
        my $m = $t->node(name => "size$name$order", http => <<"EOF")->start;
            $store
            server {
                listen 127.0.0.1:%%PORT%%;
                coord_idempotency_scope off;
                @lines[$order ? (1, 0) : (0, 1)]
                location / { empty_gif; }
            }
EOF
        my %sizes;

        no warnings 'portable';

        for (split /\n/, Coord::Util::slurp('/proc/' . $m->pid . '/maps')) {
            $sizes{hex($2) - hex($1)}++ if /^(\w+)-(\w+) rw-s .*zero/;
        }

        ok($sizes{3 << 20}, "size= of the store $name, $order: as told");
        ok(!$sizes{16 << 20}, "size= of the store $name, $order: no other");
        $m->stop;
    }
}

done_testing();


sub key { return [ 'Idempotency-Key' => 'k' . ++$serial, @_ ] }

sub replayed { return $_[0]->header('Idempotency-Replayed') || '' }

sub chunked {
    my ($path, $body, @h) = @_;

    return $n->post($path, sprintf("%x\r\n%s\r\n0\r\n\r\n", length $body,
                                   $body),
                    headers => [ @h, 'Transfer-Encoding' => 'chunked' ]);
}


sub bodies {
    my $r;

    # small ones are in memory, large ones in a file

    for my $size (0, 100, 20_000, 2_000_000) {
        my $order = 'a' . ++$serial;
        my $body = "order=$order&" . 'x' x $size;

        $origin->reset_counters;
        $r = $n->post('/body/x', $body);
        is($r->status, 200, "$size: first");
        is(replayed($r), '', "$size: runs");
        $r = $n->post('/body/x', $body);
        is(replayed($r), 'true', "$size: replayed");
        is(replayed(chunked('/body/x', $body)), 'true', "$size: chunked");
        is($n->post('/body/x', "$body!")->status, 422, "$size: mismatch");
        is($origin->count, 1, "$size: once");
        ok(($origin->requests('/body/x'))[-1]{body} eq $body, "$size: the body is whole");
    }

    is(replayed($n->post('/body/x', 'none')), '', 'no key') for 1, 2;

    my $h = key();

    for my $who ('alice', 'bob') {
        my $body = "order=$who&" . 'x' x 20_000;

        is(replayed($n->post('/scope/x', $body, headers => $h)), '',
           "scope $who: runs");
        is(replayed($n->post('/scope/x', $body, headers => $h)), 'true',
           "scope $who: replayed");
    }

    is(replayed($n->post('/scope/x', 'none', headers => $h)), '',
       'no scope') for 1, 2;
}


sub fingerprints {
    my ($h, $r);

    # what does not matter in the default one

    $h = key('Content-Type' => 'application/json');
    $n->post('/x', 'b', headers => $h, host => 'one');

    for my $type ('application/json; charset=utf-8', 'application/json;a=b',
                  'Application/JSON', 'application/json ; x')
    {
        $r = $n->post('/x', 'b', host => 'one',
                      headers => [ @$h[0, 1], 'Content-Type' => $type ]);
        is(replayed($r), 'true', "the same type: $type");
    }

    is(replayed($n->post('/x', 'b', headers => $h, host => 'two')), 'true',
       'another name of the server');

    for my $type ('application/jso', 'application/json2', 'text/plain', '') {
        $r = $n->post('/x', 'b', host => 'one',
                      headers => [ @$h[0, 1], 'Content-Type' => $type ]);
        is($r->status, 422, "another type: $type");
    }

    # a value

    $h = key();
    $n->post('/value/x?sig=1', 'a', headers => [ @$h, 'Content-Digest' => 'd' ]);
    $r = $n->post('/value/x?sig=2', 'b',
                  headers => [ @$h, 'Content-Digest' => 'd' ]);
    is(replayed($r), 'true', 'value: the same');

    for my $d ('e', '') {
        $r = $n->post('/value/x?sig=1', 'a',
                      headers => [ @$h, 'Content-Digest' => $d ]);
        is($r->status, 422, "value: '$d' is another");
    }

    $h = key();
    $n->post('/valuebody/x', 'order=7', headers => $h);
    is(replayed($n->post('/valuebody/x', 'order=7&y', headers => $h)), 'true',
       'value of the body: the same');
    is($n->post('/valuebody/x', 'order=8', headers => $h)->status, 422,
       'value of the body: another');
    is($n->post('/valuebody/x', 'none', headers => $h)->status, 422,
       'value of the body: none is another');

    # nothing

    $h = key();
    $n->post('/nocheck/x', 'a', headers => $h);
    is(replayed($n->post('/nocheck/y?z', 'b', headers => $h)), 'true',
       'off: anything');
    $h = key();
    $n->post('/nocheck/default/x', 'a', headers => $h);
    is($n->post('/nocheck/default/x', 'b', headers => $h)->status, 422,
       'default within off');
}


sub no_store {
    for my $case ([ 'retry=yes', 2 ], [ 'retry=0', 1 ], [ 'retry=', 1 ],
                  [ 'cc=no-store', 2 ], [ 'cc=private', 1 ])
    {
        my ($args, $want) = @$case;
        my $h = key();

        $origin->reset_counters;
        $n->post("/nostore/refused?$args", 'b', headers => $h) for 1, 2;
        is($origin->count, $want, "$args: runs $want");
    }
}


sub fields {
    my ($h, $first, $r);

    $h = key();
    $first = $n->post('/many/x', 'b', headers => $h);
    is($first->header('X-300'), 'value-300', 'many fields: first');
    $r = $n->post('/many/x', 'b', headers => $h);
    is(replayed($r), 'true', 'many fields: replayed');
    is(join(' ', grep { ($r->header("X-$_") || '') ne "value-$_" } 1 .. 300),
       '', 'many fields: all of them');

    $h = key();
    $n->post('/fields/long', 'b', headers => $h);
    $r = $n->post('/fields/long', 'b', headers => $h);
    is(replayed($r), 'true', 'a long field: replayed');
    is(length $r->header('X-Long'), 30_000, 'a long field: all of it');

    # what cannot be kept is said

    $h = key();
    $origin->reset_counters;
    $n->post('/fields/control', 'b', headers => $h);
    $r = $n->post('/fields/control', 'b', headers => $h);
    is(replayed($r), 'omitted', 'a bad field: omitted');
    is($r->body, '', 'a bad field: no body');
    is($r->header('X-Good'), 'good', 'a bad field: others are there');
    is($origin->count, 1, 'a bad field: once');
    like($n->log, qr/1 fields of a response cannot be kept/, 'and logged');
}


sub words {
    my $h = key();

    $n->post('/quiet/x', 'a', headers => $h);
    my $conn = $n->connect;
    $conn->send(Coord::HTTP::format(method => 'POST', path => '/quiet/x',
                                    body => 'b', headers => $h));
    like($conn->read(10), qr!^HTTP/1.1 422 Unprocessable Content\r\n!,
         '422 has words');

    is($n->post('/quiet/x', 'b')->status, 400, 'required');

    my $log = $n->log;

    like($log, qr/\[notice\].*refusing request, its key was used for another/,
         '422 at its level');
    like($log, qr/\[notice\].*refusing request without a key/,
         '400 at its level');
    unlike($log, qr/\[error\].*uri: "\/quiet|\[error\].*POST \/quiet/,
           'and at no other');
}


# a record that is large is fetched by who is to get it, and by nobody else

sub record {
    my ($store) = @_;

    my $h = key();

    $origin->reset_counters;
    $n->post('/big', 'b', headers => $h);
    my $r = settled('/big', 'b', $h);
    is(replayed($r), 'true', 'large record: replayed');
    is($r->body, 'b' x 500_000, 'large record: body');
    is($origin->count, 1, 'large record: once');

    my $before = gets();
    is($n->post('/big', 'c', headers => $h)->status, 422, 'mismatch')
        for 1 .. 5;
    is(gets(), $before, 'no record is fetched for another request');

    return if $store ne 'redis';

    # a result that was removed, its mark was not

    $h = key();
    $n->post('/big', 'b', headers => $h);
    settled('/big', 'b', $h);
    my $admin = $redis->connect;
    $admin->command('DEL', $_) for grep { /:r$/ } @{$admin->command('KEYS', '*')};
    $origin->reset_counters;
    is(replayed($n->post('/big', 'b', headers => $h)), '',
       'no record: runs again');
    is(replayed(settled('/big', 'b', $h)), 'true', 'and is stored again');
    is($origin->count, 1, 'once');
}

sub gets {
    my ($n) = $redis->connect->command('INFO', 'commandstats')
              =~ /cmdstat_get:calls=(\d+)/;

    return $n || 0;
}

sub settled {
    my ($path, $body, $h) = @_;

    my $r;

    $t->wait_for(sub {
        $r = $n->post($path, $body, headers => $h);
        return $r->status != 409;
    }, 10);

    return $r;
}


# other requests come to their turn while it is looked at

sub large {
    my $piece = "\0" x 1_000_000;

    for my $path ('/large/x', '/large/values/x', '/read/x') {
        my $pieces = $path =~ m{^/read} ? 300 : 150;
        my $h = key(Authorization => 'me', 'X-Key' => "large$serial");

        for my $i (1 .. 2) {
            my $conn = $n->connect;
            my $head = Coord::HTTP::format(method => 'POST', path => $path,
                                           body => '', headers => $h);

            $head =~ s/Content-Length: 0/Content-Length: ${pieces}000000/;

            my $before = bytes_read();
            my $others = 0;

            $conn->send($head);

            for my $sent (1 .. $pieces) {
                $conn->send($piece);

                # it is digested while it comes

                next if $path !~ m{^/large} || $sent % 15;
                is($n->get('/quiet/get')->status, 200, 'another') or last;
                $others++;
            }

            # or was read before, and is digested by and by: who is answered
            # meanwhile sees more and more of it digested

            my $other = $n->connect;
            my $digested = 0;

            while ($path =~ m{^/read}
                   && !IO::Select->new($conn->{sock})->can_read(0))
            {
                is($other->request(method => 'GET', path => '/other')->status,
                   204, 'another') or last;

                my $now = bytes_read() - $before;

                $others++ if $now > $digested && $now < $pieces * 1_000_000;
                $digested = $now;
            }

            my $r = $conn->response('POST', 60);
            is($r->status, 404, "$path: $i");
            is(replayed($r), $i == 1 ? '' : 'true', "$path: $i");
            cmp_ok($others, '>', 5, "$path: others come to their turn");

            if ($path =~ m{^/large}) {
                cmp_ok(bytes_read() - $before, '<', 50_000_000,
                       "$path: nothing is left to be done when it has come");
            }
        }

        my $r = $n->post($path, $piece, headers => $h);
        is($r->status, 422, "$path: mismatch");
    }
}


# what the worker has read from files

sub bytes_read {
    my ($pid) = $n->workers;

    open my $io, '<', "/proc/$pid/io" or return 0;
    my ($bytes) = map { /^rchar: (\d+)/ ? $1 : () } <$io>;

    return $bytes;
}
