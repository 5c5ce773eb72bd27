#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# The status page, as text and in headless Chromium: what it shows is what the
# JSON says, with and without its script; nothing is loaded, nothing complains.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;

use JSON::PP;

my $t = Coord->new;
my $redis = $t->redis;

my $http = <<'EOF';
    coord_store main { server %%REDIS%%; timeout 5s; connect_timeout 5s; }
    coord_store mem { }

    coord_limit_req_zone $arg_k zone=one:1m rate=1r/h;
    coord_limit_req_zone $arg_k "zone=<script>alert(1)</script>&:1m"
                         rate=1r/h store=mem;
    coord_limit_conn_zone $arg_k zone=conn:1m;

    server {
        listen 127.0.0.1:%%PORT%%;

        location / {
            coord_limit_req zone=one;
            coord_limit_conn conn 10;
            empty_gif;
        }

        location = /status { coord_status keys; }
    }
EOF

my $n = $t->node(name => 'n', workers => 2, http => $http)->start;

$n->get('/?k=alice') for 1 .. 4;
$n->get('/?k=bob') for 1 .. 2;

sub status { decode_json($n->get('/status?format=json')->body) }

# the values of a page, by their place in the JSON

sub values_of {
    my ($html) = @_;
    my %value;

    while ($html =~ /<\w+ ([^>]*data-v="([^"]+)"[^>]*)>([^<]*)</g) {
        my ($attributes, $path, $text) = ($1, $2, $3);
        my ($form) = $attributes =~ /data-f="(\w*)"/;
        $value{$path} = [$form // '', $text];
    }

    return \%value;
}

sub pick {
    my ($data, $path) = @_;

    for (split /\./, $path) {
        $data = ref $data eq 'ARRAY' ? $data->[$_] : $data->{$_};
    }

    return $data;
}

# numbers that do not change while nothing is asked

sub same {
    my ($values, $json, $what) = @_;
    my ($compared, @differ) = 0;

    for my $path (sort keys %$values) {
        my ($form, $text) = @{ $values->{$path} };

        # INFO goes on all the time

        next if $form =~ /^(rate|share|ms|mib|lasting)$/ || $path =~ /server/
             || $path =~ /^stores\.0\.(operations\.ok|pending)$/;

        my $want = pick($json, $path);
        $compared++;
        push @differ, "$path: $text, not $want" if $want ne $text;
    }

    cmp_ok($compared, '>=', 25, "$what: values");
    is("@differ", '', "$what: all as in the JSON");
}

ok($t->wait_for(sub { status()->{stores}[0]{server} }, 20), 'server known');

my $response = $n->get('/status', headers => { Accept =>
    'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8' });

is($response->header('Content-Type'), 'text/html; charset=utf-8', 'a page');

my $html = $response->body;
my $policy = $response->header('Content-Security-Policy');
my ($nonce) = $policy =~ /script-src 'nonce-([0-9a-f]{32})';/;

ok($nonce, 'a policy with a nonce');
like($policy, qr/^default-src 'none'; connect-src 'self'; /, 'nothing else');
unlike($policy, qr/unsafe/, 'nothing unsafe');
my ($second) = $n->get('/status?format=html')
               ->header('Content-Security-Policy') =~ /nonce-(\w+)/;
isnt($second, $nonce, 'another nonce for each response');

