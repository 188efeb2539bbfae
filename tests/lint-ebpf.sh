#!/usr/bin/env bash
# Clippy for the program in the kernel. It has no standard library to link with, so it is checked for its
# own target with a core library that is built from source, as xdp-balancer/build.rs does.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

toolchain=${SELVEDGE_BPF_TOOLCHAIN:-}
if [ -z "$toolchain" ]; then
    if rustup run nightly cargo clippy --version >/dev/null 2>&1; then
        toolchain=nightly
    else
        toolchain=$(rustup show active-toolchain | cut -d ' ' -f 1)
    fi
fi
# build-std on a stable compiler; without effect on nightly.
export RUSTC_BOOTSTRAP=1
target_dir=${CARGO_TARGET_DIR:-$PWD/target}/lint-ebpf
arch=$(uname -m)
export CARGO_ENCODED_RUSTFLAGS="--cfg=bpf_target_arch=\"$arch\""
exec rustup run "$toolchain" cargo clippy --package xdp-balancer-ebpf --bins --release --locked \
    --target bpfel-unknown-none -Z build-std=core --target-dir "$target_dir" -- -D warnings
