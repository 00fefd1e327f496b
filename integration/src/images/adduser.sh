#!/bin/sh
# adduser [-DHS] [-h DIR] [-g GECOS] [-s SHELL] [-G GROUP] [-u UID] [-k SKEL] USER [GROUP]
home= gecos='Linux User,,,' shell=/bin/sh group= uid= first=1000 make=1
while getopts DHSh:g:s:G:u:k: option; do
  case $option in
    D) ;;
    H) make= ;;
    S) first=100 shell=/bin/false ;;
    h) home=$OPTARG ;;
    g) gecos=$OPTARG ;;
    s) shell=$OPTARG ;;
    G) group=$OPTARG ;;
    u) uid=$OPTARG ;;
    k) ;;
    *) exit 1 ;;
  esac
done
shift $((OPTIND - 1))
user=$1
[ -n "$user" ] || { echo "adduser: no user" >&2; exit 1; }
[ -z "$2" ] || exec addgroup "$user" "$2"
if grep -q "^$user:" /etc/passwd; then
  echo "adduser: user '$user' in use" >&2
  exit 1
fi
if [ -z "$uid" ]; then
  uid=$first
  while grep -q "^[^:]*:[^:]*:$uid:" /etc/passwd || { [ -z "$group" ] && grep -q "^[^:]*:[^:]*:$uid:" /etc/group; }; do
    uid=$((uid + 1))
  done
fi
if [ -n "$group" ]; then
  gid=$(sed -n "s/^$group:[^:]*:\([0-9]*\):.*/\1/p" /etc/group)
  [ -n "$gid" ] || { echo "adduser: unknown group $group" >&2; exit 1; }
else
  gid=$uid
  addgroup -g "$gid" "$user" || exit 1
fi
: "${home:=/home/$user}"
echo "$user:x:$uid:$gid:$gecos:$home:$shell" >>/etc/passwd
echo "$user:!:19844:0:99999:7:::" >>/etc/shadow
if [ -n "$make" ] && [ ! -e "$home" ]; then
  mkdir -p "$home"
  chown "$uid:$gid" "$home"
  chmod 2755 "$home"
fi
