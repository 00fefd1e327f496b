FROM debian:bookworm-slim AS made
# What the first layer has and later ones take away or replace.
RUN mkdir -p /t/base/opaque/deep /t/base/dir-to-file /t/base/keep && cd /t/base \
 && echo gone > whiteout && echo old > opaque/old && echo older > opaque/deep/older && echo x > dir-to-file/inner \
 && echo f > file-to-dir && echo l > file-to-link && echo one > keep/one && echo two > keep/two \
 && echo mode > mode && echo owner > owner && echo hard > hard-a && ln hard-a hard-b && ln hard-a keep/hard-c
RUN cd /t/base && rm whiteout && rm -r opaque && mkdir opaque && echo new > opaque/new \
 && rm -r dir-to-file && echo file > dir-to-file && rm file-to-dir && mkdir file-to-dir && echo in > file-to-dir/in \
 && ln -sf keep/one file-to-link && rm keep/two && chmod 600 mode && chown 1234:65534 owner && rm hard-b
RUN mkdir /t/kinds && cd /t/kinds && mkfifo fifo && mknod char c 1 3 && mknod block b 7 300 && mknod big c 250 70000 \
 && ln -s /absolute/target absolute && ln -s dangling-target dangling && ln -s ../base/mode relative \
 && ln -s "$(printf 'x%.0s' $(seq 250))" long-link && echo text > file && ln file hard-1 && mkdir sub && ln file sub/hard-2 \
 && ln -s / root && ln -s . self && ln absolute absolute-hard
RUN mkdir /t/modes && cd /t/modes && for m in 0000 0400 0755 0777 1777 2755 4755 6711 7777; do \
   echo $m > f$m; chmod $m f$m; mkdir d$m; chmod $m d$m; done \
 && echo id > owned && chown 4000000000:123456 owned && chmod 4750 owned
RUN mkdir /t/names && cd /t/names && touch -- "$(printf 'n%.0s' $(seq 255))" "$(printf 'm%.0s' $(seq 101))" "$(printf 'k%.0s' $(seq 100))" \
   "späß" "日本語" "$(printf 'new\nline')" " leading" "trailing " "-dash" 'quo"te' 'back\slash' "tab	bed" '*' "$(printf '\001\177')" ".hidden" "..double" \
 && d=$(printf 'p%.0s' $(seq 150)) && mkdir -p $d/$d/$d && echo deep > $d/$d/$d/file && ln $d/$d/$d/file $d/link \
 && ln -s $d/$d/$d/file far
RUN cd /t && p=. && for i in $(seq 60); do p=$p/level-$i; done && mkdir -p $p && echo bottom > $p/bottom
RUN mkdir /t/sparse && cd /t/sparse && truncate -s 8M hole && truncate -s 1M start && echo end >> start \
 && printf begin > both && truncate -s 3M both && echo end >> both && : > empty
RUN mkdir /t/xattrs && cd /t/xattrs && echo x > user && echo c > capable && chmod 755 capable && mkdir dir && ln -s user link && perl -e ' \
   my $set = `uname -m` =~ /x86_64/ ? 188 : 5; \
   sub put { my ($f, $n, $v) = @_; syscall($set, $f, $n, $v, length $v, 0) == 0 or die "$f $n: $!" } \
   put("user", "user.comment", "words"); put("user", "user.binary", "\x00\x01\xff=\n"); put("user", "user.empty", ""); \
   put("dir", "user.on-a-dir", "d"); put("capable", "security.capability", pack("V5", 0x02000001, 0x400, 0, 0, 0)); '
# A file whose times alone change, and one that only lost its xattr.
RUN touch -d @1234567890 /t/base/keep/one && chmod 644 /t/xattrs/user
COPY from-client /t/from-client
RUN mkdir -p /t/.wh-like && echo wh > /t/.wh-like/wh.file
RUN find /t -depth -exec touch -h -d @1500000000.123456789 {} +
