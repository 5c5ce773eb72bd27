package Coord::Pages;

# Copyright (C) ngx_coord_module contributors

=head1 NAME

Coord::Pages - an origin whose answers stand in what is asked for

=head1 SYNOPSIS

    my $origin = $t->origin(default => \&answered);
    $a->get('/page' . answer(['Cache-Control' => 'max-age=60']));

=head1 FUNCTIONS

=over

=item answer(\@fields, %is)

The arguments of a path for which the origin answers with these fields. C<%is>:
C<status>, C<body>, C<large> (bytes of it), C<numbered> (it is C<numbered()>),
C<delay>, C<hold> (until C<< $origin->release >>), C<slow> (the body comes in
two parts, a second apart), C<split> (in four), C<chunked>, C<same> (304 if
there is a condition), C<other> (the same, with that ETag in it).

=item answered($request)

The handler of that origin. C<X-Seen> of its answer names the conditions and
ranges that it was asked with, C<X-Number> is another one each time.

=item numbered()

A body of 100000 bytes that are told apart by where they stand.

=item date($seconds)

An HTTP-date so many seconds from now.

=back

=cut

use strict;
use warnings;

use Exporter 'import';
use POSIX qw(strftime setlocale LC_TIME);
use Time::HiRes qw(time);

our @EXPORT = qw(answer answered numbered date);

setlocale(LC_TIME, 'C');

my $number = 0;

sub answer {
    my ($fields, %is) = @_;

    $is{fields} = join "\n", @$fields;

    return '?' . join '&', map { "$_=" . $is{$_} =~ s/([^\w.-])/sprintf
                                 '%%%02x', ord $1/ger } sort keys %is;
}

sub answered {
    my ($req) = @_;
    my %is = (status => 200, fields => '', body => 'body');

    $is{$_->[0]} = $_->[1] =~ s/%([0-9a-f]{2})/chr hex $1/ger
        for map { [split /=/, $_, 2] } grep { /=/ }
            split /&/, $req->{uri} =~ s/^.*?\?//r;

    my $if = join ' ', grep { /^(?:if-|range)/ } sort keys %{$req->{headers}};

    my @other = $is{other} && $if ? (ETag => $is{other}, 'X-Other' => 1) : ();
    $is{fields} =~ s/\nETag\n.*// if @other;

    return { status => ($is{same} || $is{other}) && $if ? 304 : $is{status},
             headers => [split(/\n/, $is{fields}, -1), @other, 'X-Seen' => $if,
                         'Content-Seen' => $if, 'X-Number' => ++$number],
             $is{slow} ? (parts => [[0, 'first '], [1, 'second']]) : (),
             $is{split} ? (parts => [map { [0.3, substr numbered(), $_, 25000] }
                                         0, 25000, 50000, 75000]) : (),
             body => $is{large} ? 'x' x $is{large}
                     : $is{numbered} ? numbered() : $is{body},
             chunked => $is{chunked} || 0, delay => $is{delay} || 0,
             hold => $is{hold} || 0 };
}

sub numbered { return join '', map { sprintf 'X%06dX', $_ } 0 .. 12499 }

sub date { return strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + $_[0])) }

1;
