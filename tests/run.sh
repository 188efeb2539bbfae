#!/usr/bin/env bash
# Runs all tests, then says what was skipped and why, then repeats the runner's closing lines.
#
# A skipped test looks like one that passed; so each says `SKIPPED (reason): name`, and in CI, where
# everything is there that a test may want, a skip is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
log=$target/test.log
mkdir -p "$target"

# The build that upgrades are tested with.
make other-layout
# End-to-end tests drive the binaries that users get.
cargo build --release --locked

# Tests print why they were skipped, and the runner shows what a passed test has printed only when told to.
status=0
cargo test --release --workspace --exclude xdp-balancer-ebpf --locked --no-fail-fast -- --show-output 2>&1 |
    tee "$log" || status=$?

# The unikernel's machine-independent part; it is a workspace of its own.
CARGO_TARGET_DIR="$target/unikernel/cargo" cargo test --locked --manifest-path unikernel/Cargo.toml 2>&1 |
    tee -a "$log" || status=$?

# Needs a Xen host, which is booted for it; a second one at the same time, for each keeps one processor busy. The driver's
# contract is kept by Linux as a PV guest and by our unikernel as a PVH one; `make test-xen-driver` tries Linux as a PVH
# guest, too.
second=$target/xen-lab-2
mkdir -p "$target/xen-lab" "$second"
if tests/xen/image "$target/xen-lab" 2>&1 | tee -a "$log"; then
    ln -sfn "$target/xen-lab/packages" "$target/xen-lab/image" "$second"
fi
XEN_LAB=$second tests/xen/run.sh outside/xen_appliance >"$second/log" 2>&1 &
appliance=$!
XEN_SKIP=pvh_linux_keeps tests/xen/run.sh xen-manager/store xen-manager/domains tests/xen 2>&1 | tee -a "$log" || status=$?
wait "$appliance" || status=$?
tee -a "$log" <"$second/log"
# All that the API's document describes, asked of the daemon.
tests/api/run.sh 2>&1 | tee -a "$log" || status=$?

printf '\n'
skipped=$(grep -aoE 'SKIPPED \(.*\): .*' "$log" | sort -u || true)
count=$(grep -c . <<<"$skipped" || true)
if [ "$count" -gt 0 ]; then
    printf '%s\n' "$skipped"
fi
printf 'skipped: %s\n' "$count"
# The reference traces are not part of the repository and need not be beside it.
if [ "${CI:-}" = true ] && grep -qv '^SKIPPED (no reference traces)' <<<"$skipped" && [ "$count" -gt 0 ]; then
    printf 'in CI nothing else may be skipped\n'
    [ "$status" != 0 ] || status=1
fi

# What failed, and the runner's own last word on each part that has tests.
grep -aE '^test .* \.\.\. FAILED$' "$log" || true
grep -aE '^test result: ' "$log" | grep -av ' 0 passed; 0 failed' || true
exit "$status"
