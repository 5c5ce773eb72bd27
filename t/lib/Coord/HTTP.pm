package Coord::HTTP;

# Copyright (C) ngx_coord_module contributors

# An HTTP/1.1 client that can do what a browser never would: hundreds of
# requests at once, half a request, a connection reset in the middle.

use strict;
use warnings;

use Errno qw(EAGAIN EINPROGRESS EINTR EWOULDBLOCK);
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Time::HiRes qw(time);

use Coord::Clock qw(ran);


# format(%request): the bytes of a request.  Members: method (GET), path (/),
# headers (hash, or array of pairs where names repeat), body, host, keepalive.

sub format {
    my (%r) = @_;

    my $body = $r{body};
    my @h = ref $r{headers} eq 'HASH' ? %{$r{headers}} : @{$r{headers} || []};

    my $text = ($r{method} || 'GET') . ' ' . (defined $r{path} ? $r{path} : '/')
               . " HTTP/1.1\r\n";

    my %given;

    for (my $i = 0; $i < @h; $i += 2) {
        $given{lc $h[$i]} = 1;
    }

    $text .= 'Host: ' . ($r{host} || 'localhost') . "\r\n" if !$given{host};
    $text .= "Connection: close\r\n" if !$r{keepalive} && !$given{connection};

    if (defined $body && !$given{'content-length'}
        && !$given{'transfer-encoding'})
    {
        $text .= 'Content-Length: ' . length($body) . "\r\n";
    }

    for (my $i = 0; $i < @h; $i += 2) {
        $text .= "$h[$i]: $h[$i + 1]\r\n";
    }

    return $text . "\r\n" . (defined $body ? $body : '');
}


sub open_socket {
    my (%r) = @_;

    my $sock;

    if ($r{socket}) {
        $sock = IO::Socket::UNIX->new(Peer => $r{socket});

    } else {
        $sock = IO::Socket::INET->new(PeerAddr => $r{addr} || '127.0.0.1',
            PeerPort => $r{port}, Proto => 'tcp', Blocking => 0,
            $r{local} ? (LocalAddr => $r{local}) : ());
    }

    $sock->blocking(0) if $sock;

    return $sock;
}


# parallel(\@requests, timeout => 30): sends all at once, each on a connection
# of its own, and returns the responses in the order of the requests.

sub parallel {
    my ($requests, %opt) = @_;

    my $end = ran() + ($opt{timeout} || 30);
    my (%job, @result);
    my ($rsel, $wsel) = (IO::Select->new, IO::Select->new);

    for my $i (0 .. $#$requests) {
        my %r = %{$requests->[$i]};

        my $response = Coord::HTTP::Response->new($r{method});
        push @result, $response;

        my $sock = open_socket(%r);

        if (!$sock) {
            $response->{error} = "connect: $!";
            next;
        }

        $response->{start} = time();
        $response->{start_ran} = ran();
        $job{fileno $sock} = { out => Coord::HTTP::format(%r),
                               res => $response };
        $rsel->add($sock);
        $wsel->add($sock);
    }

    while ($rsel->count && (my $left = $end - ran()) > 0) {
        my ($can_read, $can_write) =
            IO::Select->select($rsel, $wsel, undef, $left);

        for my $sock (@{$can_write || []}) {
            my $j = $job{fileno $sock};
            my $n = syswrite($sock, $j->{out});

            if (!defined $n) {
                next if $!{EAGAIN} || $!{EINTR};

                # what the server said before it closed is still to be read
                $j->{out} = '';

            } else {
                substr($j->{out}, 0, $n, '');
            }

            $wsel->remove($sock) if $j->{out} eq '';
        }

        for my $sock (@{$can_read || []}) {
            my $res = $job{fileno $sock}{res};
            my $n = sysread($sock, my $buf, 65536);

            if (!defined $n) {
                next if $!{EAGAIN} || $!{EINTR};
                $res->{error} = "read: $!";

            } elsif ($n) {
                next if !$res->feed($buf);

            } else {
                $res->eof;
            }

            $res->{time} = time() - $res->{start};
            $res->{ran} = ran() - $res->{start_ran};
            $rsel->remove($sock);
            $wsel->remove($sock);
            close $sock;
        }
    }

    for my $sock ($rsel->handles) {
        $job{fileno $sock}{res}{error} ||= 'timeout';
        close $sock;
    }

    return @result;
}


# request(%request): one request, one response

sub request {
    my (%r) = @_;

    return (parallel([\%r], timeout => $r{timeout}))[0];
}


package Coord::HTTP::Response;

# status (0: no complete head), reason, headers (hash of arrays, names in
# lower case), body, complete, error, time (seconds), head (bytes)

use strict;
use warnings;


sub new {
    my ($class, $method) = @_;

    return bless { status => 0, reason => '', headers => {}, body => '',
                   complete => 0, error => '', time => 0, head => '',
                   in => '', state => 'head',
                   nobody => ($method || '') eq 'HEAD' }, $class;
}


sub status { $_[0]{status} }
sub body { $_[0]{body} }


# header($name): the only value, several joined by ", ", undef when absent

sub header {
    my ($self, $name) = @_;

    my $values = $self->{headers}{lc $name} or return;

    return join ', ', @$values;
}


# feed($bytes): true when the response is complete

sub feed {
    my ($self, $bytes) = @_;

    $self->{in} .= $bytes;

    while (!$self->{complete}) {
        my $step = "_$self->{state}";
        $self->$step() or return 0;
    }

    return 1;
}


sub eof {
    my ($self) = @_;

    if ($self->{state} eq 'until_close') {
        $self->{complete} = 1;

    } elsif (!$self->{complete}) {
        $self->{error} ||= 'connection closed';
    }
}


