#!/usr/bin/env bash
# Asks the real daemon everything that its OpenAPI document describes, right and wrong (schemathesis): nothing fails
# inside, nothing is answered that the document does not declare. In namespaces of its own; needs root.
#
#   EXAMPLES=50   requests of each kind and operation
#   SEED=1        the same requests again
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ "$(id -u)" != 0 ]; then
    echo "SKIPPED (not root): the API against its document"
    exit 0
fi
schemathesis=${SCHEMATHESIS:-${CARGO_TARGET_DIR:-$PWD/target}/schemathesis/bin/schemathesis}
if [ ! -x "$schemathesis" ]; then
    echo "SKIPPED (no schemathesis; tests/setup.sh api): the API against its document"
    exit 0
fi
# Networks and mounts of its own: an interface and a bridge that the daemon makes end with this script.
if [ "${1:-}" != inside ]; then exec unshare --net --mount --propagation private "$0" inside; fi

readonly PORT=9554
bin=$(realpath "${CARGO_TARGET_DIR:-target}")/release
dir=$(mktemp -d)
pins=/sys/fs/bpf/selvedge-api-$$
daemon=
finish() {
    if [ -n "$daemon" ]; then
        kill "$daemon" 2>/dev/null || true
        wait "$daemon" 2>/dev/null || true
    fi
    "$bin/selvedge" dataplane detach --tables --pin-dir "$pins" >/dev/null 2>&1 || true
    umount "$dir/etc" 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT

ip link set lo up
mkdir "$dir/etc"
token=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
(umask 077 && printf 'fuzz write %s\n' "$token" >"$dir/etc/tokens")
cat >"$dir/etc/selvedge.toml" <<CONFIG
[dns]
listen = ["127.0.0.1"]
[control]
state_dir = "$dir/state"
socket = "$dir/socket"
window = "1s"
log = "warn"
[dataplane]
pin_dir = "$pins"
[api]
listen = "127.0.0.1:$PORT"
token_file = "$dir/etc/tokens"
requests_per_second = 100000
[technology.docker]
socket = "$dir/no-engine.sock"
[[zone]]
name = "edge.test"
[[service]]
name = "video"
names = ["video.edge.test"]
image = "video:1"
max = 4
[[service]]
name = "maps"
names = ["maps.edge.test"]
image = "maps:1"
CONFIG
# An empty configuration is a right one: the services shall not be configured away meanwhile.
mount --bind "$dir/etc" "$dir/etc"
mount -o remount,bind,ro "$dir/etc"

"$bin/selvedged" --config "$dir/etc/selvedge.toml" 2>"$dir/log" &
daemon=$!
export SELVEDGE_SOCKET=$dir/socket
for _ in $(seq 100); do
    "$bin/selvedge" status >/dev/null 2>&1 && break
    kill -0 "$daemon" 2>/dev/null || { cat "$dir/log"; exit 1; }
    sleep 0.1
done

# What is watched has no end; a test of its own watches.
status=0
config=$PWD/tests/api/schemathesis.toml
cd "$dir"
"$schemathesis" --config-file "$config" run "http://127.0.0.1:$PORT/openapi.json" \
    --header "Authorization: Bearer $token" --exclude-operation-id watch \
    --max-examples "${EXAMPLES:-20}" --seed "${SEED:-1}" --no-color || status=$?
if ! kill -0 "$daemon" 2>/dev/null; then
    echo "the daemon ended"
    status=1
fi
grep -aE 'panicked|ERROR' "$dir/log" | grep -av 'configuration' | head -20 || true
[ "$status" = 0 ] || tail -5 "$dir/log"
exit "$status"
