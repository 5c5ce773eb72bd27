package Coord::FakeRedis;

# Copyright (C) ngx_coord_module contributors

# A server that speaks RESP and can be told to speak it badly.
#
#   $t->fake_redis(%opt)
#       upstream => port       pass commands on to this real Redis: replies are
#                              true except where a fault says otherwise
#       on => { ZADD => sub { my ($conn, @args) = @_; return ":1\r\n" } }
#                              replies of its own; without them every data
#                              command gets ":1"
#       password, user         demands AUTH
#       socket => path         a unix socket instead of a port
#
#   $fake->fault(action => name, %which, %how)
#       which: cmd => 'EXEC' (any when absent), match => regex over the
#              arguments, nth => 1 (the n-th that matches), times => 1 (0: all
#              from the n-th on), conn => number (from 1), store => name of
#              the coord_store whose connection it is.  What nodes tell of
#              themselves every few seconds ("coord:st") is answered well.
#       drop                   the reply is not sent
#       duplicate              sent twice
#       replace  data          other bytes instead of it
#       before   data          bytes in front of it
#       after    data          bytes behind it
#       split    [delay]       one byte a segment
#       delay    delay         seconds before it; later replies wait behind it
#       hold                   it waits, as those behind it, for release
#       stall                  nothing more is sent on this connection
#       close    [offset] [rst]   ends after so many bytes of the reply
#   $fake->clear               forgets all faults
#   $fake->release             sends what is held; on how many connections
#   $fake->fired               number of faults that fired; fired('drop')
#   $fake->waiting             those that are still to fire: list of hashes
#   $fake->commands            every command but those: [conn, name, arguments..]
#   $fake->commands('AUTH')    own => 1: those as well
#   $fake->push($bytes)        bytes that nobody asked for, on every connection;
#                              push($bytes, $store): on those of a store that
#                              do not subscribe; returns on how many
#   $fake->connections, refuse, accept, drop_all($rst), freeze, thaw, stop,
#   restart, port, addr, entries (the journal)

use strict;
use warnings;

use parent qw(Coord::Server);

use IO::Socket::INET;
use Time::HiRes qw(time);


sub start {
    my ($class, %opt) = @_;

    return $class->SUPER::start(name => 'redis', faults => [], %opt);
}


sub fault { my ($self, %f) = @_; return $self->call('fault', \%f) }
sub clear { $_[0]->call('clear') }
sub release { $_[0]->call('release') }
sub waiting { @{$_[0]->call('waiting')} }
sub push { my ($self, @which) = @_; return $self->call('push', @which) }


sub fired {
    my ($self, $action) = @_;

    return scalar $self->entries(event => 'fault',
                                 $action ? (action => $action) : ());
}


sub commands {
    my ($self, $name, %opt) = @_;

    return map { [$_->{conn}, $_->{cmd}, @{$_->{args}}] }
           $self->entries(event => 'command', $opt{own} ? () : (own => 0),
                          $name ? (cmd => $name) : ());
}


# parse_reply(\$in): the bytes of the first complete reply, undef if there is
# none; takes them off

