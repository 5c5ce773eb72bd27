#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# Requests of one turn of the event loop that ask the same of one bucket, of one
# fixed window or of one log travel as one command: each gets the answer that it
# would have got by itself, and gives back its own place.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::HTTP2;

my $t = Coord->new;
my $redis = $t->redis;
my $admin = $redis->connect;
my $fake = $t->fake_redis(upstream => $redis->{port});

# the first request of a key is one that makes it

my %path = (
    '/nodelay' => 'burst=9 nodelay',
    '/delay' => 'burst=9 delay=4',
    '/dry' => 'burst=9; coord_limit_req_dry_run on',
    '/cost' => 'burst=19 nodelay cost=3',
    '/less' => 'burst=4 nodelay',
    '/closed' => 'burst=9 nodelay on_failure=closed',
);

my $n = $t->node(name => 'n', workers => 1, http => <<"EOF")->start;
    coord_store main { server redis://@{[$fake->addr]}; timeout 2s;
                       connect_timeout 2s; breaker failures=1000; }
    coord_limit_req_zone \$arg_k zone=b:1m rate=1r/d;
    coord_limit_req_zone \$arg_k zone=w:1m rate=10r/d algorithm=fixed_window;
    coord_limit_req_zone \$arg_k zone=g:1m rate=10r/d algorithm=sliding_log;
    coord_limit_req_zone \$arg_k zone=d:1m rate=10r/d algorithm=fixed_window
                         align=day;
    add_header X-Req \$coord_limit_req_status always;

    server {
        listen 127.0.0.1:%%PORT%%;
        listen 127.0.0.1:%%PORT_2%% http2;
@{[ map { "location $_ { coord_limit_req zone=b $path{$_}; empty_gif; }\n" }
        sort keys %path ]}
        location /window { coord_limit_req zone=w; empty_gif; }
        location /window_dry { coord_limit_req zone=w;
                               coord_limit_req_dry_run on; empty_gif; }
        location /window_cost { coord_limit_req zone=w cost=3; empty_gif; }
        location /log { coord_limit_req zone=g; empty_gif; }
        location /log_dry { coord_limit_req zone=g;
                            coord_limit_req_dry_run on; empty_gif; }
        location /window_day { coord_limit_req zone=d; empty_gif; }
        location /none { return 204; }
    }
EOF

my @clients;

# a store that is still to be connected is asked by each

is($n->get('/log?k=connect')->header('X-Req'), 'PASSED', 'connected');


# in one turn, each of a client of its own; in what order they are found is the
# kernel's

sub begin {
    (my $worker, @clients) = $n->hold_crowd('/none', @_);

    return $worker;
}


sub together {
    kill 'CONT', begin(@_);
    return map { $clients[$_]->response } 0 .. $#_;
}


sub bitfields {
    my ($k, $zone) = (@_, 'rl:b');

    return scalar grep { $_->[2] eq "coord:$zone:{$k}" }
           $fake->commands('BITFIELD');
}


sub logged {
    my ($k) = @_;

    return scalar grep { $_->[2] eq "coord:rg:g:{$k}" && $_->[3] eq 'NX' }
           $fake->commands('ZADD');
}


# what a client and the log are told, sorted; a day drains nothing meanwhile

sub told {
    my ($path, @responses) = @_;

    my @told = map { join ' ', $_->status, $_->header('X-Req'),
                     ($_->header('RateLimit') || '') =~ /;r=(\d+)/,
                     $_->header('Retry-After') ? 'after' : '' } @responses;
    my @excess = map { sprintf 'excess %.1f', $_ }
                 $n->log =~ /excess: ([\d.]+).*request: "GET \Q$path\E /mg;

    return join "\n", sort @told, @excess;
}


# as if they had come one after the other, but for the commands

for my $p ('/nodelay', '/dry', '/cost', '/less') {
    $n->get("$p?k=a$p");
    $n->get("$p?k=b$p");

    my @one = map { $n->get("$p?k=a$p") } 1 .. 20;
    my $before = bitfields("b$p");
    my @all = together(("$p?k=b$p") x 20);

    is(told("$p?k=b$p", @all), told("$p?k=a$p", @one),
       "$p: the same answers");
    is(bitfields("b$p") - $before, 1, "$p: by one command");
    is($admin->command('GETRANGE', "coord:rl:b:{b$p}", 12, -1),
       $admin->command('GETRANGE', "coord:rl:b:{a$p}", 12, -1),
       "$p: the same capacity");
}

for (['rf:w' => '/window'], ['rf:w' => '/window_dry'], ['rf:w' => '/window_cost'],
     ['rf:d' => '/window_day'])
{
    my ($z, $p) = @$_;

    $n->get("$p?k=a$p");
    $n->get("$p?k=b$p");

    my @one = map { $n->get("$p?k=a$p") } 1 .. 20;
    my $before = bitfields("b$p", $z);
    my @all = together(("$p?k=b$p") x 20);

    is(told("$p?k=b$p", @all), told("$p?k=a$p", @one),
       "$p: the same answers");
    is(bitfields("b$p", $z) - $before, 1, "$p: by one command");
    is(unpack('N', $admin->command('GET', "coord:$z:{b$p}")),
       unpack('N', $admin->command('GET', "coord:$z:{a$p}")),
       "$p: the same count");
    cmp_ok($admin->command('PTTL', "coord:$z:{b$p}"), '>', 0,
           "$p: it has a life");
}

