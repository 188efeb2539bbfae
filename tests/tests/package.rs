//! The Debian package, tried by installing it into a fresh system: files, the daemon with the configuration
//! as shipped, an upgrade with a program attached, removal, purge, and a look at what is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[path = "package/daemon.rs"]
mod daemon;
#[path = "package/root.rs"]
mod root;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use daemon::{Daemon, unit};
use root::{Root, succeeded};

const UNIT: &str = "/usr/lib/systemd/system/selvedged.service";

/// What must be there, and with which mode.
const FILES: &[(&str, u32)] = &[
    ("/usr/bin/selvedge", 0o755),
    ("/usr/bin/selvedged", 0o755),
    ("/etc/selvedge/selvedge.toml", 0o644),
    (UNIT, 0o644),
    ("/usr/share/man/man1/selvedge.1.gz", 0o644),
    ("/usr/share/man/man8/selvedged.8.gz", 0o644),
    ("/usr/share/doc/selvedge/copyright", 0o644),
    ("/usr/share/doc/selvedge/changelog.Debian.gz", 0o644),
    ("/usr/share/bash-completion/completions/selvedge", 0o644),
    ("/usr/share/zsh/vendor-completions/_selvedge", 0o644),
    ("/usr/share/fish/vendor_completions.d/selvedge.fish", 0o644),
];

fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    // Cargo takes a relative one from where it was called, which for this crate's tests is the workspace.
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |target| workspace.join(target))
}

/// The package to be tried, or why there is none.
fn deb() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("SELVEDGE_DEB") {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "SELVEDGE_DEB names no file: {}", named.display());
        return Ok(named.canonicalize().unwrap());
    }
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let directory =
        fs::read_dir(target().join("debian")).map_err(|_| "no package is built: run make deb".to_owned())?;
    let built = directory.filter_map(|entry| Some(entry.ok()?.path()));
    let built = built.filter(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let newest = built.max_by_key(|path| modified(path)).ok_or("no package is built: run make deb")?;
    if modified(&newest) < modified(&target().join("release/selvedged")) {
        return Err("the package is older than the binaries: run make deb".into());
    }
    Ok(newest)
}

/// A fresh system with the package beside it, or a line that says why not.
fn fresh(test: &str) -> Option<(Root, PathBuf)> {
    let made = if nix::unistd::geteuid().is_root() {
        deb().and_then(|deb| Ok((Root::fresh(&target())?, deb)))
    } else {
        Err("needs root".into())
    };
    match made {
        Ok((root, deb)) => {
            succeeded("ip link", Command::new("ip").args(["link", "set", "lo", "up"]).output().unwrap());
            let pair = ["link", "add", "edge", "type", "veth", "peer", "client"];
            succeeded("ip link", Command::new("ip").args(pair).output().unwrap());
            for end in ["edge", "client"] {
                // Without IPv6 nothing comes up later by itself, which would look like a change of ours.
                succeeded(
                    "ip link",
                    Command::new("ip").args(["link", "set", end, "addrgenmode", "none", "up"]).output().unwrap(),
                );
            }
            Some((root, deb))
        }
        Err(reason) => {
            println!("SKIPPED ({reason}): {test}");
            None
        }
    }
}

fn install(root: &Root, deb: &Path) {
    fs::copy(deb, root.file("/run/selvedge.deb")).unwrap();
    root.run("dpkg", &["-i", "/run/selvedge.deb"]);
}

/// Links, addresses and what is attached, in this thread's namespace.
fn network() -> String {
    let links = succeeded("ip link", Command::new("ip").args(["-d", "-o", "link"]).output().unwrap());
    let addresses = succeeded("ip address", Command::new("ip").args(["-o", "address"]).output().unwrap());
    let routes = succeeded("ip route", Command::new("ip").args(["route", "show", "table", "all"]).output().unwrap());
    format!("{links}{addresses}{routes}")
}

