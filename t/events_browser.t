#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_subscribe and the EventSource of a browser, over HTTP/1.1 and HTTP/2:
# what HTML says of a stream holds for whatever a message has in it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Browser;
use Coord::TLS;
use Coord::Util qw(slurp);
use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;
my $tls = Coord::TLS->new($t->dir);

$tls->cert('server', san => 'IP:127.0.0.1');

my $n = $t->node(name => 'n', workers => 1,
                 vars => { CERT => $tls->file('server.pem'),
                           KEY => $tls->file('server.key') }, http => <<'EOF');
    coord_store main { server %%REDIS%%; timeout 30s; connect_timeout 30s; }

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% ssl http2;
        listen 127.0.0.1:%%PORT_3%%;
        ssl_certificate %%CERT%%;
        ssl_certificate_key %%KEY%%;

        location = /page {
            default_type text/html;
            return 200 "<title>x</title>";
        }

        location = /live { coord_subscribe room message error history; }
        location = /news { coord_subscribe news heartbeat=100ms; }
        location = /cross {
            add_header Access-Control-Allow-Origin $http_origin;
            add_header Access-Control-Allow-Headers Last-Event-ID;

            if ($request_method = OPTIONS) {
                return 204;
            }

            coord_subscribe c1 c2 c3 c4 c5 c6 c7 c8 c9 history;
        }

        location = /bad { coord_subscribe $arg_none; }
        location = /stop { return 204; }
        location /api/ { coord_api; }
    }
EOF
$n->start;

my $b = Coord::Browser->new($t)
    or plan(skip_all => 'chromium is missing (Debian package chromium)');

$b->call('Security.setIgnoreCertificateErrors', ignore => JSON::PP::true);

my $bad = "\x{fffd}";

# what is published => what is heard

my @messages = (
    ['plain', 'plain'],
    ['', ''],
    [' one blank before', ' one blank before'],
    ['blank after ', 'blank after '],
    [':no comment', ':no comment'],
    ['data: x', 'data: x'],
    ["a\nid: 5\nretry: 1\nevent: other\n\nb",
     "a\nid: 5\nretry: 1\nevent: other\n\nb"],
    ["lf\nend", "lf\nend"],
    ["cr\rend", "cr\nend"],
    ["crlf\r\nend", "crlf\nend"],
    ["lfcr\n\rend", "lfcr\n\nend"],
    ["ends\n", "ends\n"],
    ["\n", "\n"],
    ["\r\r\n", "\n\n"],
    ["\xef\xbb\xbfmark", "\x{feff}mark"],
    ["nul\0nul", "nul${bad}nul"],
    ["g\xc3\xbcn \xf0\x9f\x9f\xa2", "g\x{fc}n \x{1f7e2}"],
    ["cut \xe2\x82", "cut $bad$bad"],
    ["surrogate \xed\xa0\x80", "surrogate $bad$bad$bad"],
    ["overlong \xc0\xaf", "overlong $bad$bad"],
    ["u2028 \xe2\x80\xa8 nel \xc2\x85", "u2028 \x{2028} nel \x{85}"],
    ['x' x 70_000, 'x' x 70_000],
);

my @old;
my %url = ('http/1.1' => $n->url, h2 => 'https://127.0.0.1:' . $n->port(2) . '/');

browser($_, $url{$_}) for sort keys %url;

cross('http/1.1', $n->port(3));

# none of those that ended for good was asked for again

my @log = split /\n/, slurp($n->file('access.log'));

is(scalar(grep { m{GET /(?:bad|stop) } } @log), 4, 'each asked for once');

$b->close;

# with the last connection of the browser

ok($n->wait_gone(20, @old), 'the worker from before the reload has ended');

done_testing();


sub browser {
    my ($protocol, $url) = @_;

    ok($b->open("${url}page"), "$protocol: a page");
    is($b->eval("performance.getEntriesByName('${url}page')[0]"
                . '.nextHopProtocol'), $protocol, "$protocol: it is");
    $b->eval(<<'EOF');
        window.got = []; window.opened = 0;
        window.es = new EventSource('/live');
        es.onopen = () => { window.opened++; };
        for (const type of ['room', 'message', 'error']) {
            es.addEventListener(type, e => {
                if (e instanceof MessageEvent) {
                    got.push([e.type, e.data, e.lastEventId, e.origin]);
                }
            });
        }
        1
EOF
    ok($b->until('window.opened == 1', 20), "$protocol: open");

    append('room', $_->[0]) for @messages;
    ok($b->until('got.length >= ' . @messages, 20), "$protocol: all come")
        or diag($b->eval('got.length'));

    my @got = @{ $b->eval('got') };

    for my $i (0 .. $#messages) {
        my $name = JSON::PP->new->ascii->allow_nonref
                   ->encode(substr $messages[$i][1], 0, 30);
        is($got[$i][1], $messages[$i][1], "$protocol: $name");
    }

    is($got[0][0], 'room', "$protocol: the type is the channel");
    like($got[0][2], qr/^\d+-\d+,\d+-\d+,\d+-\d+$/, "$protocol: an id");
    is($got[0][3], $url =~ s{/$}{}r, "$protocol: the origin");

    # types that mean something to a browser

    append('message', 'm');
    append('error', 'e');
    ok($b->until('got.length == ' . (@messages + 2), 20),
       "$protocol: channels \"message\" and \"error\"");
    is_deeply([sort map { "@{$_}[0, 1]" } @{ $b->eval('got.slice(-2)') }],
              ['error e', 'message m'], "$protocol: by their types");
    is($b->eval('es.readyState'), 1, "$protocol: no error");

    back($protocol);
    over($protocol);
    beats($protocol);

    $b->eval('es.close(); hb.close(); 1');
    ok($t->wait_for(sub { $n->get('/api/events/room')->body
                          =~ /"listeners": ?0\b/ }, 20), "$protocol: gone");
}


