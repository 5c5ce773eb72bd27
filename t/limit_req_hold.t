#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_limit_req_hold: after what became of a request its key is refused, by
# every node and for as long as was said, whatever quota it has left.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use POSIX qw(strftime);
use Time::HiRes qw(sleep);

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect;

my $origin = $t->origin(routes => {
    '/login' => sub { { status => $_[0]{args}{s} || 200, body => 'x',
                        delay => $_[0]{args}{d} || 0 } },
    '/api' => sub {
        my ($req) = @_;
        my $after = $req->{args}{after};

        $after = strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + $1))
            if defined $after && $after =~ /^date(-?\d+)$/;

        { status => $req->{args}{s} || 200, body => 'x',
          headers => [defined $after ? ('Retry-After' => $after) : ()] }
    },
});


# what is wrong is told with what is right

my %wrong = (
    'zone=z' => qr/"coord_limit_req_hold" must have "for" parameter/,
    'zone=z for=0' => qr/invalid value "0" in "for=".*"15m"/,
    'zone=z for=soon' => qr/invalid value "soon" in "for="/,
    'for=1m' => qr/must have "zone" parameter/,
    'zone=z for=1m unless=1'
        => qr/"unless=1", allowed are "zone=", "for=" and "if="/,
    'zone=y for=1m' => qr/unknown zone "y"/,
    'off for=1m' => qr/invalid parameter "off"/,
    'off; coord_limit_req_hold zone=z for=1m' => qr/is duplicate/,
    'zone=z for=1m; coord_limit_req_hold off' => qr/is duplicate/,
);

for my $text (sort keys %wrong) {
    like($t->conf_error(http => "coord_limit_req_zone \$arg_k zone=z rate=1r/s;"
                              . " coord_limit_req_hold $text;"
                              . " server { listen 127.0.0.1:%%PORT%%; }"),
         $wrong{$text}, $text);
}


sub conf {
    return <<"EOF";
        $_[0]
        map \$status \$failed { 401 1; default 0; }
        map \$arg_t \$for { default \$arg_t; }

        coord_limit_req_zone \$arg_k zone=login:1m rate=100r/h
                             algorithm=fixed_window;
        coord_limit_req_zone \$arg_k zone=chat:1m rate=20r/m;
        coord_limit_req_zone \$arg_k zone=plain:1m rate=100r/s;
        coord_limit_req_zone \$arg_k zone=any:1m rate=100r/s;
        coord_limit_req_zone \$arg_k zone=plan:1m rate=\$arg_r;

        add_header X-Status \$coord_limit_req_status:\$coord_limit_req_source
                   always;

        server {
            listen 127.0.0.1:%%PORT%%;

            location /login {
                coord_limit_req zone=login on_failure=local;
                coord_limit_req_hold zone=login for=1h if=\$failed;
                proxy_pass http://%%ORIGIN%%;
            }
            location /other {
                coord_limit_req zone=plain burst=99 nodelay;
                coord_limit_req zone=login;
                empty_gif;
            }
            location /dry {
                coord_limit_req_dry_run on;
                coord_limit_req zone=login;
                empty_gif;
            }
            location /api {
                coord_limit_req zone=chat burst=19 nodelay;
                coord_limit_req_hold zone=chat for=\$upstream_http_retry_after;
                proxy_pass http://%%ORIGIN%%;
            }
            location /any {
                coord_limit_req zone=any burst=99 nodelay;
                coord_limit_req_hold zone=any for=\$for;
                empty_gif;
            }
            location /plain {
                coord_limit_req zone=plain burst=99 nodelay;
                empty_gif;
            }
            location /plan/ {
                coord_limit_req zone=plain burst=99 nodelay;
                coord_limit_req zone=plan;
                empty_gif;
            }
            location /plan/only {
                coord_limit_req zone=plan;
                empty_gif;
            }
            location /plan/hold {
                coord_limit_req_hold zone=plan for=50s;
                empty_gif;
            }
            location /coord/ { coord_api write; }
        }
EOF
}

