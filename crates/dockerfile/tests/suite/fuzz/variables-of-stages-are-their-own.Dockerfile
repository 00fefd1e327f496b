ARG G=global
ARG H
FROM alpine AS a
ARG G
ARG L=local
ENV E=$G-$L-$H
RUN echo $E
FROM a AS b
ARG L
RUN echo $E $L $G
FROM alpine
ARG H=here
RUN echo $H $L
