#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Windows of the calendar, in both stores: true w, t and Retry-After for hours,
# days, weeks and months at some distance from UTC, and a count that begins
# anew at the border; and the network of a client as a key.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Time::HiRes qw(time sleep);
use Time::Local qw(timegm);

my $t = Coord->new;
my $redis = $t->redis;


# what is wrong is told with what is right

my %wrong = (
    'algorithm=fixed_window align=year'
        => qr/"year" in "align=".*"hour", "day", "week" or "month"/,
    'align=day' => qr/"align=day" is not allowed with algorithm "leaky_bucket"/,
    'algorithm=sliding_log align=day'
        => qr/not allowed with algorithm "sliding_log", only with "fixed_window/,
    'algorithm=fixed_window tz=+01:00' => qr/"tz=" is of use with "align="/,
    'algorithm=fixed_window align=day tz=CET' => qr/"CET".*like "\+05:30"/,
    'algorithm=fixed_window align=hour rate=5r/d'
        => qr/period of the rate is longer than a hour/,
);

for my $text (sort keys %wrong) {
    my $rate = $text =~ /rate=/ ? '' : 'rate=5r/m';

    like($t->conf_error(http => "coord_limit_req_zone \$arg_k zone=z:1m $rate"
                              . " $text; server { listen 127.0.0.1:%%PORT%%; }"),
         $wrong{$text}, $text);
}

for my $text ('33 64', '0 64', '24 129', '24 x') {
    like($t->conf_error(http => "coord_client_net $text;"
                              . " server { listen 127.0.0.1:%%PORT%%; }"),
         qr/invalid prefix length "\w+", that of IPv\d is a number/,
         "networks of $text bits");
}


# a clock on which the hour is over with this minute, of which there is half left
# at least: who waits for the next one would wait for an hour

sleep 0.1 while (gmtime)[0] >= 30;

my ($m, $h) = (gmtime)[1, 2];
my $tz = sprintf '+%02d:%02d', 2 + ($m == 0), (60 - $m + 59) % 60;
my $ahead = (2 + ($m == 0)) * 3600 + ((60 - $m + 59) % 60) * 60;

sub conf {
    return <<"EOF";
        $_[0]
        coord_limit_req_zone \$arg_k zone=hour:1m rate=2r/m
                             algorithm=fixed_window align=hour tz=$tz;
        coord_limit_req_zone \$arg_k zone=day:1m rate=2r/h
                             algorithm=fixed_window align=day tz=-08:30;
        coord_limit_req_zone \$arg_k zone=week:1m rate=2r/d
                             algorithm=fixed_window align=week tz=+14:00;
        coord_limit_req_zone \$arg_k zone=month:1m rate=\$arg_r
                             algorithm=fixed_window align=month;
        coord_limit_req_zone \$coord_client_net zone=net:1m rate=1r/h
                             algorithm=fixed_window;

        set_real_ip_from 127.0.0.1;
        real_ip_header X-Forwarded-For;
        add_header X-Net \$coord_client_net;

        server {
            listen 127.0.0.1:%%PORT%%;
            location /hour { coord_limit_req zone=hour; empty_gif; }
            location /day { coord_limit_req zone=day; empty_gif; }
            location /week { coord_limit_req zone=week; empty_gif; }
            location /month { coord_limit_req zone=month on_failure=closed;
                              empty_gif; }
            location /net { coord_limit_req zone=net; empty_gif; }
            location /plain { empty_gif; }
            location /cut { coord_client_net 24 56; empty_gif; }
            location /coord/ { coord_api write; }
        }
EOF
}

my %node = (
    redis => [map { $t->node(name => $_, http => conf('coord_store main '
                        . '{ server %%REDIS%%; timeout 30s; connect_timeout 30s; }'))->start }
              qw(a b)],
    memory => [$t->node(name => 'm', workers => 2, http => conf(''))->start],
);


# when the present period ends, by the library

