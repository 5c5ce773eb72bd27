#!/bin/bash

# Copyright (C) ngx_coord_module contributors

# Runs in a chroot that has only what Debian's minimal system has, and the
# package: it is used and purged.

set -ex

nginx -V
test -e /etc/nginx/modules-enabled/50-mod-http-coord.conf
nginx -t

dir=$(mktemp -d /tmp/coord-check-XXXXXX)
port=$((20000 + $$ % 10000))

cat > $dir/nginx.conf << END
include /etc/nginx/modules-enabled/*.conf;
pid $dir/nginx.pid;
error_log $dir/error.log;
events { }
http {
    access_log off;
    coord_limit_req_zone \$binary_remote_addr zone=api rate=1r/m;
    server {
        listen 127.0.0.1:$port;
        location / { coord_limit_req zone=api; root $dir/html; }
    }
}
END

mkdir $dir/html
echo hello > $dir/html/index.html
chmod -R a+rX $dir

nginx -c $dir/nginx.conf
status() {
    exec 3<> /dev/tcp/127.0.0.1/$port
    printf 'GET / HTTP/1.0\r\n\r\n' >&3
    head -1 <&3 | cut -d' ' -f2
    exec 3>&-
}
first=$(status)
second=$(status)
kill "$(cat $dir/nginx.pid)"

test "$first $second" = '200 429'

apt-get purge -y -q libnginx-mod-http-coord
test ! -e /etc/nginx/modules-enabled/50-mod-http-coord.conf
test ! -L /etc/nginx/modules-enabled/50-mod-http-coord.conf
test ! -e /usr/lib/nginx/modules/ngx_http_coord_module.so
nginx -t

rm -rf "$dir"
echo purged