sub rest {
    my ($self) = @_;

    my $rest = $self->{in};
    $self->{in} = '';

    return $rest;
}


sub _head {
    my ($self) = @_;

    $self->{in} =~ s/\A(.*?\r\n)\r\n//s or return 0;

    $self->{head} = $1;
    my ($line, @lines) = split /\r\n/, $1;

    if ($line !~ m{^HTTP/1\.\d (\d{3})(?: (.*))?$}) {
        $self->{error} = "bad status line \"$line\"";
        return $self->{complete} = 1;
    }

    my ($status, $reason) = ($1, $2);

    # 100 and 103 come before the response
    return 1 if $status >= 100 && $status < 200 && $status != 101;

    $self->{status} = $status;
    $self->{reason} = $reason;
    my $h = $self->{headers};

    for (@lines) {
        push @{$h->{lc $1}}, $2 if /^([^:]+):[ \t]*(.*?)[ \t]*$/;
    }

    if ($self->{nobody} || $status == 204 || $status == 304) {
        return $self->{complete} = 1;
    }

    if (($h->{'transfer-encoding'} || [''])->[0] =~ /chunked/i) {
        $self->{state} = 'chunk';

    } elsif ($h->{'content-length'}) {
        $self->{left} = $h->{'content-length'}[0];
        $self->{state} = 'length';

    } else {
        $self->{state} = 'until_close';
    }

    return 1;
}


sub _length {
    my ($self) = @_;

    my $part = substr($self->{in}, 0, $self->{left}, '');

    $self->{body} .= $part;
    $self->{left} -= length $part;
    $self->{complete} = 1 if $self->{left} == 0;

    return $self->{complete};
}


sub _until_close {
    my ($self) = @_;

    $self->{body} .= $self->rest;

    return 0;
}


sub _chunk {
    my ($self) = @_;

    $self->{in} =~ /\A([0-9a-fA-F]+)[^\r\n]*\r\n/ or return 0;

    my ($head, $size) = ($+[0], hex $1);

    return 0 if length $self->{in} < $head + $size + 2;

    $self->{body} .= substr($self->{in}, $head, $size);
    substr($self->{in}, 0, $head + $size + 2, '');
    $self->{complete} = 1 if $size == 0;

    return 1;
}


package Coord::HTTP::Conn;

# One connection, used by hand.

use strict;
use warnings;

use IO::Select;
use Socket qw(IPPROTO_TCP SOL_SOCKET SO_LINGER TCP_NODELAY);
use Time::HiRes qw(time);

use Coord::Clock qw(ran);


sub new {
    my ($class, %r) = @_;

    my $sock = Coord::HTTP::open_socket(%r) or die "connect: $!";

    if (!$r{socket}) {
        setsockopt($sock, IPPROTO_TCP, TCP_NODELAY, 1);
    }

    return bless { sock => $sock, in => '' }, $class;
}


sub send {
    my ($self, $bytes, $timeout) = @_;

    my $end = ran() + ($timeout || 10);
    my $sel = IO::Select->new($self->{sock});

    while (length $bytes && (my $left = $end - ran()) > 0) {
        next if !$sel->can_write($left);

        my $n = syswrite($self->{sock}, $bytes);

        if (defined $n) {
            substr($bytes, 0, $n, '');

        } elsif (!$!{EAGAIN} && !$!{EINTR}) {
            return 0;
        }
    }

    return $bytes eq '';
}


# response(method => .., timeout => ..): the next response; bytes after it
# stay for the next call

sub response {
    my ($self, %opt) = @_;

    my ($start, $ran) = (time(), ran());
    my $end = $ran + ($opt{timeout} || 30);
    my $res = Coord::HTTP::Response->new($opt{method});

    my $in = $self->{in};
    $self->{in} = '';

    while (!$res->feed($in)) {
        $in = $self->read($end - ran());

        if (!defined $in) {
            $res->{error} = 'timeout';
            last;
        }

        if ($in eq '') {
            $res->eof;
            last;
        }
    }

    $res->{time} = time() - $start;
    $res->{ran} = ran() - $ran;
    $self->{in} = $res->rest;

    return $res;
}


# request(%request): keeps the connection

sub request {
    my ($self, %r) = @_;

    $self->send(Coord::HTTP::format(keepalive => 1, %r));

    return $self->response(method => $r{method}, timeout => $r{timeout});
}


# read($seconds): some bytes, '' when the peer closed, undef when time is over

sub read {
    my ($self, $timeout) = @_;

    my $end = ran() + (defined $timeout ? $timeout : 10);
    my $sel = IO::Select->new($self->{sock});

    for ( ;; ) {
        my $left = $end - ran();

        if (!$sel->can_read($left > 0 ? $left : 0)) {
            return if ran() >= $end;
            next;
        }

        my $n = sysread($self->{sock}, my $buf, 65536);

        return $buf if defined $n;
        return '' if !$!{EAGAIN} && !$!{EINTR};
    }
}


# closed($seconds): true once the peer has closed; drops what it sent

sub closed {
    my ($self, $timeout) = @_;

    my $end = ran() + (defined $timeout ? $timeout : 10);

    for ( ;; ) {
        my $buf = $self->read($end - ran());

        return 0 if !defined $buf;
        return 1 if $buf eq '';
    }
}


sub close {
    my ($self) = @_;

    close $self->{sock} if $self->{sock};
    $self->{sock} = undef;
}


# reset(): closes with an RST instead of a FIN

sub reset {
    my ($self) = @_;

    setsockopt($self->{sock}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
    $self->close;
}


1;
