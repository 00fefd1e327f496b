FROM alpine
RUN ['single', 'quotes']
ENTRYPOINT ["a" "b"]
RUN ["a",]
RUN [ "a", "b\u0041\n" ]