my %node = (
    redis => [map { $t->node(name => $_, workers => 2,
                             http => conf('coord_store main { server '
                                        . '%%REDIS%%; timeout 5s; '
                                        . 'connect_timeout 5s; }'))->start }
              qw(a b)],
    memory => [$t->node(name => 'm', workers => 2, http => conf(''))->start],
);


# until the log phase of what was answered before is over

sub held {
    my ($n, $zone, $key) = @_;

    return $n->get("/coord/limits/$zone/$key")->body =~ /"held": ?true/;
}

sub rest {
    my ($n, $zone, $key) = @_;

    $n->get("/coord/limits/$zone/$key")->body =~ /"hold_seconds": ?([\d.]+)/;
    return $1;
}


for my $store (sort keys %node) {
    my @n = @{$node{$store}};
    my ($one, $two) = @n[0, -1];


    # a log-in that fails

    is($one->get('/login?k=bob')->status, 200, "$store: a log-in");
    is($one->get('/login?k=bob&s=401')->status, 401, "$store: one that fails");

    ok($t->wait_for(sub { held($two, 'login', 'bob') }, 5),
       "$store: the API of another node shows the hold");

    my $count = $origin->count;
    my @r = map { $_->get('/login?k=bob') } $one, $two;

    is(join(' ', map { $_->status } @r), '429 429',
       "$store: every node refuses the key");
    is($origin->count, $count, "$store: before the origin is asked");
    is($_->header('X-Status'), 'REJECTED:hold', "$store: source") for @r;
    cmp_ok($r[1]->header('Retry-After'), '>', 3590, "$store: Retry-After");
    cmp_ok($r[1]->header('Retry-After'), '<=', 3600, "$store: not longer");
    like($r[1]->header('RateLimit'), qr/^"login";r=0;t=3[56]\d\d$/,
         "$store: RateLimit");
    ok($two->wait_log(qr/limiting requests.* by zone "login".*hold\)/, 5),
       "$store: the log tells it");

    is($two->get('/other?k=bob')->status, 429,
       "$store: wherever the zone is used");
    is($two->get('/dry?k=bob')->header('X-Status'), 'REJECTED_DRY_RUN:hold',
       "$store: dry run");
    is($two->get('/login?k=eve')->status, 200, "$store: and no other key");

    $two->get("/coord/limits/plain/bob")->body =~ /"remaining": ?(\d+)/;
    is($1, 100, "$store: the refused took nothing of other limits")
        if $store eq 'memory';

    like($one->request('DELETE', '/coord/limits/login/bob')->body,
         qr/"deleted": ?true/, "$store: the API lifts it");
    is($_->get('/login?k=bob')->status, 200, "$store: for all nodes")
        for $one, $two;


    # who has no limit may be held, and who is refused anyway

    for my $where (qw(only both)) {
        my $key = "/plan/$where?k=$where";

        is($one->get($key)->status, 200, "$store, $where: an empty rate");
        is($two->get($key)->header('X-Status'),
           $where eq 'only' ? ':' : "PASSED:$store",
           "$store, $where: is no limit");
        is($one->get("$key&r=0r/s")->status, 429,
           "$store, $where: a rate of 0");

        $one->get("/plan/hold?k=$where");
        ok($t->wait_for(sub { held($two, 'plan', "$where?rate=5r/s") }, 5),
           "$store, $where: the key is held");

        for my $rate ('', '0r/s', '5r/s') {
            for my $n ($one, $two) {
                my $r = $n->get("$key&r=$rate");

                is($r->status, 429, "$store, $where: refused at '$rate'");
                is($r->header('X-Status'), 'REJECTED:hold',
                   "$store, $where: by the hold");
                cmp_ok($r->header('Retry-After'), '>', 40,
                       "$store, $where: for as long as it lasts");
            }
        }

        $one->request('DELETE', "/coord/limits/plan/$where");
        is($two->get($key)->status, 200, "$store, $where: lifted");
    }


    # what was used stays what it was

    $one->get('/login?k=amy') for 1 .. 3;
    $one->get('/login?k=amy&s=401');
    $t->wait_for(sub { held($two, 'login', 'amy') }, 5);
    $two->get('/login?k=amy') for 1 .. 5;

    $admin->command('DEL', 'coord:rh:login:{amy}');
    if ($store eq 'redis') {
        my $got;

        ok($t->wait_for(sub {
            $got = $two->get('/login?k=amy');
            $got->status == 200
        }, 10), "$store: a hold that is removed from Redis itself is over");
        like($got->header('RateLimit'), qr/r=95;/,
             "$store: a held request consumes nothing");
    }


    # an upstream that says when to come back, in seconds or as a date

    for (['chat7', 1, 1], ['chat8', 'date120', 120], ['chat9', '300', 300]) {
        my ($key, $after, $seconds) = @$_;

        is($one->get("/api?k=$key&s=429&after=$after")->status, 429,
           "$store: a 429 of the upstream");
        ok($t->wait_for(sub { held($two, 'chat', $key) }, 5)
           || $seconds == 1, "$store: Retry-After: $after holds");

        next if $seconds == 1;
        my $rest = rest($two, 'chat', $key);

        cmp_ok(abs($rest - $seconds), '<', 4, "$store: for as long");
        is($two->get("/api?k=$key")->status, 429,
           "$store: nobody asks before that");
    }

    ok($t->wait_for(sub { $two->get('/api?k=chat7')->status == 200 }, 5),
       "$store: a hold of a second ends");

    for my $after ('', 'later', 'date-60', '0') {
        $one->get("/api?k=none$after&s=503" . ($after ne ''
                                               ? "&after=$after" : ''));
    }

    ok($one->wait_log(qr/invalid time of a hold "later" in zone "chat"/, 5),
       "$store: what is no time is logged");

    is($one->get("/api?k=none$_")->status, 200, "$store: '$_' holds nobody")
        for '', 'later', 'date-60', '0';


    # the longest counts

    $one->get('/any?k=l&t=100');
    $t->wait_for(sub { held($two, 'any', 'l') }, 5);
    cmp_ok(rest($two, 'any', 'l'), '<=', 100, "$store: a hold");
    is($two->get('/any?k=l&t=5')->status, 429, "$store: is in force");
    sleep 0.3;
    cmp_ok(rest($one, 'any', 'l'), '>', 90,
           "$store: a shorter one leaves it as it is");
    $two->get('/any?k=l&t=1h');
    ok($t->wait_for(sub { rest($one, 'any', 'l') > 3500 }, 5),
       "$store: a longer one takes its place");
    $two->get('/any?k=l&t=99999999999999999999');
    ok($t->wait_for(sub { rest($one, 'any', 'l') > 3e8 }, 5),
       "$store: very long is long");
}


