package Coord::Events;

# Copyright (C) ngx_coord_module contributors

# A client of server-sent events, as a browser reads them (HTML, 9.2.6).
#
#   my $es = Coord::Events->new($node, '/events', last => '1-0', port => ..);
#   $es->status, $es->header('cache-control'), $es->head
#   $es->next($seconds)    the next event: { id, event, data }; undef: none
#   $es->data($n, $seconds)    the data of the next n events, or fewer
#   $es->wait_text(qr//, $seconds)   the text of the stream so far matches
#   $es->ended($seconds)   1 if the response ends within that time
#   $es->{last}            the id to come back with after the last next()
#   $es->{retry}, $es->{comments}, $es->{text}
#   $es->close

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;

use Coord::Clock qw(ran);


sub new {
    my ($class, $node, $path, %opt) = @_;

    my $self = bless {
        in => '', body => '', text => '', events => [], comments => 0,
        last => $opt{last}, cur => {},
    }, $class;

    $self->{sock} = IO::Socket::INET->new(
        PeerAddr => '127.0.0.1', PeerPort => $opt{port} || $node->port)
        or return;

    my $method = $opt{method} || 'GET';
    my $head = join '', map { "$_\r\n" } @{$opt{headers} || []};
    $head .= "Last-Event-ID: $opt{last}\r\n" if defined $opt{last};

    $self->{sock}->syswrite(
        "$method $path HTTP/1.1\r\nHost: localhost\r\n$head\r\n");
    $self->{sock}->blocking(0);

    # the header comes when the channels are heard
    my $end = ran() + ($opt{timeout} // 30);

    while (!defined $self->{head} && !$self->{eof} && ran() < $end) {
        $self->fill($end - ran());
    }

    return $self;
}


sub status { $_[0]{head} && $_[0]{head} =~ m{^HTTP/1\.1 (\d+)} ? $1 : 0 }

sub head { $_[0]{head} }

sub header {
    my ($self, $name) = @_;

    return $self->{head} =~ /^\Q$name\E: (.*?)\r?$/mi ? $1 : undef;
}


sub fill {
    my ($self, $seconds) = @_;

    return if $self->{eof};
    return if !IO::Select->new($self->{sock})->can_read($seconds);

    my $n = $self->{sock}->sysread($self->{in}, 65536, length $self->{in});

    return if !defined $n && ($!{EAGAIN} || $!{EINTR});

    if (!$n) {
        $self->{eof} = 1;
        return;
    }

    if (!defined $self->{head}) {
        return if $self->{in} !~ s/^(.*?\r\n)\r\n//s;
        $self->{head} = $1;
        $self->{chunked} = $self->{head} =~ /^Transfer-Encoding: chunked/mi;
    }

    if (!$self->{chunked}) {
        $self->take($self->{in});
        $self->{in} = '';
        return;
    }

    while ($self->{in} =~ /^([0-9a-f]+)\r\n/i) {
        my ($skip, $len) = ($+[0], hex $1);

        last if length $self->{in} < $skip + $len + 2;

        $self->take(substr($self->{in}, $skip, $len));
        substr($self->{in}, 0, $skip + $len + 2) = '';

        $self->{ended} = 1 if $len == 0;
    }
}


sub take {
    my ($self, $text) = @_;

    $self->{text} .= $text;
    $self->{body} .= $text;

    while ($self->{body} =~ s/^(.*?)\n//) {
        my $line = $1;
        my $cur = $self->{cur};

        if ($line eq '') {
            if (exists $cur->{data}) {
                push @{$self->{events}}, $cur;
            } elsif (exists $cur->{id} && !@{$self->{events}}) {
                $self->{last} = $cur->{id};
            }
            $self->{cur} = {};
            next;
        }

        my ($name, $value) = $line =~ /^([^:]*)(?:: ?(.*))?$/s;

        if ($name eq '') {
            $self->{comments}++;
        } elsif ($name eq 'data') {
            $cur->{data} = exists $cur->{data} ? "$cur->{data}\n$value"
                                               : $value;
        } elsif ($name eq 'retry') {
            $self->{retry} = $value;
        } else {
            $cur->{$name} = $value;
        }
    }
}


sub next {
    my ($self, $seconds) = @_;

    my $end = ran() + ($seconds // 30);

    while (!@{$self->{events}} && !$self->{eof} && ran() < $end) {
        $self->fill($end - ran());
    }

    my $event = shift @{$self->{events}};

    $self->{last} = $event->{id} if $event && defined $event->{id};

    return $event;
}


sub data {
    my ($self, $n, $seconds) = @_;

    my @data;

    while (@data < $n) {
        my $e = $self->next($seconds) or last;
        push @data, $e->{data};
    }

    return @data;
}


sub wait_text {
    my ($self, $re, $seconds) = @_;

    my $end = ran() + ($seconds // 30);

    while ($self->{text} !~ $re && !$self->{eof} && ran() < $end) {
        $self->fill($end - ran());
    }

    return $self->{text} =~ $re;
}


sub ended {
    my ($self, $seconds) = @_;

    my $end = ran() + ($seconds // 30);

    while (!$self->{ended} && !$self->{eof} && ran() < $end) {
        $self->fill($end - ran());
    }

    return $self->{ended} || $self->{eof} ? 1 : 0;
}


sub close { $_[0]{sock}->close }


1;
