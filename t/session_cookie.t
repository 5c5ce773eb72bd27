#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_session_cookie: ids for clients that have none.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

my $t = Coord->new;
my $redis = $t->redis;
my $origin = $t->origin(default => sub {
    return { body => 'x', headers => [ 'Cache-Control' => 'max-age=60',
             'X-Seen' => $_[0]{headers}{'x-session-id'}[0] // '' ] };
});

my $conf = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    coord_session_zone $coord_session_id zone=one:1m;
    coord_session_zone $cookie_late zone=late:1m;
    coord_session_zone $coord_session_id zone=roll:1m;
    proxy_cache_path %%NODEDIR%%/cache keys_zone=cache:1m;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Status $coord_session_status always;
        add_header X-Id $coord_session_id always;
        add_header X-Cache $upstream_cache_status;

        location /sid {
            coord_session_cookie sid;
            coord_session zone=one bind=$http_x_client;
            proxy_set_header X-Session-Id $coord_session_id;
            proxy_pass http://%%ORIGIN%%;
        }
        location /only { coord_session_cookie other path=/only; empty_gif; }
        location /all {
            coord_session_cookie sid path=/all domain=example.com secure
                                 httponly samesite=lax expires=1h;
            empty_gif;
        }
        location /rolling {
            coord_session_cookie roll Secure SameSite=None Partitioned
                                 Path=/rolling Expires=1h rolling;
            coord_session zone=roll bind=$http_x_client;
            empty_gif;
        }
        location /rolled {
            coord_session_cookie roll expires=1h rolling;
            empty_gif;
        }
        location /inherit {
            coord_session_cookie sid;
            empty_gif;
            location /inherit/off { coord_session_cookie off; empty_gif; }
        }
        location /cached {
            coord_session_cookie sid;
            coord_session zone=one;
            proxy_cache cache;
            proxy_pass http://%%ORIGIN%%;
        }
        location /early {
            coord_session_cookie sid;
            set $early $coord_session_id;
            add_header X-Early $early;
            add_header X-Id $coord_session_id;
            empty_gif;
        }
        location /late {
            coord_session_cookie late;
            coord_session zone=late;
            empty_gif;
        }
        location /ssi.html {
            coord_session_cookie sid;
            ssi on;
            root %%NODEDIR%%;
        }
        location /part {
            coord_session_cookie sid;
            return 200 "part:$coord_session_id";
        }
        location /redirect {
            coord_session_cookie sid;
            error_page 418 = /part;
            return 418;
        }
        location /none { return 200 "none:$coord_session_id"; }
        location /answered {
            coord_session_cookie sid;
            coord_session zone=one;
            return 302 /;
        }
    }
    server {
        listen 127.0.0.1:%%PORT_2%%;
        large_client_header_buffers 4 1k;
        coord_session_cookie sid;
        error_page 400 414 494 /unread;
        location / { empty_gif; }
        location /unread { return 200 "unread:$coord_session_id"; }
    }
EOF

my ($a, $b) = map { $t->node(name => $_, workers => 2, http => $conf) } 'a', 'b';

for ($a, $b) {
    open(my $fh, '>', $_->file('ssi.html')) or die $!;
    print $fh '<!--#include virtual="/part" -->';
    close $fh;
    $_->start;
}


# the id of the first response is the one that the first request binds

my $r = $a->get('/sid', headers => { 'X-Client' => 'c1' });
my ($id) = ($r->header('Set-Cookie') // '') =~ /^sid=([0-9a-f]{32}); path=\/$/;
ok($id, 'Set-Cookie');
is($r->header('X-Status'), 'NEW', 'first request');
is($r->header('X-Id'), $id, '$coord_session_id is the id issued');
is($r->header('X-Seen'), $id, 'and the origin sees it');

$r = with($b, '/sid', "sid=$id", 'X-Client' => 'c1');
is($r->header('X-Status'), 'BOUND', 'second request, other node');
is($r->header('Set-Cookie'), undef, 'no second id');
is($r->header('X-Id'), $id, 'the id of the client');
is(with($b, '/sid', "a=1; sid=$id", 'X-Client' => 'c2')->status, 403,
   'a stolen id');

# beside other cookies, however they are written

for my $cookie ("a=1; sid=$id", "sid=$id; a=1", "a=1;sid=$id;b=2",
                "a=1, b=2; sid=$id", "a=\"x y\"; b; =; ;  sid=$id ",
                "sid=x; sid=$id", "SID=" . 'c' x 32 . "; sid=$id",
                "sidx=" . 'c' x 32 . "; xsid=" . 'd' x 32 . "; sid=$id")
{
    $r = with($a, '/sid', $cookie, 'X-Client' => 'c1');
    is($r->header('X-Status') . ($r->header('Set-Cookie') // ''), 'BOUND',
       "found: $cookie");
    is(with($b, '/sid', $cookie, 'X-Client' => 'c2')->status, 403,
       'and not for another client');
}

$r = $a->get('/sid', headers => [ Cookie => 'a=1', Cookie => "sid=$id",
                                  'X-Client' => 'c1' ]);
is($r->header('X-Status'), 'BOUND', 'in the second line');

my %ids = map { ($a->get('/sid')->header('Set-Cookie') // '') => 1 } 1 .. 50;
is(scalar keys %ids, 50, 'ids differ');

for my $bad ('sid=', 'sid=x', 'sid=' . 'g' x 32, 'sid=' . 'A' x 32,
             'sid=' . 'a' x 33, 'xsid=' . 'a' x 32)
{
    like(with($a, '/sid', $bad)->header('Set-Cookie') // '',
         qr/^sid=[0-9a-f]{32};/, "not valid: $bad");
}

is(with($a, '/sid', 'sid=' . 'a' x 32)->header('Set-Cookie'), undef,
   'any 128 bits are');


# attributes

like($a->get('/all')->header('Set-Cookie'),
     qr/^sid=[0-9a-f]{32}; \s expires=\w{3},\ \d\d-\w{3}-\d\d(\d\d)?\ [\d:]{8}
        \ GMT; \s max-age=3600; \s domain=example\.com; \s secure; \s httponly;
        \s samesite=lax; \s path=\/all$/x, 'attributes');

like($a->get('/only')->header('Set-Cookie'),
     qr/^other=[0-9a-f]{32}; path=\/only$/, 'without coord_session');
is($a->get('/none')->body, 'none:', 'no cookie, no id');

like($a->get('/inherit')->header('Set-Cookie') // '', qr/^sid=/, 'inherited');
is($a->get('/inherit/off')->header('Set-Cookie'), undef, 'off');

# a rolling one is sent anew to whoever is let in

{
    my $set = $a->get('/rolling', headers => { 'X-Client' => 'c1' })
              ->header('Set-Cookie');
    like($set, qr/^roll=\w{32};\ expires=.*;\ max-age=3600;\ secure;
                  \ samesite=none;\ partitioned;\ path=\/rolling$/x,
         'attributes in any case');

    my ($roll) = $set =~ /^(roll=\w+)/;
    like(with($b, '/rolling', $roll, 'X-Client' => 'c1')
         ->header('Set-Cookie') // '', qr/^$roll; expires=/, 'rolling');
    is(with($b, '/rolling', $roll, 'X-Client' => 'c2')->header('Set-Cookie'),
       undef, 'not for whoever is refused');
    like(with($b, '/rolled', $roll)->header('Set-Cookie') // '',
         qr/^$roll; expires=/, 'rolling without a session');
}


# caching

my @r = map { $a->get('/cached') } 1 .. 3;
is(join(' ', map { $_->header('X-Cache') } @r), 'MISS HIT HIT', 'cached');
my %c = map { ($_->header('Set-Cookie') // '') => 1 } @r;
is(scalar keys %c, 3, 'each client gets an id of its own');
is(scalar(grep { !/^sid=[0-9a-f]{32}/ } keys %c), 0, 'and gets one');
is(`grep -rl 'sid=' @{[ $a->file('cache') ]}`, '', 'no id in the cache');


# phases, subrequests, redirects

$r = $a->get('/early');
like($r->header('Set-Cookie'), qr/^sid=@{[ $r->header('X-Early') ]};/,
     'asked for in the rewrite phase');
is($r->header('X-Id'), $r->header('X-Early'), 'one id per request');

is($a->get('/late')->header('X-Status'), 'NONE', 'a $cookie_ key: none yet');
$r = with($a, '/late', 'late=' . 'b' x 32);
is($r->header('X-Status'), 'NEW', 'then new');

# what the rewrite phase answers

$r = $a->get('/answered');
like($r->header('Set-Cookie') // '', qr/^sid=[0-9a-f]{32}; path=\/$/,
     'an answer of the rewrite phase');
is(with($b, '/answered', 'sid=' . 'e' x 32)->header('Set-Cookie'), undef,
   'to whom has none');


# where the header was not read to the end nobody knows what the client has

{
    my $large = 'x' x 2000;
    my %unread = ('a large URI' => "GET /$large HTTP/1.1\r\n"
                                   . "Cookie: sid=%s\r\n\r\n",
                  'a large header' => "GET / HTTP/1.1\r\nHost: a\r\n"
                                      . "X: $large\r\nCookie: sid=%s\r\n\r\n",
                  'a broken header' => "GET / HTTP/1.1\r\nHost: a\r\n"
                                       . "X\x01: 1\r\nCookie: sid=%s\r\n\r\n");

    for my $name (sort keys %unread) {
        my $c = $a->connect(port => $a->port(2));
        $c->send(sprintf $unread{$name}, 'a' x 32);
        my $r = $c->response(method => 'GET');
        like($r->status . ' ' . $r->body, qr/^4\d\d unread:$/, "$name: no id");
        is($r->header('Set-Cookie'), undef, "$name: no cookie");
    }

    my $r = $a->connect(port => $a->port(2))->request(path => '/');
    like($r->header('Set-Cookie') // '', qr/^sid=/, 'a whole header');
}

$r = $a->get('/ssi.html');
my @set = @{ $r->{headers}{'set-cookie'} || [] };
is(scalar @set, 1, 'one cookie with a subrequest');
like($r->body, qr/^part:@{[ substr $set[0], 4, 32 ]}$/,
     'the subrequest knows the id');

$r = $a->get('/redirect');
@set = @{ $r->{headers}{'set-cookie'} || [] };
is(scalar @set, 1, 'one cookie with an internal redirect');

done_testing();


sub with {
    my ($node, $path, $cookie, @headers) = @_;

    return $node->get($path, headers => [ Cookie => $cookie, @headers ]);
}
