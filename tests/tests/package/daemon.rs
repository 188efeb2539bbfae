//! The daemon, started as its unit says, by a test instead of systemd.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::root::Root;

/// Longest wait for the daemon to come up or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Settings of a unit: each key's values in order.
pub fn unit(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            found.entry(key).or_default().push(value);
        }
    }
    found
}

/// A running daemon; ended with this value.
pub struct Daemon {
    pid: Pid,
    ended: Receiver<ExitStatus>,
    over: bool,
    log: std::path::PathBuf,
}

impl Daemon {
    /// Does what systemd would: directories, capabilities, the notification socket, the command. Returns once
    /// the daemon has said that it is ready.
    pub fn start(root: &Root) -> Self {
        let text = fs::read_to_string(root.file("/usr/lib/systemd/system/selvedged.service")).expect("the unit");
        let unit = unit(&text);
        for (key, mode, parent) in
            [("StateDirectory", "StateDirectoryMode", "/var/lib"), ("RuntimeDirectory", "RuntimeDirectoryMode", "/run")]
        {
            let directory = root.file(parent).join(unit[key][0]);
            let mode = u32::from_str_radix(unit[mode][0], 8).expect("a mode");
            if !directory.exists() {
                fs::DirBuilder::new().mode(mode).create(&directory).expect("a directory of the unit");
            }
        }
        let bounds = unit["CapabilityBoundingSet"][0].split(' ').map(|name| {
            let name = name.strip_prefix("CAP_").expect("a capability");
            format!(",+{}", name.to_lowercase())
        });
        let bounds = format!("-all{}", bounds.collect::<String>());

        // By way of the directory's descriptor: a socket's address has 107 bytes at most.
        let run = File::open(root.file("/run")).expect("/run");
        let _ = fs::remove_file(root.file("/run/notify"));
        let notify = UnixDatagram::bind(format!("/proc/self/fd/{}/notify", run.as_raw_fd())).expect("a socket");
        fs::set_permissions(root.file("/run/notify"), fs::Permissions::from_mode(0o600)).expect("its mode");

        let log = root.file("/run/selvedged.log");
        let errors = File::create(&log).expect("a log");
        let mut command = root.command("setpriv");
        command.args(["--bounding-set", &bounds, "--no-new-privs", "--"]);
        command.args(unit["ExecStart"][0].split(' ')).env("NOTIFY_SOCKET", "/run/notify");
        let out = errors.try_clone().expect("the log again");
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(errors).spawn().expect("the daemon");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        let (tell, ended) = channel();
        thread::spawn(move || child.wait().map(|status| tell.send(status)));
        let mut daemon = Self { pid, ended, over: false, log };

        let deadline = Instant::now() + PATIENCE;
        let mut buffer = [0; 1024];
        loop {
            // Short waits, so that a daemon that ends is noticed at once and not at the deadline.
            notify.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
            match notify.recv(&mut buffer) {
                Ok(size) if buffer[..size].split(|b| *b == b'\n').any(|line| line == b"READY=1") => return daemon,
                _ => {}
            }
            if let Ok(status) = daemon.ended.try_recv() {
                daemon.over = true;
                panic!("the daemon ended with {status} before it was ready:\n{}", daemon.said());
            }
            assert!(Instant::now() < deadline, "the daemon is not ready in {PATIENCE:?}:\n{}", daemon.said());
        }
    }

    /// What it has written.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.over = self.over || self.ended.try_recv().is_ok();
        !self.over
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("a signal");
    }

    /// Sends a signal and waits for the end.
    pub fn end(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let status = self.ended.recv_timeout(PATIENCE);
        self.over = status.is_ok();
        status.unwrap_or_else(|_| panic!("the daemon goes on after {signal}:\n{}", self.said()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.over && kill(self.pid, Signal::SIGKILL).is_ok() {
            let _ = self.ended.recv_timeout(PATIENCE);
        }
    }
}
