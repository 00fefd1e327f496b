#!/bin/sh
# ttysize [w] [h]
set -- "${*:-w h}" $(stty size 2>/dev/null || echo 24 80)
out=
for dimension in $1; do
  case $dimension in
    w) out="$out $3" ;;
    h) out="$out $2" ;;
  esac
done
echo ${out# }
