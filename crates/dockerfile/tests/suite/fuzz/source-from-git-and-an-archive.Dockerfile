FROM golang:1.23-alpine AS build
ADD https://github.com/moby/moby.git#v27.3.1 /src
ADD --keep-git-dir=true https://github.com/moby/buildkit.git#v0.10.1:frontend /buildkit
ADD git@github.com:tonistiigi/fsutil.git#main /fsutil
ADD --checksum=sha256:24454f830cdb571e2c4ad15481119c43b3cafd48dd869a9b2945d1036d1dc68d https://example.com/archive.tar.gz /a/
ADD --unpack=true https://example.com/b.tar.xz /b/
ADD --unpack=false local.tar.gz /c/
ADD local.tar.gz more.tar /d/
ADD https://example.com/x?tag=1&y=2 /e/
