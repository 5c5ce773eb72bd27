#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The status page of a fleet with 60 zones, in a browser: on a desk and on a
# phone, light and dark; a key is looked at and reset; Redis, another node and
# the node itself frozen; another configuration; without script.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Browser;
use Coord::Util qw(wait_for);

use Digest::SHA qw(sha256_hex);
use JSON::PP;

my $t = Coord->new(time_limit => 600);
my $b = Coord::Browser->new($t)
    or plan(skip_all => 'chromium is missing (Debian package chromium)');

my $redis = $t->redis;

my $zones = join '', map {
    "    coord_limit_req_zone \$arg_k zone=tenant_$_:64k rate=${_}r/s;\n"
} 1 .. 57;

my $http = <<"EOF";
    coord_store main { server %%REDIS%%; timeout 200ms; }

    coord_limit_req_zone \$arg_k zone=api:1m rate=1r/h;
    coord_limit_conn_zone \$arg_k zone=conns:1m;
    coord_session_zone \$arg_s zone=people:1m;
$zones
    # a browser connects in advance, to a worker that is to end, too
    client_header_timeout 2s;

    server {
        listen 127.0.0.1:%%PORT%%;

        location / {
            coord_limit_req zone=api burst=1 nodelay;
            coord_limit_conn conns 10;
            empty_gif;
        }

        location = /status { coord_status keys; }
        location /coord/ { coord_api write; }
    }

    server {
        listen 127.0.0.1:%%PORT_2%%;
        location = /status { coord_status keys; }
        location /look { coord_api; }
    }

    server {
        listen 127.0.0.1:%%PORT_3%%;
        location = /status { coord_status keys; }
    }
EOF

my ($one, $two) = map { $t->node(name => $_, http => $http)->start } 'a', 'b';

sub json { decode_json($one->get('/status?format=json', @_)->body) }

sub page {
    my ($port) = @_;

    return 'http://127.0.0.1:' . ($port ? $one->port($port) : $one->port)
           . '/status?format=html';
}

# the text of an element

sub words {
    my ($selector) = @_;

    return $b->eval("document.querySelector('$selector').textContent");
}

# zones that can be seen, from above, once something is done; of a page that
# is still arriving, nothing

sub visible {
    my ($first) = @_;

    return $b->eval('(function () {'
                    . ' if (document.readyState !== "complete") { return ""; } '
                    . ($first || '') . <<'EOF');
        return Array.from(document.querySelectorAll('.zones article'))
        .filter(function (a) { return a.getClientRects().length; })
        .sort(function (a, b) { return a.getBoundingClientRect().top
                                       - b.getBoundingClientRect().top; })
        .map(function (a) { return a.querySelector('.name').firstChild.data; })
        .join(' ');
    })()
EOF
}

# waits until these zones, and no others, can be seen; two of them are in use
# as long as they are asked for now and then

sub sees {
    my ($want, $what, $look) = @_;
    my ($seen, $i);

    wait_for(sub {
        $one->get('/?k=' . "$what$i" =~ s/\W//gr) if $i++ < 1000;
        $look->() if $look;
        $seen = visible();
        return $seen eq $want;
    }, 60);

    is($seen, $want, $what);
}

my $fresh = 'document.body.dataset.time && !document.querySelector(".stale")';

$one->get('/?k=alice') for 1 .. 4;
$one->get('/?k=bob');
$two->get('/?k=bob');

$t->wait_for(sub { @{ json()->{fleet}{nodes} } == 2 }, 30);

ok($b->open(page()), 'the page is loaded');
ok($b->until($fresh, 30), 'and its script runs');
is($b->eval('document.querySelectorAll(".zones article").length'), 60,
   'sixty zones');
sees('api conns', 'those that have nothing to do are folded away');
like(words('#idle'), qr/ 58 idle/, 'and counted');

$b->eval('document.getElementById("idle").click()');
is(scalar(split ' ', visible()), 60, 'they can be shown');
$b->eval('document.getElementById("idle").click()');
sees('api conns', 'and hidden again');

my $filter = 'var f = document.getElementById("filter"); f.value = "%s";'
             . ' f.dispatchEvent(new Event("input"))';

$b->eval(sprintf $filter, 'TENANT_5');
is(visible(), join(' ', map { "tenant_$_" } 5, 50 .. 57), 'looked for by name');
$b->eval(sprintf $filter, '');

like(words('.zones .terms'), qr/^\$arg_k rate=1r\/h \s*burst=1 nodelay/,
     'a limit in short');

my ($name) = map { $_->{node} } grep { !$_->{self} }
             @{ json()->{fleet}{nodes} };

ok($b->until('document.getElementById("nodes").textContent'
             . ".indexOf('$name') >= 0", 30), 'the other node is on it');
like(words('#nodes .sum'), qr/^all that answer: 22/,
     'and the sum: nodes, workers');


# each size and scheme: nothing is wider than the window, all can be read

$b->eval('document.querySelector(".zones details").open = true');

my $contrast = <<'EOF';
(function () {
    function light(colour) {
        var c = colour.match(/[\d.]+/g).slice(0, 3).map(function (v) {
            return v / 255 <= 0.04045 ? v / 255 / 12.92
                   : Math.pow((v / 255 + 0.055) / 1.055, 2.4);
        });
        return 0.2126 * c[0] + 0.7152 * c[1] + 0.0722 * c[2];
    }

    function ground(e) {
        var colour = getComputedStyle(e).backgroundColor;
        return colour !== 'rgba(0, 0, 0, 0)' ? light(colour)
                                             : ground(e.parentElement);
    }

    var least = 21, whose = '';

    document.querySelectorAll('body *').forEach(function (e) {
        var own = Array.from(e.childNodes).some(function (n) {
            return n.nodeType === 3 && n.data.trim();
        });

        if (!own || !e.getClientRects().length) {
            return;
        }

        var a = light(getComputedStyle(e).color), b = ground(e);
        var ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);

        if (ratio < least) {
            least = ratio;
            whose = e.outerHTML.slice(0, 80);
        }
    });

    return least.toFixed(2) + ' ' + whose;
})()
EOF

