//! Builds the eBPF object with cargo's own build; it is never committed.
//!
//! The object needs `core` built for the BPF target, which stable cargo does not do by itself: a
//! nightly toolchain with `rust-src` is used where there is one, otherwise the toolchain of the outer
//! build with `RUSTC_BOOTSTRAP=1`. `SELVEDGE_BPF_TOOLCHAIN` names another one.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

const PACKAGE: &str = "xdp-balancer-ebpf";
const TOOLCHAIN: &str = "SELVEDGE_BPF_TOOLCHAIN";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed={TOOLCHAIN}");
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..");
    for path in ["xdp-balancer-common/src", "xdp-balancer-common/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={}", root.join(path).display());
    }

    let path = search_path();
    if !env::split_paths(&path).any(|directory| directory.join("bpf-linker").is_file()) {
        return Err(
            "bpf-linker is not installed, and the eBPF object cannot be linked without it: run `make setup`".into()
        );
    }
    // SAFETY: a build script starts with one thread, and none has been started yet.
    unsafe { env::set_var("PATH", path) };

    let outer = || env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".into());
    let toolchain = env::var(TOOLCHAIN).ok().or_else(nightly_with_source).unwrap_or_else(outer);
    if !toolchain.starts_with("nightly") {
        // SAFETY: as above.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    }

    // A wrapper of the outer build (clippy, a compiler cache) knows nothing of the BPF target.
    for key in ["RUSTC_WRAPPER", "CLIPPY_ARGS", "CARGO_BUILD_RUSTFLAGS"] {
        // SAFETY: as above.
        unsafe { env::remove_var(key) };
    }
    // The inner cargo's progress would come out as warnings of the outer one.
    // SAFETY: as above.
    unsafe { env::set_var("CARGO_TERM_QUIET", "true") };
    let package = root.join(PACKAGE);
    let package = package.to_str().ok_or("the path of the sources is not UTF-8")?;
    let other_layout = env::var_os("CARGO_FEATURE_OTHER_LAYOUT").is_some();
    let features: &[&str] = if other_layout { &["other-layout"] } else { &[] };
    aya_build::build_ebpf(
        [aya_build::Package { name: PACKAGE, root_dir: package, features, ..Default::default() }],
        aya_build::Toolchain::Custom(&toolchain),
    )
    .map_err(|error| format!("{error:#} (toolchain {toolchain}; `make setup` installs what is needed)"))?;
    Ok(())
}

/// `PATH` with cargo's directory of installed tools added, which a bare shell often lacks.
fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let directories = env::split_paths(&path).chain(home.map(|home| home.join("bin")));
    env::join_paths(directories).unwrap_or(path)
}

/// "nightly", if rustup has it with the standard library's source.
fn nightly_with_source() -> Option<String> {
    let output = Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output().ok()?;
    let sysroot = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let source = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
    (output.status.success() && source.is_file()).then(|| "nightly".to_owned())
}
