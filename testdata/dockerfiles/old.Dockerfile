from ubuntu:14.04
maintainer Somebody <somebody@example.com>
env OLD value with  blanks
label a b
run echo ["not", "json"] && true
volume /data /more
expose 80 443/tcp
add http://example.com/x.tar.gz /tmp/
onbuild copy . /src
cmd echo done
