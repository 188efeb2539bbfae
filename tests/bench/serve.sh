# Sourced by `candidate` and `zone`: runs the real daemon on one interface of the network namespace that we are in,
# with a configuration, a store and pins of its own, until SIGTERM or SIGINT, and leaves nothing.
#
# Neither engine nor instances: the zone's records are all that is asked for. The tables go into the kernel by the
# daemon's ordinary way, and what the kernel passes the daemon answers.

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

bench_top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bench_release=${CARGO_TARGET_DIR:-$bench_top/target}/release
bench_work='' bench_daemon=''

# A directory that goes when the script ends.
bench_begin() {
    [ -x "$bench_release/selvedged" ] || fail "$bench_release/selvedged is not there: run make build"
    [ "$(stat -f -c %T /sys/fs/bpf 2>/dev/null)" = bpf_fs ] || fail "no BPF file system at /sys/fs/bpf: mount one"
    trap bench_end EXIT
    trap 'exit 0' TERM INT
    bench_work=$(mktemp -d "${TMPDIR:-/tmp}/selvedge-bench-XXXXXX")
}

bench_end() {
    trap '' TERM INT
    trap - EXIT
    if [ -n "$bench_daemon" ]; then
        kill -TERM "$bench_daemon" 2>/dev/null
        wait "$bench_daemon" 2>/dev/null
        "$bench_release/selvedge" dataplane detach --tables --pin-dir "/sys/fs/bpf/${bench_work##*/}" >/dev/null 2>&1
    fi
    [ -z "$bench_work" ] || rm -rf "$bench_work" "/sys/fs/bpf/${bench_work##*/}"
}

# bench_serve APEX FILE INTERFACE ADDRESS...
bench_serve() {
    local apex=$1 file=$2 interface=$3 listen='' address
    shift 3
    for address; do listen="$listen${listen:+, }\"$address\""; done
    cat >"$bench_work/selvedge.toml" <<EOF
[dataplane]
interfaces = ["$interface"]
mode = "${LAB_MODE:-native}"
pin_dir = "/sys/fs/bpf/${bench_work##*/}"

[dns]
listen = [$listen]

[control]
state_dir = "$bench_work/state"
socket = "$bench_work/socket"
log = "${LAB_LOG:-warn}"

[[zone]]
name = "$apex"
file = "$file"
EOF
    "$bench_release/selvedged" --config "$bench_work/selvedge.toml" &
    bench_daemon=$!
    # A signal ends `wait` and runs the trap; a daemon that ends by itself has failed.
    wait "$bench_daemon"
    fail "the daemon ended by itself"
}
