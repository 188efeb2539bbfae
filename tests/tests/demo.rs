//! The demo leaves nothing, however it ends. Needs root, nginx and dockerd (`make setup`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, killpg, signal};
use nix::unistd::Pid;
use tests::lab::daemon::binary;
use tests::lab::{Lock, is_root, process};

/// As the demo names itself.
const DEMO: &str = "selvedge-demo";

/// What of a demo could be left on this machine. Its directory is its own mark on processes and mounts.
fn left(dir: &Path) -> BTreeSet<String> {
    let dir = dir.to_string_lossy();
    let list = |path: &str| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let path = path.to_owned();
        entries.map(move |entry| format!("{path}/{}", entry.file_name().to_string_lossy()))
    };
    let named = ["/run", "/run/netns", "/sys/fs/bpf"].into_iter().flat_map(list).filter(|path| path.contains(DEMO));
    let processes = process::all().into_iter().filter_map(|pid| {
        let line = process::arguments(pid).join(" ");
        (line.contains(&*dir) && process::start_time(pid).is_some()).then(|| format!("{pid} {line}"))
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(&*dir)).map(str::to_owned).collect::<Vec<_>>();
    named.chain(processes).chain(mounts).collect()
}

/// Starts the demo in a group of its own, as from a script in the background, where SIGINT is ignored.
fn start(dir: &Path) -> Child {
    let mut command = Command::new(binary(DEMO).unwrap());
    command.env("CARGO_TARGET_DIR", dir).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
    let ignore = || {
        // SAFETY: no handler is installed, only the disposition set to ignore.
        unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }.map(drop).map_err(std::io::Error::from)
    };
    // SAFETY: signal(2) is async-signal-safe, and nothing else happens between fork and exec.
    unsafe { command.pre_exec(ignore) };
    command.spawn().unwrap()
}

/// Sends a signal to the whole group at the first line that tells of `step`, and waits for the end.
fn end_at(mut demo: Child, step: &str, with: Signal) {
    let group = Pid::from_raw(demo.id().cast_signed());
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with(step)), "the demo never came to {step:?}");
    killpg(group, with).unwrap();
    // Its output is read to the end, so that it is not stopped by a full or closed pipe.
    lines.for_each(drop);
    assert!(!demo.wait().unwrap().success(), "an interrupted demo did not show what it has to");
}

#[test]
fn an_interrupted_or_killed_demo_leaves_nothing() {
    if !is_root("an_interrupted_or_killed_demo_leaves_nothing") {
        return;
    }
    // Somebody else's demo is waited for; ours could not run beside it.
    let held = loop {
        match Lock::take(DEMO) {
            Ok(lock) => break lock,
            Err(_) => std::thread::sleep(Duration::from_secs(1)),
        }
    };
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("demo");
    fs::create_dir_all(&dir).unwrap();
    let dir = dir.canonicalize().unwrap();
    // A second one would clean the first one up.
    let second = Command::new(binary(DEMO).unwrap()).env("CARGO_TARGET_DIR", &dir).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("is running already"), "{said}");
    drop(held);

    for (step, with) in [("image", Signal::SIGINT), ("load", Signal::SIGINT), ("load", Signal::SIGKILL)] {
        end_at(start(&dir), step, with);
        if with == Signal::SIGINT {
            assert_eq!(left(&dir), BTreeSet::new(), "after {with} at {step:?}");
        }
    }
    // Somebody who was killed cleans up nothing; the next one does it for him, here from another directory.
    assert!(!left(&dir).is_empty(), "the killed demo was to leave things, or this test shows nothing");
    let other = dir.join("other");
    end_at(start(&other), "network", Signal::SIGINT);
    assert_eq!(left(&dir), BTreeSet::new(), "after the demo that followed a killed one");
    fs::remove_dir_all(&dir).unwrap();
}
