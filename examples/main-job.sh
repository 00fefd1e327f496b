#!/usr/bin/env bash
# The main job, start to finish: builds examples/python-web and examples/c-static with the embedded daemon and looks at
# what came out. Each check prints PROVED, FAILED or SKIPPED with its reason.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
ROOT=$PWD
CACHE=${RBUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rbuild}
TARGET=${CARGO_TARGET_DIR:-$(cargo metadata --no-deps --format-version 1 2>/dev/null | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')}
RBUILD=${RBUILD:-${TARGET:-target}/debug/rbuild}
WORK=$CACHE/main-job
MIRROR=${RBUILD_MIRROR_DIR:-$CACHE/mirror}
PATH=$PATH:/usr/sbin:/sbin
PROJECT=$ROOT/examples/python-web
APP_PORT=${APP_PORT:-18734}
proved=0 failed=0 skipped=0
registry_pid= daemon_pid= container=

PROVED() { proved=$((proved + 1)); echo "PROVED   $*"; }
FAILED() { failed=$((failed + 1)); echo "FAILED   $*"; }
SKIPPED() { skipped=$((skipped + 1)); echo "SKIPPED  $*"; }
have() { command -v "$1" >/dev/null; }

finish() {
  if [ -n "$container" ]; then runc kill "$container" KILL 2>/dev/null; sleep 0.3; runc delete -f "$container" 2>/dev/null; fi
  if [ -n "$daemon_pid" ]; then kill "$daemon_pid" 2>/dev/null; fi
  if [ -n "$registry_pid" ]; then kill "$registry_pid" 2>/dev/null; fi
}
trap finish EXIT

[ -x "$RBUILD" ] || { echo "no program $RBUILD: cargo build -p rbuild-cli makes it" >&2; exit 1; }
rm -rf "$WORK"
mkdir -p "$WORK/logs"

# --- where base images come from -------------------------------------------------------------------------------------
config=$WORK/rbuildd.toml
printf 'root = "%s/state"\n' "$WORK" >"$config"
data=$MIRROR; [ -d "$MIRROR/data" ] && data=$MIRROR/data
if [ -d "$data/docker" ] && have docker-registry; then
  port=$((20000 + RANDOM % 20000))
  cat >"$WORK/registry.yml" <<Y
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: "$data" } }
http: { addr: "127.0.0.1:$port" }
Y
  docker-registry serve "$WORK/registry.yml" >"$WORK/logs/registry.log" 2>&1 &
  registry_pid=$!
  for _ in $(seq 50); do curl -fs "http://127.0.0.1:$port/v2/" >/dev/null && break; sleep 0.1; done
  cat >>"$config" <<T
[registry."docker.io"]
  mirrors = ["127.0.0.1:$port"]
[registry."127.0.0.1:$port"]
  http = true
T
  echo "base images: the local mirror in $MIRROR"
else
  echo "base images: docker.io (no local mirror in $MIRROR; ./run main makes one where it can)"
fi
export BUILDKITD_CONFIG=$config RBUILD_ROOT=$WORK/state
unset RBUILD_HOST BUILDKIT_HOST

# A host with a certificate authority of its own hands it to pip as a secret.
secret=()
bundle=/etc/ssl/certs/ca-certificates.crt
[ -r $bundle ] && secret=(--secret "id=ca,src=$bundle")

build() { # build NAME ARGUMENTS... ; the log is logs/NAME.log
  local name=$1 begin=$SECONDS; shift
  if "$RBUILD" build --progress plain "${secret[@]}" "$@" >"$WORK/logs/$name.log" 2>&1; then
    echo "built $name in $((SECONDS - begin)) s"
  else
    echo "building $name failed; the end of $WORK/logs/$name.log:"
    tail -n 15 "$WORK/logs/$name.log" | sed 's/^/  | /'
    return 1
  fi
}

