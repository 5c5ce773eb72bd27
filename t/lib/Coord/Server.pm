package Coord::Server;

# Copyright (C) ngx_coord_module contributors

# Base of the servers that tests program: one forked process, one event loop,
# so that counters are exact.  Each connection has a queue of steps: bytes to
# send, a pause, an end.

use strict;
use warnings;

use Errno qw(EAGAIN EINTR);
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(AF_UNIX IPPROTO_TCP PF_UNSPEC SOCK_STREAM SOL_SOCKET SO_LINGER
              TCP_NODELAY);
use Storable qw(dclone);
use Time::HiRes qw(sleep time);

use Coord::Util qw(free_port);

# journals are long: one in C, if there is one, which is the same otherwise
my $codec = (grep { eval "require $_" } qw(Cpanel::JSON::XS JSON::PP))[0];

# characters 0 to 255 are bytes: escapes keep them whole
my $json = $codec->new->ascii->canonical->allow_nonref;


# start(dir => .., name => .., port => .. | socket => path, ...)

sub start {
    my ($class, %opt) = @_;

    my $self = bless { %opt, conns => {}, timers => [], serial => 0,
                       entries => [] }, $class;

    $self->{port} ||= free_port() if !$opt{socket};
    $self->{file} = "$opt{dir}/" . ($opt{name} || 'server') . '.journal';
    $self->{ppid} = $$;
    $self->listen;
    $self->spawn;

    return $self;
}


sub listen {
    my ($self) = @_;

    if ($self->{socket}) {
        unlink $self->{socket};
        $self->{listen} = IO::Socket::UNIX->new(Local => $self->{socket},
                                                Listen => 1024);
    } else {
        $self->{listen} = IO::Socket::INET->new(LocalAddr => '127.0.0.1',
            LocalPort => $self->{port}, Listen => 1024, ReuseAddr => 1);
    }

    die "listen: $!" if !$self->{listen};
    $self->{listen}->blocking(0);
}


sub spawn {
    my ($self) = @_;

    socketpair(my $mine, my $child, AF_UNIX, SOCK_STREAM, PF_UNSPEC)
        or die "socketpair: $!";

    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        $SIG{$_} = 'DEFAULT' for qw(TERM INT HUP ALRM);
        $SIG{PIPE} = 'IGNORE';
        close $mine;

        eval {
            open($self->{journal}, '>>:raw', $self->{file})
                or die "$self->{file}: $!";
            $self->{journal}->autoflush(1);
            $self->{control} = $child;
            $self->loop;
        };

        print STDERR "# $self->{file}: $@" if $@;
        POSIX::_exit($@ ? 1 : 0);
    }

    close $child;
    close $self->{listen};

    $self->{listen} = undef;
    $self->{control} = $mine;
    $self->{control}->autoflush(1);
    $self->{pid} = $pid;
}


sub port { $_[0]{port} }
sub pid { $_[0]{pid} }
sub addr { $_[0]{socket} ? "unix:$_[0]{socket}" : "127.0.0.1:$_[0]{port}" }


sub stop {
    my ($self) = @_;

    return if !$self->{pid} || $$ != $self->{ppid};

    kill 'CONT', $self->{pid};
    kill 'TERM', $self->{pid};
    waitpid($self->{pid}, 0);
    $self->{pid} = undef;
}


# restart(): listens again on the same port after stop()

sub restart {
    my ($self) = @_;

    $self->stop;
    $self->listen;
    $self->spawn;
}


# freeze(), thaw(): the peer is there but does not answer

sub freeze { kill 'STOP', $_[0]{pid} }
sub thaw { kill 'CONT', $_[0]{pid} }


# call($method, @data): runs command_$method in the server, returns its answer

sub call {
    my ($self, $method, @data) = @_;

    print { $self->{control} } $json->encode([$method, @data]), "\n";

    my $line = readline $self->{control};
    die "$self->{file}: the server is gone" if !defined $line;

    my $answer = $json->decode($line);
    die $answer->{error} if $answer->{error};

    return $answer->{data};
}


# entries(), entries(key => value): what the journal holds, one hash a line

sub entries {
    my ($self, %want) = @_;

    $self->_read_journal;

    my @found = @{$self->{entries}};

    for my $key (keys %want) {
        @found = grep { defined $_->{$key} && $_->{$key} eq $want{$key} }
                 @found;
    }

    # who looks into one may add to it

    return wantarray ? map { dclone($_) } @found : scalar @found;
}


# what is new in it; a long line is not written at once

sub _read_journal {
    my ($self) = @_;

    open(my $fh, '<:raw', $self->{file}) or return;
    sysseek($fh, $self->{journal_read} ||= 0, 0);

    my $text = '';
    1 while sysread($fh, $text, 65536, length $text);

    substr($text, rindex($text, "\n") + 1) = '';

    $self->{journal_read} += length $text;
    push @{$self->{entries}}, map { $json->decode($_) }
                              grep { length } split /\n/, $text;
}


# the rest runs in the server

sub note {
    my ($self, %entry) = @_;

    print { $self->{journal} }
        $json->encode({ at => sprintf('%.6f', time()), %entry }), "\n";
}


sub timer {
    my ($self, $delay, $code) = @_;

    $self->{timers} = [ sort { $a->[0] <=> $b->[0] }
                        @{$self->{timers}}, [time() + $delay, $code] ];
}


