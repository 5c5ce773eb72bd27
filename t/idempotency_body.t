#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency: bodies of requests, however they come and wherever they
# lie, are read once, all of the fingerprint, and reach the upstream whole.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;

use Digest::MD5 qw(md5_hex);

my $t = Coord->new;
my $origin = $t->origin(default => sub {
    my ($req) = @_;
    return { body => "$req->{n} " . md5_hex($req->{body}) };
});

# closes the connection when it has got the request

my $broken = $t->origin(default => { raw => '' });

my $n = $t->node(name => 'n', workers => 1, http => <<'EOF')->start;
    coord_idempotency on;
    coord_idempotency_scope off;
    client_max_body_size 10m;
    proxy_http_version 1.1;
    log_format length '$server_protocol $http_content_length';
    access_log %%NODEDIR%%/length.log length;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;

        location /memory {
            client_body_buffer_size 1m;
            proxy_pass http://%%ORIGIN%%;
        }

        location /temp {
            client_body_buffer_size 1k;
            proxy_pass http://%%ORIGIN%%;
        }

        location /only {
            client_body_in_file_only clean;
            proxy_pass http://%%ORIGIN%%;
        }

        location /single {
            client_body_in_single_buffer on;
            client_body_buffer_size 32k;
            proxy_pass http://%%ORIGIN%%;
        }

        location /unbuffered {
            proxy_request_buffering off;
            proxy_pass http://%%ORIGIN%%;
        }

        location /mirror {
            auth_request /auth;
            mirror /copy;
            mirror_request_body on;
            proxy_pass http://%%ORIGIN%%;
        }

        # the body has been read before the claim

        location /read {
            coord_idempotency off;
            mirror /copy;
            error_page 502 = @again;
            proxy_pass http://127.0.0.1:%%PORT_9%%;
        }

        location /sent {
            coord_idempotency off;
            client_body_buffer_size 1k;
            error_page 502 = @again;
            proxy_pass http://%%ORIGIN_2%%;
        }

        location /denied {
            coord_idempotency off;
            error_page 403 = @again;
            deny all;
        }

        location @again { proxy_pass http://%%ORIGIN%%; }

        location /streamed {
            coord_idempotency off;
            proxy_request_buffering off;
            error_page 502 = @again;
            proxy_pass http://%%ORIGIN_2%%;
        }

        location /shadow {
            coord_idempotency off;
            proxy_request_buffering off;
            error_page 502 = @shadow;
            proxy_pass http://%%ORIGIN_2%%;
        }

        location @shadow {
            coord_idempotency on shadow;
            proxy_read_timeout 500ms;
            proxy_pass http://%%ORIGIN%%;
        }

        location = /auth {
            internal;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_pass http://%%ORIGIN%%/auth;
        }

        location = /copy {
            internal;
            proxy_pass http://%%ORIGIN%%/copy$request_uri;
        }
    }
EOF

my $serial = 0;
my $small = 'a small body';
my $large = join '', map { sprintf '%08d', $_ } 1 .. 12_500;    # 100 kB


for my $path (qw(/memory /temp /only /single /unbuffered /mirror /read /sent
                 /denied))
{
    for my $body ($small, $large) {
        my $size = $body eq $small ? 'small' : 'large';

        uploads("$path, $size", $path, $body, \&plain, \&chunked);
        uploads("$path, $size, HTTP/2", $path, $body, \&h2, \&h2_unknown);
    }

    uploads("$path, empty", $path, '', \&plain, \&chunked, \&h2);
}


# a mirror comes after the claim and sees executions only, unless it has read
# the body before

for my $case ([ '/copy/mirror', 2 ], [ '/copy/read', 6 ]) {
    my ($path, $count) = @$case;

    is(scalar(grep { $_->{body} eq $large } $origin->requests($path)), $count,
       "$path: whole bodies");
}


# what has been passed on unbuffered cannot be looked at any more

for my $send (\&plain, \&chunked, \&h2) {
    my $before = $origin->count('/streamed');

    is($send->('/streamed', $large, 'streamed' . ++$serial)->status, 500,
       'unbuffered before: refused');
    is($origin->count('/streamed'), $before, 'unbuffered before: not run');
}

is(plain('/shadow', $large, 'shadow')->status, 504, 'shadow: as without');


# a body that lies in a file is digested while it comes: the file is read once,
# for the upstream

SKIP: {
    skip 'no /proc/PID/io', 6 if !defined bytes_read();

    my $size = 5_000_000;
    my $huge = 'x' x $size;

    for my $way ([ plain => \&plain ], [ chunked => \&chunked ],
                 [ 'HTTP/2' => \&h2_unknown ])
    {
        my $before = bytes_read();
        my $r = $way->[1]->('/temp', $huge, 'once' . ++$serial);
        my $read = bytes_read() - $before;

        is($r->status, 200, "$way->[0]: a large body");
        cmp_ok($read, '<', 1.5 * $size, "$way->[0]: its file is read once");
    }
}


