package Coord::Again;

# Copyright (C) ngx_coord_module contributors

# A test that failed while the machine stood still for a second or longer says
# nothing: time limits of those who are tested ended without anything done.
# It runs once more, from its first line on; what it says of its first run is
# shown as a comment.  A test that fails otherwise has failed.
#
#   Coord::Again::allow()       called before the test has begun to speak; runs
#                               its script in a process of its own
#   Coord::Again::stood($n)     the test tells for how long it was
#
# Only below prove: who calls a test by hand sees what it says at once.

use strict;
use warnings;

use Fcntl qw(F_SETFD FD_CLOEXEC);
use POSIX ();

my $file;


sub allow {
    my $fd = delete $ENV{COORD_AGAIN};

    if (defined $fd) {
        open($file, '>&=', $fd) or die "descriptor $fd: $!";
        fcntl($file, F_SETFD, FD_CLOEXEC) or die "fcntl: $!";
        return;
    }

    return if !$ENV{HARNESS_ACTIVE};

    for my $last (0, 1) {
        my ($out, $note) = map { _temporary() } 1, 2;
        my $status = _run($out, $note);
        my $stood = _read($note) || 0;
        my $said = _read($out);

        if ($status == 0 || $last || $stood < 1) {
            syswrite(STDOUT, $said);
            POSIX::_exit($status & 127 ? 128 + ($status & 127)
                                       : $status >> 8);
        }

        $said =~ s/^/# first run: /mg;
        syswrite(STDOUT, "# the machine stood still for $stood s while this"
                         . " test failed: once more\n$said");
    }
}


sub stood {
    syswrite($file, sprintf('%.1f', $_[0])) if $file;
}


# the child has what is to be done at its end; a signal is passed on to it

sub _run {
    my ($out, $note) = @_;

    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        open(STDOUT, '>&', $out) or die "dup: $!";
        fcntl($note, F_SETFD, 0) or die "fcntl: $!";

        $ENV{COORD_AGAIN} = fileno($note);
        exec { $^X } $^X, map({ "-I$_" } @INC), $0, @ARGV;
        die "exec: $!";
    }

    local @SIG{qw(INT TERM HUP)} = (sub { kill $_[0], $pid }) x 3;

    1 while waitpid($pid, 0) != $pid;

    return $?;
}


sub _temporary {
    open(my $fh, '+>', undef) or die "temporary file: $!";
    return $fh;
}


sub _read {
    my ($fh) = @_;

    sysseek($fh, 0, 0);
    local $/;

    return scalar <$fh>;
}


1;