# who is known to be held is refused without Redis

{
    my $one = $node{redis}[0];

    sub asked { $admin->command('INFO', 'commandstats')
                =~ /^cmdstat_pttl:calls=(\d+)/m ? $1 : 0 }

    $one->get('/any?k=cached&t=100');
    ok($t->wait_for(sub { held($one, 'any', 'cached') }, 5), 'a hold');
    my $first = $one->get('/any?k=cached');
    is($first->header('X-Status'), 'REJECTED:hold', 'Redis tells of it');

    my $before = asked();
    my @r = map { $one->get('/any?k=cached') } 1 .. 30;

    is(asked(), $before, 'and is not asked again');
    is(scalar(grep { $_->status == 429
                     && $_->header('X-Status') eq 'REJECTED:hold'
                     && abs($_->header('Retry-After')
                            - $first->header('Retry-After')) <= 5
                     && $_->header('RateLimit') eq '"any";r=0;t='
                                                 . $_->header('Retry-After')
                     && $_->header('RateLimit-Policy')
                        eq $first->header('RateLimit-Policy') } @r), 30,
       'the answers are the same');

    $node{redis}[1]->request('DELETE', '/coord/limits/any/cached');
    ok($t->wait_for(sub { $one->get('/any?k=cached')->status == 200 }, 10),
       'lifted by another node: this one knows');
}


