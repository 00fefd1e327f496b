FROM alpine
ENV V=env
ARG V=default
RUN echo $V
ENV V=${V}2 W=
ENV V=${V}2 W=
ENV V=${V}2 W=
ENV V=${V}2 W=
ENV V=${V}V=${V}2 W=
ENV V=${V}2 W=
ENV V=${V}V=${V}2 W=
ENV V=${V}2 W=
ENV V=${V}V=${V}2 W=
ENV V=${V}2 W=
ENV V=${V}V=${V}2 W=
ENV V=${V}2 W=
ENV V=${V}2 W=--chown=1:1$V
RUN echo $V $W