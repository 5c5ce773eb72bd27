#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency in front of FastCGI, uwsgi, SCGI, gRPC and files: the
# response is replayed as it was, and outlives a client that goes away.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP;

my $t = Coord->new;

my $binary = join '', map { chr } 0 .. 255, 13, 10, 0, 255;
my $large = join '', map { sprintf '%08d', $_ } 1 .. 60_000;    # 480 kB
my $huge = $large x 4;

my @made = ( 'Content-Type' => 'image/png', 'Location' => '/made/1',
             'X-A' => 'a', 'X-A' => 'b', 'Set-Cookie' => 'secret=1' );
my @parts = ([0, substr($large, 0, 200_000)], [2, substr($large, 200_000)]);

# the last but one part of the path says what is answered

my %answers = (
    binary => { body => $binary, status => 201, headers => \@made },
    open => { body => $binary, until_close => 1 },
    none => { status => 204 },
    failed => { status => 500 },
    early => { delay => 2, body => $large },
    middle => { parts => \@parts },
    chunked => { parts => \@parts, chunked => 5000 },
    cut => { body => $large, close_at => 300_000 },
    broken => { raw => '' },
    huge => { body => $huge },
    trailers => { body => $binary, chunked => 50 },
    measured => { body => $binary },
    accel => { headers => [ 'X-Accel-Redirect' => '/files/large' ] },
);

my %routes = (default => sub { $answers{(split m!/!, $_[0]{path})[3]} });

my %origin = (
    grpc => $t->origin(%routes),
    map { $_ => $t->gateway(protocol => $_, %routes) } qw(fastcgi uwsgi scgi)
);

my $locations = '';

for my $m (qw(fastcgi uwsgi scgi)) {
    my $pass = "${m}_pass %%" . uc($m) . '%%;';

    $locations .= <<"EOF";
        ${m}_param REQUEST_METHOD \$request_method;
        ${m}_param REQUEST_URI \$request_uri;
        ${m}_param CONTENT_LENGTH \$content_length;
        location /$m/on/ { $pass }
        location /$m/off/ { ${m}_buffering off; $pass }
        location /$m/small/ { coord_idempotency_max_response 1k; $pass }
        location /$m/little/ {
            ${m}_buffer_size 4k;
            ${m}_buffers 2 4k;
            ${m}_busy_buffers_size 4k;
            ${m}_max_temp_file_size 0;
            $pass
        }
EOF
}

