FROM golang:1.23
ARG A=one B="two words" C='single $A' D=$A E=${A:-x} F=${NONE:-fallback} G=${A:+alt} H=${NONE:+alt}
ENV P1=${A#o} P2=${A%e} P3=${A/n/m} P4=${B//o/0} P5="${B##* }" P6="${B%% *}" Q="${A}-${B}" R=\$A S="a\"b"
ENV T=$GOPATH/bin:$PATH
ENV U=${T%%:*} V=${T#*:}
WORKDIR $GOPATH/src/${A}
RUN echo $P1
COPY ${A}.txt $D/
LABEL "key with $A"="value $B" x=${E}y
EXPOSE ${PORT:-8080}
USER ${USERNAME:-nobody}
VOLUME ${A}
STOPSIGNAL ${SIG:-SIGTERM}