my $wide = 'document.documentElement.scrollWidth - window.innerWidth';
my %ground;

for my $size ([1280, 900], [360, 740]) {
    for my $scheme ('light', 'dark') {
        my $what = "$size->[0] pixels, $scheme";

        $b->size(@$size)->scheme($scheme);
        is($b->eval('window.innerWidth'), $size->[0], "$what: so wide");
        cmp_ok($b->eval($wide), '<=', 0, "$what: no sideways scrolling");

        is($b->eval('Array.from(document.querySelectorAll("body *"))'
                    . '.filter(function (e) { return e.scrollWidth'
                    . ' > e.clientWidth + 1 && /auto|scroll/.test('
                    . 'getComputedStyle(e).overflowX) }).length'), 0,
           "$what: nor in a part of it");
        is($b->eval('Array.from(document.querySelectorAll(".legend"))'
                    . '.filter(function (e) { return e.scrollWidth'
                    . ' > e.clientWidth }).length'), 0,
           "$what: all of the legend");

        my ($least, $whose) = split / /, $b->eval($contrast), 2;
        cmp_ok($least, '>=', 4.5, "$what: contrast") or diag($whose);

        $ground{$b->eval('getComputedStyle(document.body).backgroundColor')}++;
    }
}

is(scalar keys %ground, 2, 'light is not dark');
$b->size(1280, 900)->scheme('light');


# what stands side by side is of one time

is($b->eval('Array.from(document.querySelectorAll(".zones summary [data-v]"))'
            . '.map(function (e) { return e.dataset.v.replace(/.*\.\d+\./, "")'
            . ' }).filter(function (v) { return !/state|minute|share/.test(v)'
            . ' }).join(" ")'), '', 'the figures of a zone: of the last minute');

# a chart has a scale and a time

my $chart = 'document.querySelector(".zones .chart")';

cmp_ok(words('.zones .chart .top'), '>=', 1, 'a scale');
like($b->eval("$chart.innerText"),
     qr/60 s ago.*decisions.*refused.*unprotected.*now/s, 'and a time');
like($b->eval(<<"EOF"), qr/^60 s ago: \d+ decisions, \d+ refused, \d+ unpro/,
    (function () {
        var r = $chart.getBoundingClientRect();

        $chart.querySelector('svg').dispatchEvent(new PointerEvent(
            'pointermove', { bubbles: true, clientX: r.left + 1 }));

        return $chart.querySelector('.at').textContent;
    })()
EOF
     'the second that is pointed at');


# a key: looked at, reset

is($one->get('/?k=alice')->status, 429, 'alice is refused');

my $tools = 'document.querySelector("[data-a=\"zones.0\"]")';
my $button = 'document.querySelector("[data-k=\"zones.0\"] button")';

$b->eval("var i = $tools.querySelector('input'); i.value = 'alice';"
         . ' i.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }))');
ok($b->until("/refused: true/.test($tools.querySelector('pre').textContent)",
             30), 'the API tells so on the page')
    or diag($b->eval("$tools.innerHTML"));

ok($b->until("!!$button", 30), 'a button for a key that is refused');
is($b->eval("$button.getAttribute('aria-label')"), 'reset alice', 'its name');
$b->eval("$button.click()");
is($b->eval("$button.textContent"), 'sure?', 'it asks first');
is($one->get('/?k=alice')->status, 429, 'and does nothing yet');
$b->eval("$button.textContent === 'sure?' || $button.click();"
         . " $button.click()");
ok($one->wait_log(qr/coord api: deleting from limits of zone "api"/, 30),
   'then it is done');
ok($t->wait_for(sub { $one->get('/?k=alice')->status == 200 }, 30),
   'alice may go on');
