package Coord::HTTP2;

# Copyright (C) ngx_coord_module contributors

# A small HTTP/2 client over cleartext: several streams of one connection, of
# which the test can end any one at any time.
#
#   my $h2 = Coord::HTTP2->new(port => ..);
#   my $id = $h2->request('/path', %opt);      id of the stream
#       method (GET), headers => [..], body => bytes, open => 1: the request
#       does not end yet
#   $h2->data($id, $bytes, $last);             more of its body
#   @ids = $h2->together(sub { .. });          what that sends, in one write
#   $h2->reset($id, $code);                    RST_STREAM, by default CANCEL
#   $h2->wait(sub { .. }, $seconds);           reads until it returns true
#   $h2->ended($id, $seconds)                  the stream, once it has ended
#   $h2->stream($id)   { status, headers, trailers, body, ended, reset (code) }
#   $h2->close
#
# Flow control does not limit what the server may send.  What nginx does not
# send is not understood: padding, priorities, entries of a dynamic table.

use strict;
use warnings;

use Coord::Clock qw(ran);
use Coord::HTTP;

use constant {
    DATA => 0, HEADERS => 1, RST_STREAM => 3, SETTINGS => 4, PING => 6,
    GOAWAY => 7, WINDOW_UPDATE => 8, CONTINUATION => 9,
    END_STREAM => 1, ACK => 1, END_HEADERS => 4,
};

# the entries of the static table that have a value, and names of others

my %static = (8 => [':status', 200], 9 => [':status', 204],
              10 => [':status', 206], 11 => [':status', 304],
              12 => [':status', 400], 13 => [':status', 404],
              14 => [':status', 500]);
my %names = (22 => 'allow', 28 => 'content-length', 31 => 'content-type',
             33 => 'date', 44 => 'last-modified', 46 => 'location',
             53 => 'retry-after', 54 => 'server', 59 => 'vary');

# the code of RFC 7541 is canonical: lengths and order are all of it; longer
# ones are no printable ASCII

my %huffman;

{
    my @lengths = (
        [5, qw(0 1 2 a c e i o s t)],
        [6, ' ', qw(% - . / 3 4 5 6 7 8 9 = A _ b d f g h l m n p r u)],
        [7, ':', 'B' .. 'W', qw(Y j k q v w x y z)],
        [8, '&', '*', ',', ';', 'X', 'Z'],
        [10, '!', '"', '(', ')', '?'], [11, "'", '+', '|'], [12, '#', '>'],
        [13, "\0", '$', '@', '[', ']', '~'], [14, '^', '}'],
        [15, '<', '`', '{'],
    );
    my ($code, $before) = (0, 5);

    for (@lengths) {
        my ($length, @chars) = @$_;

        $code <<= $length - $before;
        $before = $length;
        $huffman{sprintf("%0${length}b", $code++)} = $_ for @chars;
    }
}


sub new {
    my ($class, %opt) = @_;

    my $self = bless { conn => Coord::HTTP::Conn->new(%opt), in => '',
                       streams => {}, next => 1, closed => 0 }, $class;

    $self->_send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        . frame(SETTINGS, 0, 0, pack('nN nN', 2, 0, 4, 0x7fffffff))
        . frame(WINDOW_UPDATE, 0, 0, pack('N', 0x7fffffff - 65535)));

    return $self;
}


sub frame {
    my ($type, $flags, $id, $payload) = @_;

    return substr(pack('N', length $payload), 1)
           . pack('CCN', $type, $flags, $id) . $payload;
}


# literals that are never indexed, without Huffman

sub pack_headers {
    my (@h) = @_;

    my $out = '';

    while (my ($name, $value) = splice(@h, 0, 2)) {
        die "$name: too long\n" if length $name > 126 || length $value > 126;
        $out .= "\x10" . pack('C/a C/a', $name, $value);
    }

    return $out;
}


# together(sub { .. }): what it sends is one write.  Frame by frame TCP would
# keep those behind the tenth until a peer that stands still acknowledges some

sub together {
    my ($self, $code) = @_;

    local $self->{corked} = '';
    my @rc = $code->();

    $self->{conn}->send($self->{corked});

    return @rc;
}


sub _send {
    my ($self, $bytes) = @_;

    return $self->{conn}->send($bytes) if !defined $self->{corked};

    $self->{corked} .= $bytes;
}


