#!/usr/bin/perl

# Copyright (C) ngx_coord_module contributors

# coord_idempotency while the master of Redis is lost: who asks again until it
# has an answer gets one, of one execution.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";

use Coord;
use Coord::Sentinel;
use POSIX ();
use Time::HiRes qw(sleep);

my $t = Coord->new(time_limit => 240);
my $s = Coord::Sentinel->start($t);

$t->set(SENTINELS => $s->lines);

my $origin = $t->origin(default => sub {
    my ($time) = $_[0]{path} =~ m!/(\d+)/!;
    return { delay => $time / 1000, body => $_[0]{path} };
});

my @n = map { $t->node(name => "n$_", workers => 2, http => <<'EOT')->start }
    coord_store main { %%SENTINELS%% mode sentinel=mymaster; timeout 200ms;
                       connect_timeout 500ms; }
    coord_idempotency required on_failure=closed;
    coord_idempotency_scope off;
    coord_idempotency_on_unknown conflict;

    server {
        listen 127.0.0.1:%%PORT%%;
        location / { proxy_pass http://%%ORIGIN%%; }
        location /health { coord_idempotency off; coord_health; }
    }
EOT
    1, 2;

ok($t->wait_for(sub {
    100 == grep { $_->get('/health')->status == 200 } (@n) x 50
}, 20), 'all are connected');

my $of = 24;
my @open = map { { path => '/' . 20 * $_ . "/$_", key => "k$_" } } 1 .. $of;
my (%why, @all);

sub round {
    my @r = $t->parallel([ map {
        my $c = $_;
        $n[rand 2]->req($c->{path}, method => 'POST', body => 'x', timeout => 10,
                        headers => { 'Idempotency-Key' => $c->{key} })
    } @open ]);

    for my $i (0 .. $#open) {
        $why{$r[$i]->status}++;
        $open[$i]{body} = $r[$i]->body if $r[$i]->status == 200;
    }

    push @all, grep { defined $_->{body} } @open;
    @open = grep { !defined $_->{body} } @open;
}

# the master dies while half of them run

my $pid = fork() // die "fork: $!";

if ($pid == 0) {
    sleep 0.2;
    kill 'KILL', $s->master->{pid};
    POSIX::_exit(0);
}

round();
waitpid $pid, 0;

# and others come while there is none; who is told 503 has not run

push @open, map { { path => "/20/new$_", key => "new$_" } } 1 .. $of;
round();
is(scalar(map { $origin->requests($_->{path}) }
          grep { $_->{path} =~ /new/ } @open), 0, 'and nothing runs');

ok($s->failed_over(30), 'the master is another one');

ok($t->wait_for(sub { round() if @open; return !@open }, 60),
   'all have an answer') or diag(join ' ', map { $_->{path} } @open);

my $once = grep { 1 == scalar $origin->requests($_->{path}) } @all;
my $same = grep { $_->{body} eq $_->{path} } @all;

is("$once $same", 2 * $of . ' ' . 2 * $of, 'of one execution each')
    or diag(join ' ', map { "$_: $why{$_}" } sort keys %why);

# the results are with the new master, once it has taken all that waited for it

my @r;

$t->wait_for(sub {
    @r = $t->parallel([ map { $n[rand 2]->req($_->{path}, method => 'POST',
        body => 'x', headers => { 'Idempotency-Key' => $_->{key} }) } @all ]);

    return !grep { $_->status == 409 || $_->status == 503 } @r;
}, 20);

is(scalar(grep { $_->header('Idempotency-Replayed') } @r), 2 * $of,
   'and is given again afterwards')
    or diag(join ' ', map { $_->status } @r);

done_testing();
