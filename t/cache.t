#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: responses that nodes share, by RFC 9111.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

# ?cc=: Cache-Control; each answer has another number

my ($n, %count) = (0);
my $date = 'Thu, 01 Jan 1970 00:00:01 GMT';
my $origin = $t->origin(default => sub {
        my ($req) = @_;
        my %arg = map { s/%([0-9a-f]{2})/chr hex $1/ger }
                  map { /^(\w+)=(.*)/s ? ($1, $2) : () }
                  split /&/, $req->{uri} =~ /\?(.*)/s ? $1 : '';
        my %headers = ('Content-Type' => 'text/plain',
                       ETag => '"e"', 'X-Count' => ++$n,
                       'X-Seen' => join ' ', grep { /^(?:range|if-)/ }
                                                  sort keys %{$req->{headers}});

        my $seen = $req->{headers};
        my %tag = $arg{date} ? ('Last-Modified' => $date) : (ETag => '"e"');
        my $if = $seen->{$arg{date} ? 'if-modified-since' : 'if-none-match'};

        return { status => 304, body => '', headers => [%tag,
                     'X-News' => $n, 'Content-Type' => 'x/y',
                     $arg{cc} ? ('Cache-Control' => $arg{cc}) : ()] }
            if $arg{same} && $if && $if->[0] eq (values %tag)[0];

        delete $headers{ETag} if $arg{date};
        $headers{'Last-Modified'} = $date if $arg{date};
        $headers{'Cache-Control'} = $arg{cc} if $arg{cc};
        $headers{Vary} = $arg{vary} if $arg{vary};
        $headers{'X-Accel-Charset'} = $arg{charset} if $arg{charset};
        $headers{'Set-Cookie'} = 'a=b' if $arg{cookie};
        $headers{'Surrogate-Key'} = $arg{tags} if $arg{tags};
        $headers{'Cache-Tag'} = $arg{tags} =~ s/ /, /gr if $arg{twice};
        $headers{Age} = $arg{age} if $arg{age};
        $headers{Expires} = $arg{expires} if $arg{expires};
        $headers{'X-Accel-Redirect'} = $arg{accel} if $arg{accel};

        return { status => $arg{status} || 200, headers => [%headers],
                 delay => $arg{delay} || 0,
                 body => "body $n " . 'x' x ($arg{big} || 0) };
});

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_cache_zone zone=pages:4m;
    coord_cache_zone zone=old:4m;
    coord_cache_zone zone=mem:4m store=local;
    map $remote_user $who { default $remote_user; }

    server {
        listen 127.0.0.1:%%PORT%% backlog=1024;
        add_header X-Cache $coord_cache_status always;

        location / {
            coord_cache $uri?$args zone=pages valid=6s;
            proxy_pass http://%%ORIGIN%%;
        }
        location /user { coord_cache $uri:$remote_user:$arg_k zone=pages;
                         proxy_pass http://%%ORIGIN%%; }
        location /whole { coord_cache $uri:${http_authorization}:$arg_k
                          zone=pages; proxy_pass http://%%ORIGIN%%; }
        location /mapped { coord_cache /user:$who:$arg_k zone=pages;
                           proxy_pass http://%%ORIGIN%%; }
        location /like { coord_cache $uri:$http_authorization_x:$arg_k
                         zone=pages; proxy_pass http://%%ORIGIN%%; }
        location /key { coord_cache $arg_k zone=pages;
                        proxy_pass http://%%ORIGIN%%; }
        location /small { coord_cache $uri?$args zone=pages max=1k;
                          proxy_pass http://%%ORIGIN%%; }
        location /stale { coord_cache $arg_k zone=old valid=2s stale=60s;
                          proxy_pass http://%%ORIGIN%%; }
        location /lock { coord_cache $arg_k zone=pages lock;
                         proxy_pass http://%%ORIGIN%%; }
        location /mem { coord_cache $uri?$args zone=mem;
                        proxy_pass http://%%ORIGIN%%; }
        location /page {
            coord_cache $uri?$arg_k zone=pages valid=2s stale=60s;
            location /page/named { %%PAGE%% error_page 502 = @sorry; }
            location /page/set { %%PAGE%% error_page 502 =200 /sorry; }
            location /page/kept { %%PAGE%% error_page 502 /sorry; }
            location /page/twice { %%PAGE%% error_page 502 = @sorry;
                                   recursive_error_pages on; }
            location /page/404 { %%PAGE%% error_page 404 = @sorry; }
        }
        location @sorry { rewrite ^ /sorry?cc=max-age=60? break;
                          proxy_pass http://%%ORIGIN%%; }
        location /sorry { rewrite ^ /sorry?cc=max-age=60? break;
                          proxy_pass http://%%ORIGIN%%; }
        location /fallback { error_page 404 = @cached; empty_gif;
                             if ($uri) { return 404; } }
        location @cached { coord_cache $uri zone=pages valid=1m;
                           proxy_pass http://%%ORIGIN%%; }
        location /accel { coord_cache $uri?$arg_k zone=pages valid=1m;
                          proxy_pass http://%%ORIGIN%%; }
        location /accel/ignored { coord_cache $uri zone=pages valid=1m;
                                  proxy_ignore_headers X-Accel-Redirect;
                                  proxy_pass http://%%ORIGIN%%; }
        location /secret/ { internal; rewrite ^ /secret? break;
                            proxy_pass http://%%ORIGIN%%; }
        location /file/ { internal; alias /etc/; }
        location /tried { coord_cache $uri zone=pages valid=1m;
                          try_files /none @tried; }
        location @tried { proxy_pass http://%%ORIGIN%%; }
        location /ssi { ssi on; default_type text/html;
                        return 200 '<!--#include virtual="/sub?cc=max-age=9" -->'; }
        location /expires { coord_cache $uri?$args zone=pages; expires 1h;
                            proxy_pass http://%%ORIGIN%%; }
        location /off { coord_cache off; proxy_pass http://%%ORIGIN%%; }
        location /api/ { coord_api write; }
        location /status { coord_status; }
    }
EOT

my $page = 'proxy_pass http://%%ORIGIN%%; proxy_intercept_errors on;';
$http =~ s/%%PAGE%%/$page/g;

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;
my $b = $t->node(name => 'b', workers => 2, http => $http)->start;

# which node says what of a path: words of $coord_cache_status

sub word { return $_[0]->get(@_[1 .. $#_])->header('x-cache') // '' }

# until what a node has sent is stored: a record that is written

my $watch = $redis->watch;

sub fills {
    my ($node, $path, %opt) = @_;

    return scalar $watch->after(sub { $node->get($path, %opt) }, 'set',
                                qr/^coord:ca:.*:r$/);
}

# what the other node says of a path for which this one was asked

sub is_kept {
    my ($path, $name, %opt) = @_;

    fills($a, $path, %opt);
    is(word($b, $path, %opt), 'HIT', $name);
}

sub is_passed {
    my ($path, $name, %opt) = @_;

    $a->get($path, %opt);
    $t->rest(0.3);
    is(word($b, $path, %opt), 'MISS', $name);
}


# --- hit and miss ---

my $first = $a->get('/one');
is($first->header('x-cache'), 'MISS', 'the first request');
ok($t->wait_for(sub { @{$r->command(KEYS => 'coord:ca:pages:*')} == 1 }),
   'is stored');
my $hit = $b->get('/one');
is($hit->header('x-cache'), 'HIT', 'another node has it');
is($hit->body, $first->body, 'the same body');
is($hit->header('x-count'), $first->header('x-count'), 'the same fields');
is($hit->header('content-type'), 'text/plain', 'the type');
like($hit->header('age'), qr/^[0-6]$/, 'Age');
is($b->request('HEAD', '/one')->header('x-cache'), 'HIT', 'HEAD');
is($b->get('/one', headers => { 'If-None-Match' => '"e"' })->status, 304,
   'a condition');
my $part = $b->get('/one', headers => { Range => 'bytes=0-3' });
is($part->status, 206, 'a range');
is($part->body, 'body', 'of the body');
is($b->post('/one', 'x')->header('x-cache'), undef, 'POST is not for it');
is(word($b, '/two'), 'MISS', 'another key');
is(word($a, '/off'), '', 'coord_cache off');
is(word($a, '/key'), '', 'an empty key');
like($a->get('/ssi')->body, qr/^body/, 'a subrequest') for 1, 2;
is($origin->count('/sub'), 2, 'goes past it');
cmp_ok($r->command(PTTL => $r->command(KEYS => 'coord:ca:*')->[0]), '>', 0,
       'it has a life');

my $range = fills($a, '/ranged', headers => { Range => 'bytes=0-3' });
is($range->header('x-seen'), '', 'what fills the cache is whole');
is($range->body, 'body', 'who has asked for a part has that');
is(word($b, '/ranged'), 'HIT', 'and stored');

for my $pair ([ 'If-Modified-Since' => 'Mon, 28 Sep 2037 06:00:00 GMT',
                'If-None-Match' => '"e"' ],
              [ 'If-Range' => '"e"', Range => 'bytes=0-3' ])
{
    my @other = ('X-A' => 1);
    my $path = "/asked/$pair->[0]";

    for my $order ([ @$pair ], [ @$pair[2, 3, 0, 1] ]) {
        is($a->get($path .= 'x', headers => [ @$_ ])->header('x-seen') // '',
           '', "what is asked of it stays here: @$_")
            for [ @$order, @other ];
        is($a->get($path .= 'x', headers => [ @$_ ])->header('x-seen') // '',
           '', "what is asked of it stays here: @$_")
            for [ @other, @$order ];
    }
}

ok($t->wait_for(sub { word($b, '/one') eq 'MISS' }), 'valid= ends');


# --- RFC 9111 ---

for (['cc=max-age=60', 'HIT'], ['cc=no-store', 'MISS'],
     ['cc=private', 'MISS'], ['cc=no-cache', 'MISS'],
     ['cc=max-age=0', 'MISS'], ['cc=max-age=60,s-maxage=0', 'MISS'],
     ['cc=max-age=0,s-maxage=60', 'HIT'], ['cc=Max-Age="60"', 'HIT'],
     ['cc=max-age=x', 'MISS'], ['cookie=1', 'MISS'], ['status=404', 'MISS'],
     ['status=404&cc=max-age=9', 'HIT'], ['status=500&cc=max-age=9', 'MISS'],
     ['status=301', 'HIT'], ['age=90&cc=max-age=60', 'MISS'],
     ['age=30&cc=max-age=60', 'HIT'],
     ['expires=Thu,%2001%20Jan%201970%2000:00:00%20GMT', 'MISS'],
     ['expires=Thu,%2001%20Jan%202037%2000:00:00%20GMT', 'HIT'],
     ['vary=*', 'MISS'], ['big=5000', 'HIT'])
{
    my $is = $_->[1] eq 'HIT' ? \&is_kept : \&is_passed;

    $is->("/rfc?$_->[0]", "$_->[0]: $_->[1]");
}

like($b->get('/rfc?age=30&cc=max-age=60')->header('age'), qr/^3\d$/,
     'Age counts from the origin');

my $auth = { Authorization => 'Basic ' . 'dTpw' };
is_passed('/auth?cc=max-age=60', 'Authorization: not for others',
          headers => $auth);
is_kept('/auth?cc=public,max-age=60', 'public: it is', headers => $auth);
is_kept('/user?k=1&cc=max-age=60', 'a key with the user in it',
        headers => $auth);
is(word($b, '/user?k=1&cc=max-age=60'), 'MISS', 'is for that user');

my ($wrong, @token) = map { { Authorization => $_ } }
                      'Basic ' . 'dTp4', 'Bearer one', 'Bearer two';
is(word($b, '/user?k=1&cc=max-age=60', headers => $wrong), 'MISS',
   'not for who only says that he is that user');
is(word($b, '/user?k=1&cc=max-age=60', headers => $auth), 'HIT',
   'he himself still has it');
is(word($b, '/mapped?k=1&cc=public,max-age=60', headers => $wrong), 'MISS',
   'nor where the same key is another expression');
$t->rest(0.3);
$wrong = { Authorization => 'Basic dTp5' };
is(word($b, '/user?k=1&cc=max-age=60', headers => $wrong), 'MISS',
   'nor the other way round');
is_kept('/user?k=2&cc=max-age=60', 'credentials without a name',
        headers => $token[0]);
is(word($b, '/user?k=2&cc=max-age=60', headers => $token[1]), 'MISS',
   'are not those of another one');
is_kept('/whole?k=1&cc=max-age=60', 'a key with the credentials in it',
        headers => $auth);
is(word($b, '/whole?k=1&cc=max-age=60', headers => $wrong), 'MISS',
   'is for these');
is_passed('/like?k=1&cc=max-age=60',
          'a field of a like name is not Authorization', headers => $auth);
is($a->request('DELETE', '/api/cache/pages?key=/user:u:1')->status, 200,
   'purged by its key');
is(word($b, '/user?k=1&cc=max-age=60', headers => $auth), 'MISS',
   'with all credentials');
is_passed('/ns?cc=max-age=60', 'the client does not want it stored',
          headers => { 'Cache-Control' => 'no-store' });


# --- Vary ---

my @lang = map { { 'Accept-Language' => $_ } } qw(en de);
my %body;
for (0, 1) {
    $body{$_} = fills($a, '/v?vary=Accept-Language&cc=max-age=60',
                      headers => $lang[$_])->body;
}
isnt($body{0}, $body{1}, 'two variants');
for (0, 1, 0) {
    my $res = $b->get('/v?vary=Accept-Language&cc=max-age=60',
                      headers => $lang[$_]);
    is($res->header('x-cache'), 'HIT', 'a variant');
    is($res->body, $body{$_}, 'the right one');
}
is(word($b, '/v?vary=Accept-Language&cc=max-age=60'), 'MISS',
   'none for others');
fills($a, '/vn?vary=X-V&cc=max-age=60', headers => ['X-V' => 'a b, c']);
is(word($b, '/vn?vary=X-V&cc=max-age=60', headers => $_->[0]), $_->[1],
   "the same list: $_->[1]")
    for [['X-V' => 'a b,c'], 'HIT'], [['X-V' => ',a b , c,'], 'HIT'],
        [['X-V' => 'a b', 'X-V' => 'c'], 'HIT'], [['X-V' => 'a b, C'], 'MISS'];
fills($a, '/vn?vary=X-W&cc=max-age=60');
is(word($b, '/vn?vary=X-W&cc=max-age=60', headers => ['X-W' => '']), 'MISS',
   'an empty field is not an absent one');


# --- large ones ---

is_kept('/small?big=100', 'a small one');
is_passed('/small?big=2000', 'max=: a larger one passes');
is($b->get('/small?big=200000')->body =~ s/^body \d+ //r, 'x' x 200_000,
   'as a whole');


# a field that other filters look at

for my $word ('MISS', 'HIT') {
    my $path = '/expires?cc=s-maxage=60';
    my $res = $word eq 'MISS' ? fills($a, $path) : $b->get($path);
    is(join('|', $word, @{$res->{headers}{'cache-control'}}),
       $res->header('x-cache') . '|max-age=3600', "\"expires\" of a $word");
}

# a charset that is to be, where nothing makes it so

is_kept('/one?charset=koi8-r&cc=max-age=60', 'X-Accel-Charset');
is($b->get('/one?charset=koi8-r&cc=max-age=60')->header('content-type'),
   'text/plain', 'Content-Type as without a cache');


# --- purge ---

sub purge { return $a->request('DELETE', "/api/cache/pages?$_[0]")->status }

is_kept('/key?k=p1&cc=max-age=60', 'before a purge');
is(purge('key=p1'), 200, 'purge by key');
is(fills($b, '/key?k=p1&cc=max-age=60')->header('x-cache'), 'MISS',
   'it is gone on all nodes');
is(word($a, '/key?k=p1&cc=max-age=60'), 'HIT', 'and stored anew');

is_kept("/key?k=t$_&cc=max-age=60&tags=news%20item$_", 'tagged')
    for 1, 2;
is(purge('tag=item1'), 200, 'purge by tag');
is(word($b, '/key?k=t1&cc=max-age=60&tags=news%20item1'), 'MISS', 'its page');
is(word($b, '/key?k=t2&cc=max-age=60&tags=news%20item2'), 'HIT', 'no other');
is(purge('tag=news'), 200, 'purge by a tag of several');
is(word($b, '/key?k=t2&cc=max-age=60&tags=news%20item2'), 'MISS', 'all of it');

# who asks at once is not taken for one who has asked before

for my $k ('p8', 'p9') {
    my $path = "/key?k=$k&cc=max-age=60&tags=soon";

    is_kept($path, "before a purge: $k");
    purge($k eq 'p8' ? 'key=p8' : 'tag=soon');
    is(fills($a, $path)->header('x-cache'), 'MISS', 'asked for at once');
    is(word($b, $path), 'HIT', 'and stored');
}


# who has a response, or the end of a request that changes it, is not ahead of
# the store; in what order a server reads two connections is its own matter

{
    my ($from, $to) = ($a->connect, $b->connect);
    my ($hits, $gone) = (0, 0);

    for my $i (1 .. 700) {
        my $path = "/key?k=ahead$i&cc=max-age=60";
        $from->request(path => $path);
        $hits += $to->request(path => $path)->header('x-cache') eq 'HIT';

        next if $i % 5;

        $from->request(path => $path, method => 'POST', body => 'x');
        $gone += $to->request(path => $path)->header('x-cache') eq 'MISS';
    }

    cmp_ok($hits, '>', 688, 'stored before its client has all of it');
    cmp_ok($gone, '>', 130, 'and purged before the client is told');
}

# whatever the server makes of it: what is written first

SKIP: {
    my $one = $t->node(name => 'order', workers => 1, log_level => 'debug',
                       http => $http)->start;

    skip('nginx without --with-debug', 3)
        if !$t->wait_for(sub { $one->log_lines(qr/\[debug\]/) }, 1);

    is(fills($one, '/key?k=order0&cc=max-age=60&big=4000')->status, 200,
       'a page, for which the connection is made that takes pages');
    is($one->get('/key?k=order&cc=max-age=60&big=3000')->status, 200,
       'another one');
    is_deeply([ map { /send: fd/ ? 'store' : 'client' }
                $one->log_lines(qr/(?:send: fd:\d+ |writev: )3\d\d\d of 3/) ],
              ['store', 'client'], 'the store has it before its client');
    $one->stop;
}


# many tags; the same in two fields are as many

sub tags { return '&cc=max-age=60&tags=' . join '%20', map { "m$_" } 1 .. $_[0] }

is_kept('/key?k=m1' . tags(64), '64 tags');
is_kept('/key?k=m2&twice=1' . tags(64), 'each of them twice');
is_passed('/key?k=m3' . tags(65), '65 tags');
is(purge('tag=m64'), 200, 'purge by the last one');
is(word($b, "/key?k=m$_&twice=1" . tags(64)), 'MISS', "is one of page $_")
    for 1, 2;

is(purge('x=1'), 400, 'neither key nor tag');
is(purge('tag=' . 'x' x 128), 200, 'a tag of 128 bytes');
is(purge('tag=' . 'x' x 129), 400, 'a longer one, which no page has');
is($a->request('DELETE', '/api/cache/none?key=1')->status, 404, 'no zone');
is(purge($_), 400, "not \"$_\"") for 'key=', 'tag=', 'key=a&tag=b';

# unsafe methods

for (['POST', 200, 'MISS'], ['PUT', 204, 'MISS'], ['DELETE', 303, 'MISS'],
     ['PURGE', 200, 'MISS'], ['POST', 409, 'HIT'], ['PATCH', 500, 'HIT'],
     ['OPTIONS', 200, 'HIT'])
{
    my ($method, $status, $word) = @$_;
    $r->command('FLUSHALL');
    is_kept('/key?k=u&cc=max-age=60', "before $method");
    my $send = sub { $a->request($method, "/key?k=u&status=$status") };
    my $res = $word eq 'MISS' ? $watch->after($send, 'unlink') : $send->();
    is($res->status, $status, 'its status');
    is($res->header('x-cache'), undef, 'it goes to the origin');
    $t->rest(0.1);
    is(word($b, '/key?k=u&cc=max-age=60'), $word, "and after it: $word");
}

# pages of their own: one that the other node has just sent may be stored behind
# a FLUSHALL

for (['slow', 'key=slow'], ['slower', 'tag=slow']) {
    my ($k, $what) = @$_;
    my $c = $a->connect;
    my $seen = $origin->count('/key');
    $c->send("GET /key?k=$k&delay=1&cc=max-age=60&tags=slow HTTP/1.1\r\n"
             . "Host: x\r\n\r\n");
    ok($t->wait_for(sub { $origin->count('/key') > $seen }), 'it is asked for');
    is(purge($what), 200, "a purge while it is filled: $what");
    like($c->response->body, qr/^body/, 'the client has its page');
    $t->rest(0.3);
    is(word($b, "/key?k=$k&cc=max-age=60"), 'MISS',
       'the old page does not come back');
}

$r->command('FLUSHALL');


# --- stale ---

fills($a, '/stale?k=s');
is(word($b, '/stale?k=s'), 'HIT', 'fresh');
sleep 2.2;
my $c = $a->connect;
my $seen = $origin->count('/stale');
$watch->seen;
$c->send("GET /stale?k=s&delay=2 HTTP/1.1\r\nHost: x\r\n\r\n");
$t->wait_for(sub { $origin->count('/stale') > $seen });
is(word($b, '/stale?k=s'), 'UPDATING', 'stale while another one asks');
my $res = $c->response;
is($res->header('x-cache'), 'EXPIRED', 'who asks the origin');
$t->wait_for(sub { $watch->calls('set', qr/^coord:ca:.*:r$/) });
is($b->get('/stale?k=s')->body, $res->body, 'and all have its answer');
sleep 2.2;
$res = $b->get('/stale?k=s&status=503');
is($res->status, 200, 'stale if the origin fails');
is($res->header('x-cache'), 'STALE', 'its status');
like($res->body, qr/^body \d+ $/, 'its body');
like($res->header('age'), qr/^\d+$/, 'its Age');

# each request once, by what has become of it

sub outcomes {
    my ($zone, %n) = @_;

    for (map { $_->get('/status?format=prometheus')->body } $a, $b) {
        $n{$1} += $2
            while /^coord_decisions_total\{feature="cache",
                   zone="$zone",outcome="(\w+)"\}\ (\d+)/gmx;
    }

    return join ' ', map { "$_=$n{$_}" } grep { $n{$_} } sort keys %n;
}

is(outcomes('old'), 'expired=1 hit=2 miss=1 stale=1 updating=1',
   'metrics, in the words of the variable');


# --- what has not changed at the origin ---

sub conditions {
    my $seen = ($origin->requests)[-1]{headers};

    return map { @{$seen->{$_} || []} } qw(if-none-match if-modified-since);
}

# keys of their own: a near copy may be there when FLUSHALL is answered

my @pages = map { { args => $_, uri => "/stale?x=1$_", k => 're' . length } }
            '', '&date=1';

# several of each: what is stored anew is fresh for two seconds, or one and a bit,
# as times of HTTP are whole ones

for my $page (@pages) {
    for my $n (1 .. 10) {
        $page->{first}[$n] = $a->get("$page->{uri}&k=$page->{k}$n");
        is_deeply([conditions()], [],
                  'who fills the cache has no conditions') if $n == 1;
    }
}

sleep 2.2;

for my $page (@pages) {
    my ($uri, $first, $res, $again) = $t->in_time(0.9, sub {
        my $uri = "$page->{uri}&k=$page->{k}$_[0]";
        my $res = fills($b, "$uri&same=1",
                        headers => { 'If-None-Match' => '"other"' });

        return ($uri, $page->{first}[$_[0]], $res, $a->get($uri));
    });

    $page->{used} = $uri;
    is_deeply([conditions()], [$page->{args} ? $date : '"e"'],
              'those of the stored response, not of the client');
    is($res->header('x-cache'), 'REVALIDATED', 'a 304 of the origin');
    is($res->status, 200, 'is none for the client');
    is($res->body, $first->body, 'who has the stored body');
    is($res->header('content-type'), 'text/plain', 'with its type');
    is($res->header('content-length'), length $first->body, 'and length');
    is($res->header('x-count'), $first->header('x-count'), 'its fields');
    cmp_ok($res->header('x-news'), '>', $first->header('x-count'),
           'and those of the 304');
    is($res->header('age'), 0, 'as young as that');
    is($again->header('x-cache'), 'HIT', 'it is stored anew');
    is($again->body, $first->body, 'the same body');
    is($again->header('x-news'), $res->header('x-news'), 'the new fields');
    is($again->status, 200, 'the same status');
}

sleep 2.2;

for my $uri (map { $_->{used} } @pages) {
    is($b->get("$uri&same=1&cc=no-store")->header('x-cache'), 'REVALIDATED',
       'once more');
    $t->rest(0.3);
    is(word($a, $uri), 'EXPIRED', 'if it may be stored');
}

$r->command('FLUSHALL');

is($a->get('/stale?k=no304&status=304')->status, 304,
   'a 304 that nobody has asked for passes');


# --- error pages ---

my @error = map { { where => $_->[0], error => $_->[1], status => $_->[2],
                    uri => "/page/$_->[0]?k=$_->[0]" } }
    ['named', 502, 200], ['set', 502, 200], ['kept', 502, 502],
    ['twice', 502, 200], ['404', 404, 200];

for my $page (@error) {
    my ($uri, $res, $filled, $kept) = $t->in_time(1.2, sub {
        my $uri = "$page->{uri}$_[0]";
        my $res = $a->get("$uri&status=$page->{error}");

        $t->rest(0.3);
        return ($uri, $res, fills($b, $uri), $b->get($uri));
    });

    is($res->status, $page->{status}, "error_page, $page->{where}");
    is($filled->header('x-cache'), 'MISS',
       'the page of the error is not stored');
    is($kept->header('x-cache'), 'HIT', 'that of the origin is');
    @$page{qw(uri kept)} = ($uri, $kept);
}

sleep 2.2;

for my $page (@error) {
    my $res = $b->get("$page->{uri}&status=$page->{error}");

    if ($page->{error} == 404) {
        is($res->header('x-cache'), 'EXPIRED', 'no stale one for a 404');
        next;
    }

    my $kept = $page->{kept};
    is($res->header('x-cache'), 'STALE', 'stale instead of the page');
    is($res->status, 200, 'its status');
    is($res->header('x-count'), $kept->header('x-count'), 'its fields');
    is($res->body, $kept->body, 'its body');
}

is_kept('/fallback', 'a location that is an error page caches');


# --- X-Accel-Redirect: the origin decides each time ---

for (['/secret/', qr/^body/], ['/file/hostname', qr/./]) {
    my ($to, $body) = @$_;
    my $uri = "/accel?k=$to&accel=$to";

    $origin->reset_counters;
    is_passed($uri, "what is sent from $to is not stored");
    is($origin->count('/accel'), 2, 'the origin is asked each time');
    like($a->get($uri)->body, $body, 'it is sent');
}

is_kept('/accel/ignored?accel=/secret/', 'proxy_ignore_headers');
is_kept('/tried', 'what try_files leads to is');


# --- lock ---

my @all = $t->parallel([ map { $_->req('/lock?k=l&delay=0.4&cc=max-age=60') }
                         ($a, $b) x 10 ]);
is($origin->count('/lock'), 1, 'lock: one request of 20 goes to the origin');
is(scalar(grep { $_->body eq $all[0]->body } @all), 20,
   'and all have its page');


# those that come when it ends, too

my $lock = $origin->count('/lock');
$t->parallel([ map { $_->req("/lock?k=$$-$lock&delay=0.01&cc=max-age=60") }
               ($a, $b) x 20 ]) && $lock++ for 1 .. 12;
is($origin->count('/lock'), $lock, 'nor do any of 12 times 40');

# a client that does not read what nobody else gets

for (['private', 'big=9000000&cc=private'], ['large', 'big=9000000'],
     ['length unknown', 'big=9000000&chunked=1'])
{
    my ($what, $args) = @$_;
    my $slow = $a->connect;
    $origin->reset_counters;
    $slow->send("GET /lock?k=slow&$args HTTP/1.1\r\nHost: x\r\n\r\n");
    ok($t->wait_for(sub { $origin->count('/lock') }, 5), "$what: on its way");
    my $began = time;
    is($b->get("/lock?k=slow&$args")->status, 200, 'another one');
    cmp_ok(time - $began, '<', 3, 'does not wait for its end');
    $slow->close;
}

# a worker that dies on the way: its successor lets the others go on

{
    my $path = '/lock?k=dies&delay=20&cc=max-age=60';
    my ($from, $to) = ($a->connect, $b->connect);

    $origin->reset_counters;
    $from->send("GET $path HTTP/1.1\r\nHost: x\r\n\r\n");
    ok($t->wait_for(sub { $origin->count('/lock') == 1 }, 5), 'on its way');
    $to->send("GET $path HTTP/1.1\r\nHost: x\r\n\r\n");
    $a->kill_worker('KILL', $_) for $a->workers;
    ok($t->wait_for(sub { $origin->count('/lock') == 2 }, 4),
       'another node asks as soon as it is dead');
    $to->close;
}


# --- memory ---

$a->get('/mem?cc=max-age=60');
is(word($a, '/mem?cc=max-age=60'), 'HIT', 'memory');
is(word($b, '/mem?cc=max-age=60'), 'MISS', 'of one node');


# --- bad records ---

is_kept('/bad?cc=max-age=60', 'a good one');
my ($key) = grep { /:r$/ && $r->command(GET => $_) =~ m{/bad} || 1 }
            @{$r->command(KEYS => 'coord:ca:pages:*')};
for my $k (@{$r->command(KEYS => 'coord:ca:pages:*:r')}) {
    my $blob = $r->command(GET => $k);
    substr($blob, -3, 1) ^= "\1";
    $r->command(SET => $k, $blob);
}
is(word($b, '/bad?cc=max-age=60'), 'MISS', 'a changed one is a miss');
ok($b->wait_log(qr/is damaged, it is not used/), 'and told');

# a request that changes something while the store is away

{
    my $kept = $t->redis('appendonly yes', 'appendfsync always');
    my $c = $t->node(name => 'c', http => <<'EOF')->start;
        coord_store main { server %%REDIS_2%%; }
        coord_cache_zone zone=pages:4m;
        server {
            listen 127.0.0.1:%%PORT%%;
            add_header X-Cache $coord_cache_status always;
            location / { coord_cache $uri zone=pages;
                         proxy_pass http://%%ORIGIN%%; }
        }
EOF
    my $path = '/changed?cc=max-age=600';

    ok($t->wait_for(sub { word($c, $path) eq 'HIT' }, 5), 'it is stored');
    $kept->stop('TERM');
    is($c->post($path, 'x')->status, 200, 'changed, and not purged');
    $kept->run;
    ok($t->wait_for(sub { word($c, $path) eq 'MISS' }, 10),
       'purged when the store is back');
}

$redis->stop('KILL');
$res = $a->get('/down?cc=max-age=60');
is($res->status, 200, 'without Redis requests go on');
is($res->header('x-cache'), 'BYPASS', 'past the cache');
like(outcomes('pages'), qr/^bypassed=1 /, 'metrics: as with other features');


# --- configuration ---

for (['coord_cache k;', 'must have "zone" parameter'],
     ['coord_cache k zone=none;', 'none'],
     ['coord_cache k zone=z valid=x;', 'invalid parameter'],
     ['coord_cache k zone=z valid=-1;', 'invalid parameter'],
     ['coord_cache k zone=z stale=0;', 'invalid parameter'],
     ['coord_cache k zone=z max=9m;', 'invalid parameter'],
     ['coord_cache k zone=z; coord_cache k zone=z;', 'duplicate'],
     ['coord_cache zone=z;', 'must have a key in front of its parameters'],
     ['coord_cache valid=5m zone=z;', 'must have a key in front of'],
     ['coord_cache lock zone=z;', 'must have a key in front of'],
     ['coord_cache off zone=z;', 'must have a key in front of'])
{
    like($t->conf_error(http => "coord_cache_zone zone=z; server { listen "
                                . "127.0.0.1:%%PORT%%; $_->[0] }"),
         qr/\Q$_->[1]\E/, "configuration: $_->[0]");
}

for (['same', 'page', 1], ['each', '$uri', 0], ['both', 'page$uri', 0]) {
    my ($name, $key, $warned) = @$_;
    my $c = $t->node(name => $name, http => "coord_cache_zone zone=z; server { "
                     . "listen 127.0.0.1:%%PORT%%; coord_cache $key zone=z; }");
    my ($good, $out) = $c->check;
    is_deeply([$good ? 1 : 0, scalar(() = $out =~ /\[warn\].* is constant: /g)],
              [1, $warned], "the key $key");
}

done_testing();