sub parse_reply {
    my ($in) = @_;

    my ($pos, $left) = (0, 1);

    while ($left > 0) {
        pos($$in) = $pos;
        $$in =~ /\G([-+:\$*_#,(!=%~>])([^\r\n]*)\r\n/gc or return;

        my ($type, $value) = ($1, $2);
        $pos = pos($$in);
        $left--;

        if ($type =~ /[\$!=]/ && $value >= 0) {
            $pos += $value + 2;
            return if length($$in) < $pos;

        } elsif ($type =~ /[*~>]/ && $value > 0) {
            $left += $value;

        } elsif ($type eq '%') {
            $left += 2 * $value;
        }
    }

    return substr($$in, 0, $pos, '');
}


# parse_command(\$in): [name, arguments..], undef if incomplete

sub parse_command {
    my ($in) = @_;

    my $copy = $$in;

    if ($copy !~ /\A\*/) {
        $$in =~ s/\A([^\r\n]*)\r?\n// or return;
        return [split ' ', $1];
    }

    $copy =~ s/\A\*(\d+)\r\n// or return;

    my @args;

    for (1 .. $1) {
        $copy =~ s/\A\$(\d+)\r\n// or return;
        return if length $copy < $1 + 2;

        CORE::push @args, substr($copy, 0, $1);
        substr($copy, 0, $1 + 2, '');
    }

    $$in = $copy;

    return \@args;
}


sub bulk { '$' . length($_[0]) . "\r\n$_[0]\r\n" }


# the rest runs in the server

sub accepted {
    my ($self, $c) = @_;

    $c->{authenticated} = !defined $self->{password};

    if ($self->{upstream}) {
        my $sock = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                         PeerPort => $self->{upstream})
            or return $self->drop($c);

        $c->{peer} = $self->add($sock);
        $c->{peer}{client} = $c;
        $c->{asked} = [];
    }
}


sub dropped {
    my ($self, $c) = @_;

    my $other = delete $c->{peer} || delete $c->{client} or return;

    delete @$other{qw(peer client)};
    $self->drop($other);
}


sub received {
    my ($self, $c) = @_;

    if ($c->{client}) {
        while (defined(my $reply = parse_reply(\$c->{in}))) {
            my $asked = shift @{$c->{client}{asked}} || [0, '?'];

            $self->answer($c->{client}, $asked, $reply);
            last if $c->{dead};
        }

        return;
    }

    while (!$c->{dead} && (my $command = parse_command(\$c->{in}))) {
        next if !@$command;

        my ($name, @args) = @$command;
        $name = uc $name;


        # the name that a coord_store gives its connections
        if ($name eq 'CLIENT' && "@args" =~ /^SETNAME ngx_coord:([^:]+):/) {
            $c->{store} = $1;
        }

        $c->{hears} = 1 if $name eq 'SUBSCRIBE';

        my @asked = (own($c, $name, @args), $name, @args);

        $self->note(event => 'command', conn => $c->{id}, cmd => $name,
                    args => \@args, own => $asked[0]);

        if ($c->{peer}) {
            CORE::push @{$c->{asked}}, \@asked;

            my $bytes = '*' . @$command . "\r\n" . join '',
                        map { bulk($_) } @$command;
            $self->enqueue($c->{peer}, [send => $bytes]);

        } else {
            $self->answer($c, \@asked, $self->reply($c, $name, @args));
        }
    }
}


# 1: a command of what a node does by itself, whatever it is asked for: of its
# key, in a transaction that begins with that, or the nonce behind it

sub own {
    my ($c, $name, @args) = @_;

    my $key = qr/[^{}\r\n]*\bst(?::|\r|\z)/;
    my $was = $c->{own} || '';

    if ($name eq 'MULTI') {
        $c->{own} = $c->{in} =~ /\A\*\d+\r\n\$\d+\r\n\w+\r\n\$\d+\r\n$key/
                    ? 'multi' : '';
        return $c->{own} ? 1 : 0;
    }

    if ($was eq 'multi') {
        $c->{own} = '' if $name eq 'EXEC';
        return 1;
    }

    $c->{own} = ($args[0] // '') =~ /\A$key/ ? 'plain' : '';

    return $c->{own} || ($was eq 'plain' && $name eq 'ECHO') ? 1 : 0;
}


sub reply {
    my ($self, $c, $name, @args) = @_;

    if ($name eq 'AUTH') {
        my ($password, $user) = reverse @args;

        return "-ERR AUTH called without any password configured\r\n"
            if !defined $self->{password};

        $c->{authenticated} = $password eq $self->{password}
            && ($user || 'default') eq ($self->{user} || 'default');

        return $c->{authenticated} ? "+OK\r\n"
            : "-WRONGPASS invalid username-password pair or user is"
              . " disabled.\r\n";
    }

    return "-NOAUTH Authentication required.\r\n" if !$c->{authenticated};

    if ($name eq 'MULTI') {
        $c->{multi} = [];
        return "+OK\r\n";
    }

    if ($c->{multi} && $name eq 'EXEC') {
        my @replies = map { $self->single($c, @$_) } @{$c->{multi}};

        $c->{multi} = undef;

        return '*' . @replies . "\r\n" . join '', @replies;
    }

    if ($c->{multi}) {
        CORE::push @{$c->{multi}}, [$name, @args];
        return "+QUEUED\r\n";
    }

    return $self->single($c, $name, @args);
}


sub single {
    my ($self, $c, $name, @args) = @_;

    if (my $code = $self->{on}{$name}) {
        return $code->($c->{id}, @args);
    }

    return bulk($args[0]) if $name eq 'ECHO';
    return "+PONG\r\n" if $name eq 'PING';
    return "+OK\r\n" if $name =~ /^(?:SELECT|CLIENT|SET|RESET|READONLY)$/;
    return "-ERR unknown command\r\n" if $name eq 'HELLO';

    if ($name eq 'TIME') {
        my $now = sprintf '%.6f', time();

        return "*2\r\n" . join '', map { bulk($_) }
               map { s/^0+(?=\d)//r } split /\./, $now;
    }

    return ":1\r\n";
}


# the first fault that matches a reply is taken

sub find_fault {
    my ($self, $c, $asked) = @_;

    my ($own, $name, @args) = @$asked;

    return if $own;

    for my $f (@{$self->{faults}}) {
        next if $f->{cmd} && $f->{cmd} ne $name;
        next if $f->{conn} && $f->{conn} != $c->{id};
        next if defined $f->{store} && $f->{store} ne ($c->{store} || '');
        next if defined $f->{match} && "@args" !~ /$f->{match}/;
        next if ++$f->{seen} < ($f->{nth} || 1);

        my $times = defined $f->{times} ? $f->{times} : 1;
        next if $times && $f->{done} >= $times;

        $f->{done}++;

        return $f;
    }

    return;
}


sub answer {
    my ($self, $c, $asked, $reply) = @_;

    my $f = $self->find_fault($c, $asked)
        or return $self->enqueue($c, [send => $reply]);

    $self->note(event => 'fault', conn => $c->{id}, cmd => $asked->[1],
                action => $f->{action}, size => length $reply);

    my $method = "fault_$f->{action}";

    $self->enqueue($c, $self->$method($f, $reply));
}


sub fault_drop { () }
sub fault_duplicate { [send => $_[2]], [send => "$_[2]"] }
sub fault_replace { [send => $_[1]{data}] }
sub fault_before { [send => "$_[1]{data}$_[2]"] }
sub fault_after { [send => "$_[2]$_[1]{data}"] }
sub fault_delay { [pause => $_[1]{delay}], [send => $_[2]] }
sub fault_hold { ['stall'], [send => $_[2]] }
sub fault_stall { ['stall'], ['stall'] }


sub fault_split {
    my ($self, $f, $reply) = @_;

    my $delay = defined $f->{delay} ? $f->{delay} : 0.0005;

    return map { ([send => $_], [pause => $delay]) } split //, $reply;
}


sub fault_close {
    my ($self, $f, $reply) = @_;

    my $part = substr($reply, 0, $f->{offset} || 0);

    return (length $part ? [send => $part] : (),
            [$f->{rst} ? 'reset' : 'close']);
}


sub command_fault {
    my ($self, $f) = @_;

    die "no fault \"$f->{action}\"\n"
        if !$self->can("fault_" . ($f->{action} || ''));

    $f->{done} = $f->{seen} = 0;
    CORE::push @{$self->{faults}}, $f;

    return scalar @{$self->{faults}};
}


sub command_clear {
    my ($self) = @_;

    $self->{faults} = [];

    return 1;
}


sub command_release {
    my ($self) = @_;

    my @held = grep { $_->{stalled} && $_->{queue}[0]
                      && $_->{queue}[0][0] ne 'stall' }
               values %{$self->{conns}};

    $self->resume($_) for @held;

    return scalar @held;
}


sub command_waiting {
    my ($self) = @_;

    return [grep {
        my $times = defined $_->{times} ? $_->{times} : 1;
        $_->{done} < ($times || 1);
    } @{$self->{faults}}];
}


sub command_push {
    my ($self, $bytes, $store) = @_;

    my @conns = grep { $_->{id} } values %{$self->{conns}};

    if (defined $store) {
        @conns = grep { ($_->{store} || '') eq $store && !$_->{hears} } @conns;
    }

    for my $c (@conns) {
        $self->note(event => 'fault', action => 'push', conn => $c->{id});
        $self->enqueue($c, [send => "$bytes"]);
    }

    return scalar @conns;
}


1;