# Bytes of all layers of an OCI layout's one image.
layers_size() {
  local manifest
  manifest=$(manifest_of "$1")
  jq '[.layers[].size] | add' "$manifest"
}
manifest_of() { # follows one index
  local blob
  blob=$1/blobs/$(jq -r '.manifests[0].digest' "$1/index.json" | tr : /)
  if jq -e '.manifests' "$blob" >/dev/null; then blob=$1/blobs/$(jq -r '.manifests[0].digest' "$blob" | tr : /); fi
  echo "$blob"
}

# --- the multi-stage build --------------------------------------------------------------------------------------------
if ! build runtime --target runtime --output "type=oci,dest=$WORK/runtime.tar,name=example/guestbook:latest" "$PROJECT"; then
  FAILED "the example does not build: nothing else can be looked at"
  echo "$proved proved, $failed failed, $skipped skipped"
  exit 1
fi
if [ -S /run/rbuild/rbuildd.sock ]; then
  SKIPPED "building with no daemon: there is one on /run/rbuild/rbuildd.sock, stop it to see this"
else
  PROVED "rbuild build --target runtime works with no daemon running and nothing but base images configured"
fi
log=$WORK/logs/runtime.log
if ! grep -q '\[builder' "$log"; then
  FAILED "the log shows no step of the stage builder"
elif grep -qE '\[(test|docs)[ \]]' "$log"; then
  FAILED "a step of the stages test or docs ran"
else
  PROVED "the stages test and docs were not executed"
fi
if grep -qE 'Building wheel.*markupsafe|Building wheel for (M|m)arkup' "$log"; then
  PROVED "pip compiled a package in the stage builder"
else
  FAILED "pip did not compile markupsafe"
fi

# --- what left the client ---------------------------------------------------------------------------------------------
printf 'FROM scratch\nCOPY . /\n' >"$WORK/Everything"
if build context -f "$WORK/Everything" --output "type=local,dest=$WORK/context" "$PROJECT"; then
  ignored=$(cd "$WORK/context" && find . \( -name .env -o -name '*.md' -o -name '*.py[co]' -o -name 'Dockerfile*' -o -name .dockerignore \) ! -path ./docs/index.md)
  if [ -n "$ignored" ]; then
    FAILED "ignored files reached the daemon: $ignored"
  elif [ ! -f "$WORK/context/docs/index.md" ] || [ ! -f "$WORK/context/app/web.py" ]; then
    FAILED "files that are not ignored did not reach the daemon"
  else
    PROVED "no ignored file left the client, and the excepted one did"
  fi
else
  FAILED "a build that copies the whole context"
fi

# --- what is in the image ---------------------------------------------------------------------------------------------
mkdir -p "$WORK/runtime" && tar -xf "$WORK/runtime.tar" -C "$WORK/runtime"
if ! have jq; then
  SKIPPED "what is in the layers: jq is not installed (apt-get install jq)"
else
  compilers=
  for digest in $(jq -r '.layers[].digest' "$(manifest_of "$WORK/runtime")"); do
    compilers+=$(tar -tf "$WORK/runtime/blobs/${digest/://}" 2>/dev/null | grep -E '(^|/)(gcc|cc|cc1|g\+\+|x86_64-linux-gnu-gcc)(-[0-9]+)?$|share/doc/build-essential')
  done
  if [ -z "$compilers" ]; then
    PROVED "no layer of the image holds a compiler, so none of the stage builder is in it"
  else
    FAILED "the image holds a compiler: $compilers"
  fi
  if build single -f "$PROJECT/Dockerfile.single" --output "type=oci,dest=$WORK/single.tar" "$PROJECT"; then
    mkdir -p "$WORK/single" && tar -xf "$WORK/single.tar" -C "$WORK/single"
    small=$(layers_size "$WORK/runtime") large=$(layers_size "$WORK/single")
    ratio=$(awk "BEGIN { printf \"%.1f\", $large / $small }")
    words="the image has $((small / 1000000)) MB, the single-stage one $((large / 1000000)) MB: $ratio times smaller"
    if awk "BEGIN { exit !($ratio >= 2) }"; then PROVED "$words"; else FAILED "$words, at least 2 were expected"; fi
  else
    FAILED "the single-stage Dockerfile does not build"
  fi
