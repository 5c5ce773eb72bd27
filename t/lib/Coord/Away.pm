package Coord::Away;

# Copyright (C) ngx_coord_module contributors

# A relay that stands for a long path to a server: what is sent arrives so much
# later, in order, in one direction or both.
#
#   my $away = Coord::Away->start(test => $t, to => $port, out => 0.03,
#                                 back => 0);
#
# port() is where clients connect to.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(time);


sub start {
    my ($class, %opt) = @_;

    my $self = bless { out => 0, back => 0, %opt }, $class;

    $self->{listen} = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
                                            Listen => 64)
        or die "listen: $!";
    $self->{port} = $self->{listen}->sockport;

    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        $SIG{$_} = 'DEFAULT' for qw(TERM INT ALRM);
        $SIG{PIPE} = 'IGNORE';
        $self->serve;
        POSIX::_exit(0);
    }

    close $self->{listen};
    $self->{test}->track($pid);

    return $self;
}


sub port { $_[0]{port} }


sub serve {
    my ($self) = @_;

    my $select = IO::Select->new($self->{listen});
    my (%peer, %delay, @queue);

    for ( ;; ) {
        for my $s ($select->can_read(@queue ? 0.001 : 1)) {

            if ($s == $self->{listen}) {
                my $c = $s->accept or next;
                my $up = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                               PeerPort => $self->{to})
                    or next;
                @peer{$c, $up} = ($up, $c);
                @delay{$c, $up} = @$self{qw(out back)};
                $select->add($c, $up);
                next;
            }

            my $n = sysread($s, my $data, 65536);
            push @queue, [time + $delay{$s}, $peer{$s}, $n ? $data : undef];
            $select->remove($s) if !$n;
        }

        my (@left, $now);
        $now = time;

        for (@queue) {
            my ($due, $to, $data) = @$_;

            if ($due > $now) {
                push @left, $_;

            } elsif (defined $data) {
                put($to, $data);

            } else {
                $to->shutdown(1);
            }
        }

        @queue = @left;
    }
}


sub put {
    my ($to, $data) = @_;

    while (length $data) {
        my $n = syswrite $to, $data or return;
        substr($data, 0, $n, '');
    }
}


1;