# the stream ends and is taken up again, what was missed is heard once

sub back {
    my ($protocol) = @_;

    $b->eval('got = []');

    my @old = $n->reload;

    append('room', "while away $_") for 1 .. 3;
    ok($b->until('window.opened == 2', 30), "$protocol: comes back");
    append('room', 'and on');
    ok($b->until('got.length >= 4', 20), "$protocol: hears");
    ok($n->wait_gone(20, @old), "$protocol: the worker is gone");
    is_deeply([map { $_->[1] } @{ $b->eval('got') }],
              ['while away 1', 'while away 2', 'while away 3', 'and on'],
              "$protocol: what was missed, once, in order");
}


# a page of another origin, whose ids name so many channels that they are longer
# than what others are asked for without a preflight

sub cross {
    my ($protocol, $port) = @_;

    ok($b->open("$url{$protocol}page"), "$protocol: a page");
    $b->eval(<<"EOF");
        window.got = []; window.opened = 0;
        window.es = new EventSource('http://127.0.0.1:$port/cross');
        es.onopen = () => { window.opened++; };
        es.addEventListener('c9', e => got.push([e.data, e.lastEventId]));
        window.others = 0;
        for (let i = 1; i < 9; i++)
            es.addEventListener('c' + i, () => { window.others++; });
        1
EOF
    ok($b->until('window.opened == 1', 20), "$protocol: another origin");
    append("c$_", 'x') for 1 .. 8;
    ok($b->until('others == 8', 20), "$protocol: hears of others");
    append('c9', 'x');
    ok($b->until('got.length == 1', 20), "$protocol: hears");
    cmp_ok($b->eval('got[0][1].length'), '>', 128, "$protocol: a long id");

    @old = $n->reload;

    append('c9', 'while away');
    ok($b->until('window.opened == 2', 30), "$protocol: comes back")
        or diag($b->eval('es.readyState'));
    append('c9', 'and on');
    ok($b->until('got.length >= 3', 20), "$protocol: hears");
    is_deeply($b->eval('got.map(e => e[0])'), ['x', 'while away', 'and on'],
              "$protocol: what was missed, once");
    $b->eval('es.close(); 1');

    my $res = $n->request(OPTIONS => '/cross');

    is($res->status, 204, "$protocol: who asks before");
    is($res->header('access-control-allow-headers'), 'Last-Event-ID',
       "$protocol: may send an id");
}


# statuses that end it for good

sub over {
    my ($protocol) = @_;

    for my $path ('bad', 'stop') {
        $b->eval("window.dead = new EventSource('/$path'); 1");
        ok($b->until('dead.readyState == 2', 20), "$protocol: /$path: closed");
    }
}


# heartbeats are nothing to a page

sub beats {
    my ($protocol) = @_;

    $b->eval(<<'EOF');
        window.heard = 0; window.up = 0;
        window.hb = new EventSource('/news');
        hb.onopen = () => { up = 1; };
        hb.onmessage = () => { heard++; };
        hb.addEventListener('news', e => { heard = e.data; });
        1
EOF
    ok($b->until('up', 20), "$protocol: without a history");
    select undef, undef, undef, 0.5;
    is($b->eval('heard'), 0, "$protocol: a heartbeat is no event");
    $r->command(PUBLISH => 'news', 'x');
    ok($b->until('heard == "x"', 20), "$protocol: a message is");
}


# a message as an application keeps and publishes it

sub append {
    my ($channel, $text) = @_;

    $r->command('XADD', "coord:ev:{$channel}", '*', 'm', $text);
    $r->command('PEXPIRE', "coord:ev:{$channel}", 600_000);
    $r->command('PUBLISH', "coord:ev:{$channel}", '');
    $r->command('PUBLISH', $channel, $text);
}
