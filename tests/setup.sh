#!/usr/bin/env bash
# Installs what this repository needs on a Debian or Ubuntu that has rustup. Each step looks before it acts:
# a second run changes nothing, needs no network and no root.
#
#   build   the linker for BPF objects, the standard library's source, the crates of Cargo.lock
#   lab     what the namespace lab and the demo run: container engine, registry, nginx, tools; a BPF file system
#   unikernel   what the reference unikernel is built with, and the emulator that runs it
#   kernels Debian's kernels that the program is tried on, in target/kernels; needs a Debian
#   xen     what boots the Xen lab (tests/xen/lab); its own packages it fetches itself, and installs none
#   lint    rustfmt and clippy
#   deb     cargo-deb
#   check   cargo-deny, and mmdebstrap in which the package is tried
#   api     schemathesis, in target/schemathesis
#   forecast  statsmodels, in target/statsmodels
#   peers   other DNS software, for tests/conformance/run.sh and `make bench` only
#   all     all of these but peers
set -euo pipefail

readonly BPF_LINKER=0.13.0 CARGO_DEB=3.8.0 CARGO_DENY=0.20.2 SCHEMATHESIS=4.32.5 STATSMODELS=0.15.0
# The LLVMs that this bpf-linker can be built with; it must not be older than the compiler's own.
readonly LLVMS=(21 22 23)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# A bare shell often lacks where cargo installs to, and where an engine lies.
export PATH="$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin:/usr/sbin:/sbin"
export DEBIAN_FRONTEND=noninteractive

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}
has() { command -v "$1" >/dev/null; }
is_root() { [ "$(id -u)" = 0 ]; }
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]; }

# --- packages -------------------------------------------------------------------------------------------

apt() { apt-get -q -o DPkg::Lock::Timeout=600 "$@" >&2; }

updated=
refresh() {
    [ -z "$updated" ] || return 0
    # The lists' lock is not waited for by apt-get itself.
    local attempt
    for attempt in 1 2 3 4 5 6; do
        if apt update; then
            updated=1
            return 0
        fi
        say "the package lists could not be read (attempt $attempt of 6)"
        sleep 5
    done
    fail "apt-get update does not work; see the lines above"
}

# Whether the archive has a package, with a look at what is known before the lists are read anew.
offered() {
    apt-cache show "$1" >/dev/null 2>&1 && return 0
    is_root || return 1
    refresh
    apt-cache show "$1" >/dev/null 2>&1
}

# Forbids starting services while packages are installed. One that the administrator has made stays, and is
# obeyed; ours is known by its second line, so that one left by a killed run goes too.
readonly POLICY=/usr/sbin/policy-rc.d POLICY_MARK='# made by selvedge tests/setup.sh'
forbid_starts() {
    [ ! -e "$POLICY" ] || return 0
    printf '#!/bin/sh\n%s\nexit 101\n' "$POLICY_MARK" >"$POLICY"
    chmod 755 "$POLICY"
}
allow_starts() {
    if is_root && [ -e "$POLICY" ] && grep -qxF "$POLICY_MARK" "$POLICY"; then rm -f "$POLICY"; fi
}
trap allow_starts EXIT
# So that the trap runs when a signal ends the script, too.
trap 'exit 130' INT
trap 'exit 143' TERM

