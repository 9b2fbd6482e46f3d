FROM debian:12
RUN <<EOF
set -eu
echo "hello $USER"
EOF
RUN <<-"script" cat > /tmp/x
	no $expansion
	script
COPY <<one <<'two' /etc/
first $HOME
one
second $HOME
two
RUN cat <<a && cat <<b
1
a
2
b
