#!/usr/bin/env bash
# Makes of a Debian kernel what a test machine boots without a disk: fetch.sh VERSION SUITE DIRECTORY, for example
# `fetch.sh 6.1 bookworm target/kernels`. Needs a Debian host's apt and network; what is there already is left.
#
#   DIRECTORY/VERSION/vmlinux   the kernel, unpacked: an emulated processor takes eight seconds to do it itself
#   DIRECTORY/VERSION/base      first part of the initial file system: a shell, drivers of network cards, `init`
#   DIRECTORY/VERSION/release   as `uname -r` says it; written last
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=$1 suite=$2
mkdir -p "$3/$version"
out=$(cd "$3/$version" && pwd)
[ ! -s "$out/release" ] || [ "$here/init" -nt "$out/release" ] || [ "$here/fetch.sh" -nt "$out/release" ] || exit 0
rm -f "$out/release"

fail() {
    echo "kernels: $*" >&2
    exit 1
}

# Lists and cache of our own: the host's stay as they are, whichever suite it follows.
work=$(mktemp -d "${TMPDIR:-/tmp}/selvedge-kernel-XXXXXX")
trap 'rm -rf "$work"' EXIT
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -s "$keys" ] || fail "$keys is not there; is this a Debian?"
archive=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk '$1 == "Debian" && $2 !~ /security/ { print $2; exit }')
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
echo "deb [signed-by=$keys] ${archive:-http://deb.debian.org/debian} $suite main" >"$work/sources"
cat >"$work/apt" <<EOF
Dir::Etc::SourceList "$work/sources";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$work/lists";
Dir::Cache "$work/cache";
Acquire::Languages "none";
APT::Sandbox::User "root";
EOF
export APT_CONFIG=$work/apt
apt-get -qq update >&2 || fail "the archive of $suite cannot be read"

# The meta package depends on the newest kernel of its suite.
package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-.*\)/\1/p' | head -n 1)
case $package in
"linux-image-$version"*) ;;
*) fail "$suite has ${package:-no kernel}, not $version" ;;
esac
cd "$work"
apt-get -qq download "$package" busybox-static >&2 || fail "$package cannot be fetched"
mkdir root shell
dpkg-deb -x linux-image-*.deb root
dpkg-deb -x busybox-static_*.deb shell
[ -e root/lib ] || ln -s usr/lib root/lib
release=$(ls root/lib/modules)

# Where the packed kernel lies in the file: Documentation/arch/x86/boot.rst, fields setup_sects, payload_offset and
# payload_length. Packers differ by suite; what follows the packed stream are the four bytes of its length.
image=root/boot/vmlinuz-$release
field() { od -An -t "u$2" -j "$1" -N "$2" "$image" | tr -d ' '; }
start=$((($(field 497 1) + 1) * 512 + $(field 584 4)))
dd if="$image" of=packed bs=1M iflag=skip_bytes,count_bytes skip="$start" count=$(($(field 588 4) - 4)) status=none
case $(od -An -tx1 -N4 packed | tr -d ' ') in
fd377a58) xz -dc --single-stream <packed ;;
28b52ffd) zstd -dcq <packed ;;
*) fail "$package: packed in a way that is not known here" ;;
esac >vmlinux
[ "$(head -c 4 vmlinux | tail -c 3)" = ELF ] || fail "$package: no kernel comes out"

# Drivers, and what classifiers and an instances' network are made of, each with what it needs, in the order in which they
# are loaded.
depmod -b root "$release"
mkdir -p base/{bin,dev,proc,sys,run,tmp,t,modules}
for driver in virtio_pci virtio_net igb e1000e sch_ingress cls_bpf bridge; do
    modprobe -d root -S "$release" --show-depends "$driver" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | awk '!seen[$0]++' >files
while read -r file; do
    name=$(basename "${file%.xz}")
    case $file in
    *.xz) xz -dc "$file" >"base/modules/$name" ;;
    *) cp "$file" "base/modules/$name" ;;
    esac
    echo "$name" >>base/modules/order
done <files
cp "$(find shell -path "*/bin/busybox" -type f)" base/bin/busybox
cp "$here/init" base/init
chmod 755 base/init base/bin/busybox
(cd base && find . | cpio -o -H newc -R 0:0 --quiet) >"$out/base"
mv vmlinux "$out/vmlinux"
echo "$release" >"$out/release"
