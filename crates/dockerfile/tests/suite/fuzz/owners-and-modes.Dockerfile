FROM alpine
COPY --chown=0:0 a /1
COPY --chown=user b /2
COPY --chown=user:group c /3
COPY --chown=:5 d /4
COPY --chmod=4755 e /5
COPY --chmod=u+x,g-w,o=r f /6
ADD --chmod=a=rX --chown=1000 g h /7/
ARG M=0600
COPY --chmod=$M i /8
