package Coord::Gateway;

# Copyright (C) ngx_coord_module contributors

# An origin as Coord::Origin, with the same answers and counters, that speaks
# FastCGI, uwsgi or SCGI.
#
#   $t->gateway(protocol => 'fastcgi' | 'uwsgi' | 'scgi', routes => .., ..)
#
# nginx has to pass REQUEST_METHOD and REQUEST_URI.  Of a request, headers holds
# all that nginx has passed, HTTP_X_A as x-a and REQUEST_URI as it is.  Every
# connection serves one request.  chunked => 1 leaves the length out, as
# until_close does; close_at => n ends it in the middle of what was announced.
# records => n (fastcgi) puts at most n bytes into a record.

use strict;
use warnings;

use parent qw(Coord::Origin);

my ($BEGIN, $END, $PARAMS, $STDIN, $STDOUT) = (1, 3, 4, 5, 6);


sub parse {
    my ($self, $c) = @_;

    my $method = "parse_$self->{protocol}";
    my ($env, $body) = $self->$method($c) or return;

    return if !defined $body;

    my %req = (method => $env->{REQUEST_METHOD}, uri => $env->{REQUEST_URI},
               headers => {}, body => $body);

    for (keys %$env) {
        my $name = $_;
        $name = lc($name) =~ tr/_/-/r if $name =~ s/^HTTP_//;
        $req{headers}{$name} = [ $env->{$_} ];
    }

    ($req{path}, my $args) = split /\?/, $req{uri}, 2;
    $req{args} = { map { (split(/=/, $_, 2), '')[0, 1] }
                   split /&/, defined $args ? $args : '' };

    $c->{keepalive} = 0;
    $c->{in} = '';

    return \%req;
}


# (\%variables, $body), or nothing as long as something is missing

sub parse_scgi {
    my ($self, $c) = @_;

    $c->{in} =~ /\A(\d+):/ or return;
    return if length $c->{in} < $+[0] + $1 + 1;

    my $pos = $+[0] + $1 + 1;
    my %env = substr($c->{in}, $+[0], $1) =~ /([^\0]*)\0/g;

    return (\%env, $self->body($c, $pos, $env{CONTENT_LENGTH}));
}


sub parse_uwsgi {
    my ($self, $c) = @_;

    return if length $c->{in} < 4;

    my (undef, $size) = unpack 'Cv', $c->{in};
    return if length $c->{in} < 4 + $size;

    my %env = unpack '(v/a*)*', substr($c->{in}, 4, $size);

    return (\%env, $self->body($c, 4 + $size, $env{CONTENT_LENGTH}));
}


sub body {
    my ($self, $c, $pos, $length) = @_;

    return length $c->{in} < $pos + ($length || 0)
           ? undef : substr($c->{in}, $pos, $length || 0);
}


sub parse_fastcgi {
    my ($self, $c) = @_;

    my ($pos, $params, $body) = (0, '', '');

    while (length $c->{in} >= $pos + 8) {
        my (undef, $type, undef, $size, $padding)
            = unpack 'CCnnC', substr($c->{in}, $pos, 8);

        return if length $c->{in} < $pos + 8 + $size + $padding;

        my $content = substr($c->{in}, $pos + 8, $size);
        $pos += 8 + $size + $padding;

        $params .= $content if $type == $PARAMS;
        $body .= $content if $type == $STDIN;

        return ({ fastcgi_params($params) }, $body)
            if $type == $STDIN && $size == 0;
    }

    return;
}


sub fastcgi_params {
    my ($text) = @_;

    my ($pos, @all) = (0);

    while ($pos < length $text) {
        my @size;

        for (0, 1) {
            my $n = ord substr($text, $pos, 1);
            my $long = $n & 0x80;

            push @size, $long ? unpack('N', substr($text, $pos, 4)) & 0x7fffffff
                              : $n;
            $pos += $long ? 4 : 1;
        }

        for (@size) {
            push @all, substr($text, $pos, $_);
            $pos += $_;
        }
    }

    return @all;
}


# the steps of the HTTP origin, in the words of the protocol

sub steps {
    my ($self, $c, $req, $a) = @_;

    if (delete $a->{chunked}) {
        $a->{until_close} = 1;
    }

    my @steps = $self->SUPER::steps($c, $req, $a);
    my $fastcgi = $self->{protocol} eq 'fastcgi';
    my $cut = defined $a->{raw} || defined $a->{close_at};
    my ($first, @out) = (1);

    for my $step (@steps) {

        if ($step->[0] eq 'send') {
            if ($first && !defined $a->{raw}) {
                $step->[1] =~ s/\AHTTP\/1\.1 /Status: /;
                $step->[1] =~ s/^Connection: .*?\r\n//m;
                $first = 0;
            }

            $step->[1] = records($step->[1], $a->{records}) if $fastcgi;
        }

        if ($fastcgi && !$cut && $step->[0] eq 'call') {
            push @out, [send => record($STDOUT, '')
                                . record($END, pack('NCxxx', 0, 0))];
        }

        push @out, $step;
    }

    return @out;
}


sub records {
    my ($bytes, $size) = @_;

    return join '', map { record($STDOUT, $_) }
                    unpack '(a' . ($size || 30_000) . ')*', $bytes;
}


sub record {
    my ($type, $content) = @_;

    my $padding = -length($content) % 8;

    return pack('CCnnCx', 1, $type, 1, length $content, $padding)
           . $content . "\0" x $padding;
}


1;
