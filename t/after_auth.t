#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Limits with "after_auth" see only requests that the access phase has let in.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Util qw(spew);
use MIME::Base64;

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect;
my $origin = $t->origin(routes => {
    '/slow' => { delay => 1.5, body => 'slow' },
    '/quick' => { body => 'quick' },
    '/check' => { body => '' },
});

spew($t->file('users'), "bob:{PLAIN}secret\neve:{PLAIN}secret\n");

my %as = map { ($_ => { Authorization => 'Basic '
                                         . encode_base64("$_:secret", '') }) }
             qw(bob eve);


for my $store ('redis', 'memory') {
    my $n = $t->node(name => $store, workers => 2,
                     vars => { STORE => $store eq 'redis'
                                        ? 'server %%REDIS%%; timeout 30s;'
                                          . ' connect_timeout 30s;' : '' },
                     http => <<'EOF')->start;
    coord_store main { %%STORE%% }

    coord_limit_req_zone $remote_user zone=user:1m rate=1r/h;
    coord_limit_req_zone $remote_user zone=slow:1m rate=2r/s;
    coord_limit_req_zone $remote_addr zone=addr:1m rate=30r/h
                         algorithm=fixed_window;
    coord_limit_req_zone $server_port zone=sub:1m rate=1r/h;
    coord_limit_conn_zone $server_port zone=conn:1m;

    proxy_set_header Authorization "";
    add_header X-Status $coord_limit_req_status:$coord_limit_req_zone always;
    add_header X-Conn $coord_limit_conn_status always;

    server {
        listen 127.0.0.1:%%PORT%%;
        auth_basic closed;
        auth_basic_user_file %%TESTDIR%%/users;

        location /before { coord_limit_req zone=user; empty_gif; }
        location /after { coord_limit_req zone=user after_auth; empty_gif; }

        location /both {
            coord_limit_req zone=addr;
            coord_limit_req zone=user after_auth;
            empty_gif;
        }

        location /any {
            satisfy any;
            allow 127.0.0.1;
            coord_limit_req zone=user after_auth;
            empty_gif;
        }

        location /delay {
            coord_limit_req zone=slow burst=5 after_auth;
            empty_gif;
        }

        location /dry {
            coord_limit_req_dry_run on;
            coord_limit_req zone=user after_auth;
            empty_gif;
        }

        location /page {
            coord_limit_req zone=user after_auth;
            error_page 429 = @page;
            empty_gif;
        }

        location @page {
            coord_limit_req zone=user after_auth;
            return 200 "page $coord_limit_req_status\n";
        }

        location /sub {
            auth_basic off;
            auth_request /check;
            coord_limit_conn conn 5 after_auth;
            coord_limit_req zone=addr after_auth;
            proxy_pass http://%%ORIGIN%%/quick;
        }

        location = /check {
            auth_basic off;
            coord_limit_req zone=sub after_auth;
            proxy_pass http://%%ORIGIN%%/check;
        }

        location /conn/ {
            coord_limit_conn conn 1 after_auth;
            proxy_pass http://%%ORIGIN%%/;
        }

        location /wait/ {
            coord_limit_conn conn 1 wait=5s after_auth;
            proxy_pass http://%%ORIGIN%%/;
        }
    }
EOF

    my $clear = sub {
        $admin->command('FLUSHALL');

        # what the node knows to be refused is in its memory
        $n->stop;
        $n->start;
    };

    my $get = sub {
        my ($path, $user) = @_;
        return $n->get($path, $user ? (headers => $as{$user}) : ());
    };


    # requests per second

    is($get->('/before', 'bob')->status, 200, "$store: before: passed");
    is($n->get('/before', headers => { Authorization => 'Basic '
                                       . encode_base64('bob:wrong', '') })
         ->status, 429, "$store: before: a wrong password is limited, too");

    $clear->();

    for (1 .. 3) {
        is($n->get('/after', headers => { Authorization => 'Basic '
                                          . encode_base64('bob:wrong', '') })
             ->status, 401, "$store: after: unauthorized $_");
    }

    my $r = $get->('/after', 'bob');
    is($r->status, 200, "$store: after: they took nothing");
    is($r->header('X-Status'), 'PASSED:user', "$store: after: variables");
    is($r->header('RateLimit-Policy'), '"user";q=1;w=3600',
       "$store: after: RateLimit-Policy");

    $r = $get->('/after', 'bob');
    is($r->status, 429, "$store: after: refused");
    is($r->header('X-Status'), 'REJECTED:user', "$store: refused: variables");
    is($r->header('Content-Type'), 'application/problem+json',
       "$store: refused: problem document");
    cmp_ok($r->header('Retry-After'), '>', 3500, "$store: Retry-After");
    is($get->('/after')->status, 401, "$store: unauthorized, not limited");
    is($get->('/after', 'eve')->status, 200, "$store: another user");
    is($get->('/any', 'eve')->status, 429, "$store: satisfy any is limited");

    $r = $get->('/dry', 'eve');
    is($r->status . ' ' . $r->header('X-Status'), '200 REJECTED_DRY_RUN:user',
       "$store: dry run");
    is($get->('/page', 'eve')->body, "page REJECTED\n",
       "$store: an error page is not limited again");


    # in both phases

    $clear->();

    $r = $get->('/both');
    is($r->status . ' ' . $r->header('X-Status'), '401 PASSED:addr',
       "$store: both: unauthorized counts in the first phase");

    $r = $get->('/both', 'bob');
    is($r->status . ' ' . $r->header('X-Status'), '200 PASSED:user',
       "$store: both: passed");
    like($r->header('RateLimit'), qr/^"addr";r=28;t=\d+, "user";r=0;t=3600$/,
         "$store: both: RateLimit");

    $r = $get->('/both', 'bob');
    is($r->status . ' ' . $r->header('X-Status'), '429 REJECTED:user',
       "$store: both: refused by the second");
    like($r->header('RateLimit'), qr/^"addr";r=28;/,
         "$store: both: the first phase gets back what it gave");
    like($get->('/both')->header('RateLimit'), qr/^"addr";r=27;/,
         "$store: both: and counts the next one");


    # a delay

    my @got = $n->parallel(3, '/delay', headers => $as{bob});
    is(join(' ', sort map { $_->header('X-Status') } @got),
       'DELAYED:slow DELAYED:slow PASSED:slow', "$store: delay");
    cmp_ok((sort { $a <=> $b } map { $_->{time} } @got)[2], '>', 0.7,
           "$store: delay: the last one waits");


    # concurrent requests

    my $c = $n->connect;
    $c->send("GET /conn/slow HTTP/1.1\r\nHost: a\r\n"
             . "Authorization: $as{bob}{Authorization}\r\n\r\n");
    $t->wait_for(sub { $origin->entries(event => 'request', path => '/slow') },
                 5);

    is($get->('/conn/quick')->status, 401, "$store: conn: unauthorized");
    is($get->('/conn/quick', 'eve')->status, 429, "$store: conn: refused");

    $r = $get->('/wait/quick', 'eve');
    is($r->status . ' ' . $r->header('X-Conn'), '200 DELAYED',
       "$store: conn: waits after the access phase");
    is($c->response->header('X-Conn'), 'PASSED', "$store: conn: the holder");
    $t->wait_for(sub { $get->('/conn/quick', 'eve')->status == 200 }, 5);
    is($get->('/wait/quick', 'eve')->status, 200, "$store: conn: released");


    # a subrequest authorizes

    $r = $n->get('/sub');
    is($r->status, 200, "$store: auth_request");
    is($r->header('X-Conn') . ' ' . $r->header('X-Status'),
       'PASSED PASSED:addr', "$store: auth_request: limited after it");
    is($n->get('/sub')->status, 200, "$store: a subrequest is not counted");
    is($n->get('/check')->header('X-Status'), 'PASSED:sub',
       "$store: nothing was taken");
    is($n->get('/check')->status, 429, "$store: but by a request of its own");

    $n->stop;
}

is_deeply([sort grep { /:cc:/ } @{ $admin->command('KEYS', '*') }], [],
          'no place is left taken');

done_testing();
