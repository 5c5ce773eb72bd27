package Coord::Watch;

# Copyright (C) ngx_coord_module contributors

# What a Redis server is asked for, by whom and in what order: MONITOR.
#
#   my $watch = $redis->watch;             from now on
#   my @units = $watch->seen;              since then, or since the last seen()
#   $watch->calls('get', qr/^coord:ca:/)   the commands of this name in what
#                                          seen() would return; with a pattern
#                                          those whose first argument matches
#   $watch->after(sub {..}, 'set', qr//)   what the code returns, once there was
#                                          such a command
#
# A unit is what a node has sent with one nonce: a list of commands, each of them
# [NAME, arguments ..].  Left out is what nodes do by themselves, every few
# seconds: what they tell of themselves and hear of others ("coord:st"), and
# what they ask of a server's clock and role.  The statistics of the server
# count that, too, whatever a test is about: who counts what requests cost uses
# this in place of them.

use strict;
use warnings;

use Coord::Util qw(wait_for);

my $serial = 0;


sub new {
    my ($class, $server, %opt) = @_;

    my $self = bless { monitor => $server->connect(%opt),
                       admin => $server->connect(%opt), open => {} }, $class;

    $self->{monitor}->command('MONITOR');

    return $self;
}


sub seen {
    my ($self) = @_;

    my $mark = "watched-$$-" . ++$serial;
    $self->{admin}->send(['ECHO', $mark]);

    my @units;

    for ( ;; ) {
        my ($client, $argv) = _parse($self->{monitor}->read);

        last if @$argv == 2 && $argv->[1] eq $mark;

        my $unit = $self->{open}{$client} ||= [];
        push @$unit, $argv;

        next if !_ended($unit);

        delete $self->{open}{$client};
        push @units, $unit if !_own($unit);
    }

    $self->{admin}->read;

    # what has no nonce: of the test itself, of other clients

    for my $client (keys %{$self->{open}}) {
        next if grep { $_->[0] eq 'MULTI' } @{$self->{open}{$client}};

        my $unit = delete $self->{open}{$client};
        push @units, $unit if !_own($unit);
    }

    return @units;
}


sub calls {
    my ($self, $name, $key) = @_;

    return scalar grep { $_->[0] eq uc $name
                         && (!$key || ($_->[1] // '') =~ $key) }
                  map { @$_ } $self->seen;
}


sub after {
    my ($self, $code, $name, $key) = @_;

    $self->seen;
    my @got = $code->();
    wait_for(sub { $self->calls($name, $key) });

    return wantarray ? @got : $got[0];
}


# 1795699412.626756 [0 127.0.0.1:33186] "GET" "a \"key\"\x00"

sub _parse {
    my ($line) = @_;

    my ($client, $rest) = $line =~ /^[\d.]+ \[\d+ ([^\]]*)\] (.*)/s
        or die "MONITOR: $line";

    my %escaped = (n => "\n", r => "\r", t => "\t", a => "\a", b => "\b");
    my @argv;

    while ($rest =~ /\G\s*"/g) {
        my $begin = pos $rest;

        # an escaped quote does not end it
        1 while $rest =~ /\G[^"\\]*+(?:\\.)?/gc && substr($rest, pos $rest, 1) ne '"';

        push @argv, substr($rest, $begin, pos($rest) - $begin);
        pos($rest)++;
    }

    s/\\(?:x([0-9a-f]{2})|(.))/defined $1 ? chr hex $1 : $escaped{$2} \/\/ $2/ges
        for @argv;

    $argv[0] = uc $argv[0];

    return ($client, \@argv);
}


# a nonce is the last command of a unit, or the last but one of a transaction

sub _ended {
    my ($unit) = @_;

    my $last = $unit->[-1][0];
    my ($multi, $exec) = map { my $name = $_; scalar grep { $_->[0] eq $name }
                                                          @$unit } qw(MULTI EXEC);

    return $multi == $exec && ($last eq 'ECHO' || $last eq 'EXEC');
}


# nothing but what a node does by itself

sub _own {
    my ($unit) = @_;

    return !grep { $_->[0] !~ /^(?:MULTI|EXEC|ECHO|TIME|INFO|ROLE|PING|CLIENT|HELLO
                                  |SELECT|AUTH|SUBSCRIBE|CONFIG)$/x
                   && ($_->[1] // '') !~ /^[^{}]*\bst(?::|$)/ } @$unit;
}


1;
