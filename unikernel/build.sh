#!/usr/bin/env bash
# Builds the reference unikernel's images and the Solo5 tenders that start them. Usage: unikernel/build.sh DIRECTORY
#
#   DIRECTORY/solo5-spt, solo5-hvt   the tenders
#   DIRECTORY/unikernel.spt, .hvt    images for them
#   DIRECTORY/unikernel-disk.spt, .hvt   the same for an instance with a disk, without which they do not start
#   DIRECTORY/unikernel.pvh          the image for QEMU's microvm and Firecracker
#   DIRECTORY/unikernel.xen          the image for Xen, as a PV or a PVH guest
#
# Solo5 0.7.2 comes in the crate solo5-sys, which the lock file names with its checksum. A second run builds what has
# changed only.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "${1:?usage: unikernel/build.sh DIRECTORY}"
out=$(cd "$1" && pwd)
readonly TARGET=x86_64-unknown-none SOLO5=0.7.2
cd "$here"

fail() {
    printf 'unikernel: %s\n' "$*" >&2
    exit 1
}

# Where cargo keeps the source of solo5-sys; it is fetched if it is not there.
solo5_source() {
    local manifest
    manifest=$(cargo metadata --locked --all-features --format-version 1 |
        grep -o '"manifest_path":"[^"]*/solo5-sys-[^"]*/Cargo.toml"' | cut -d '"' -f 4)
    [ -n "$manifest" ] || fail "cargo does not know where solo5-sys lies"
    echo "${manifest%/Cargo.toml}/solo5"
}

# Tenders and bindings. The crate lacks the file from which a release takes its version.
build_solo5() {
    [ ! -e "$out/solo5/built" ] || return 0
    rm -rf "$out/solo5"
    cp -r "$(solo5_source)" "$out/solo5"
    printf '#define SOLO5_VERSION "v%s"\n' "$SOLO5" >"$out/solo5/include/version.h.distrib"
    (
        cd "$out/solo5"
        ./configure.sh
        make SUBDIRS="tenders toolchain bindings"
    ) >"$out/solo5.log" 2>&1 || fail "Solo5 could not be built; see $out/solo5.log"
    touch "$out/solo5/built"
}

# $1 target: spt or hvt. $2 the image's name without it. $3 where it was compiled.
link_solo5() {
    ld -static -nostdlib -z max-page-size=4096 -z noexecstack --strip-all --build-id=none \
        -T "$out/solo5/bindings/solo5_$1.lds" -o "$out/$2.$1.new" \
        "$out/solo5/bindings/solo5_$1.o" "$3/$TARGET/release/libunikernel_solo5.a"
    mv "$out/$2.$1.new" "$out/$2.$1"
    install "$out/solo5/tenders/$1/solo5-$1" "$out/solo5-$1"
}

build_solo5
CARGO_TARGET_DIR="$out/cargo" cargo build --quiet --release --locked --target "$TARGET" \
    -p unikernel-solo5 -p unikernel-pvh -p unikernel-xen
# Features are the whole build's, so it is one of its own.
CARGO_TARGET_DIR="$out/cargo-disk" cargo build --quiet --release --locked --target "$TARGET" \
    -p unikernel-solo5 --features storage
for target in spt hvt; do
    link_solo5 "$target" unikernel "$out/cargo"
    link_solo5 "$target" unikernel-disk "$out/cargo-disk"
done
for port in pvh xen; do
    install "$out/cargo/$TARGET/release/unikernel-$port" "$out/unikernel.$port"
done
