package Coord::Origin;

# Copyright (C) ngx_coord_module contributors

# A programmable HTTP/1.1 origin.
#
#   $t->origin(routes => { '/path' => \%answer | sub { my ($req) = @_; .. } },
#              default => the same, for all other paths)
#
#   answer: status (200), headers (array of pairs), body, delay (seconds),
#           chunked => 1 | n (bytes a chunk), parts => [[delay, bytes], ..],
#           close_at => n (ends the connection after n bytes of the body),
#           until_close => 1 (no length), raw => bytes (instead of all that),
#           size => n (a body of n bytes), hold => 1 (waits for release)
#   request: method, uri, path, args (hash), headers (hash of arrays), body, n
#
# A query may say the same: /x?delay=0.5&status=500&size=100&chunked=1.
# Without a route the answer is "METHOD path n", n counts all executions.
#
#   $origin->count, count('/path')      executions begun
#   $origin->overlap, overlap('/path')  most that ran at once
#   $origin->requests, requests('/path')   what came, one hash a request
#   $origin->aborted                    executions whose client went away
#   $origin->reset_counters
#   $origin->release('/path')           answers those that it holds; how many
#   and all of Coord::Server: port, addr, stop, restart, freeze, thaw, refuse

use strict;
use warnings;

use parent qw(Coord::Server);


sub start {
    my ($class, %opt) = @_;

    return $class->SUPER::start(name => 'origin', stats => {}, %opt);
}


sub count { $_[0]->call('stats', $_[1])->{count} }
sub overlap { $_[0]->call('stats', $_[1])->{most} }
sub reset_counters { $_[0]->call('reset_counters') }
sub release { $_[0]->call('release', $_[1]) }


sub requests {
    my ($self, $path) = @_;

    return $self->entries(event => 'request',
                          defined $path ? (path => $path) : ());
}


sub aborted { scalar $_[0]->entries(event => 'aborted') }


# the rest runs in the server

sub received {
    my ($self, $c) = @_;

    # one at a time: the next request of a connection waits in the buffer

    return if $c->{busy} || $c->{dead};

    my $req = $self->parse($c) or return;

    $req->{n} = $self->begin($req->{path});
    $c->{busy} = $req;

    $self->note(event => 'request', conn => $c->{id}, %$req);
    $self->enqueue($c, $self->steps($c, $req, $self->decide($req)));
}


sub parse {
    my ($self, $c) = @_;

    $c->{in} =~ /\A(\S+) (\S+) HTTP\/1\.([01])\r\n(.*?)\r\n\r\n/s
        or $c->{in} =~ /\A(\S+) (\S+) HTTP\/1\.([01])\r\n()\r\n/s
        or return;

    my $head = $+[0];
    my %req = (method => $1, uri => $2, headers => {}, body => '');
    my $minor = $3;

    for (split /\r\n/, $4) {
        push @{$req{headers}{lc $1}}, $2 if /^([^:]+):\s*(.*)/;
    }

    my $h = $req{headers};

    if (($h->{'transfer-encoding'} || [''])->[0] =~ /chunked/i) {
        my $pos = $head;

        for ( ;; ) {
            pos($c->{in}) = $pos;
            $c->{in} =~ /\G([0-9a-fA-F]+)[^\r\n]*\r\n/g or return;

            my ($start, $size) = (pos $c->{in}, hex $1);
            return if length $c->{in} < $start + $size + 2;

            $req{body} .= substr($c->{in}, $start, $size);
            $pos = $start + $size + 2;
            last if $size == 0;
        }

        substr($c->{in}, 0, $pos, '');

    } else {
        my $length = ($h->{'content-length'} || [0])->[0];
        return if length $c->{in} < $head + $length;

        $req{body} = substr($c->{in}, $head, $length);
        substr($c->{in}, 0, $head + $length, '');
    }

    my $connection = lc(($h->{connection} || [''])->[0]);

    $c->{keepalive} = $minor ? $connection ne 'close'
                             : $connection eq 'keep-alive';

    ($req{path}, my $args) = split /\?/, $req{uri}, 2;
    $req{args} = { map { (split(/=/, $_, 2), '')[0, 1] }
                   split /&/, defined $args ? $args : '' };

    return \%req;
}


