#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_cache: a purge while a page is filled, by nodes that know the clock of
# Redis badly: their path to it was slow in one direction when they began.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use IO::Select;
use IO::Socket::INET;
use Time::HiRes qw(time);

my ($late, $first) = (0.3, 4);

my $t = Coord->new;
my $redis = $t->redis;
my $r = $redis->connect;

my $origin = $t->origin(default => sub {
    return { headers => ['Cache-Control' => 'max-age=60',
                         'Cache-Tag' => 'tag'],
             delay => 1, body => 'page' };
});

# to Redis; what one side sends comes to the other one so much later, at first

my $begun = time;

sub relay {
    my ($out, $back) = @_;

    my $listen = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 32)
        or die "listen: $!";
    my $pid = fork() // die "fork: $!";

    if ($pid) {
        $t->track($pid);
        return $listen->sockport;
    }

    my $select = IO::Select->new($listen);
    my (%peer, %delay, @queue);

    for ( ;; ) {
        for my $s ($select->can_read(@queue ? 0.005 : 1)) {

            if ($s == $listen) {
                my $c = $s->accept or next;
                my $up = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                               PeerPort => $redis->{port})
                    or next;
                @peer{$c, $up} = ($up, $c);
                @delay{$c, $up} = ($out, $back);
                $select->add($c, $up);
                next;
            }

            my $n = sysread($s, my $data, 65536);
            my $due = time < $begun + $first ? time + $delay{$s} : 0;
            push @queue, [$due, $peer{$s}, $n ? $data : undef];
            $select->remove($s) if !$n;
        }

        while (@queue) {
            my ($i) = grep { $queue[$_][0] <= time } 0 .. $#queue;
            last if !defined $i;
            my (undef, $to, $data) = @{ splice @queue, $i, 1 };
            defined $data ? $to->syswrite($data) : $to->shutdown(1);
        }
    }
}

my $http = <<'EOT';
    coord_store main { server redis://127.0.0.1:%%TO%%; timeout 5s;
                       connect_timeout 5s; }
    coord_cache_zone zone=pages:4m;

    server {
        listen 127.0.0.1:%%PORT%%;
        add_header X-Cache $coord_cache_status always;

        location / {
            coord_cache $uri zone=pages;
            proxy_pass http://%%ORIGIN%%;
        }
        location /api/ { coord_api write; }
    }
EOT

sub node {
    my ($name, $port) = @_;

    return $t->node(name => $name, vars => { TO => $port },
                    http => $http =~ s/%%TO%%/$port/r)->start;
}

my $exact = node('exact', $redis->{port});
my $slow = node('slow', relay(0, $late));
my $fast = node('fast', relay($late, 0));

# each knows its clock

$_->get('/first') for $exact, $slow, $fast;
$t->rest($begun + $first - time);

for (['behind', $exact, $slow], ['ahead', $fast, $exact]) {
    my ($where, $fills, $purges) = @$_;

    for ("key=/$where", 'tag=tag') {
        $r->command('FLUSHALL');

        my $seen = $origin->count("/$where");
        my $c = $fills->connect;
        $c->send("GET /$where HTTP/1.1\r\nHost: x\r\n\r\n");
        $t->wait_for(sub { $origin->count("/$where") > $seen });
        is($purges->request('DELETE', "/api/cache/pages?$_")->status, 200,
           "a purge while a page is filled, a clock is $where: $_");
        is($c->response('GET', 5)->body, 'page', 'the client has its page');
        $t->wait_for(sub { $r->command('EXISTS', "coord:ca:pages:{/$where}:r")
                         });
        is($exact->get("/$where")->header('x-cache'), 'MISS',
           'the old page does not come back');
    }
}

done_testing();