# dav takes the body as a file, and whoever has read it before makes one

SKIP: {
    skip 'nginx has no dav', 9 if `$n->{test}{binary} -V 2>&1` !~ /http_dav/;

    my $dav = $t->node(name => 'dav', server => <<'EOF')->start;
        coord_idempotency on;
        coord_idempotency_scope off;
        coord_idempotency_methods PUT;
        root %%NODEDIR%%/files;

        location / {
            client_body_in_file_only clean;
            create_full_put_path on;
            dav_methods PUT;
        }
EOF

    for my $body ($small, '') {
        my $name = length $body ? 'a' : 'empty';

        for my $replayed ('', 'true') {
            my $r = $dav->request('PUT', "/$name", body => $body, headers =>
                [ 'Idempotency-Key' => $name,
                  length $body ? () : ('Content-Length' => 0) ]);
            is($r->status, 201, "dav, $name: put");
            is($r->header('idempotency-replayed') // '', $replayed,
               "dav, $name: replayed '$replayed'");
        }
    }

    is(Coord::Util::slurp($dav->file('files/a')), $small, 'dav: the file');
}


for my $version (qw(1.1 2.0)) {
    ok($t->wait_for(sub {
        my %length = map { $_ => 1 }
                     split /\n/, Coord::Util::slurp($n->file('length.log'));

        return $length{"HTTP/$version -"}
               && $length{"HTTP/$version " . length $large};
    }, 5), "HTTP/$version: with and without a length");
}

done_testing();


# what the worker has read from files, undef if that is not to be known

sub bytes_read {
    my ($pid) = $n->workers;

    open my $io, '<', "/proc/$pid/io" or return;
    my ($bytes) = map { /^rchar: (\d+)/ ? $1 : () } <$io>;

    return $bytes;
}


# the same body in both ways, and then another one of the same length

sub uploads {
    my ($name, $path, $body, @ways) = @_;

    my $other = $body;
    substr($other, -1, 1) = '~' if length $other;

    my $key = 'body' . ++$serial;
    my $before = $origin->count($path);

    my $r = $ways[0]->($path, $body, $key);
    is($r->status, 200, "$name: status");
    is($r->header('Idempotency-Replayed'), undef, "$name: runs");
    like($r->body, qr/ ${\ md5_hex($body)}$/, "$name: the upstream gets it");

    for my $i (0 .. $#ways) {
        $r = $ways[$i]->($path, $body, $key);
        is($r->header('Idempotency-Replayed'), 'true', "$name: replayed $i");

        next if $other eq $body;

        is($ways[$i]->($path, $other, $key)->status, 422,
           "$name: another body $i");
    }

    is($origin->count($path), $before + 1, "$name: once");
}


# in pieces, with pauses: several reads, the first one with the header

sub pieces {
    my ($text) = @_;

    my $conn = $n->connect;
    my $size = int(length($text) / 3) + 1;

    for (my $i = 0; $i < length $text; $i += $size) {
        select undef, undef, undef, 0.01 if $i;
        $conn->send(substr($text, $i, $size));
    }

    return $conn->response(method => 'POST', timeout => 20);
}


sub plain {
    my ($path, $body, $key) = @_;

    return pieces(Coord::HTTP::format(method => 'POST', path => $path,
        body => $body, host => 'same',
        headers => [ 'Idempotency-Key' => $key ]));
}


sub chunked {
    my ($path, $body, $key) = @_;

    my $text = '';

    for (my $i = 0; $i < length $body; $i += 7000) {
        my $chunk = substr($body, $i, 7000);
        $text .= sprintf("%x\r\n%s\r\n", length $chunk, $chunk);
    }

    return pieces(Coord::HTTP::format(method => 'POST', path => $path,
        body => "${text}0\r\n\r\n", host => 'same',
        headers => [ 'Idempotency-Key' => $key,
                     'Transfer-Encoding' => 'chunked' ]));
}


sub h2 {
    my ($path, $body, $key) = @_;

    return curl($path, $body, $key, '--data-binary', '@' . $t->file('body'));
}


# without content-length

sub h2_unknown {
    my ($path, $body, $key) = @_;

    return curl($path, $body, $key, '-X', 'POST', '-H', 'Content-Length:',
                '-T', $t->file('body'));
}


sub curl {
    my ($path, $body, $key, @args) = @_;

    Coord::Util::spew($t->file('body'), $body);

    return $n->h2('http://127.0.0.1:' . $n->port(2) . $path,
                  '-H', 'Host: same', '-H', 'Content-Type:',
                  '-H', "Idempotency-Key: $key", @args);
}
