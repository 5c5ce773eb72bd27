#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# A response whose header waits for the store is otherwise as any other: with a
# cache, gzip, limit_rate, temporary files, TLS, slow clients, upgraded
# connections, idempotency, reloads.  Nobody spins, nothing is lost.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Digest::MD5 qw(md5_hex);
use IO::Uncompress::Gunzip;
use Time::HiRes qw(time sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect(die => 1);
my $fake = $t->fake_redis(upstream => $redis->{port});
my $big = join '', map { md5_hex($_) } 1 .. 60_000;
my $count = 0;

my $origin = $t->origin(default => sub {
    my ($req) = @_;

    my $id = $req->{args}{id} // 'none';

    return { raw => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\n"
                    . "Connection: upgrade\r\nX-Id: $id\r\n\r\nhello" }
        if $req->{path} eq '/upgrade';

    return { status => 101, headers => [ Upgrade => 'echo', 'X-Id' => $id ],
             parts => [ [ 0, 'hello' ], [ 3, 'bye' ] ], until_close => 1 }
        if $req->{path} eq '/app/upgrade';

    return { parts => [ [ 0, 'begin ' ], [ $req->{args}{part}, 'end' ] ],
             headers => [ 'X-Id' => $id ] }
        if $req->{args}{part};

    my $body = $req->{args}{ssi} ? 'a <!--#include virtual="/error" --> b'
               : $req->{args}{small} ? 'small' : $big;

    return { body => $body, headers => [ defined $req->{args}{id}
                                         ? ('X-Id' => $id) : (),
                                         'X-N' => ++$count,
                                         'Content-Type' => 'text/plain',
                                         'Cache-Control' => 'max-age=60' ],
             (map { $_ => $req->{args}{$_} } grep { $req->{args}{$_} }
                  qw(chunked until_close)) };
});

sub gunzip {
    my ($in) = @_;

    IO::Uncompress::Gunzip::gunzip(\$in => \my $out);
    return $out;
}

my $pem = $t->file('gate.pem');
my $tls = !system("openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=gate"
                  . " -days 9 -keyout $pem.key -out $pem >$pem.log 2>&1");

my $conf = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 5s; connect_timeout 5s; }
    coord_store quick { server %%REDIS%%; timeout 200ms; }
    coord_store late { server %%FAKE%%; timeout 5s; connect_timeout 2s; }
    coord_session_zone $http_x_id zone=z:1m ttl=1h;
    coord_session_zone $http_x_id zone=late:1m store=late;
    coord_session_zone $http_x_id zone=quick:1m store=quick;
    coord_session_zone $coord_session_id zone=app:1m store=quick;
    proxy_cache_path %%NODEDIR%%/cache keys_zone=c:1m;

    server {
        listen 127.0.0.1:%%PORT%%;
        %%TLS%%
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        add_header X-Status $coord_session_status always;
        add_header X-Cache $upstream_cache_status;
        coord_session zone=z create=$upstream_http_x_id bind=fixed;

        location / { proxy_pass http://%%ORIGIN%%; }
        location /few {
            proxy_buffers 4 4k;
            proxy_buffer_size 4k;
            proxy_busy_buffers_size 8k;
            proxy_pass http://%%ORIGIN%%;
        }
        location /nofile {
            proxy_max_temp_file_size 0;
            proxy_buffers 4 4k;
            proxy_buffer_size 4k;
            proxy_busy_buffers_size 8k;
            proxy_pass http://%%ORIGIN%%;
        }
        location /unbuffered {
            proxy_buffering off;
            proxy_pass http://%%ORIGIN%%;
        }
        location /cache {
            proxy_cache c;
            proxy_cache_key $uri;
            proxy_pass http://%%ORIGIN%%;
        }
        location /gzip {
            gzip on;
            gzip_types text/plain;
            proxy_pass http://%%ORIGIN%%;
        }
        location /ssi {
            ssi on;
            ssi_types text/plain;
            proxy_pass http://%%ORIGIN%%;
        }
        location /rate { limit_rate 2m; proxy_pass http://%%ORIGIN%%; }
        location /ranges {
            proxy_force_ranges on;
            proxy_pass http://%%ORIGIN%%;
        }
        location /once {
            coord_idempotency on;
            coord_idempotency_scope off;
            coord_idempotency_max_response 8m;
            proxy_pass http://%%ORIGIN%%;
        }
        location /lost {
            postpone_output 0;
            coord_session zone=late create=$upstream_http_x_id bind=fixed;
            coord_idempotency on;
            coord_idempotency_scope off;
            proxy_pass http://%%ORIGIN%%;
        }
        location /lostoff {
            postpone_output 0;
            coord_session zone=late create=$upstream_http_x_id bind=fixed;
            coord_idempotency on;
            coord_idempotency_scope off;
            proxy_buffering off;
            proxy_pass http://%%ORIGIN%%;
        }
        location /upgrade {
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_pass http://%%ORIGIN%%;
        }
        location /page {
            proxy_intercept_errors on;
            error_page 500 /error;
            proxy_pass http://%%ORIGIN%%;
        }
        location /error { return 200 error; }
        location /local {
            coord_session zone=z create=$arg_id bind=fixed;
            root %%NODEDIR%%;
        }
        location /zip {
            coord_session zone=z create=$arg_id bind=fixed;
            sendfile on;
            gzip on;
            gzip_types text/plain;
            default_type text/plain;
            alias %%NODEDIR%%/local/file;
        }
        location /quick {
            coord_session zone=quick create=$upstream_http_x_id bind=fixed
                          on_failure=closed missing=pass;
            proxy_pass http://%%ORIGIN%%;
        }
        location /app {
            coord_session_cookie sid rotate=$upstream_http_x_id;
            coord_session zone=app bind=fixed;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_pass http://%%ORIGIN%%;
        }
    }
EOF

my $n = $t->node(name => 'n', workers => 1, http => $conf, vars => {
    TLS => $tls ? "listen 127.0.0.1:%%PORT_2%% ssl; ssl_certificate $pem; "
                  . "ssl_certificate_key $pem.key;" : '' })->start;

$n->allow(qr/coord store|a client request body is buffered|buffered to a temp/);
mkdir $n->file('local');
open my $file, '>', $n->file('local/file') or die $!;
print $file $big;
close $file;


# each waits for Redis, uses hardly any CPU meanwhile, and comes whole

my $i = 0;

for my $path (qw(/ /?chunked=7000 /?until_close=1 /few /nofile /unbuffered
                 /unbuffered?until_close=1 /cache /rate /local/file))
{
    my $id = 'id' . ++$i;
    my $sep = $path =~ /\?/ ? '&' : '?';
    my $cpu = cpu();

    my $since = time;
    $admin->command(qw(CLIENT PAUSE 400 WRITE));
    my $r = $n->get("$path${sep}id=$id");
    my $took = time - $since;

    is($r->status, 200, "$path: answered");
    ok($r->body eq $big, "$path: whole");
    cmp_ok($took, '>=', 0.39, "$path: waited");
    cmp_ok(cpu() - $cpu, '<', 0.25, "$path: at rest");
    is($n->get('/?small=1', headers => { 'X-Id' => $id })->header('X-Status'),
       'BOUND', "$path: known");
}

is($n->get('/cache')->header('X-Cache'), 'HIT', 'cache: stored meanwhile');

{
    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    my $r = $n->get('/gzip?id=gz', headers => { 'Accept-Encoding' => 'gzip' });
    is($r->header('Content-Encoding'), 'gzip', 'gzip');
    cmp_ok(length $r->body, '>', 100_000, 'gzip: a body');

    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    $r = $n->get('/zip?id=zip', headers => { 'Accept-Encoding' => 'gzip' });
    is($r->header('Content-Encoding'), 'gzip', 'gzip of a file');
    is(gunzip($r->body), $big, 'gzip of a file: the body');

    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    $r = $n->get('/ranges?id=range', headers => { Range => 'bytes=5-9' });
    is($r->status . ' ' . length $r->body, '200 ' . length $big,
       'a Range is not served');

    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    is($n->get('/ssi?id=ssi&ssi=1')->body, 'a error b', 'with a subrequest');

    # a client that reads slowly

    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    my $c = $n->connect;
    $c->send("GET /few?id=slow HTTP/1.1\r\nHost: x\r\n\r\n");
    sleep 1;
    my $got = $c->response(timeout => 20);
    ok($got->body eq $big, 'a slow client');
    is($c->request(path => '/?small=1')->body, 'small', 'and goes on');

    # HTTP/1.0

    $c = $n->connect;
    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    $c->send("GET /?id=old HTTP/1.0\r\n\r\n");
    ok($c->response(timeout => 20)->body eq $big, 'HTTP/1.0');
}

SKIP: {
    skip 'no TLS', 1 if !$tls || !grep { -x "$_/curl" } split /:/, $ENV{PATH};

    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    my $port = $n->port(2);
    my $body = `curl -sk https://127.0.0.1:$port/?id=tls`;
    ok($body eq $big, 'TLS');
}


# with idempotency: executed once, and each waits but the replayed one

{
    my @key = (headers => { 'Idempotency-Key' => 'k1' });
    $admin->command(qw(CLIENT PAUSE 300 WRITE));
    my $first = $n->post('/once?id=once', '{}', @key);
    ok($first->body eq $big, 'idempotency: the first');
    ok($t->wait_for(sub {
        ($n->post('/once?id=once', '{}', @key)->header('Idempotency-Replayed')
         // '') eq 'true' }, 10), 'idempotency: replayed');
    is($n->post('/once?id=once', '{}', @key)->header('X-N'),
       $first->header('X-N'), 'idempotency: once');
}


# and when its client goes away while the header waits, before or after the
# end of its body: what is learned of that comes when the header is to be sent

for my $path ('/lost', '/lostoff') {
    for my $part (0.01, 1.5) {
        my $uri = "$path/$part?id=lost&part=$part";
        my @key = ('Idempotency-Key' => "lost$path$part");

        $n->get("$path/first?small=1&id=first");   # the one before is over
        $fake->fault(action => 'delay', delay => 0.8, cmd => 'HSETNX');
        my $fired = $fake->fired('delay');

        my $c = $n->connect;
        $c->send("POST $uri HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                 . "$key[0]: $key[1]\r\n\r\n{}");
        ok($t->wait_for(sub { $fake->fired('delay') > $fired }, 5),
           "lost $path $part: waits");
        $c->reset;

        my $r;
        $t->wait_for(sub {
            $r = $n->post($uri, '{}', headers => { @key });
            return $r->status != 409 }, 10);

        is($r->status . ' ' . ($r->header('Idempotency-Replayed') // ''),
           '200 true', "lost $path $part: its result is kept");
        is($r->body, 'begin end', "lost $path $part: whole");
        is($origin->count("$path/$part"), 1, "lost $path $part: once");
    }
}


# an upgraded connection does not wait; its session is known all the same

{
    my ($in) = upgraded('/upgrade?id=up');

    like($in, qr/^HTTP\/1\.1 101 .*hello$/s, 'upgraded');
    ok($t->wait_for(sub { $n->get('/?small=1', headers => { 'X-Id' => 'up' })
                          ->header('X-Status') eq 'BOUND' }, 5),
       'upgraded: known');

    # nor could it tell the client that its session has moved

    my ($id) = $n->get('/app?small=1')->header('Set-Cookie') =~ /sid=(\w+)/;

    ($in, my $c) = upgraded('/app/upgrade?id=in', "Cookie: sid=$id\r\n");
    like($in, qr/^HTTP\/1\.1 101 .*hello$/s, 'upgraded: a log-in');
    ($id) = $in =~ /sid=(\w+)/ if $in =~ /^Set-Cookie/mi;
    my @as = map { sleep 0.1;
                   $n->get('/app?small=1', headers => { Cookie => "sid=$id" })
                   ->header('X-Status') } 1 .. 5;
    is("@as", 'BOUND ' x 4 . 'BOUND', 'upgraded: keeps the id that it has');
}


# an error page in its place

is($n->get('/page?id=page&status=500')->body, 'error', 'error_page');


# no answer: the response leaves all the same; an id stays as it is

{
    my ($id) = $n->get('/app?small=1')->header('Set-Cookie') =~ /sid=(\w+)/;

    $admin->command(qw(CLIENT PAUSE 30000 WRITE));
    my $r = $n->get('/quick?small=1&id=q');
    is($r->status . ' ' . $r->header('X-Status'), '200 BYPASSED',
       'no answer: answered, closed or not');
    $r = $n->get('/app?small=1&id=new', headers => { Cookie => "sid=$id" });
    is($r->status, 200, 'no answer: a log-in');
    is($r->header('Set-Cookie'), undef, 'no answer: keeps its id');
    $admin->command(qw(CLIENT UNPAUSE));
    is($n->get('/app?small=1', headers => { Cookie => "sid=$id" })->status, 200,
       'no answer: which is good');
}


# a reload meanwhile

{
    $admin->command(qw(CLIENT PAUSE 800 WRITE));
    my $c = $n->connect;
    $c->send("GET /?id=reload HTTP/1.1\r\nHost: x\r\n\r\n");
    sleep 0.2;
    $n->reload;
    ok($c->response(timeout => 20)->body eq $big, 'reload');
    is($n->get('/?small=1', headers => { 'X-Id' => 'reload' })
       ->header('X-Status'), 'BOUND', 'reload: known');
}

done_testing();


# all that comes when a connection is upgraded

sub upgraded {
    my ($path, $fields) = (@_, '');

    my $c = $n->connect;
    $c->send("GET $path HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\n${fields}"
             . "Connection: upgrade\r\n\r\n");
    my $in = '';
    my $end = time + 5;
    while ($in !~ /hello/ && time < $end) {
        my $bytes = $c->read(1);
        $in .= $bytes if defined $bytes;
        last if defined $bytes && $bytes eq '';
    }

    return ($in, $c);
}


# seconds that the worker has used

sub cpu {
    my ($pid) = $n->workers;

    open my $stat, '<', "/proc/$pid/stat" or return 0;
    my @f = split ' ', (split /\) /, <$stat>)[1];

    return ($f[11] + $f[12]) / 100;
}
