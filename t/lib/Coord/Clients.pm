package Coord::Clients;

# Copyright (C) ngx_coord_module contributors

# Clients of others as they are, each through a connection that breaks.
#
#   my $clients = Coord::Clients->new(test => $t, origin => $origin,
#                                     to => [ @ports ], npm => [ @packages ]);
#   $clients->ask(name => { .. });
#
# A client:
#
#   run      sub of a URL and a key: the command, which prints the body
#   npm      the package that it is; installed with TEST_NPM=1
#   without  sub: why it cannot be asked, or ''
#   not      what it does not repeat: middle => 1, or nowait => 1 (a 409)
#   behind   what it puts behind the path of the URL
#   out      what is printed in place of the body, as a pattern
#
# script($name, $text): a file to be run; modules of npm are found by .mjs.

use strict;
use warnings;

use Coord::Chaos;
use Coord::Util qw(spew);
use Exporter qw(import);
use File::Path qw(make_path);
use Test::More;

our @EXPORT_OK = qw(has);


sub has { return system("$_[0] >/dev/null 2>&1") == 0 }


sub new {
    my ($class, %opt) = @_;

    my $self = bless { %opt }, $class;
    my ($root) = __FILE__ =~ m!^(.*)t/lib/Coord/!;

    $self->{dir} = ($root || './') . 'build/npm';

    if ($ENV{TEST_NPM}) {
        make_path($self->{dir});
        has("cd $self->{dir} && npm install --no-audit --no-fund "
            . join ' ', @{$self->{npm}})
            or diag('npm install has failed');
    }

    return $self;
}


sub script {
    my ($self, $name, $text) = @_;

    my $file = $name =~ /mjs$/ ? "$self->{dir}/coord-$name"
                               : $self->{test}->file($name);
    spew($file, $text);

    return $file;
}


# why a package of npm cannot be asked, or ''

sub without_npm {
    my ($self, $name) = @_;

    return !$ENV{TEST_NPM} ? 'TEST_NPM is not set'
           : -d "$self->{dir}/node_modules/$name" ? '' : "no $name";
}


sub run {
    my ($self, @command) = @_;

    open(my $fh, '-|', @command) or return "cannot run $command[0]: $!";
    local $/;
    my $out = <$fh>;
    close $fh;

    return defined $out ? $out =~ s/\s+\z//r : '';
}


sub ask {
    my ($self, $name, $c) = @_;

    SKIP: {
        my $why = $c->{npm} ? $self->without_npm($c->{npm}) : $c->{without}->();
        skip("$name: $why", 1) if $why;

        for my $breaks ([], ['half'], ['running'], ['answered'], ['middle'],
                        ['running', 'answered'])
        {
            next if grep { $c->{not}{$_} } @$breaks;

            $self->one($name, $c, '', @$breaks);

            # where the twin runs there is a 409 to come back from

            $self->one($name, $c, '/nowait', @$breaks)
                if !$c->{not}{nowait} && grep { $_ eq 'running' } @$breaks;
        }
    }
}


sub one {
    my ($self, $name, $c, $kind, @breaks) = @_;

    my $base = join '/', $kind, $name =~ s/\W+/-/gr, @breaks;
    $base = "/$base" if $base !~ m{^/};

    my $path = $base . ($c->{behind} || '');
    my $origin = $self->{origin};
    my $of = "$name, " . (@breaks ? "broken: @breaks" : 'whole')
             . ($kind ? ', no wait' : '');

    my $chaos = Coord::Chaos->start(
        test => $self->{test}, to => $self->{to}, breaks => [@breaks],
        begun => sub { scalar $origin->requests($path) });

    my $out = $self->run($c->{run}->(
        'http://127.0.0.1:' . $chaos->port . $base, $base =~ tr{/}{-}r));

    # what was cut short comes in front of it

    my $want = $c->{out} || qr/\{"id":"\Q$path\E","object":"charge","n":\d+,
                               "fill":"x{2000}"\}\z/x;

    like($out, $want, "$of: it has its answer") or diag(substr($out, 0, 300));
    is(scalar($origin->requests($path)), 1, 'of one execution');
    cmp_ok($chaos->connections, '>', $#breaks, @breaks
           . ' connections were broken');
    $chaos->stop;
}


1;
