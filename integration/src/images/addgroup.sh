#!/bin/sh
# addgroup [-S] [-g GID] [USER] GROUP
gid= first=1000
while getopts Sg: option; do
  case $option in
    S) first=100 ;;
    g) gid=$OPTARG ;;
    *) exit 1 ;;
  esac
done
shift $((OPTIND - 1))
[ -n "$1" ] || { echo "addgroup: no group" >&2; exit 1; }
if [ -n "$2" ]; then
  grep -q "^$2:" /etc/group || { echo "addgroup: unknown group $2" >&2; exit 1; }
  sed -i -e "/^$2:/s/\([^:]\)\$/\1,$1/" -e "/^$2:/s/:\$/:$1/" /etc/group
  exit
fi
if grep -q "^$1:" /etc/group; then
  echo "addgroup: group '$1' in use" >&2
  exit 1
fi
if [ -z "$gid" ]; then
  gid=$first
  while grep -q "^[^:]*:[^:]*:$gid:" /etc/group; do gid=$((gid + 1)); done
fi
echo "$1:x:$gid:" >>/etc/group
