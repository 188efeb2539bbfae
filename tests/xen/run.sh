#!/usr/bin/env bash
# Tests on a real Xen: boots the lab once and runs there what is named.
#   tests/xen/run.sh WORD...    (XEN_SKIP=NAME leaves the tests out whose names contain that)
# PACKAGE/TEST is copied into dom0 and runs there; outside/TEST, of the package `tests`, runs out here, beside the lab.
# Prints the runner's lines; exit status 0 where all passed, or where the lab's packages cannot be had, which is said as
# SKIPPED.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
[ $# -gt 0 ] || { sed -n '2,/^# Prints/p' "${BASH_SOURCE[0]}" | sed 's/^# //' >&2 && exit 2; }
selected=() outside=
for word in "$@"; do
    selected+=(--test "${word#*/}")
    case $word in outside/*) outside=1 ;; esac
done

# Not beside the boot: a compiler takes the processors from the emulator. Of the whole workspace, so that crates are built
# with the same features, which is the same crates, as for the other tests.
built=$({ [ -z "$outside" ] || cargo build --release --locked; } 2>&1 &&
    cargo test --release --workspace --exclude xdp-balancer-ebpf --locked "${selected[@]}" --no-run 2>&1) || {
    printf '%s\n' "$built" >&2
    exit 1
}

was_up=
if "$here/lab" exec true 2>/dev/null; then was_up=1; fi
status=0
"$here/lab" up || status=$?
if [ "$status" = 75 ]; then
    echo "SKIPPED (the packages of a Xen host cannot be had): tests/xen/run.sh"
    exit 0
fi
[ "$status" = 0 ] || exit "$status"
# A lab that somebody works with stays.
if [ -z "$was_up" ]; then trap '"$here/lab" down' EXIT; fi

# Our own guest, where it was built (`make unikernel`).
unikernel=${CARGO_TARGET_DIR:-target}/unikernel/unikernel.xen
if [ -f "$unikernel" ]; then "$here/lab" put "$unikernel" /guest/unikernel.xen; fi

runner="--ignored --test-threads=1 --show-output${XEN_SKIP:+ --skip $XEN_SKIP}"
for word in "$@"; do
    test=${word#*/} begun=$SECONDS
    program=$(grep -oE "\\(.*/$test-[0-9a-f]+\\)" <<<"$built" | tr -d '()')
    echo "xen: $word"
    case $word in
    # shellcheck disable=SC2086  # a list of words
    outside/*) "$program" $runner || status=1 ;;
    *)
        # Without what only a debugger reads: it would be copied through an emulated machine.
        small=$(mktemp)
        strip --strip-debug -o "$small" "$program"
        "$here/lab" put "$small" "/tmp/$test"
        rm -f "$small"
        # One after another: there is memory for few guests, and each looks for what is left.
        "$here/lab" exec "/tmp/$test $runner; status=\$?; rm /tmp/$test; exit \$status" || status=1
        ;;
    esac
    echo "xen: $word took $((SECONDS - begun)) s"
done
exit "$status"