# in Redis: a key with a life, and no question where nothing can be held

is($admin->command('EXISTS', 'coord:rh:chat:{chat9}'), 1, 'the key of a hold');
cmp_ok($admin->command('PTTL', 'coord:rh:chat:{chat9}'), '>', 200000,
       'lives as long as it');

my ($n, $b) = @{$node{redis}};

sub calls {
    my ($calls) = $admin->command('INFO', 'commandstats')
                  =~ /cmdstat_pttl:calls=(\d+)/;
    return $calls || 0;
}

# a bucket asks at first, once for each worker that meets it

ok($t->wait_for(sub {
    my $before = calls();
    $n->get('/plain?k=x') for 1 .. 5;
    calls() == $before
}, 20), 'a zone without holds asks for none');

my @ttl = map { $admin->command('PTTL', $_) } @{$admin->command('KEYS', '*')};
is(scalar(grep { $_ == -1 } @ttl), 0, 'every key has a life');


# what is inherited does not hold in locations of ours

my $http_level = $t->node(name => 'i', http => <<'EOF')->start;
    coord_limit_req_zone $arg_k zone=all:1m rate=100r/s;
    coord_limit_req_hold zone=all for=1h;

    server {
        listen 127.0.0.1:%%PORT%%;
        location /any { coord_limit_req zone=all burst=99 nodelay; empty_gif; }
        location = /status { coord_status; }
        location = /health { coord_health; }
        location /coord/ { coord_api write; }
        location /coord/own/ {
            coord_limit_req_hold zone=all for=1h;
            coord_api write;
        }
    }
EOF

for my $path ('/status', '/health', '/coord/', '/coord/limits/all/keys') {
    $http_level->get("$path?k=k" . length $path);
    ok(!held($http_level, 'all', 'k' . length $path),
       "$path: an inherited hold is not for it");
}

$http_level->get('/coord/own/?k=own');
ok($t->wait_for(sub { held($http_level, 'all', 'own') }, 5),
   'one of its own is');
is($http_level->get('/any?k=any')->status, 200, 'elsewhere it is inherited');
ok($t->wait_for(sub { held($http_level, 'all', 'any') }, 5), 'and holds');


# a client that leaves takes the hold not with him

my $c = $n->connect;
$c->send("GET /login?k=gone&s=401&d=0.5 HTTP/1.1\r\nHost: a\r\n\r\n");
$t->wait_for(sub { grep { $_->{args}{k} eq 'gone' }
                        $origin->requests('/login') }, 5);
ok(defined $c->read(20), 'a client has its answer');
$c->close;
ok($t->wait_for(sub { held($b, 'login', 'gone') }, 5), 'the client has left');


# Redis away: held on this node where it was placed, and on all others later

is($n->get('/login?k=down')->status, 200, 'Redis is there');
$admin->close;
$redis->stop;
is($n->get('/login?k=down&s=401')->status, 401, 'and away');
ok($n->wait_log(qr/holding a key of zone "login" for 3600000ms/, 5), 'a hold');

my $r;
ok($t->wait_for(sub { $r = $n->get('/login?k=down'); $r->status == 429 }, 5),
   'on_failure=local: this node refuses');
is($r->header('X-Status'), 'REJECTED:hold', 'by the hold');

$redis->run;
ok($t->wait_for(sub { held($b, 'login', 'down') }, 10),
   'the others learn of it when Redis is back');

done_testing();