sub request {
    my ($self, $path, %opt) = @_;

    my $id = $self->{next};
    $self->{next} += 2;
    $self->{streams}{$id} = { headers => {}, trailers => {}, body => '' };

    my $last = !$opt{open} && !defined $opt{body};

    $self->_send(frame(HEADERS, END_HEADERS | ($last ? END_STREAM : 0),
        $id, pack_headers(':method', $opt{method} || 'GET', ':scheme', 'http',
                          ':authority', 'localhost', ':path', $path,
                          @{$opt{headers} || []})));

    $self->data($id, $opt{body}, !$opt{open}) if defined $opt{body};

    return $id;
}


sub data {
    my ($self, $id, $bytes, $last) = @_;

    $self->_send(frame(DATA, $last ? END_STREAM : 0, $id, $bytes));
}


sub reset {
    my ($self, $id, $code) = @_;

    $self->_send(frame(RST_STREAM, 0, $id,
                              pack('N', defined $code ? $code : 8)));
}


sub stream { $_[0]{streams}{$_[1]} }
sub close { $_[0]{conn}->close }


sub wait {
    my ($self, $code, $timeout) = @_;

    my $end = ran() + (defined $timeout ? $timeout : 10);

    for ( ;; ) {
        my $rc = $code->();
        return $rc if $rc;

        return if $self->{closed} || ran() > $end;

        my $bytes = $self->{conn}->read(0.05);
        next if !defined $bytes;

        $self->{closed} = 1 if $bytes eq '';
        $self->{in} .= $bytes;
        $self->frames;
    }
}


sub ended {
    my ($self, $id, $timeout) = @_;

    my $s = $self->stream($id);

    return $self->wait(sub { $s->{ended} && $s }, $timeout);
}


sub frames {
    my ($self) = @_;

    while (length $self->{in} >= 9) {
        my ($high, $low, $type, $flags, $id) = unpack('CnCCN', $self->{in});
        my $length = ($high << 16) + $low;

        return if length $self->{in} < 9 + $length;

        my $payload = substr($self->{in}, 9, $length);
        substr($self->{in}, 0, 9 + $length, '');

        $self->received($type, $flags, $id & 0x7fffffff, $payload);
    }
}


sub received {
    my ($self, $type, $flags, $id, $payload) = @_;

    if ($type == SETTINGS || $type == PING) {
        $self->_send(frame($type, ACK, 0,
                                  $type == PING ? $payload : ''))
            if !($flags & ACK);
        return;
    }

    if ($type == GOAWAY) {
        $self->{goaway} = unpack('x4 N', $payload);
        return;
    }

    my $s = $self->{streams}{$id} or return;

    if ($type == RST_STREAM) {
        $s->{reset} = unpack('N', $payload);
        $s->{ended} = 1;
        return;
    }

    return if $type != DATA && $type != HEADERS && $type != CONTINUATION;

    if ($type == DATA) {
        $s->{body} .= $payload;

    } else {
        $s->{block} .= $payload;
        $s->{last} = $flags & END_STREAM if $type == HEADERS;

        return if !($flags & END_HEADERS);

        my $into = $s->{status} ? $s->{trailers} : $s->{headers};
        %$into = (%$into, unpack_headers(delete $s->{block}));
        $s->{status} ||= $s->{headers}{':status'};
        $flags = $s->{last};
    }

    $s->{ended} = 1 if $flags & END_STREAM;
}


# the inverse of pack_headers(), for all forms: a list of names and values

sub unpack_headers {
    my ($in) = @_;

    my @h;

    while (length $in) {
        my $first = ord $in;

        if ($first & 0x80) {
            my $index = integer(\$in, 7);
            push @h, @{$static{$index} || ["index-$index", '']};

        } elsif (($first & 0xe0) == 0x20) {
            integer(\$in, 5);

        } else {
            my $index = integer(\$in, $first & 0x40 ? 6 : 4);
            my $name = !$index ? string(\$in)
                       : $static{$index} ? ':status'
                       : $names{$index} || "index-$index";

            push @h, $name, string(\$in);
        }
    }

    return @h;
}


sub integer {
    my ($in, $bits) = @_;

    my $max = (1 << $bits) - 1;
    my $n = ord(substr($$in, 0, 1, '')) & $max;

    return $n if $n < $max;

    for (my $shift = 0; ; $shift += 7) {
        my $byte = ord substr($$in, 0, 1, '');

        $n += ($byte & 127) << $shift;
        return $n if $byte < 128;
    }
}


sub string {
    my ($in) = @_;

    my $huffman = ord($$in) & 128;
    my $length = integer($in, 7);
    my $bytes = substr($$in, 0, $length, '');

    return $bytes if !$huffman;

    my ($out, $code) = ('', '');

    for (split //, unpack('B*', $bytes)) {
        $code .= $_;

        if (defined $huffman{$code}) {
            $out .= $huffman{$code};
            $code = '';
        }
    }

    return $out;
}


1;
