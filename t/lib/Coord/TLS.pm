package Coord::TLS;

# Copyright (C) ngx_coord_module contributors

# Certificates for a test, made with openssl(1).
#
#   my $tls = Coord::TLS->new($t->dir);              ca.pem
#   $tls->cert('redis', san => 'DNS:redis.test,IP:127.0.0.1');
#                                                    redis.pem, redis.key
#   $tls->file('ca.pem')                             its path
#
# cert(name, %opt): san; ca => name of another CA (made when it is first
# named), or 'self'; days => -1: expired.

use strict;
use warnings;

use Coord::Util qw(spew);


sub new {
    my ($class, $dir) = @_;

    my $self = bless { dir => "$dir/tls" }, $class;

    mkdir $self->{dir} or die "$self->{dir}: $!";
    $self->ca('ca');

    return $self;
}


sub file { "$_[0]{dir}/$_[1]" }


sub ca {
    my ($self, $name) = @_;

    return if -e $self->file("$name.pem");

    $self->key($name);
    $self->openssl('req', '-x509', '-new', '-key', $self->file("$name.key"),
                   '-subj', "/CN=test $name", '-days', 10, '-addext',
                   'keyUsage=critical,keyCertSign,cRLSign',
                   '-out', $self->file("$name.pem"));
}


sub key {
    my ($self, $name) = @_;

    $self->openssl('ecparam', '-genkey', '-noout', '-name', 'prime256v1',
                   '-out', $self->file("$name.key"));
}


sub cert {
    my ($self, $name, %opt) = @_;

    my $ca = $opt{ca} || 'ca';
    my $san = $opt{san} || "DNS:$name.test";

    $self->key($name);
    $self->openssl('req', '-new', '-key', $self->file("$name.key"),
                   '-subj', "/CN=$name", '-out', $self->file("$name.csr"));
    spew($self->file("$name.ext"), "subjectAltName=$san\n");

    my @sign = ('-signkey', $self->file("$name.key"));

    if ($ca ne 'self') {
        $self->ca($ca);
        @sign = ('-CA', $self->file("$ca.pem"), '-CAkey',
                 $self->file("$ca.key"), '-CAcreateserial');
    }

    my @ask = ('x509', '-req', '-in', $self->file("$name.csr"), @sign,
               '-extfile', $self->file("$name.ext"),
               '-out', $self->file("$name.pem"));
    my $days = $opt{days} || 10;

    # a time that is over: from OpenSSL 3.4 on so, before by negative days

    if ($days > 0
        || !eval { $self->openssl(@ask, '-not_before', '20200101000000Z',
                                  '-not_after', '20200102000000Z') })
    {
        $self->openssl(@ask, '-days', $days);
    }

    return $self;
}


# lines of redis.conf for a server with that certificate; port 0 is for TLS

sub redis {
    my ($self, $name, $port, @more) = @_;

    return ("tls-port $port", "tls-cert-file " . $self->file("$name.pem"),
            "tls-key-file " . $self->file("$name.key"),
            "tls-ca-cert-file " . $self->file('ca.pem'), @more);
}


sub openssl {
    my ($self, @args) = @_;

    my $out = $self->file('openssl.log');

    my $pid = fork();
    die "fork: $!" if !defined $pid;

    if ($pid == 0) {
        open(STDOUT, '>', $out);
        open(STDERR, '>&', \*STDOUT);
        exec('openssl', @args);
        exit 127;
    }

    waitpid($pid, 0);
    die "openssl @args:\n" . Coord::Util::slurp($out) if $?;

    return 1;
}


1;