sub border {
    my ($kind) = @_;

    my $now = time;
    my %at = (hour => $ahead, day => -8.5 * 3600, week => 14 * 3600, month => 0);
    my @l = gmtime($now + $at{$kind});
    my $first = timegm(0, 0, $kind eq 'hour' ? $l[2] : 0,
                       $kind eq 'month' ? 1 : $l[3], $l[4], $l[5] + 1900);
    my %length = (hour => 3600, day => 86400, week => 7 * 86400);
    my $length = $length{$kind};

    $first -= ($l[6] + 6) % 7 * 86400 if $kind eq 'week';
    $length = timegm(0, 0, 0, 1, ($l[4] + 1) % 12,
                     $l[5] + 1900 + ($l[4] == 11)) - $first
        if $kind eq 'month';

    return ($first + $length - $at{$kind} - $now, $length);
}

# none of these ends while it is counted

sleep 0.1 while grep { (border($_))[0] < 10 } qw(day week month);

for my $store (sort keys %node) {
    my @n = @{$node{$store}};

    for my $kind (qw(day week month hour)) {
        my @r = map { $n[$_ % @n]->get("/$kind?k=one&r=2r/d") } 0 .. 2;
        my ($left, $length) = border($kind);

        is(join(' ', map { $_->status } @r), '200 200 429',
           "$store: $kind: the count of the period");
        like($r[0]->header('RateLimit-Policy'), qr/^"$kind";q=2;w=$length$/,
             "$store: $kind: w is its true length");

        my ($s) = $r[2]->header('RateLimit') =~ /r=0;t=(\d+)$/;

        cmp_ok(abs($s - $left), '<', 3, "$store: $kind: t is true");
        is($r[2]->header('Retry-After'), $s, "$store: $kind: Retry-After");
    }

    is($n[0]->get('/month?k=two&r=2r/40d')->status, 503,
       "$store: a rate with too long a period is none");

    my $api = $n[0]->get('/coord/limits/day/one');

    like($api->body, qr/"refused": ?true/, "$store: the API knows it");
    like($api->body, qr/"window_seconds": ?86400/, "$store: and its length");
}

ok((grep { $_ eq 'coord:rf:month:{one}' }
    @{$redis->connect->command('KEYS', '*')}), 'the key is that of a window');


# over the border: the next period, at once

my $left = (border('hour'))[0];

is($_->get('/hour?k=one')->status, 429, 'before the border')
    for $node{redis}[1], $node{memory}[0];

sleep 0.05 while (border('hour'))[0] <= $left;
sleep 0.3;

for my $store (sort keys %node) {
    my @n = @{$node{$store}};
    my @r = map { $n[$_ % @n]->get('/hour?k=one') } 0 .. 2;

    is(join(' ', map { $_->status } @r), '200 200 429',
       "$store: the next hour");

    my ($s) = $r[2]->header('RateLimit') =~ /r=0;t=(\d+)$/;

    cmp_ok(abs($s - (border('hour'))[0]), '<', 3, "$store: is a whole one");
}


# the network of a client

my $n = $node{memory}[0];

my %net = (
    '192.0.2.7' => ['192.0.2.7', '192.0.2.0/24'],
    '2001:db8:1:2:3:4:5:6' => ['2001:db8:1:2::/64', '2001:db8:1::/56'],
    '2001:db8:1:2:ffff::1' => ['2001:db8:1:2::/64', '2001:db8:1::/56'],
    '::ffff:192.0.2.9' => ['192.0.2.9', '192.0.2.0/24'],
);

for my $from (sort keys %net) {
    my %h = (headers => { 'X-Forwarded-For' => $from });

    is($n->get('/plain', %h)->header('X-Net'), $net{$from}[0],
       "$from: by default");
    is($n->get('/cut', %h)->header('X-Net'), $net{$from}[1], "$from: cut");
}

my @s = map { $n->get('/net', headers => { 'X-Forwarded-For' => $_ })->status }
            qw(2001:db8::1 2001:db8::2 2001:db8:0:1::1 10.0.0.1 10.0.0.2);

is("@s", '200 429 200 200 200', 'one IPv6 network, one client');

done_testing();