for my $p ('/log', '/log_dry') {
    $n->get("$p?k=a$p");
    $n->get("$p?k=b$p");

    my @one = map { $n->get("$p?k=a$p") } 1 .. 20;
    my $before = logged("b$p");
    my @all = together(("$p?k=b$p") x 20);

    is(told("$p?k=b$p", @all), told("$p?k=a$p", @one), "$p: the same answers");
    is(logged("b$p") - $before, 1, "$p: by one command");
    is($admin->command('ZCARD', "coord:rg:g:{b$p}"), 10, "$p: so many entries");
    cmp_ok($admin->command('PTTL', "coord:rg:g:{b$p}"), '>', 0,
           "$p: it has a life");
}

# of those who would wait for a day each place is given back

{
    my $k = 'k=late';
    $n->get("/delay?$k");

    my $worker = begin(("/delay?$k") x 20);
    kill 'CONT', $worker;

    my @in = map { $clients[$_]->response } 0 .. 3;
    is(scalar(grep { $_->header('X-Req') eq 'PASSED' } @in), 4,
       'delay=4: four pass');
    $_->close for @clients;
    @clients = ();

    ok($t->wait_for(sub { $n->get("/less?$k")->status == 429
                          && $n->get("/nodelay?$k")->status == 200 }, 10),
       'who is gone gives his own place back');
    is(scalar(grep { $n->get("/nodelay?$k")->status == 200 } 1 .. 20), 4,
       'and no more than that');
}

# clients that leave before they are answered

{
    $n->get('/nodelay?k=gone');
    my $worker = begin(('/nodelay?k=gone') x 6);
    $_->close for @clients[1, 3, 5];
    kill 'CONT', $worker;

    is($clients[$_]->response->status, 200, 'who stays passes') for 0, 2, 4;
    @clients = ();

    my $left = grep { $n->get('/nodelay?k=gone')->status == 200 } 1 .. 20;
    cmp_ok($left, '>=', 3, 'no place was taken twice');
    cmp_ok($left, '<=', 6, 'nor given back twice');
}

# callers that ask for something else, and other keys

{
    $n->get($_) for '/nodelay?k=mixed', '/less?k=mixed', '/nodelay?k=other';

    my %before = map { $_ => bitfields($_) } qw(mixed other);
    my @got = together(map { ("$_?k=mixed", '/nodelay?k=other') }
                       ('/nodelay', '/less') x 8);
    my %passed;

    for my $i (0 .. $#got) {
        $passed{ $i % 2 ? 'other' : $i % 4 ? 'less' : 'nodelay' }++
            if $got[$i]->status == 200;
    }

    is($passed{other}, 9, 'another key has its own places');
    is($passed{nodelay} + ($passed{less} || 0), 8, 'one bucket for both');
    cmp_ok($passed{less} || 0, '<=', 3, 'a smaller burst');
    is(bitfields('mixed') - $before{mixed}, 2, 'a command for each burst');
    is(bitfields('other') - $before{other}, 1, 'and one for another key');
}

# a key that is gone is made anew by the first

{
    $n->get('/nodelay?k=del');
    $admin->command('DEL', 'coord:rl:b:{del}');

    my @got = together(('/nodelay?k=del') x 20);
    is(scalar(grep { $_->status == 200 } @got), 10, 'gone: all places');
    cmp_ok($admin->command('PTTL', 'coord:rl:b:{del}'), '>', 86400_000,
           'gone: it has a life');
}

# a key that is no bucket, and a connection that ends: each by its on_failure

{
    $n->get('/closed?k=bad');
    $admin->command('DEL', 'coord:rl:b:{bad}');
    $admin->command('RPUSH', 'coord:rl:b:{bad}', 'x');

    is(join(' ', map { $_->status } together(('/closed?k=bad') x 5)),
       '503 503 503 503 503', 'an error is one for each');

    $n->get("/$_?k=cut") for 'closed', 'nodelay';
    $fake->fault(action => 'close', cmd => 'ECHO', times => 1);

    my @got = together(map { ('/closed?k=cut', '/nodelay?k=cut') } 1 .. 5);
    is(join(' ', map { $_->status } @got), join(' ', ('503 200') x 5),
       'no answer is none for each');
    $n->allow(qr/WRONGTYPE|no answer|going by on_failure|connection|lost/);
}

# more than go into one command

{
    ok($t->wait_for(sub { $n->get('/nodelay?k=many')->header('X-Req')
                          eq 'PASSED' }, 5), 'it is there again');

    my $before = bitfields('many');
    my @got = together(('/nodelay?k=many') x 80);
    my $used = bitfields('many') - $before;

    is(scalar(grep { $_->status == 200 } @got), 9, 'many: exact');
    cmp_ok($used, '<=', 4, "many: $used commands");
}

# streams of one connection of HTTP/2, which come in one read

for (['/nodelay' => sub { bitfields('h2') }],
     ['/window' => sub { bitfields('h2', 'rf:w') }],
     ['/log' => sub { logged('h2') }])
{
    my ($p, $asked) = @$_;
    $n->get("$p?k=h2");

    my $h2 = Coord::HTTP2->new(port => $n->port(2));
    $h2->ended($h2->request('/none'));

    my $before = $asked->();
    my $worker = $n->hold_worker;
    my @ids = $h2->together(sub {
        return map { $h2->request("$p?k=h2") } 1 .. 12;
    });
    kill 'CONT', $worker;

    my @got = map { $h2->ended($_)->{headers}{':status'} } @ids;
    is("@got", '200 ' x 9 . '429 429 429', "$p: HTTP/2: the first nine");
    is($asked->() - $before, 1, "$p: HTTP/2: one command");
}

done_testing();
