#!/usr/bin/env bash
# Builds the Debian package. Its path is all that goes to standard output.
set -euo pipefail
exec 9>&1 >&2
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
release=$target/release
# Under target/release, since that is the one place outside the sources that cargo-deb finds wherever
# cargo's target directory is.
extra=$release/package

# All of it, as the other targets do: a part alone would be built with other features, and again later.
cargo build --release --locked

rm -rf "$extra"
mkdir -p "$extra/man1" "$extra/man8"
# Both binaries describe themselves: nothing of this can go stale in the sources.
"$release/selvedge" man "$extra/man"
mv "$extra"/man/*.1 "$extra/man1/"
mv "$extra"/man/*.8 "$extra/man8/"
rmdir "$extra/man"
gzip -9n "$extra"/man1/* "$extra"/man8/*
for shell in bash zsh fish; do
    "$release/selvedge" completions "$shell" >"$extra/selvedge.$shell"
done

deb=$(cargo deb --no-build --strip --locked --package control | tail -n 1)
[ -f "$deb" ]
printf '%s\n' "$deb" >&9