fi

# --- the image runs ---------------------------------------------------------------------------------------------------
# unpack ARCHIVE NAME: a runc bundle in WORK/bundle-NAME, on the host's network
unpack() {
  skopeo copy -q --insecure-policy "oci-archive:$1" "oci:$WORK/layout-$2:latest" 2>"$WORK/logs/skopeo-$2.log" || return 1
  umoci unpack --image "$WORK/layout-$2:latest" "$WORK/bundle-$2" >"$WORK/logs/umoci-$2.log" 2>&1 || return 1
  jq '.process.terminal = false | del(.linux.namespaces[] | select(.type == "network" or .type == "cgroup")) | .linux.resources = {}
      | .mounts |= map(select(.destination != "/sys/fs/cgroup"))' \
    "$WORK/bundle-$2/config.json" >"$WORK/config.json" && mv "$WORK/config.json" "$WORK/bundle-$2/config.json"
}
missing=
for program in skopeo umoci runc jq curl; do have $program || missing+=" $program"; done
[ "$(id -u)" = 0 ] || missing+=" root"
if [ -n "$missing" ]; then
  SKIPPED "starting the image: this needs$missing"
elif ! unpack "$WORK/runtime.tar" runtime; then
  FAILED "skopeo copy or umoci unpack of the image: see $WORK/logs"
else
  PROVED "skopeo copy and umoci unpack take the image"
  bundle_config=$WORK/bundle-runtime/config.json
  jq --arg port "PORT=$APP_PORT" '.process.env |= map(select(startswith("PORT=") | not)) + [$port]' "$bundle_config" >"$WORK/c" && mv "$WORK/c" "$bundle_config"
  container=rbuild-main-job-$$
  runc run -b "$WORK/bundle-runtime" "$container" >"$WORK/logs/run.log" 2>&1 </dev/null &
  answer=
  for _ in $(seq 60); do answer=$(curl -fs "http://127.0.0.1:$APP_PORT/health") && break; sleep 0.25; done
  if [[ $answer == *'"compiled": true'* ]]; then
    PROVED "the CMD of the image answers HTTP, with the compiled package: $answer"
  else
    FAILED "the container did not answer (got '$answer'): $(tail -n 3 "$WORK/logs/run.log")"
  fi
fi

# --- again ------------------------------------------------------------------------------------------------------------
if build again --target runtime --output "type=oci,dest=$WORK/again.tar" "$PROJECT"; then
  if grep -q CACHED "$WORK/logs/again.log" && ! grep -qE 'Building wheel|Setting up' "$WORK/logs/again.log"; then
    PROVED "nothing changed: every step of the second build came from the cache, in a process of its own"
  else
    FAILED "the second build ran steps again"
  fi
else
  FAILED "the second build"
fi

# --- the same through a daemon, and by clients of others --------------------------------------------------------------
# Its state is what the builds above left. TLS both ways, as on a build server.
keys() { # keys FOLDER: an authority, a server's key and a client's
  mkdir -p "$1" && cd "$1" || return 1
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=main-job -keyout ca.key -out ca.pem || return 1
  local who
  for who in server client; do
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$who" -keyout $who.key -out $who.csr || return 1
    printf 'subjectAltName=IP:127.0.0.1\nextendedKeyUsage=%sAuth\n' $who >ext
    openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $who.pem || return 1
  done
}
layers_of() { # layers_of NAME: the digests of the layers in NAME.tar
  mkdir -p "$WORK/$1" && tar -xf "$WORK/$1.tar" -C "$WORK/$1" && jq -r '.layers[].digest' "$(manifest_of "$WORK/$1")"
}
TOOLS=$(find "$CACHE/tools" -maxdepth 2 -name buildctl -printf '%h\n' 2>/dev/null | sort | tail -n 1)
TLS=$WORK/tls
if ! have jq || ! have openssl; then
  SKIPPED "a daemon with TLS: jq or openssl is not installed"
elif ! (keys "$TLS") >"$WORK/logs/openssl.log" 2>&1; then
  FAILED "making keys: see $WORK/logs/openssl.log"
