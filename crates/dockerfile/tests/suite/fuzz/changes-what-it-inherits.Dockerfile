FROM healthy
ENV EMPTY=full SPACED="still two words" NEW=$SPACED
LABEL b=2 c="three"
USER root
WORKDIR relative
WORKDIR ../up
HEALTHCHECK NONE
SHELL ["/bin/sh", "-c"]
ENTRYPOINT ["x"]
VOLUME ["/one", "/two three"]
EXPOSE 1 2/udp 3-5/tcp 6-7/sctp
STOPSIGNAL 9
MAINTAINER Some Body <some@example.com>