unlike($html, qr/<script>alert/, 'a zone name cannot bring a script');
like($html, qr/&lt;script&gt;alert\(1\)&lt;\/script&gt;&amp;<small>/, 'escaped');
unlike($html, qr/(src|href)="(?!data:,)/, 'nothing to load');
unlike($html, qr/ style="| on\w+="/, 'no inline style or handler');
like($html, qr/<noscript><meta http-equiv="refresh"/, 'works without script');
like($html, qr{<td>alice</td><td>3</td>}, 'keys');
is(scalar(() = $html =~ /<polyline class="(?:all|no)(?: rest)?" points="0,/g), 8,
   'a chart for each zone, and one of all');

same(values_of($html), status(), 'without script')
    if ok(values_of($html)->{'zones.0.decisions.rejected'}[1] eq 4, 'refused');


# in a browser

my ($chromium) = grep { -x } map { ("$_/chromium", "$_/chromium-browser") }
                 split /:/, $ENV{PATH};

SKIP: {
    skip 'chromium is missing (Debian package chromium)', 16 unless $chromium;

    my $dir = $t->dir . '/chromium';
    my @command = ($chromium, qw(
        --headless --no-sandbox --disable-gpu --disable-quic --no-first-run
        --disable-background-networking --disable-component-update
        --disable-sync --disable-dev-shm-usage --enable-logging=stderr
        --timeout=20000 --virtual-time-budget=5000), "--user-data-dir=$dir", '--dump-dom');

    my $url = $n->url('/status?format=html');
    my $dom = `timeout 120 @command '$url' 2>$dir.log`;

    open my $fh, '<', "$dir.log" or die $!;
    my $log = do { local $/; <$fh> };
    close $fh;

    ok($dom =~ /<body data-time="(\d{13})"/, 'the script has run')
        or diag($dom, $log);
    same(values_of($dom), status(), 'with script');
    is(scalar(() = $dom =~ /class="(?:all|no)(?: rest)?" points="0,\d/g), 8,
       'charts');
    like($dom, qr{<td>alice</td><td>3</td>}, 'keys');
    is(join('', $log =~ /^.*CONSOLE.*$/mg), '', 'no word on the console');
    like($dom, qr{id="late" role="status"></span>}, 'updated');
    like($dom, qr{id="age">updated [0-9] s ago<}, 'and when');


    # the same page with other answers: a node that hangs after the first one

    my $page = $n->get('/status?format=html')->body;
    my $json = $n->get('/status?format=json')->body;

    $json =~ s/"trouble":\[\]/"trouble":["store <b>"]/;
    $json =~ s/</\\u003c/g;
    $page =~ s{<head>}{<head><script>
        var asked = 0;
        window.fetch = function (url, options) {
            return asked++ ? new Promise(function (yes, no) {
                options.signal.addEventListener('abort', function () {
                    no(new Error('aborted'));
                });
            }) : Promise.resolve({ ok: true, json: function () {
                return JSON.parse(document.getElementById('j').textContent);
            } });
        };
        </script><script type="application/json" id="j">$json</script>};

    my $browse = sub {
        my ($name, $text) = @_;

        open my $fh, '>', "$dir-$name.html" or die $!;
        print $fh $text;
        close $fh;

        return scalar `timeout 120 @command --virtual-time-budget=12000 'file://$dir-$name.html' 2>$dir.log`;
    };

    $dom = $browse->('hang', $page);
    like($dom, qr/<body[^>]* class="stale"/, 'a node that hangs: marked');
    like($dom, qr{id="age">updated 1[0-9] s ago<}, 'how old all is');
    like($dom, qr{id="late" role="status">the node does not answer<}, 'why');
    like($dom, qr{<ul id="trouble"[^>]*><li>store &lt;b&gt;</li></ul>},
         'trouble is text');


    like($dom, qr{data-z="1" data-v="zones\.0\.decisions\.rejected"[^>]*>4<},
         'a count is shown');
    like($dom, qr{data-v="zones\.1\.decisions\.passed"[^>]* class="zero">0<|class="zero" data-v="zones\.1\.decisions\.passed"[^>]*>0<},
         'what is zero is not');


    # on a phone nothing is wider than the screen

    my $phone = $n->get('/status?format=html')->body;
    $phone =~ s/<script nonce.*?<\/script>//s;
    $phone =~ s/&/&amp;/g;
    $phone =~ s/"/&quot;/g;
    $dom = $browse->('phone', "<body><iframe width=360 height=740 "
        . "srcdoc=\"$phone\" onload=\"var d = contentDocument.documentElement;"
        . " document.body.dataset.wide = d.scrollWidth + '/' + d.clientWidth\">"
        . "</iframe>");
    my ($wide, $have) = $dom =~ m{data-wide="(\d+)/(\d+)"};
    cmp_ok($have // 0, '>', 300, 'a phone');
    cmp_ok($wide // 9999, '<=', $have // 0, 'all fits');
}


# a store that hangs: what passes unprotected is told first, and why

$n->conf(http => $http =~ s/timeout 5s; connect_timeout 5s/timeout 100ms/r);
my @old = $n->reload;
$n->wait_gone(20, @old);
$redis->freeze;

my $words = qr/^limit_req one: \d+\.\d% of the requests of the last minute \(\d+ of \d+\) passed unprotected, store main: (?:timeout|connect)$/;
my @trouble;

ok($t->wait_for(sub {
    $n->get('/?k=carol') for 1 .. 3;
    @trouble = @{ status()->{trouble} };
    return grep(/^store main is down: (?:timeout|connect)$/, @trouble)
           && grep(/$words/, @trouble);
}, 20), 'trouble') or diag(@trouble);

my ($zone) = grep { $_->{zone} eq 'one' } @{ status()->{zones} };
is($zone->{store_state}, 'down', 'a zone tells the state of its store');
cmp_ok($zone->{rate}{bypassed_share}, '>', 0, 'and what went on undecided');

$html = $n->get('/status?format=html')->body;
my ($list) = $html =~ m{<main class="alone"><section id="alarm" role="alert" class=""><p id="loss">.*?<ul id="trouble">(.*?)</ul>};
is($list =~ s/\d[\d.]*//gr,
   join('', map { "<li>$_</li>" } @{ status()->{trouble} }) =~ s/\d[\d.]*//gr,
   'the page has the same in the middle');
like($html, qr/class="bad" data-v="zones\.0\.rate\.bypassed_share">[1-9]/,
     'and the zone its share');

my %first = $html =~ /<article data-o="([^"]+)" class="(\w*)">/g;
is(join(' ', grep { $first{$_} eq 'first' } sort keys %first),
   'stores.0 zones.0 zones.2', 'trouble comes first');
my $loss = status()->{unprotected};
like($loss, qr/^\d+\.\d% of the decisions of the last minute \(\d+ of \d+\) were not made: requests passed 2 zones unprotected, store main: (?:timeout|connect)$/,
     'what part of all passed unprotected, and why');
($list) = $html =~ m{<p id="loss">([^<]*)</p>};
is($list =~ s/\d[\d.]*//gr, $loss =~ s/\d[\d.]*//gr, 'on the page as well');
is($first{'zones.1'}, 'idle', 'a zone without requests comes last');

like($html, qr{data-v="stores\.0\.up">}, 'workers of a store are told');
like($html, qr{class="zero" data-v="zones\.1\.decisions\.passed">0<},
     'what is zero is folded away');

my $minute = status()->{stores}[0]{minute};
cmp_ok($minute->{failed}, '>', 0, 'operations that failed');
like($minute->{reason}, qr/^(?:timeout|connect)$/, 'for that reason');

kill 'CONT', $redis->{pid};
ok($t->wait_for(sub {
    return !grep { /is down/ } @{ status()->{trouble} };
}, 20), 'it is back');
cmp_ok(scalar(grep { /unprotected/ } @{ status()->{trouble} }), '>=', 1,
       'what passed in the last minute is still told');

done_testing();
