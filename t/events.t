#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_publish and coord_subscribe: who hears what, of Redis and of memory.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Events;
use Time::HiRes qw(sleep time);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

my $http = <<'EOT';
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }
    map $arg_no $only { default 1; 1 0; }
    coord_limit_conn_zone $arg_room zone=room:1m;
    gzip on;
    gzip_types *;
    gzip_min_length 0;

    server {
        listen 127.0.0.1:%%PORT%% backlog=1024;
        listen 127.0.0.1:%%PORT_2%% http2;

        coord_publish all $uri;
        log_subrequest on;

        location /pub { coord_publish $arg_c $arg_m if=$only; empty_gif; }
        location /two {
            coord_publish one $arg_m;
            coord_publish two $arg_m;
            empty_gif;
        }
        location /body {
            coord_publish room $request_body;
            proxy_pass http://127.0.0.1:%%PORT%%/empty;
        }
        location /empty { coord_publish off; empty_gif; }
        location /inherits { empty_gif; }

        location /events { coord_subscribe room; }
        location /shut { coord_subscribe room; coord_on_failure closed; }
        location /both { coord_subscribe one two; }
        location /room/ { coord_subscribe $arg_room heartbeat=200ms; }
        location /limited { coord_limit_conn room 10;
                            coord_subscribe $arg_room heartbeat=off; }
        location /mem { coord_subscribe room heartbeat=off store=local; }
        location /mempub { coord_publish $arg_c $arg_m store=local;
                           empty_gif; }
        location /cafe { coord_subscribe café history; }
        location /cafemem { coord_subscribe café history store=local; }
        location /cafepub {
            coord_publish café "olé" history=5;
            coord_publish café "olé" history=5 store=local;
            empty_gif;
        }
        location /prefix { coord_subscribe $arg_room; }
        location /sub { ssi on; ssi_types *; alias %%NODEDIR%%/; }
        location /slow { coord_subscribe room; limit_rate 1; }

        location /api/ { coord_api; }
        location /status { coord_status; }
    }
EOT

my $a = $t->node(name => 'a', workers => 2, http => $http)->start;
my $b = $t->node(name => 'b', workers => 2, http => $http)->start;

my $es = Coord::Events->new($a, '/events');

is($es->status, 200, 'a stream');
is($es->header('content-type'), 'text/event-stream', 'its type');
is($es->header('cache-control'), 'no-store', 'it is not stored');
is($es->header('x-accel-buffering'), 'no', 'nor held by a proxy');
is($es->header('content-encoding'), undef, 'nor compressed');
is($es->header('content-length'), undef, 'it has no length');


# --- who hears ---

$r->command(PUBLISH => 'room', 'hello');
is_deeply($es->next, { event => 'room', data => 'hello' },
          'what an application publishes');

is($b->get('/pub?c=room&m=from-b')->status, 200, 'a request of another node');
is_deeply($es->next, { event => 'room', data => 'from-b' }, 'is heard');