sub decide {
    my ($self, $req) = @_;

    my $route = $self->{routes}{$req->{path}} || $self->{default};
    my $answer = ref $route eq 'CODE' ? $route->($req) : $route;

    my %a = ( body => "$req->{method} $req->{path} $req->{n}\n",
              %{$answer || {}} );

    for (qw(status delay size chunked close_at until_close)) {
        $a{$_} = $req->{args}{$_} if defined $req->{args}{$_};
    }

    $a{body} = 'x' x $a{size} if defined $a{size};

    return \%a;
}


# the steps that send an answer

sub steps {
    my ($self, $c, $req, $a) = @_;

    my @steps;

    push @steps, ['stall'] if $a->{hold};
    push @steps, [pause => $a->{delay}] if $a->{delay};

    if (defined $a->{raw}) {
        return (@steps, [send => "$a->{raw}"],
                [call => sub { $self->end($c) }], ['close']);
    }

    my $status = $a->{status} || 200;
    my $head = "HTTP/1.1 $status " . ($status == 200 ? 'OK' : 'Status')
               . "\r\n";
    my @h = @{$a->{headers} || []};

    while (my ($name, $value) = splice(@h, 0, 2)) {
        $head .= "$name: $value\r\n";
    }

    my @parts = $a->{parts} ? @{$a->{parts}} : ([0, $a->{body}]);
    my $chunked = $a->{chunked};

    if ($status == 204 || $status == 304) {
        @parts = ();

    } elsif ($chunked) {
        $head .= "Transfer-Encoding: chunked\r\n";

    } elsif (!$a->{until_close}) {
        my $length = 0;
        $length += length $_->[1] for @parts;
        $head .= "Content-Length: $length\r\n";
    }

    my $keep = $c->{keepalive} && !$a->{until_close}
               && !defined $a->{close_at};

    $head .= $keep ? "Connection: keep-alive\r\n" : "Connection: close\r\n";
    push @steps, [send => "$head\r\n"];

    @parts = () if $req->{method} eq 'HEAD';
    push @steps, $self->body_steps($a, $chunked, @parts);

    return (@steps, [call => sub { $self->end($c) }],
            $keep ? () : ['close']);
}


sub body_steps {
    my ($self, $a, $chunked, @parts) = @_;

    my @steps;
    my $left = $a->{close_at};

    for (@parts) {
        my ($delay, $bytes) = @$_;

        push @steps, [pause => $delay] if $delay;

        if (defined $left) {
            $bytes = substr($bytes, 0, $left);
            $left -= length $bytes;
        }

        if (!$chunked) {
            push @steps, [send => $bytes] if length $bytes;
            next;
        }

        my $size = $chunked > 1 ? $chunked : length $bytes || 1;

        for (my $i = 0; $i < length $bytes; $i += $size) {
            my $chunk = substr($bytes, $i, $size);
            push @steps, [send => sprintf("%x\r\n", length $chunk)
                                  . "$chunk\r\n"];
        }
    }

    push @steps, [send => "0\r\n\r\n"] if $chunked && !defined $left;

    return @steps;
}


sub begin {
    my ($self, $path) = @_;

    for my $key ('', $path) {
        my $s = $self->{stats}{$key} ||= { count => 0, now => 0, most => 0 };

        $s->{count}++;
        $s->{now}++;
        $s->{most} = $s->{now} if $s->{now} > $s->{most};
    }

    return $self->{stats}{''}{count};
}


sub end {
    my ($self, $c) = @_;

    my $req = delete $c->{busy} or return;

    for my $key ('', $req->{path}) {
        $self->{stats}{$key}{now}-- if $self->{stats}{$key};
    }

    # not from within pump(): the queue is not empty yet
    $self->timer(0, sub { $self->received($c) }) if length $c->{in};
}


sub dropped {
    my ($self, $c) = @_;

    my $req = $c->{busy} or return;

    $self->note(event => 'aborted', conn => $c->{id}, path => $req->{path},
                n => $req->{n});
    $c->{in} = '';
    $self->end($c);
}


sub command_stats {
    my ($self, $path) = @_;

    return $self->{stats}{defined $path ? $path : ''}
           || { count => 0, now => 0, most => 0 };
}


sub command_release {
    my ($self, $path) = @_;

    my @held = grep { $_->{stalled} && $_->{busy}{path} eq $path }
               values %{$self->{conns}};

    $self->resume($_) for @held;

    return scalar @held;
}


sub command_reset_counters {
    my ($self) = @_;

    for my $s (values %{$self->{stats}}) {
        $s->{count} = 0;
        $s->{most} = $s->{now};
    }

    return 1;
}


1;