my $n = $t->node(name => 'n', workers => 1, http => <<"EOF");
    coord_idempotency_scope off;
    coord_idempotency_max_response 8m;
    coord_idempotency_store local size=128m;
    send_timeout 2s;
    keepalive_timeout 60s;

    server {
        listen 127.0.0.1:%%PORT%% sndbuf=8k;
        listen 127.0.0.1:%%PORT_3%% http2;
        coord_idempotency on;
$locations
        location /grpc/on/ { grpc_pass grpc://127.0.0.1:%%PORT_2%%; }

        location /grpc/small/ {
            coord_idempotency_max_response 1k;
            grpc_pass grpc://127.0.0.1:%%PORT_2%%;
        }

        location /grpc/own/ {
            add_trailer X-Own own;
            grpc_pass grpc://127.0.0.1:%%PORT_2%%;
        }

        location /files/ {
            coord_idempotency_methods GET POST;
            root %%NODEDIR%%;
            output_buffers 1 4k;
        }

        location /sendfile/ {
            coord_idempotency_methods GET;
            alias %%NODEDIR%%/files/;
            sendfile on;
        }

        location /try/ {
            coord_idempotency_methods GET POST;
            root %%NODEDIR%%/files;
            try_files /none \@tried;
        }

        location \@tried { fastcgi_pass %%FASTCGI%%; }

        location /tryfile/ {
            coord_idempotency_methods GET;
            root %%NODEDIR%%/files;
            try_files /none /large =404;
        }

        location /return/ { return 201 returned; }

        location /status { coord_idempotency off; stub_status; }
    }

    server {
        listen 127.0.0.1:%%PORT_2%% http2;
        location / { proxy_pass http://%%ORIGIN%%; }

        location ~ /(?:trailers|measured)/ {
            add_trailer Grpc-Status 0;
            add_trailer X-Lines one;
            add_trailer X-Lines two;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOF

mkdir $n->file('files');
Coord::Util::spew($n->file('files/large'), $large);
Coord::Util::spew($n->file('files/huge'), $huge);
$n->start;

my $serial = 0;


# what comes again, and what does not

for my $m (qw(fastcgi uwsgi scgi grpc)) {
    for my $mode ($m eq 'grpc' ? 'on' : qw(on off little)) {
        replayed($m, $mode, 'binary', 201, $binary);
        replayed($m, $mode, 'open', 200, $binary);
        replayed($m, $mode, 'none', 204, '');
        replayed($m, $mode, 'accel', 200, $large) if $m ne 'grpc';
        again($m, $mode, 'failed', 500);
        again($m, $mode, 'cut', 200);
        again($m, $mode, 'broken', 502);
    }
}


# trailers

for my $case ([ '--http1.1', 'on', 'trailers' ],
              [ '--http1.1', 'own', 'trailers' ],
              [ '--http1.1', 'own', 'measured' ],
              [ '--http1.1', 'small', 'trailers', '?size=2000' ],
              [ '--http2-prior-knowledge', 'on', 'trailers' ],
              [ '--http2-prior-knowledge', 'own', 'trailers' ],
              [ '--http2-prior-knowledge', 'small', 'trailers',
                '?size=2000' ])
{
    my ($protocol, $mode, $route, $query) = @$case;
    my $path = "/grpc/$mode/$route/" . ++$serial;
    my $key = 'trailers' . ++$serial;
    my $uri = $path . ($query || '');
    my $first = trailers($protocol, $uri, $key);
    my $second = trailers($protocol, $uri, $key);
    my $name = "$path, $protocol";

    is($origin{grpc}->count($path), 1, "$name: once");
    is($first->{trailers}, 'grpc-status: 0 x-lines: one x-lines: two'
                           . ($mode eq 'own' ? ' x-own: own' : ''),
       "$name: trailers");
    is($first->{replayed}, '', "$name: first");

    if ($mode eq 'small') {
        is($second->{replayed}, 'omitted', "$name: omitted");
        is($second->{trailers}, '', "$name: and the trailers");
        is($second->{body}, '', "$name: and the body");
        next;
    }

    is($second->{replayed}, 'true', "$name: replayed");
    is($second->{trailers}, $first->{trailers}, "$name: the same again");
    ok($second->{body} eq $binary, "$name: body");
    ok($first->{body} eq $binary, "$name: first body");
}


# clients that go away, all at the same time

my @gone;
my %before = map { $_ => $origin{$_}->aborted } keys %origin;

for my $m (qw(fastcgi uwsgi scgi grpc)) {
    for my $mode ($m eq 'grpc' ? qw(on small) : qw(on off little small)) {
        for my $route (qw(early middle chunked)) {
            push @gone, map { leave($m, $mode, $route, $_) } qw(close reset);
        }
    }
}

# those that stall stay for as long as send_timeout

for my $m (qw(fastcgi uwsgi scgi grpc)) {
    for my $mode ($m eq 'grpc' ? qw(on small) : qw(on off little small)) {
        push @gone, leave($m, $mode, 'huge', 'stall');
    }
}

settled($_) for @gone;

is($origin{$_}->aborted, $before{$_}, "$_: no upstream was left before its end")
    for sort keys %origin;


# from files

my @files;

for my $path ('/files/large', '/sendfile/large', '/tryfile/x', '/files/huge',
              '/sendfile/huge')
{
    my $body = $path =~ /huge/ ? $huge : $large;

    for my $how ('read', 'reset', 'stall') {
        my $h = key();
        my $conn = $n->connect;

        $conn->send(Coord::HTTP::format(path => $path, headers => $h));

        if ($how eq 'read') {
            ok($conn->response->body eq $body, "$path: body");

        } else {
            ok($conn->read(10), "$path, $how: gets something");
            $conn->reset if $how eq 'reset';
        }

        push @files, [ $path, $how, $h, $body, $conn ];
    }
}

for (@files) {
    my ($path, $how, $h, $body) = @$_;
    my $r;

    $t->wait_for(sub {
        $r = $n->get($path, headers => $h);
        return $r->status != 409;
    }, 20);

    is($r->header('Idempotency-Replayed'), 'true', "$path, $how: stored");
    ok($r->body eq $body, "$path, $how: all of it");
}

{
    my $h = key();
    my $r = $n->post('/try/fastcgi/binary/1', 'b', headers => $h);
    is($r->status, 201, 'try_files');
    $r = $n->post('/try/fastcgi/binary/1', 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', 'try_files: replayed');
    is($r->body, $binary, 'try_files: body');

    # what a POST gets that is not allowed

    $h = key();
    is($n->post('/files/large', 'b', headers => $h)->status, 405, 'POST');
    $r = $n->post('/files/large', 'b', headers => $h);
    is($r->status, 405, 'POST: again');
    is($r->header('Idempotency-Replayed'), 'true', 'POST: replayed');

    # "return" answers before anybody is asked

    $h = key();

    for (1 .. 2) {
        $r = $n->post('/return/', 'b', headers => $h);
        is($r->body, 'returned', 'return');
        is($r->header('Idempotency-Replayed'), undef, 'return: not stored');
    }
}

ok($t->wait_for(sub {
       return $n->get('/status')->body
              =~ /Active connections: 1 .*Writing: 1 /s;
   }, 10), 'no request is left') or diag($n->get('/status')->body);

unlike($n->log, qr/count is zero/, 'requests are counted');

done_testing();


sub key { return [ 'Idempotency-Key' => 'k' . ++$serial ] }


sub replayed {
    my ($m, $mode, $route, $status, $body) = @_;

    my $h = key();
    my $path = "/$m/$mode/$route/" . ++$serial;
    my $first = $n->post($path, 'body', headers => $h);
    my $second = $n->post($path, 'body', headers => $h);

    is($first->status, $status, "$path: first");
    ok($first->body eq $body, "$path: its body");
    is($second->status, $status, "$path: status");
    ok($second->body eq $body, "$path: body");
    is($second->header('Idempotency-Replayed'), 'true', "$path: replayed");
    is($origin{$m}->count($path), 1, "$path: once");

    my ($req) = $origin{$m}->requests($path);
    is($req->{body}, 'body', "$path: the upstream gets the body");

    my @differ = grep {
        !/^(?:date|content-length|transfer-encoding|set-cookie|accept-ranges)$/
        && ($first->header($_) || '') ne ($second->header($_) || '')
    } keys %{$first->{headers}};

    is("@differ", '', "$path: fields");
    is($second->header('X-A'), 'a, b', "$path: all lines")
        if $route eq 'binary';
    is($second->header('Set-Cookie'), undef, "$path: no cookie");
}


# curl writes fields and trailers apart from the body, trailers last

sub trailers {
    my ($protocol, $path, $key) = @_;

    my ($head, $body) = ($t->file('head'), $t->file('body'));
    my $port = $protocol =~ /2/ ? $n->port(3) : $n->port;

    unlink $head, $body;
    system('curl', '-s', '--max-time', '20', $protocol, '-D', $head,
           '-o', $body, '-H', 'Host: same', '-H', 'TE: trailers',
           '-H', "Idempotency-Key: $key", '-d', 'body',
           "http://127.0.0.1:$port$path");

    my ($fields, $trailers) = split /\r\n\r\n/, Coord::Util::slurp($head), 2;

    return {
        body => -e $body ? Coord::Util::slurp($body) : '',
        trailers => join(' ', sort map { lc } split /\r\n/,
                         defined $trailers ? $trailers : ''),
        replayed => $fields =~ /^Idempotency-Replayed: (\w+)/mi ? $1 : '',
    };
}


sub again {
    my ($m, $mode, $route, $status) = @_;

    my $h = key();
    my $path = "/$m/$mode/$route/" . ++$serial;

    for my $i (1 .. 2) {
        my $r = $n->post($path, 'body', headers => $h);

        is($r->status, $status, "$path: status $i");
        is($r->header('Idempotency-Replayed'), undef, "$path: runs $i");
    }

    is($origin{$m}->count($path), 2, "$path: twice");
}


sub leave {
    my ($m, $mode, $route, $how) = @_;

    my $h = key();
    my $path = "/$m/$mode/$route/" . ++$serial;
    my $conn = $n->connect;

    $conn->send(Coord::HTTP::format(method => 'POST', path => $path,
                                    body => 'body', headers => $h));

    $t->wait_for(sub { $origin{$m}->count($path) }, 20);
    $conn->read(10) if $route ne 'early';

    $conn->close if $how eq 'close';
    $conn->reset if $how eq 'reset';

    return { m => $m, mode => $mode, path => $path, headers => $h,
             name => "$path, $how", conn => $conn,
             body => $mode eq 'small' ? ''
                     : $route eq 'huge' ? $huge : $large };
}


# what a client gets that asks until there is an answer

sub settled {
    my ($case) = @_;

    my $r;

    $t->wait_for(sub {
        $r = $n->post($case->{path}, 'body', headers => $case->{headers},
                      timeout => 20);
        return $r->status != 409;
    }, 30);

    is($r->status, 200, "$case->{name}: status");
    is($r->header('Idempotency-Replayed'),
       $case->{mode} eq 'small' ? 'omitted' : 'true',
       "$case->{name}: stored");
    ok($r->body eq $case->{body}, "$case->{name}: body");
    is($origin{$case->{m}}->count($case->{path}), 1, "$case->{name}: once");
}