/// What lies in the BPF file system; the kernel itself puts two files there.
fn pins(root: &Root) -> BTreeSet<OsString> {
    fs::read_dir(root.file("/sys/fs/bpf")).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

/// The program attached to an interface.
fn attached(interface: &str) -> Option<u64> {
    let shown = Command::new("ip").args(["-d", "-j", "link", "show", interface]).output().unwrap();
    let shown: Value = serde_json::from_str(&succeeded("ip link", shown)).unwrap();
    shown[0]["xdp"]["prog"]["id"].as_u64()
}

/// Installs nothing and starts nothing but what it must, works as shipped, and is gone when purged.
#[test]
fn installed_started_removed_purged() {
    let Some((root, deb)) = fresh("installed_started_removed_purged") else { return };
    let before = root.listing();
    install(&root, &deb);

    for (path, mode) in FILES {
        let meta = fs::metadata(root.file(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (*mode, 0, 0), "{path}");
        assert!(meta.len() > 0, "{path} is empty");
    }
    for page in ["man1/selvedge.1.gz", "man8/selvedged.8.gz"] {
        let page = root.run("gzip", &["-dc", &format!("/usr/share/man/{page}")]);
        assert!(page.lines().any(|line| line.starts_with(".TH")), "no manual page: {page:.200}");
    }
    root.run("selvedge", &["config", "check", "/etc/selvedge/selvedge.toml"]);
    let enabled = root.file("/etc/systemd/system/multi-user.target.wants/selvedged.service");
    assert!(enabled.is_symlink(), "the unit is not enabled");

    let (untouched, unpinned) = (network(), pins(&root));
    let mut daemon = Daemon::start(&root);
    let status: Value = serde_json::from_str(&root.run("selvedge", &["status", "--json"])).expect("JSON");
    assert!(status.is_object(), "status: {status}");
    daemon.signal(Signal::SIGHUP);
    root.run("selvedge", &["status"]);
    assert!(daemon.runs(), "SIGHUP ended the daemon:\n{}", daemon.said());
    assert_eq!(network(), untouched, "the daemon has changed the network though its configuration names nothing");
    let status = daemon.end(Signal::SIGTERM);
    assert!(status.success(), "after SIGTERM: {status}");
    assert_eq!(network(), untouched, "the daemon has left something in the network");
    assert_eq!(pins(&root), unpinned, "pinned though nothing is to be attached");

    root.run("dpkg", &["-r", "selvedge"]);
    assert!(!root.file("/usr/bin/selvedged").exists() && root.file("/etc/selvedge/selvedge.toml").exists());
    assert!(root.file("/var/lib/selvedge").exists(), "removal must not take the state");
    root.run("dpkg", &["-P", "selvedge"]);
    assert_eq!(left(&before, &root.listing()), Vec::<String>::new(), "after purge");
    assert!(!root.file("/run/selvedge").exists());
}

/// The dataplane's life is neither the daemon's nor an upgrade's; it is the package's.
#[test]
fn upgrade_keeps_the_program_and_removal_takes_it_off() {
    let Some((root, deb)) = fresh("upgrade_keeps_the_program_and_removal_takes_it_off") else { return };
    install(&root, &deb);
    succeeded(
        "ip address",
        Command::new("ip").args(["address", "add", "192.0.2.53/24", "dev", "edge"]).output().unwrap(),
    );
    let config = "[dataplane]\ninterfaces = [\"edge\"]\n[dns]\nlisten = [\"192.0.2.53\"]\n\
                  [[zone]]\nname = \"edge.example.\"\n";
    fs::write(root.file("/etc/selvedge/selvedge.toml"), config).unwrap();
    let (without, unpinned) = (network(), pins(&root));

    let mut daemon = Daemon::start(&root);
    let program = attached("edge").unwrap_or_else(|| panic!("nothing is attached:\n{}", daemon.said()));
    assert_ne!(pins(&root), unpinned, "nothing is pinned:\n{}", daemon.said());
    install(&root, &deb);
    assert!(daemon.runs(), "without systemd an upgrade has nothing to restart the daemon with:\n{}", daemon.said());
    let _ = daemon.end(Signal::SIGKILL);
    install(&root, &deb);
    assert_eq!(attached("edge"), Some(program), "an upgrade must leave the program alone");
    assert_eq!(fs::read_to_string(root.file("/etc/selvedge/selvedge.toml")).unwrap(), config);

    root.run("dpkg", &["-r", "selvedge"]);
    assert_eq!(attached("edge"), None, "removal must take the program off");
    assert_eq!(pins(&root), unpinned, "left after removal");
    assert_eq!(network(), without);
    root.run("dpkg", &["-P", "selvedge"]);
    assert!(!root.file("/etc/selvedge").exists() && !root.file("/var/lib/selvedge").exists());
}

/// What the scripts tell systemd, where it runs: ours is the only unit that is named.
#[test]
fn scripts_touch_no_unit_but_ours() {
    let Some((root, deb)) = fresh("scripts_touch_no_unit_but_ours") else { return };
    // A stand-in that writes down what it is asked; the system has no systemd, so nobody's place is taken.
    fs::create_dir_all(root.file("/run/systemd/system")).unwrap();
    for name in ["systemctl", "deb-systemd-invoke"] {
        let path = root.file(&format!("/usr/local/bin/{name}"));
        fs::write(&path, format!("#!/bin/sh\necho {name} \"$@\" >>/run/asked\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let dpkg = |arguments: &[&str]| {
        let _ = fs::remove_file(root.file("/run/asked"));
        let path = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let output = root.command("dpkg").args(arguments).env("PATH", path).output().unwrap();
        succeeded(&format!("dpkg {}", arguments.join(" ")), output);
        let asked = fs::read_to_string(root.file("/run/asked")).unwrap_or_default();
        asked.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    fs::copy(&deb, root.file("/run/selvedge.deb")).unwrap();
    let invoke = |what: &str| format!("deb-systemd-invoke {what} selvedged.service");
    let acts =
        |asked: Vec<String>| asked.into_iter().filter(|line| !line.ends_with(" daemon-reload")).collect::<Vec<_>>();
    assert_eq!(acts(dpkg(&["-i", "/run/selvedge.deb"])), [invoke("start")]);
    assert_eq!(acts(dpkg(&["-i", "/run/selvedge.deb"])), [invoke("restart")], "an upgrade is one restart");
    assert_eq!(acts(dpkg(&["-r", "selvedge"])), [invoke("stop")]);
    assert_eq!(acts(dpkg(&["-P", "selvedge"])), [] as [String; 0]);
}

/// Settings of the unit that other parts rely on.
#[test]
fn unit_says_what_the_daemon_needs() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/selvedged.service")).unwrap();
    let unit = unit(&text);
    assert_eq!(unit["Type"], ["notify"]);
    assert_eq!(unit["ExecStart"], ["/usr/bin/selvedged"]);
    // Where the command looks for the socket, and the shipped configuration puts the store.
    assert_eq!((&unit["RuntimeDirectory"][..], &unit["StateDirectory"][..]), (&["selvedge"][..], &["selvedge"][..]));
    // The daemon's exit codes for what another start does not mend.
    assert_eq!(unit["RestartPreventExitStatus"], ["2 77"]);
    for key in ["Requires", "Wants", "BindsTo", "PartOf", "Requisite"] {
        assert!(!unit.contains_key(key), "{key}: another unit must not be started or stopped because of ours");
    }
}

/// What is there and was not, is not and was, or has changed.
fn left(before: &root::Listing, after: &root::Listing) -> Vec<String> {
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differ = paths.into_iter().filter(|path| before.get(*path) != after.get(*path));
    differ.map(|path| format!("{}: {:?} -> {:?}", path.display(), before.get(path), after.get(path))).collect()
}
