#!/usr/bin/env bash
# Form and habits of the unikernel's workspace. Usage: unikernel/lint.sh DIRECTORY (where build.sh builds)
set -euo pipefail
export CARGO_TARGET_DIR=${1:?usage: unikernel/lint.sh DIRECTORY}/cargo
cd "$(dirname "${BASH_SOURCE[0]}")"

cargo fmt --all --check
cargo clippy --locked --all-targets -p unikernel-core -- -D warnings
cargo clippy --release --locked --target x86_64-unknown-none -p unikernel-solo5 --features unikernel-solo5/storage -- -D warnings
cargo clippy --release --locked --target x86_64-unknown-none -p unikernel-solo5 -p unikernel-pvh -p unikernel-xen -- -D warnings