install_packages() {
    local missing=() package
    for package; do installed "$package" || missing+=("$package"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    has apt-get || fail "this system has no apt-get; install the counterparts of: ${missing[*]}"
    is_root || fail "not root; run as root: apt-get install --no-install-recommends ${missing[*]}"
    say "installing ${missing[*]}"
    refresh
    forbid_starts
    apt install -y --no-install-recommends "${missing[@]}" || fail "these could not be installed: ${missing[*]}"
    allow_starts
}

# --- Rust -----------------------------------------------------------------------------------------------

need_rust() {
    if ! has cargo || ! has rustup; then
        fail "cargo and rustup are not found: install them first, see https://rustup.rs"
    fi
}

# A tool of crates.io in one version. $1 crate, $2 version, the rest: options for cargo install.
cargo_tool() {
    local crate=$1 version=$2
    shift 2
    local found
    found=$("$crate" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1 || true)
    # A newer one is the user's own choice and good enough.
    if [ -n "$found" ] && [ "$(printf '%s\n' "$version" "$found" | sort -V | head -n 1)" = "$version" ]; then
        return 0
    fi
    need_rust
    say "installing $crate $version"
    # The tool is built where it cannot disturb this repository's own build.
    env -u CARGO_TARGET_DIR cargo install "$crate" --version "$version" --locked "$@" >&2 ||
        fail "$crate $version could not be built; see the lines above"
}

# The toolchain that compiles the BPF object: nightly where there is one, else this repository's own.
bpf_toolchain() {
    if rustup run nightly rustc --version >/dev/null 2>&1; then
        echo nightly
    else
        rustup show active-toolchain | cut -d ' ' -f 1
    fi
}

step_build() {
    need_rust
    has cc || install_packages gcc libc6-dev
    has make || install_packages make

    local toolchain sysroot
    toolchain=$(bpf_toolchain)
    sysroot=$(rustup run "$toolchain" rustc --print sysroot)
    if [ ! -f "$sysroot/lib/rustlib/src/rust/library/core/Cargo.toml" ]; then
        say "adding rust-src to $toolchain"
        rustup component add rust-src --toolchain "$toolchain" >&2 ||
            fail "rust-src could not be added to $toolchain; the BPF target's core library is built from it"
    fi

    if ! bpf-linker --version >/dev/null 2>&1; then
        local of_rust version llvm=
        of_rust=$(rustup run "$toolchain" rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
        for version in "${LLVMS[@]}"; do
            if [ "$version" -ge "$of_rust" ] && offered "llvm-$version-dev"; then
                llvm=$version
                break
            fi
        done
        [ -n "$llvm" ] || fail "bpf-linker needs LLVM $of_rust or newer (toolchain $toolchain), and this system's" \
            "package sources have no llvm-N-dev for N in ${LLVMS[*]} that would do; add https://apt.llvm.org" \
            "or install an older toolchain, then run this again"
        install_packages "llvm-$llvm-dev" "libpolly-$llvm-dev" libzstd-dev zlib1g-dev gcc g++ make
        LLVM_PREFIX=/usr/lib/llvm-$llvm \
            cargo_tool bpf-linker "$BPF_LINKER" --no-default-features --features "llvm-$llvm"
    fi

    if ! cargo fetch --locked --offline >/dev/null 2>&1; then
        say "fetching the crates of Cargo.lock"
        cargo fetch --locked >&2 || fail "the crates of Cargo.lock could not be fetched"
    fi
}

# --- the lab --------------------------------------------------------------------------------------------

# No service that comes with the lab's packages shall be there after the next boot either: the lab starts
# its own engine and its nginx runs in containers. What was installed before is not ours to change.
leave_disabled() {
    if has systemctl; then systemctl --quiet disable "$@" >/dev/null 2>&1 || true; fi
}

step_lab() {
    # An engine of another source is as good; only the daemon matters.
    if ! has dockerd; then
        install_packages docker.io
        leave_disabled docker.service docker.socket containerd.service
    fi
    has iptables || install_packages iptables
    # Only looks at what the daemon wrote into the kernel.
    has nft || install_packages nftables
    if ! has nginx; then
        install_packages nginx-light
        leave_disabled nginx.service
    fi
    # An OCI registry that is not ours, to pull from and push to.
    if ! has docker-registry; then
        install_packages docker-registry
        leave_disabled docker-registry.service
    fi
    installed busybox-static || install_packages busybox-static
    has ip || install_packages iproute2
    has ethtool || install_packages ethtool
    has dig || install_packages bind9-dnsutils
    has curl || install_packages curl
    # Reads what is captured.
    has tshark || install_packages tshark
    # Resolvers behind a node, and what they ask.
    local server package program service
    for server in knot:knotd:knot unbound:unbound:unbound knot-resolver:kresd:kresd@1; do
        IFS=: read -r package program service <<<"$server"
        if ! has "$program" && offered "$package"; then
            install_packages "$package"
            leave_disabled "$service"
        fi
    done
    # The paper's second container is made of it.
    /usr/bin/python3 -c 'import flask' 2>/dev/null || install_packages python3-flask
    has openssl || install_packages openssl
    has wrk || install_packages wrk
    # XDP programs that are not ours.
    installed xdp-tools || install_packages xdp-tools
    # A clock that is moved under a running program.
    has faketime || install_packages faketime
    has python3 || install_packages python3-minimal
    # Another engine behind Docker's interface; not on every distribution.
    if ! has podman && offered podman; then
        install_packages podman
        leave_disabled podman.service podman.socket
    fi

    if [ "$(stat -f -c %T /sys/fs/bpf 2>/dev/null || true)" != bpf_fs ]; then
        is_root || fail "not root; run as root: mount -t bpf bpf /sys/fs/bpf"
        say "mounting a BPF file system at /sys/fs/bpf"
        mount -t bpf bpf /sys/fs/bpf || fail "no BPF file system can be mounted at /sys/fs/bpf; does this kernel have BPF?"
    fi
}

# An emulator is not needed to build; without KVM it is what the microVM technologies run on.
step_unikernel() {
    need_rust
    has cc || install_packages gcc libc6-dev
    has make || install_packages make
    has ld || install_packages binutils
    has pkg-config || install_packages pkg-config
    pkg-config --exists libseccomp || install_packages libseccomp-dev
    has qemu-system-x86_64 || install_packages qemu-system-x86
    local own
    own=$(rustup show active-toolchain | cut -d ' ' -f 1)
    if ! rustup target list --installed --toolchain "$own" | grep -qx x86_64-unknown-none; then
        say "adding x86_64-unknown-none to $own"
        rustup target add x86_64-unknown-none --toolchain "$own" >&2 ||
            fail "the target x86_64-unknown-none could not be added to $own; the unikernel is built for it"
    fi
    if ! cargo fetch --locked --offline --manifest-path unikernel/Cargo.toml >/dev/null 2>&1; then
        say "fetching the crates of unikernel/Cargo.lock"
        cargo fetch --locked --manifest-path unikernel/Cargo.toml >&2 ||
            fail "the crates of unikernel/Cargo.lock could not be fetched"
    fi
}

# Kernels of the releases that the package is for, and what makes a machine of one.
step_kernels() {
    has cpio || install_packages cpio
    has xz || install_packages xz-utils
    has zstd || install_packages zstd
    has modprobe || install_packages kmod
    has qemu-system-x86_64 || install_packages qemu-system-x86
    local target=${CARGO_TARGET_DIR:-$root/target}
    tests/kernels/fetch.sh 6.1 bookworm "$target/kernels" && tests/kernels/fetch.sh 6.12 trixie "$target/kernels" ||
        fail "Debian's kernels could not be fetched; see the lines above"
}

# The emulator comes with the libraries that the lab's own one is run with.
step_xen() {
    local package
    for package in qemu-system-x86:qemu-system-x86_64 seabios:/usr/share/seabios/bios-256k.bin cpio:cpio xz-utils:xz openssh-client:ssh; do
        has "${package#*:}" || [ -e "${package#*:}" ] || install_packages "${package%%:*}"
    done
    # The lab asks these what there is.
    [ -n "$(apt-cache search --names-only '^xen-system-amd64$' 2>/dev/null || true)" ] || ! is_root || refresh
}

step_lint() {
    need_rust
    local bpf own
    bpf=$(bpf_toolchain)
    own=$(rustup show active-toolchain | cut -d ' ' -f 1)
    rustup run "$own" cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt --toolchain "$own" >&2
    for toolchain in "$own" "$bpf"; do
        rustup run "$toolchain" cargo clippy --version >/dev/null 2>&1 ||
            rustup component add clippy --toolchain "$toolchain" >&2
    done
}

step_deb() {
    # They find the shared libraries that binaries need, and take symbols out of them.
    has dpkg-shlibdeps || install_packages dpkg-dev
    has strip || install_packages binutils
    cargo_tool cargo-deb "$CARGO_DEB"
}

step_check() {
    cargo_tool cargo-deny "$CARGO_DENY"
    has mmdebstrap || install_packages mmdebstrap
}

# One package of PyPI in an environment of its own below target: name, version.
python_tool() {
    local name=$1 version=$2 venv
    venv="${CARGO_TARGET_DIR:-$root/target}/$name"
    if [ "$("$venv/bin/python" -c "import importlib.metadata as m; print(m.version('$name'))" 2>/dev/null)" = "$version" ]; then
        return 0
    fi
    has python3 || install_packages python3-minimal
    python3 -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
    say "installing $name $version"
    rm -rf "$venv"
    python3 -m venv "$venv" && "$venv/bin/pip" -q install "$name==$version" >&2 ||
        fail "$name $version could not be installed from PyPI"
}

# Asks everything that an OpenAPI document describes.
step_api() {
    python_tool schemathesis "$SCHEMATHESIS"
}

# What forecasts are measured beside.
step_forecast() {
    python_tool statsmodels "$STATSMODELS"
}

# Servers to compare with, resolvers and forwarders in front of us, tools that look at us. Each is in Debian; what
# an archive lacks is left out, and the conformance run says so.
step_peers() {
    local wanted=(knot knot-dnsutils nsd bind9 bind9-dnsutils bind9-utils unbound knot-resolver dnsmasq-base dnsviz zonemaster-cli
        python3-dnspython dnsperf) package found=()
    for package in "${wanted[@]}"; do
        if installed "$package" || offered "$package"; then found+=("$package"); else say "$package is not in this archive"; fi
    done
    local before=() service
    for service in knot nsd named unbound kresd@1; do
        if has systemctl && systemctl --quiet is-enabled "$service" 2>/dev/null; then before+=("$service"); fi
    done
    install_packages "${found[@]}"
    for service in knot nsd named unbound kresd@1; do
        case " ${before[*]-} " in *" $service "*) ;; *) leave_disabled "$service" ;; esac
    done
}

# --------------------------------------------------------------------------------------------------------

for step in "${@:-all}"; do
    case $step in
    build | lab | unikernel | kernels | xen | lint | deb | check | api | forecast | peers) "step_$step" ;;
    all)
        step_build
        step_lab
        step_unikernel
        step_kernels
        step_xen
        step_lint
        step_deb
        step_check
        step_api
        ;;
    *)
        say "no such step: $step; there are build, lab, unikernel, kernels, xen, lint, deb, check, api, forecast, peers, all"
        exit 2
        ;;
    esac
done
say "ready: ${*:-all}"
