#!/usr/bin/env bash
# Makes the files of this folder anew: gpg, ssh-keygen and git of Debian (gnupg, openssh-client, git).
set -euo pipefail
cd "$(dirname "$0")"
rm -rf openpgp ssh git verdicts
mkdir -p openpgp ssh git
HOME_DIR=$(mktemp -d)
export GNUPGHOME=$HOME_DIR/gnupg
mkdir -m 700 "$GNUPGHOME"
trap 'gpgconf --kill gpg-agent; rm -rf "$HOME_DIR"' EXIT
printf 'What is signed.\nOn two lines, the second without an end.' >message

at() { # at TIME ARGUMENT...
  local time=$1; shift
  gpg -q --batch --yes --no-tty --no-version --pinentry-mode loopback --passphrase '' --faked-system-time "${time}T000000" "$@"
}
key() { # key NAME ALGORITHM USAGE EXPIRY [TIME] [OPTION...]
  local name=$1 algorithm=$2 usage=$3 expiry=$4 time=${5:-20250101}; shift 5 || shift 4
  at "$time" "$@" --quick-generate-key "$name <$name@example.com>" "$algorithm" "$usage" "$expiry"
}
print() { gpg --list-keys --with-colons "$1@example.com" | awk -F: '/^fpr:/ { print $10 }' | sed -n "${2:-1}p"; }
ring() { at 20250601 --armor --export "${2:-$1}@example.com" >"openpgp/$1.pub"; }
sign() { # sign FILE KEY TIME [OPTION...]
  local file=$1 key=$2 time=$3; shift 3
  at "$time" --armor --local-user "$key" "$@" --output "openpgp/$file.asc" --detach-sign message
}

# Algorithms and hashes.
for pair in rsa2048:rsa2048 rsa3072:rsa3072 p256:nistp256 p384:nistp384 p521:nistp521 ed25519:ed25519; do
  key "${pair%%:*}" "${pair#*:}" sign never; ring "${pair%%:*}"
  for hash in SHA256 SHA384 SHA512; do
    # gpg itself refuses to sign with a hash that is shorter than the curve.
    sign "${pair%%:*}-$hash" "${pair%%:*}@example.com" 20250201 --digest-algo $hash || rm -f "openpgp/${pair%%:*}-$hash.asc"
  done
done
for hash in SHA1 SHA224 RIPEMD160; do sign "rsa2048-$hash" rsa2048@example.com 20250201 --digest-algo $hash; done
sign rsa2048-text rsa2048@example.com 20250201 --textmode
sign rsa2048-limited rsa2048@example.com 20250201 --default-sig-expire 30d
sign rsa2048-critical rsa2048@example.com 20250201 --sig-notation '!name@example.com=value'
sign rsa2048-notation rsa2048@example.com 20250201 --sig-notation 'name@example.com=value'
key p256k1 secp256k1 sign never; ring p256k1; sign p256k1 p256k1@example.com 20250201
key dsa dsa2048 sign never; ring dsa; sign dsa dsa@example.com 20250201
key short rsa1024 sign never; ring short; sign short short@example.com 20250201
key sha1 ed25519 sign never 20250101 --cert-digest-algo SHA1; ring sha1; sign sha1 sha1@example.com 20250201
key certify ed25519 cert never; ring certify

# A primary key that only certifies, with a subkey that signs and one that encrypts.
key subkeys rsa2048 cert never
at 20250101 --quick-add-key "$(print subkeys)" cv25519 encr never
at 20250101 --quick-add-key "$(print subkeys)" ed25519 sign 1y
ring subkeys; sign subkeys "$(print subkeys 3)!" 20250201
printf 'key 2\nrevkey\ny\n2\nreplaced by a newer one\n\ny\nsave\n' |
  gpg -q --yes --no-tty --pinentry-mode loopback --passphrase '' --faked-system-time 20250401T000000 --command-fd 0 --edit-key subkeys@example.com
ring subkeys-replaced subkeys
key stolen ed25519 cert never
at 20250101 --quick-add-key "$(print stolen)" ed25519 sign never
sign stolen "$(print stolen 2)!" 20250201
printf 'key 1\nrevkey\ny\n1\n\ny\nsave\n' |
  gpg -q --yes --no-tty --pinentry-mode loopback --passphrase '' --faked-system-time 20250401T000000 --command-fd 0 --edit-key stolen@example.com
ring stolen

# Expiry: over at the end of March; and the same key when its owner had made it last longer, after it signed.
key expired ed25519 sign 20250331T000000; ring expired; sign expired expired@example.com 20250201
at 20250301 --quick-set-expire "$(print expired)" 20260331T000000
ring expired-extended expired

# In gpg's menu 1 is a compromised key and 2 a superseded one. Revocation, with a reason; ring as it was before, too.
key revoked ed25519 sign never; ring revoked-before revoked; sign revoked revoked@example.com 20250201
printf 'y\n1\nthe laptop was stolen\n\ny\n' |
  gpg -q --yes --no-tty --pinentry-mode loopback --passphrase '' --faked-system-time 20250401T000000 --command-fd 0 \
    --output "$HOME_DIR/revocation" --gen-revoke revoked@example.com