sub loop {
    my ($self) = @_;

    for ( ;; ) {
        # the test died without stopping its servers
        return if getppid() != $self->{ppid};

        my ($rin, $win) = ('', '');

        vec($rin, fileno $self->{listen}, 1) = 1 if $self->{listen};
        vec($rin, fileno $self->{control}, 1) = 1;

        for my $c (values %{$self->{conns}}) {
            vec($rin, $c->{fd}, 1) = 1 if !$c->{deaf};
            vec($win, $c->{fd}, 1) = 1 if $self->wants_write($c);
        }

        my $wait = 1;

        if (@{$self->{timers}}) {
            $wait = $self->{timers}[0][0] - time();
            $wait = 0 if $wait < 0;
            $wait = 1 if $wait > 1;
        }

        my $n = select($rin, $win, undef, $wait);

        if ($n > 0) {
            if (vec($rin, fileno $self->{control}, 1)) {
                $self->on_control or return;
            }

            for my $fd (keys %{$self->{conns}}) {
                my $c = $self->{conns}{$fd};

                $self->pump($c) if $c && vec($win, $fd, 1);
                $self->on_readable($c) if $self->{conns}{$fd}
                                          && $self->{conns}{$fd} == $c
                                          && vec($rin, $fd, 1);
            }

            if ($self->{listen} && vec($rin, fileno $self->{listen}, 1)) {
                $self->on_accept;
            }
        }

        while (@{$self->{timers}} && $self->{timers}[0][0] <= time()) {
            (shift @{$self->{timers}})->[1]->();
        }
    }
}


sub on_control {
    my ($self) = @_;

    my $n = sysread($self->{control}, my $buf, 65536);
    return 1 if !defined $n && ($!{EINTR} || $!{EAGAIN});
    return 0 if !$n;

    $self->{line} .= $buf;

    while ($self->{line} =~ s/\A(.*?)\n//s) {
        my ($method, @data) = @{$json->decode($1)};
        my $name = "command_$method";
        my $answer = eval { $self->$name(@data) };

        syswrite($self->{control},
                 $json->encode($@ ? { error => "$@" } : { data => $answer })
                 . "\n");
    }

    return 1;
}


sub on_accept {
    my ($self) = @_;

    while (my $sock = $self->{listen}->accept) {
        my $c = $self->add($sock);

        $c->{id} = ++$self->{serial};
        $self->note(event => 'accept', conn => $c->{id});
        $self->accepted($c);
    }
}


sub add {
    my ($self, $sock) = @_;

    $sock->blocking(0);
    setsockopt($sock, IPPROTO_TCP, TCP_NODELAY, 1) if !$self->{socket};

    my $c = { sock => $sock, fd => fileno $sock, in => '', queue => [] };

    return $self->{conns}{$c->{fd}} = $c;
}


sub on_readable {
    my ($self, $c) = @_;

    my $n = sysread($c->{sock}, my $buf, 65536);

    if ($n) {
        $c->{in} .= $buf;
        return $self->received($c);
    }

    return if !defined $n && ($!{EAGAIN} || $!{EINTR});

    $self->drop($c);
}


# drop($c, $rst): ends a connection

sub drop {
    my ($self, $c, $rst) = @_;

    return if $c->{dead};
    $c->{dead} = 1;

    setsockopt($c->{sock}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) if $rst;

    delete $self->{conns}{$c->{fd}};
    close $c->{sock};

    $self->note(event => 'close', conn => $c->{id}) if $c->{id};
    $self->dropped($c);
}


# enqueue($c, [send => bytes], [pause => seconds], [call => code], ['close'],
# ['reset'], ['stall']): steps are taken one after the other

sub enqueue {
    my ($self, $c, @steps) = @_;

    push @{$c->{queue}}, @steps;
    $self->pump($c);
}


sub wants_write {
    my ($self, $c) = @_;

    return @{$c->{queue}} && !$c->{paused} && $c->{queue}[0][0] eq 'send';
}


sub pump {
    my ($self, $c) = @_;

    while (!$c->{dead} && !$c->{paused} && @{$c->{queue}}) {
        my $step = $c->{queue}[0];
        my $kind = $step->[0];

        if ($kind eq 'send') {
            my $n = syswrite($c->{sock}, $step->[1]);

            if (!defined $n) {
                return if $!{EAGAIN} || $!{EINTR};
                return $self->drop($c);
            }

            substr($step->[1], 0, $n, '');
            return if length $step->[1];
        }

        shift @{$c->{queue}};

        if ($kind eq 'pause') {
            $c->{paused} = 1;
            $self->timer($step->[1], sub {
                $c->{paused} = 0;
                $self->pump($c);
            });

        } elsif ($kind eq 'stall') {
            $c->{paused} = $c->{stalled} = 1;

        } elsif ($kind eq 'call') {
            $step->[1]->();

        } elsif ($kind eq 'close') {
            $self->drop($c);

        } elsif ($kind eq 'reset') {
            $self->drop($c, 1);
        }
    }
}


# resume($c): after a stall

sub resume {
    my ($self, $c) = @_;

    $c->{paused} = $c->{stalled} = 0;
    $self->pump($c);
}


# what a server may override

sub accepted {}
sub received {}
sub dropped {}


# commands for all servers

sub command_ping { 'pong' }


# refuse: nothing listens any more, connections stay

sub command_refuse {
    my ($self) = @_;

    close $self->{listen} if $self->{listen};
    $self->{listen} = undef;

    return 1;
}


sub command_accept {
    my ($self) = @_;

    $self->listen if !$self->{listen};

    return 1;
}


# drop: ends all connections

sub command_drop {
    my ($self, $rst) = @_;

    my @conns = values %{$self->{conns}};

    $self->drop($_, $rst) for @conns;

    return 1;
}


sub command_connections {
    my ($self) = @_;

    return scalar grep { $_->{id} } values %{$self->{conns}};
}


sub refuse { $_[0]->call('refuse') }
sub accept { $_[0]->call('accept') }
sub drop_all { $_[0]->call('drop', $_[1]) }
sub connections { $_[0]->call('connections') }


1;
