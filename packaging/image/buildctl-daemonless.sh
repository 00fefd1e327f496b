#!/bin/sh
# Starts a daemon for one call of buildctl, as the script of that name in BuildKit's images does. Environment: BUILDCTL, BUILDKITD,
# BUILDKITD_FLAGS, BUILDCTL_CONNECT_RETRIES_MAX (10), ROOTLESSKIT.
set -eu
: "${BUILDCTL:=buildctl}" "${BUILDKITD:=buildkitd}" "${BUILDKITD_FLAGS:=}" "${BUILDCTL_CONNECT_RETRIES_MAX:=10}" "${ROOTLESSKIT:=}"
dir=$(mktemp -d /tmp/buildctl-daemonless.XXXXXX)
trap 'kill "$daemon" 2>/dev/null || true; wait "$daemon" 2>/dev/null || true; rm -rf "$dir"' EXIT
# Flags and wrappers are several words.
# shellcheck disable=SC2086
$ROOTLESSKIT $BUILDKITD $BUILDKITD_FLAGS --addr "unix://$dir/buildkitd.sock" >"$dir/log" 2>&1 &
daemon=$!
tries=0
until $BUILDCTL --addr "unix://$dir/buildkitd.sock" debug workers >/dev/null 2>&1; do
  tries=$((tries + 1))
  if [ "$tries" -gt "$BUILDCTL_CONNECT_RETRIES_MAX" ] || ! kill -0 "$daemon" 2>/dev/null; then
    echo "could not connect to buildkitd after $BUILDCTL_CONNECT_RETRIES_MAX trials" >&2
    cat "$dir/log" >&2
    exit 1
  fi
  sleep 0.5
done
$BUILDCTL --addr "unix://$dir/buildkitd.sock" "$@"