else
  address=tcp://127.0.0.1:$((20000 + RANDOM % 20000))
  "$(dirname "$RBUILD")/rbuildd" --config "$config" --root "$WORK/state" --addr "$address" \
    --tlscacert "$TLS/ca.pem" --tlscert "$TLS/server.pem" --tlskey "$TLS/server.key" >"$WORK/logs/rbuildd.log" 2>&1 &
  daemon_pid=$!
  tls=(--tlscacert "$TLS/ca.pem" --tlscert "$TLS/client.pem" --tlskey "$TLS/client.key")
  for _ in $(seq 100); do "$RBUILD" --addr "$address" "${tls[@]}" debug workers >/dev/null 2>&1 && break; sleep 0.1; done
  wanted=$(layers_of again)
  compare() { # compare NAME WORDS
    if [ -n "$wanted" ] && [ "$(layers_of "$1")" = "$wanted" ]; then
      PROVED "$2 gets an image of the same $(wc -l <<<"$wanted") layers"
    else
      FAILED "$2 does not get the same layers; see $WORK/logs/$1.log"
    fi
  }
  if "$RBUILD" --addr "$address" "${tls[@]}" build --progress plain "${secret[@]}" --target runtime \
    --output "type=oci,dest=$WORK/remote.tar" "$PROJECT" >"$WORK/logs/remote.log" 2>&1; then
    compare remote "rbuild --addr $address over mutual TLS"
  else
    FAILED "rbuild through the daemon: $(tail -n 1 "$WORK/logs/remote.log")"
  fi
  if [ ! -x "$TOOLS/buildctl" ] || [ ! -x "$TOOLS/buildx" ]; then
    SKIPPED "the same by buildctl and docker buildx: they need a Go toolchain to be built"
  else
    if "$TOOLS/buildctl" --addr "$address" "${tls[@]}" build --progress plain "${secret[@]}" --frontend dockerfile.v0 --opt target=runtime \
      --local "context=$PROJECT" --local "dockerfile=$PROJECT" --output "type=oci,dest=$WORK/buildctl.tar" >"$WORK/logs/buildctl.log" 2>&1; then
      compare buildctl "buildctl"
    else
      FAILED "buildctl: $(tail -n 1 "$WORK/logs/buildctl.log")"
    fi
    export BUILDX_CONFIG=$WORK/buildx
    if {
      "$TOOLS/buildx" create --name main-job --driver remote \
        --driver-opt "cacert=$TLS/ca.pem,cert=$TLS/client.pem,key=$TLS/client.key" "$address" &&
        "$TOOLS/buildx" build --builder main-job --progress plain "${secret[@]}" --target runtime --output "type=oci,dest=$WORK/buildx.tar" "$PROJECT"
    } >"$WORK/logs/buildx.log" 2>&1; then
      compare buildx "docker buildx with the remote driver"
    else
      FAILED "docker buildx: $(tail -n 1 "$WORK/logs/buildx.log")"
    fi
  fi
  kill "$daemon_pid" 2>/dev/null && wait "$daemon_pid"
  daemon_pid=
fi

# --- the compiled example ---------------------------------------------------------------------------------------------
if build c-static --output "type=oci,dest=$WORK/c.tar" "$ROOT/examples/c-static"; then
  if [ -n "$missing" ]; then
    SKIPPED "starting the compiled example: this needs$missing"
  elif unpack "$WORK/c.tar" c && words=$(runc run -b "$WORK/bundle-c" "rbuild-main-job-c-$$" </dev/null 2>&1) && [[ $words == hello* ]]; then
    PROVED "gcc in one stage, FROM scratch in the next: $(find "$WORK/bundle-c/rootfs" -type f | wc -l) file(s), which say: $words"
  else
    FAILED "the image of examples/c-static does not run: ${words:-}"
  fi
else
  FAILED "examples/c-static does not build"
fi

echo
echo "$proved proved, $failed failed, $skipped skipped; logs are in $WORK/logs"
[ $failed = 0 ]
