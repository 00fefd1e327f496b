FROM --platform=linux/amd64 alpine AS Base
From base as scratch
ENV key value
ENV SECRET_TOKEN=x
ARG PASSWORD
RUN echo $UNDEF $PASSWRD
COPY $NOPE /x
WORKDIR rel
CMD a
CMD b
ENTRYPOINT c
MAINTAINER d
EXPOSE 80/TCP
