package Coord::HTTP3;

# Copyright (C) ngx_coord_module contributors

# An HTTP/3 client: curl(1), where it is one.
#
#   Coord::HTTP3->missing          why nothing of this can be tried here, or ''
#   my $h3 = Coord::HTTP3->new($node, 2);    %%PORT_2%% of the node is its "listen .. quic"
#   $h3->url($path)
#   $h3->get($path, @curl)         a Coord::HTTP::Response
#   my $job = $h3->begin($path, @curl)   the same in the background
#       $job->text                 what has come so far, with the header
#       $job->end                  the response, once curl has ended
#   A request with '--max-time', 0.5 leaves then, and says so to the server.

use strict;
use warnings;

use Coord::HTTP;
use Coord::Util qw(slurp);


sub missing {
    my $nginx = $ENV{TEST_NGINX_BINARY} || 'nginx';

    return `$nginx -V 2>&1` !~ /--with-http_v3_module/ ? 'nginx has no HTTP/3'
         : `curl -V 2>&1` !~ /\bHTTP3\b/               ? 'curl has no HTTP/3'
         : '';
}


sub new {
    my ($class, $node, $port) = @_;

    return bless { node => $node, port => $node->port($port), n => 0 }, $class;
}


sub url { return "https://127.0.0.1:$_[0]{port}$_[1]" }


sub get {
    my $self = shift;

    return $self->begin(@_)->end;
}


sub begin {
    my ($self, $path, @args) = @_;

    my $file = $self->{node}->file("h3.$self->{port}." . ++$self->{n});
    my $pid = fork // die "fork: $!";

    if ($pid == 0) {
        open STDOUT, '>', $file or die "$file: $!";
        exec 'curl', '-sikN', '--http3-only', '--max-time', 30, @args,
             $self->url($path) or die "curl: $!";
    }

    return bless { pid => $pid, file => $file }, 'Coord::HTTP3::Job';
}


package Coord::HTTP3::Job;

sub text { return Coord::Util::slurp($_[0]{file}) }


sub end {
    my ($self) = @_;

    waitpid $self->{pid}, 0;

    my $res = Coord::HTTP::Response->new;
    my $text = $self->text;

    if ($text =~ s{\AHTTP/3 (\d+)}{HTTP/1.1 $1}) {
        my ($head, $body) = split /\r\n\r\n/, $text, 2;

        $res->feed("$head\r\n\r\n");
        $res->{body} = $body;
        $res->{complete} = $? == 0;
    }

    return $res;
}


1;