at 20250401 --import "$HOME_DIR/revocation"
ring revoked

# Users: one of two revoked, and all of them.
key users ed25519 sign never
at 20250102 --quick-add-uid "$(print users)" 'second <second@example.com>'
at 20250103 --quick-revoke-uid "$(print users)" 'second <second@example.com>'
ring users; sign users users@example.com 20250201

# Two keys in one block, and in two.
at 20250601 --armor --export ed25519@example.com rsa2048@example.com >openpgp/both.pub
cat openpgp/ed25519.pub openpgp/rsa2048.pub >openpgp/concatenated.pub

# SSH.
cp message "$HOME_DIR/message"
for type in ed25519 rsa:2048 rsa:1024 ecdsa:256 ecdsa:384 ecdsa:521; do
  name=${type/:/}; bits=()
  [ "$type" = "${type%:*}" ] || bits=(-b "${type#*:}")
  ssh-keygen -q -t "${type%:*}" "${bits[@]}" -N '' -C "$name@example.com" -f "$HOME_DIR/$name"
  cp "$HOME_DIR/$name.pub" "ssh/$name.pub"
  for hash in sha256 sha512; do
    rm -f "$HOME_DIR/message.sig"
    ssh-keygen -q -Y sign -O hashalg=$hash -f "$HOME_DIR/$name" -n git "$HOME_DIR/message"
    mv "$HOME_DIR/message.sig" "ssh/$name-$hash.sig"
  done
done
ssh-keygen -q -Y sign -f "$HOME_DIR/ed25519" -n file "$HOME_DIR/message"
mv "$HOME_DIR/message.sig" ssh/ed25519-file.sig
ssh-keygen -q -t ed25519 -N '' -C other@example.com -f "$HOME_DIR/other"; cp "$HOME_DIR/other.pub" ssh/other.pub

# Objects of git in both formats: signed by gpg (rsa2048) and by ssh (ed25519), unsigned, a merge of a signed tag.
export GIT_CONFIG_GLOBAL=$HOME_DIR/gitconfig GIT_AUTHOR_DATE=2025-02-01T00:00:00Z GIT_COMMITTER_DATE=2025-02-01T00:00:00Z
git config --global user.name 'A <b> C'; git config --global user.email user@example.com
git config --global init.defaultBranch main; git config --global merge.ff false
printf '#!/bin/sh\nexec gpg --faked-system-time 20250201T000000 "$@"\n' >"$HOME_DIR/gpg"; chmod +x "$HOME_DIR/gpg"
by_gpg=(-c gpg.format=openpgp -c "gpg.program=$HOME_DIR/gpg" -c "user.signingkey=$(print rsa2048)!")
by_ssh=(-c gpg.format=ssh -c "user.signingkey=$HOME_DIR/ed25519.pub")
for format in sha1 sha256; do
  repository=$HOME_DIR/$format
  git init -q --object-format=$format "$repository"
  run() { git -C "$repository" "$@"; }
  keep() { # keep NAME OBJECT
    local id kind; id=$(run rev-parse "$2"); kind=$(run cat-file -t "$id")
    run cat-file "$kind" "$id" >"git/$format-$1"; echo "$format-$1 $kind $id" >>git/ids
  }
  run commit -q --allow-empty -m unsigned; keep unsigned HEAD
  run "${by_gpg[@]}" commit -q -S --allow-empty -m $'by gpg\n\nwith a body\n'; keep gpg HEAD
  run "${by_gpg[@]}" tag -s -m $'tagged by gpg\n\n-----BEGIN PGP SIGNATURE-----\nquoted' gpg; keep tag-gpg gpg
  run tag -a -m 'not signed' plain; keep tag-unsigned plain
  run "${by_ssh[@]}" tag -s -m 'tagged by ssh' ssh; keep tag-ssh ssh
  run checkout -q -b side HEAD^; run "${by_ssh[@]}" commit -q -S --allow-empty -m 'by ssh'; keep ssh HEAD
  run "${by_gpg[@]}" tag -s -m 'side' side-tag
  run checkout -q main; run "${by_ssh[@]}" merge -q -S -m 'a merge' side-tag; keep merge HEAD
done

# What the tools say themselves.
for ring in openpgp/*.pub; do
  for signature in openpgp/*.asc; do
    home=$(mktemp -d "$HOME_DIR/ring.XXXXXX")
    gpg -q --batch --homedir "$home" --faked-system-time 20250601T000000 --import "$ring" 2>/dev/null || true
    verdict=bad
    if gpg -q --batch --homedir "$home" --faked-system-time 20250601T000000 --status-fd 1 --verify "$signature" message 2>/dev/null |
      grep -q '^\[GNUPG:\] GOODSIG'; then verdict=good; fi
    echo "$verdict $(basename "$ring" .pub) $(basename "$signature" .asc)" >>verdicts
    gpgconf --homedir "$home" --kill all; rm -rf "$home"
  done
done