my @all = map { Coord::Events->new($_, '/events') } ($a, $b) x 6;
$r->command(PUBLISH => 'room', 'to all');
is(join(',', map { ($_->data(1))[0] // '-' } @all),
   join(',', ('to all') x 12), 'all clients of all workers and nodes');
is($es->next->{data}, 'to all', 'the first one, too');
is(numsub('room'), 4, 'one subscription a worker, whatever the clients');
$_->close for @all;

my $both = Coord::Events->new($a, '/both');
$b->get('/two?m=x');
is_deeply([sort map { "$_->{event}=$_->{data}" } $both->next, $both->next],
          ['one=x', 'two=x'], 'two channels, two lines coord_publish');

my $plain = $redis->connect;
$plain->send(['SUBSCRIBE', 'room']);
$plain->read;
$a->get('/pub?c=room&m=plain');
is_deeply($plain->read, ['message', 'room', 'plain'],
          'a subscriber of another kind sees the message as it is');
is($es->next->{data}, 'plain', 'and the client');

my $every = Coord::Events->new($b, '/room/?room=all');
$a->get('/inherits');
is($every->next->{data}, '/inherits', 'coord_publish of the server');
$a->get('/empty');
$a->get('/pub?c=room&m=1');
$a->get('/inherits?2');
is($every->next->{data}, '/inherits', '"off", and lines of its own instead');
is($es->next->{data}, 1, 'the line of its own');

open(my $page, '>', $a->dir . '/parts') or die $!;
print $page '<!--#include virtual="/inherits?part" -->';
close $page;
$a->get('/sub/parts');
is($every->next->{data}, '/sub/parts', 'by the request');
$a->get('/inherits');
is($every->next->{data}, '/inherits',
   'once, whatever it is made of');

$a->get('/pub?c=room&m=never&no=1');
$a->get('/pub?c=room&m=then');
is($es->next->{data}, 'then', 'if=0: not published');

$a->post('/body', "a\nb");
is($es->next->{data}, "a\nb", 'the body of a request');


# --- the text ---

for (["a\r\nb\rc\nd", "a\nb\nc\nd", 'lines end as they do'],
     ['', '', 'an empty message'],
     ["\n", "\n", 'an empty line'],
     ["x\r", "x\n", 'a CR at the end'],
     [" : x", " : x", 'blanks and colons'],
     ["id: 7\n\nevent: x", "id: 7\n\nevent: x", 'no field gets in'],
     ["a\0b", "a\xef\xbf\xbdb", 'NUL'],
     ["a\xffb\xc3", "a\xef\xbf\xbdb\xef\xbf\xbd", 'not UTF-8'],
     ["\xed\xa0\x80", "\xef\xbf\xbd" x 3, 'a surrogate'],
     ["\xe2\x82\xac\xf0\x9f\x8c\x8d", "\xe2\x82\xac\xf0\x9f\x8c\x8d",
      'UTF-8'],
     ['x' x 100_000, 'x' x 100_000, '100 000 bytes'])
{
    my ($in, $out, $what) = @$_;
    $r->command(PUBLISH => 'room', $in);
    my $e = $es->next // {};
    is($e->{data}, $out, "text: $what");
    is_deeply([sort keys %$e], ['data', 'event'], 'and no other field');
}

{
    my @cafe = map { Coord::Events->new($a, $_) } qw(/cafe /cafemem);

    $a->get('/cafepub');

    for my $c (@cafe) {
        my $e = $c->next // {};
        is("$e->{event} $e->{data}", 'café olé', 'a name that is not ASCII');
        like($e->{id}, qr/^\d+-\d+$/, 'and a message that is kept');
        is($c->next(0.2), undef, 'once');
        $c->close;
    }
}

like($es->{text}, qr/^event: room\ndata: hello\n\nevent: room\n/,
     'an event on the wire');


# --- channels ---

for (['x' x 256, 'longer'], ['', 'empty'], ['coord:wake', 'key_prefix']) {
    my ($name, $why) = @$_;
    my $res = $a->get("/room/?room=$name");
    is($res->status, 400, "a channel that is no good: $why");
    is($res->header('content-type'), 'application/problem+json', 'a problem');
    like($res->body, qr/$why/, 'and why');
}

is(Coord::Events->new($a, '/room/?room=' . 'y' x 255)->status, 200,
   'a channel of 255 bytes');


# --- methods ---

for my $method (qw(POST PUT DELETE OPTIONS)) {
    my $res = $a->request($method, '/events');
    is($res->status, 405, $method);
    is($res->header('allow'), 'GET, HEAD', 'what is allowed');
    is($res->header('content-type'), 'application/problem+json', 'a problem');
}

my $res = $a->request('HEAD', '/events', timeout => 3);
is($res->status, 200, 'HEAD');
is($res->header('content-type'), 'text/event-stream', 'its header');
is($res->body, '', 'and no body');
ok($res->{complete}, 'HEAD ends');

open(my $fh, '>', $a->dir . '/ssi') or die $!;
print $fh "before <!--#include virtual=\"/events\" --> after\n";
close $fh;
$res = $a->get('/sub/ssi', timeout => 5);
ok($res->{complete}, 'a subrequest does not hang');
like($res->body, qr/before .* after/s, 'the page around it');


# --- heartbeat ---

my $hb = Coord::Events->new($a, '/room/?room=quiet');
ok($hb->wait_text(qr/\A(?::\n\n){3}/, 5), 'heartbeats');
is_deeply($hb->{events}, [], 'are no events');


# --- HTTP/2, curl -N ---

my $pid = open(my $curl, '-|', 'curl', '-sN', '--http2-prior-knowledge',
               '--max-time', 60, 'http://127.0.0.1:' . $a->port(2) . '/events')
    or die "curl: $!";
$t->wait_for(sub { listeners($a, 'room') == 2 });
$r->command(PUBLISH => 'room', 'over h2');
is(join('', map { scalar <$curl> } 1 .. 3),
   "event: room\ndata: over h2\n\n", 'HTTP/2, by curl -N');
is($es->next->{data}, 'over h2', 'and HTTP/1.1');


# --- who leaves ---

my $gone = Coord::Events->new($a, '/room/?room=gone');
is(listeners($a, 'gone'), 1, 'the API tells of a listener');
is(numsub('gone'), 1, 'its channel is subscribed to');
is(listeners($b, 'gone'), 0, 'on this node alone');
$gone->close;
ok($t->wait_for(sub { listeners($a, 'gone') == 0 }), 'it has left');
ok($t->wait_for(sub { numsub('gone') == 0 }), 'and so has the subscription');

$gone = Coord::Events->new($a, '/room/?room=gone');
$r->command(PUBLISH => 'gone', 'back');
is($gone->next->{data}, 'back', 'and is heard by the next one');

# and who has done so while something else was asked for: of that nothing is
# heard any more

my @ended;

for (1 .. 3) {
    my $c = $a->connect;

    $redis->freeze;
    $c->send("GET /limited?room=ended HTTP/1.1\r\nHost: x\r\n\r\n");
    shutdown $c->{sock}, 1;
    $t->rest(0.03);
    $redis->thaw;

    push @ended, $c;
}

ok($t->wait_for(sub {
       @ended == $a->log_lines(qr/prematurely closed.*room=ended/)
   }), 'who has ended what he sends has left as well');
is(listeners($a, 'ended'), 0, 'it listens no more');


# --- memory ---

my @mem = map { Coord::Events->new($a, '/mem') } 1 .. 8;
my $other = Coord::Events->new($b, '/mem');
is($mem[0]->status, 200, 'memory: a stream');

# a message is published when its request is over, which the client of another
# worker need not wait for

my @first = map { $a->get("/mempub?c=room&m=m$_"); $mem[0]->data(1) } 1 .. 3;
is(join(' ', join(',', @first), map { join(',', $_->data(3)) } @mem[1 .. 7]),
   join(' ', ('m1,m2,m3') x 8), 'memory: all workers of the node, in order');
is($other->next(0.3), undef, 'memory: no other node');
is($es->next(0.3), undef, 'memory: nor another store');
is(listeners($a, 'room'), 10, 'the API counts those of all stores');


# they are told: a worker whose clients hear nothing does not look for it

my $m = $t->node(name => 'm', workers => 2, http => <<'EOT')->start;
    server {
        listen 127.0.0.1:%%PORT%%;
        location /mem { coord_subscribe room heartbeat=off; }
        location /mempub { coord_publish $arg_c $arg_m; empty_gif; }
    }
EOT

my @quiet = map { Coord::Events->new($m, '/mem') } 1 .. 8;
my @pids = $m->workers;
my $woken = woken(@pids);
sleep 2;
cmp_ok(woken(@pids) - $woken, '<', 60, 'memory: idle workers sleep');
$m->get('/mempub?c=room&m=1');
is(join(' ', map { $_->data(1) } @quiet), join(' ', (1) x 8),
   'and are told of a message');

my @old = $m->reload;
my @next = map { Coord::Events->new($m, '/mem') } 1 .. 8;
$m->get('/mempub?c=room&m=2');
is(join(' ', map { $_->data(1) } @next), join(' ', (2) x 8),
   'after a reload, too');
$m->kill_worker;
push @next, map { Coord::Events->new($m, '/mem') } 1 .. 8;
$m->get('/mempub?c=room&m=3');
is(join(' ', map { $_->data(1) } @next[8 .. 15]), join(' ', (3) x 8),
   'and after the death of a worker');
$_->close for @quiet, @next;


# --- counted ---

my $prom = $a->get('/status?format=prometheus')->body;
like($prom, qr/^coord_events_published_total\{store="main"\} [1-9]/m,
     'metrics: published');
like($prom, qr/^coord_events_listeners\{store="main"\} [1-9]/m,
     'metrics: listeners');
like($prom, qr/^coord_events_sent_total\{store="main"\} [1-9]/m,
     'metrics: sent');
like($prom, qr/^coord_events_lost_total\{store="main"\} 0$/m,
     'metrics: nothing is lost');

$a->get('/pub?c=' . 'x' x 300 . '&m=1');
ok($a->wait_log(qr/1 messages of coord_publish may be lost: channel is longer/),
   'a channel to publish to that is no good is told');
like($a->get('/status?format=prometheus')->body,
     qr/^coord_events_lost_total\{store="main"\} 1$/m, 'and counted');


# --- the Redis client comes back ---

# clients of both workers of one node, and no other subscriber

undef $plain;
close $curl;
my @more;
push @more, Coord::Events->new($a, '/events')
    while @more < 50 && numsub('room') < 2;
ok($t->wait_for(sub { numsub('room') == 2 }), 'both workers listen');

$redis->stop('KILL');
ok($t->wait_for(sub { $a->log =~ /connection closed by the server/ }),
   'Redis is gone');
ok($t->wait_for(sub { $a->get('/shut')->status == 503 }),
   'closed: no stream begins without it');
is(scalar(grep { $a->get('/shut')->status != 503 } 1 .. 6), 0,
   'by no worker, though it has clients of the channel');
my $new = Coord::Events->new($a, '/events');
is($new->status, 200, 'a stream begins without it');
$redis->run;
$r = $redis->connect;

ok($t->wait_for(sub { numsub('room') == 2 }, 20), 'subscribed again');

# each by its own worker, which may be back later than the other one

for ([$es, 'the same client hears again'],
     [$new, 'and the one that came meanwhile'])
{
    my ($client, $what) = @$_;
    ok($t->wait_for(sub {
        $r->command(PUBLISH => 'room', 'again');
        return $client->next(0.2);
    }, 10), $what);
}

ok($_->next, 'and those of the other worker') for @more;
is(Coord::Events->new($a, '/shut')->status, 200, 'closed: a stream begins');


# --- configuration ---

for (['coord_publish a;', 'needs a channel and a message'],
     ['coord_publish "" x;', 'channel is empty'],
     ['coord_publish "a b" x;', 'has a space'],
     ['coord_subscribe "a\tb";', 'has a space or a control character'],
     ['coord_publish a b history=0;', 'invalid parameter'],
     ['coord_publish a b ttl=5m;', '"ttl=" without "history="'],
     ['coord_publish a b c=d;', 'invalid parameter'],
     ['coord_publish off; coord_publish a b;', 'duplicate'],
     ['coord_publish off a;', 'takes no parameters with "off"'],
     ['coord_publish a b store=none;', 'unknown store "none"'],
     ['coord_subscribe history;', 'needs a channel'],
     ['coord_subscribe a heartbeat=1x;', 'invalid parameter'],
     ['coord_subscribe a; coord_subscribe b;', 'duplicate'])
{
    my ($conf, $why) = @$_;
    like($t->conf_error(server => "location / { $conf }"), qr/\Q$why\E/,
         "configuration: $conf");
}

is($t->conf_error(server => 'location / { coord_publish a b; }'), '',
   'no store at all');

$_->close for $es, $both, $every, $hb, $gone, $new, @mem, $other, @more;

done_testing();


# how often processes were woken, ever

sub woken {
    my $n = 0;

    for my $pid (@_) {
        open(my $fh, '<', "/proc/$pid/status") or die $!;
        $n += $1 if join('', <$fh>) =~ /^voluntary_ctxt_switches:\s+(\d+)/m;
    }

    return $n;
}


sub numsub {
    my ($channel) = @_;

    return $r->command(PUBSUB => 'NUMSUB', $channel)->[1];
}


sub listeners {
    my ($node, $channel) = @_;

    my $body = $node->get("/api/events/$channel")->body;

    return $body =~ /"listeners": ?(\d+)/ ? $1 : -1;
}
