#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency: configuration, shadow mode, digests as keys, HTTP/2,
# clients that retry by themselves.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
$t->redis;
$t->redis;


# configuration

for (
    [ 'coord_idempotency maybe;', qr/invalid value "maybe".*"required"/ ],
    [ 'coord_idempotency on quick;', qr/invalid parameter "quick"/ ],
    [ 'coord_idempotency on on_failure=no;', qr/invalid value "no"/ ],
    [ 'coord_idempotency on; coord_idempotency off;', qr/is duplicate/ ],
    [ 'coord_idempotency_methods HEAD;', qr/invalid value "HEAD"/ ],
    [ 'coord_idempotency on; coord_idempotency_lease 10ms;',
      qr/at least one second/ ],
    [ 'coord_idempotency on; coord_idempotency_max_response 9m;',
      qr/at most 8m/ ],
    [ 'coord_idempotency_store_status 2xx 206;', qr/invalid status "206"/ ],
    [ 'coord_idempotency_store_status 1xx;', qr/invalid status "1xx"/ ],
    [ 'coord_idempotency_on_unknown maybe;', qr/invalid value "maybe"/ ],
    [ 'coord_idempotency_pass_header Content-Length;',
      qr/belongs to a connection/ ],
    [ 'coord_idempotency on; coord_idempotency_doc_url "a<b";',
      qr/invalid URL/ ],
    [ 'coord_idempotency on; coord_idempotency_store none;',
      qr/unknown store "none"/ ],
)
{
    my ($text, $error) = @$_;

    like($t->conf_error(server => $text), $error, $text);
}

is($t->conf_error(server => 'coord_idempotency on;'), '', 'as it is');

my $n = $t->node(name => 'warn', server => <<'EOF');
    coord_idempotency on;
    coord_idempotency_scope all;
EOF

like(($n->check)[1], qr/\[warn\].*"coord_idempotency_scope" is constant/,
     'a constant scope is warned of');
unlike(($t->node(name => "nowarn$_", server => 'coord_idempotency on; '
                                                . ($_ ? 'coord_idempotency_scope off;' : ''))
          ->check)[1], qr/\[warn\]/, $_ ? 'none is not' : 'a variable one is not')
    for 0, 1;


# nginx itself would run a request twice

my $twice = qr/\[warn\].*"(\w+)_next_upstream"\ with\ "non_idempotent"\ may
               \ run\ a\ request\ twice\ in\ location\ "([^"]+)"/x;

