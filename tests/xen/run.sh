#!/usr/bin/env bash
# Tests on a real Xen: boots the lab, copies the tests into dom0, runs them there.
#   tests/xen/run.sh PACKAGE TEST...
# Prints the runner's lines; exit status 0 where all passed, or where the lab's packages cannot be had, which is said as
# SKIPPED.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
package=${1:?usage: tests/xen/run.sh PACKAGE TEST...}
shift
selected=()
for test in "$@"; do selected+=(--test "$test"); done

# Not beside the boot: a compiler takes the processors from the emulator.
built=$(cargo test --release --locked -p "$package" "${selected[@]}" --no-run 2>&1) || {
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

for test in "$@"; do
    program=$(grep -oE "\\(.*/$test-[0-9a-f]+\\)" <<<"$built" | tr -d '()')
    # Without what only a debugger reads: it would be copied through an emulated machine.
    small=$(mktemp)
    strip --strip-debug -o "$small" "$program"
    "$here/lab" put "$small" "/tmp/$test"
    rm -f "$small"
    echo "xen: $test"
    # One after another: there is memory for few guests, and each looks for what is left.
    "$here/lab" exec "/tmp/$test --ignored --test-threads=1 --show-output" || status=1
done
exit "$status"
