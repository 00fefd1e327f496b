FROM golang:1.23
WORKDIR /src
RUN <<EOF
set -e
apt-get update
apt-get install -y upx
EOF
RUN <<'EOS' bash -ex
echo "$HOME is not expanded here"
go build -o /app
EOS
RUN <<A cat > /one && <<-B cat > /two
first
A
	second
	B
COPY <<go.tmpl <<"raw.tmpl" /templates/
package ${PKG:-main}
go.tmpl
$NOT_EXPANDED
raw.tmpl