for my $case (map { my $m = $_; [ $m, "$m\_next_upstream error non_idempotent; "
                                  . ($m eq 'proxy'
                                     ? 'proxy_pass http://127.0.0.1:1;'
                                     : "$m\_pass 127.0.0.1:1;") ] }
              qw(proxy fastcgi uwsgi scgi grpc))
{
    my ($module, $conf) = @$case;

    for my $mode (qw(on required off)) {
        my ($good, $text) = $t->node(name => "$module-$mode", server => <<"EOF")
    location /other { coord_idempotency on; proxy_pass http://127.0.0.1:1; }
    location /twice { coord_idempotency $mode; $conf }
EOF
            ->check;

        ok($good, "$module, $mode: a warning only");
        my @found = $text =~ /$twice/g;
        is("@found", $mode eq 'off' ? '' : "$module /twice", "$module, $mode");
    }
}

for my $case ([ 'other module', 'fastcgi_pass 127.0.0.1:1;', '' ],
              [ 'other module, too',
                'fastcgi_pass 127.0.0.1:1; '
                . 'fastcgi_next_upstream non_idempotent error;',
                'fastcgi /' ],
              [ 'inherited', 'proxy_pass http://127.0.0.1:1;', 'proxy /' ],
              [ 'variable', 'proxy_pass http://$arg_a;', 'proxy /' ],
              [ 'overridden', 'proxy_pass http://127.0.0.1:1; '
                              . 'proxy_next_upstream error;', '' ],
              [ 'file', 'root html;', '' ])
{
    my ($name, $conf, $want) = @$case;
    my ($good, $text) = $t->node(name => $name =~ s/\W//gr, server => <<"EOF")
    coord_idempotency on;
    proxy_next_upstream error timeout non_idempotent;
    location / { $conf }
EOF
        ->check;

    ok($good, "next upstream, $name: a warning only");
    my @found = $text =~ /$twice/g;
    is("@found", $want, "next upstream, $name") or diag($text);
}


# what runs

my $origin = $t->origin(routes => {
    '/flaky' => sub {
        my ($req) = @_;
        return { status => $req->{n} < 3 ? 503 : 201,
                 body => "execution $req->{n}" };
    },
    '/drop' => { delay => 2, body => 'done' },
    '/slow' => { delay => 1.5, body => 'slow' },
});

$n = $t->node(name => 'n', workers => 2, http => <<'EOF')->start;
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_store other { server %%REDIS_2%%; timeout 30s; connect_timeout 30s; }
    log_format status '$uri $coord_idempotency_status';
    access_log %%NODEDIR%%/status.log status;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
        coord_idempotency_lease 2s;
        coord_idempotency_scope off;

        location / { coord_idempotency on; proxy_pass http://%%ORIGIN%%; }

        location /shadow/ {
            coord_idempotency required shadow;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /dry/ {
            coord_idempotency on;
            coord_idempotency_dry_run on;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /digest/ {
            coord_idempotency on;
            coord_idempotency_key $coord_request_digest;
            coord_idempotency_ttl 2s;
            coord_idempotency_wait 10s;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /other/ {
            coord_idempotency on;
            coord_idempotency_store other;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /main/ {
            coord_idempotency on;
            coord_idempotency_store main;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /errors/ {
            coord_idempotency on;
            coord_idempotency_store_status 2xx 500 409;
            proxy_pass http://%%ORIGIN%%/;
        }
    }
EOF

my $serial = 0;
my $r;


sub key { return [ 'Idempotency-Key' => 'k' . ++$serial ] }


# shadow: observes, changes nothing

for my $path ('/shadow/x', '/dry/x') {
    my $before = $origin->count;
    my $h = key();
    $n->post($path, 'b', headers => $h);
    $r = $n->post($path, 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), undef, "$path: no replay");
    $r = $n->post($path, 'other', headers => $h);
    is($r->status, 200, "$path: no refusal");
    is($n->post($path, 'b')->status, 200, "$path: no key");
    is($n->post($path, 'b', headers => [ 'Idempotency-Key' => '' ])->status,
       200, "$path: a bad key");
    is($origin->count, $before + 5, "$path: all executed");
}

like($n->log, qr/replaying response, shadow,/, 'shadow: logged, replay');
like($n->log, qr/used for another one, shadow,/, 'shadow: logged, mismatch');
like($n->log, qr/without a key, shadow,/, 'shadow: logged, missing');


# the content as key

{
    my @r = $n->parallel(10, '/digest/slow', method => 'POST', body => 'same');
    is(scalar(grep { $_->body eq 'slow' } @r), 10, 'digest: all get it');
    is($origin->count('/slow'), 1, 'digest: once');
    $n->post('/digest/slow', 'else');
    is($origin->count('/slow'), 2, 'digest: another content');
    ok($t->wait_for(sub {
           $n->post('/digest/slow', 'same');
           return $origin->count('/slow') > 2;
       }, 15), 'digest: over after the ttl');
}


# stores

{
    my $h = key();
    $n->post('/other/x', 'b', headers => $h);
    $r = $n->post('/other/x', 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', 'another store');
    $r = $n->post('/main/x', 'b', headers => $h);
    is($r->status, 200, 'has keys of its own');

    $h = key();
    $n->post('/main/x', 'b', headers => $h);
    is($n->post('/x', 'b', headers => $h)->status, 422,
       'the default store by its name');
}


# statuses by choice

for my $status (500, 409, 200) {
    my $h = key();
    $n->post("/errors/x?status=$status", 'b', headers => $h);
    $r = $n->post("/errors/x?status=$status", 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), 'true', "stored: $status");
}

for my $status (501, 404, 408) {
    my $h = key();
    $n->post("/errors/x?status=$status", 'b', headers => $h);
    $r = $n->post("/errors/x?status=$status", 'b', headers => $h);
    is($r->header('Idempotency-Replayed'), undef, "not stored: $status");
}


# HTTP/2

{
    my $url = 'http://127.0.0.1:' . $n->port(2);
    my $body = 'x' x 70_000;
    my @args = ('-H', 'Idempotency-Key: h2', '--data-binary', $body);
    my $before = $origin->count('/h2');

    $r = $n->h2("$url/h2", @args);
    is($r->status, 200, 'h2: first');
    $r = $n->h2("$url/h2", @args);
    is($r->header('idempotency-replayed'), 'true', 'h2: replay');
    $r = $n->h2("$url/h2", @args[0 .. 2], $body . 'y');
    is($r->status, 422, 'h2: mismatch');
    is($origin->count('/h2'), $before + 1, 'h2: once');
    is(($origin->requests('/h2'))[-1]{body}, $body, 'h2: body');
}


# a client that retries by itself, with one key

{
    my $url = $n->url('/flaky');
    my @curl = ('curl', '-s', '--retry', '6', '--retry-all-errors',
                '--retry-delay', '1', '-H', 'Idempotency-Key: flaky',
                '-d', 'body');
    $origin->reset_counters;

    is(curl(@curl, '-f', $url), 'execution 3', 'curl: 503, 503, 201');
    is(curl(@curl, '-f', $url), 'execution 3', 'curl: the same again');
    is($origin->count('/flaky'), 3, 'curl: one execution that counts');

    # its connection times out, the upstream goes on; 409 until it is done

    @curl[7, 8] = ('-H', 'Idempotency-Key: drop');
    is(curl(@curl, '-f', '--max-time', '0.7', '--retry-max-time', '20',
            $n->url('/drop')), 'done', 'curl: timed out, then the result');
    is($origin->count('/drop'), 1, 'curl: one execution');
}

done_testing();


sub curl {
    open(my $fh, '-|', @_) or die "curl: $!";
    local $/;
    my $out = <$fh>;
    close $fh;

    return $out;
}
