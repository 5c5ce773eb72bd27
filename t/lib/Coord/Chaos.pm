package Coord::Chaos;

# Copyright (C) ngx_coord_module contributors

# Between a client and a server: a relay whose first connections break, and all
# later ones do not.
#
#   my $chaos = Coord::Chaos->start(test => $t, to => $port,
#                                   breaks => [ 'running' ],
#                                   begun => sub { $origin->requests('/x') });
#
# to: a port, or several, one for each connection, by turns
#
# breaks: how the first connection ends, the second, ..
#
#   half      the server has got half of what the client first sent
#   running   begun() is true: the request runs, nobody has answered it
#   answered  an answer is there, the client gets nothing of it
#   middle    the client gets half of it
#
# port() is where clients connect to; connections() tells how many did.

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(SOL_SOCKET SO_LINGER);


sub start {
    my ($class, %opt) = @_;

    my $self = bless { %opt }, $class;

    $self->{listen} = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
                                            Listen => 64, ReuseAddr => 1)
        or die "listen: $!";
    $self->{port} = $self->{listen}->sockport;
    $self->{file} = $self->{test}->file("chaos$self->{port}");

    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        $SIG{$_} = 'DEFAULT' for qw(TERM INT ALRM);
        $SIG{PIPE} = $SIG{CHLD} = 'IGNORE';
        $self->serve;
        POSIX::_exit(0);
    }

    close $self->{listen};
    $self->{pid} = $pid;
    $self->{test}->track($pid);

    return $self;
}


sub port { $_[0]{port} }
sub connections { return -s $_[0]{file} || 0 }
sub stop { kill 'TERM', $_[0]{pid} }


# a process for each connection

sub serve {
    my ($self) = @_;

    my $n = 0;

    while (my $client = $self->{listen}->accept) {
        open(my $fh, '>>', $self->{file}) or return;
        syswrite $fh, '.';
        close $fh;

        my $how = shift @{$self->{breaks}} || '';
        my $to = ref $self->{to} ? $self->{to} : [ $self->{to} ];
        my $port = $to->[$n++ % @$to];
        my $pid = fork();

        if (defined $pid && $pid == 0) {
            close $self->{listen};
            $self->relay($client, $port, $how);
            POSIX::_exit(0);
        }
    }
}


sub relay {
    my ($self, $client, $port, $how) = @_;

    my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                       PeerPort => $port) or return;
    my $both = IO::Select->new($client, $server);
    my $begun = 0;

    for (my $ticks = 0; $ticks < 6000; $ticks++) {
        my @ready = $both->can_read(0.01);

        # what is read from now on comes behind it

        my $before = $begun;
        $begun ||= $how && $how ne 'half' && $self->{begun}->();

        return broken($client) if $how eq 'running' && $begun;

        for my $from (@ready) {
            my $to = $from == $client ? $server : $client;

            sysread($from, my $data, 65536) or return;

            if ($how eq 'half' && $from == $client) {
                put($to, substr($data, 0, length($data) / 2));
                return broken($client);
            }

            if ($before && $from == $server) {
                put($to, substr($data, 0, length($data) / 2))
                    if $how eq 'middle';
                return broken($client);
            }

            put($to, $data);
        }
    }
}


sub put {
    my ($to, $data) = @_;

    while (length $data) {
        my $n = syswrite $to, $data or return;
        substr($data, 0, $n, '');
    }
}


# a reset, as of a path that is gone; what was sent before has to arrive

sub broken {
    my ($client) = @_;

    select undef, undef, undef, 0.05;
    setsockopt($client, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
    close $client;
}


1;