is(scalar(() = $one->log_lines(qr/coord api: deleting/)), 1, 'once');

is($b->eval("$tools.querySelectorAll('button').length"), 2, 'look and reset');
is(words('[data-a="zones.1"]'), 'look', 'where there is no reset: only look');
is($b->eval('document.querySelector("[data-k=\"zones.0\"]").rows[0]'
            . '.cells[2].textContent'), substr(sha256_hex('alice'), 0, 8),
   'the digits that name the key in the log');


# who may not write gets no button; who may not ask, nothing at all

is_deeply(json()->{api}, { path => '/coord/', write => JSON::PP::true },
          'where the API is');
is(json(headers => { Host => 'gate.example' })->{api}, undef,
   'it does not serve a foreign host: nothing on the page');
is(json(headers => { 'X-Forwarded-For' => '192.0.2.1' })->{api}, undef,
   'nor through a proxy');

$b->open(page(2));
ok($b->until("$tools.textContent === 'look'", 30), 'without "write": look only');
ok($b->eval("!$button"), 'no button at a key');

$b->eval("$tools.querySelector('input').value = 'bob';"
         . " $tools.querySelector('button').click()");
ok($b->until("/known: true/.test($tools.querySelector('pre').textContent)",
             30), 'a location without a slash at its end');

$b->open(page(3));
ok($b->until($fresh, 30), 'a server without API');
ok($b->eval("$tools.hidden"), 'nothing at all');


# another node frozen

$b->open(page());
ok($b->until($fresh, 30), 'the page again');

# a mark lasts for some seconds: who was away himself looks again

my @two = ($two->pid, $two->workers);
my $sum;

for (1 .. 3) {
    kill 'STOP', @two;
    $sum = $b->until('document.querySelector("#nodes .silent")'
        . ' && document.querySelector("#nodes .sum").textContent', 25);
    last if $sum;

    kill 'CONT', @two;
    $b->until('document.querySelectorAll("#nodes tr").length === 3', 30);
}

like($sum, qr/^all that answer: 11/,
     'a node that does not answer is marked, and not in the sum');
kill 'CONT', @two;
ok($b->until('document.querySelectorAll("#nodes tr").length === 3'
             . ' && !document.querySelector("#nodes .silent")', 60),
   'it answers again');


# Redis frozen: the share that is unprotected, why, and what it is about

ok($b->eval('!document.getElementById("alarm").getClientRects().length'),
   'no trouble, no word');

$redis->freeze;

my $loss = qr/^\d+\.\d% of the decisions of the last minute \(\d+ of \d+\) were not made: requests passed 2 zones unprotected, store main: (?:timeout|connect)$/;

ok(wait_for(sub {
    $one->get("/?k=carol$_") for 1 .. 3;
    return words('#loss') =~ $loss
           && words('#trouble') =~ /store main is down: (?:timeout|connect)/;
}, 60), 'Redis frozen: what passes unprotected, and why')
    or diag(words('#alarm'));

cmp_ok($b->eval('document.getElementById("alarm").getBoundingClientRect()'
                . '.bottom'), '<', 450, 'in the upper half of the window');
like($b->eval('document.title'), qr/^\(\d+\) /, 'the title tells as well');
sees('api conns', 'zones that are concerned');
is($b->eval('document.querySelectorAll(".zones .first").length'), 2,
   'are marked');
ok(!$b->eval('document.getElementById("deaf").hidden'),
   'others are not heard: said so');
cmp_ok($b->size(360, 740)->eval($wide), '<=', 0, 'on a phone as well');
$b->size(1280, 900);

kill 'CONT', $redis->{pid};
ok($b->until('!/is down/.test(document.getElementById("trouble").textContent)',
             60), 'Redis answers again');


# the node itself frozen

my @one = ($one->pid, $one->workers);
kill 'STOP', @one;
ok($b->until('document.body.classList.contains("stale")', 60),
   'a node that does not answer: the page is marked');
is(words('#late'), 'the node does not answer', 'in words as well');
like(words('#age'), qr/^updated ([6-9]|\d\d+) s ago/, 'how old all is');
kill 'CONT', @one;
ok($b->until('!document.body.classList.contains("stale")'
             . ' && !document.getElementById("late").textContent', 60),
   'no longer when it answers');


# another configuration

$one->conf(http => $http =~ s/burst=1 /burst=7 /r);
ok($one->wait_gone(60, $one->reload), 'a reload');
ok($b->until('/burst=7/.test(document.querySelector(".zones .terms")'
             . '.textContent)', 60), 'a new limit is shown by itself');

is(join("\n", $b->console), '', 'no word on the console');


# without script

$b->script(0);
sees('api conns', 'without script: the same zones', sub { $b->open(page()) });

# a page without script loads itself anew, and may not be whole: at one go

ok(wait_for(sub {
    my $seen = visible('document.getElementById("idle").click();');
    return split(' ', $seen) == 60;
}, 60), 'the others can be shown');

$b->close;

done_testing();
