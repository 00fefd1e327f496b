FROM alpine
COPY <<a <<b /x/
1
a
2
b
RUN <<EOF1 cat >one && cat <<EOF2 >two
x $HOME
EOF1
y
EOF2
RUN cat <<'X'
$keep "quotes" \
X
RUN <<EOF
#!/usr/bin/env python3
print("hi")
EOF
COPY --chmod=600 --link <<EOF /etc/one
${PATH}
EOF
