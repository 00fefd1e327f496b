FROM alpine AS a
FROM alpine
WORKDIR /w
ARG SRC=/etc
RUN --mount=target=rel one
RUN --mount=type=bind,src=$SRC,dst=/x,from=a,rw two
RUN --mount=type=cache,target=~/c three
RUN --mount=type=cache,target=/c,ro --mount=type=tmpfs,target=/t four
RUN --mount=type=cache,target=/d,from=a,src=/e,sharing=locked five
RUN --mount=type=ssh six
RUN --mount=from=busybox,target=/bb --mount=from=a,target=/aa seven
RUN --mount=type=tmpfs,target=/big,size=1g eight
