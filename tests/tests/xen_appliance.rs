//! The appliance in dom0 of a Xen host in an emulator: the daemon there, its program on a virtual network card that a
//! namespace out here is wired to, guests of Xen as instances. `make test-xen-appliance` boots the host (`tests/xen/lab`)
//! and runs this outside of it. Needs root, for the namespace.
//!
//! ```text
//!   client's namespace                 the emulated machine: Xen
//!   wire0 10.53.0.2 ── QEMU's socket ── eth1 10.53.0.1   dom0: XDP here, selvedged
//!                                       └ routes ─ sv-appliance 10.215.0.1 ─ vif ─ guest
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "shared with tests that need more of it")]
mod support;

use std::net::IpAddr;
use std::path::Path;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use control::api::Status;
use control::load::{LoadOptions, LoadReport};
use control::model::InstanceState;
use support::{dig, serving, video};
use tests::edge::{CLIENT, EDGE, NAME, ZONE, downloads};
use tests::lab::xen::Dom0;
use tests::lab::{Lock, Namespace, is_root, wire};

/// An emulated machine is slow, and may be held while others measure.
const LONG: Duration = Duration::from_secs(600);
/// Length of the client's windows and of the daemon's.
const WINDOW: Duration = Duration::from_secs(5);
/// Requests in a window that one guest serves.
const CAPACITY: u32 = 8;
/// What is offered while one guest is enough.
const CALM: u32 = 4;
/// What needs three.
const RUSH: u32 = 20;

const CONFIG: &str = "/tmp/selvedge.toml";

fn config() -> String {
    format!(
        r#"[node]
name = "dom0"
[dataplane]
interfaces = ["eth1"]
mode = "native"
[dns]
listen = ["{edge}"]
[[zone]]
name = "{ZONE}"
[control]
window = "{window}s"
state_dir = "/tmp/state"
socket = "/run/selvedged.sock"
[scaling]
predictor = "ema"
headroom = 0
stabilisation = "30s"
tolerance = 0
[technology.xen]
bridge = "sv-appliance"
pool = "10.215.0.0/24"
[[service]]
name = "video"
names = ["{NAME}"]
technology = "xen-pv"
image = "/guest/vmlinuz"
ramdisk = "/guest/initrd"
launch = "linux"
arguments = ["console=hvc0", "quiet", "content=20000"]
probe_path = "/healthz"
memory_mib = 96
capacity = {CAPACITY}
min = 1
max = 3
ttl_s = 1
start_deadline = "10m"
drain_quiet = "1s"
"#,
        edge = EDGE.0,
        window = WINDOW.as_secs(),
    )
}

/// A second service, whose guests reboot as soon as they are up.
fn rebooting() -> String {
    format!(
        r#"[[service]]
name = "reboots"
names = ["reboots.{ZONE}"]
technology = "xen-pv"
image = "/guest/vmlinuz"
ramdisk = "/guest/initrd"
launch = "linux"
arguments = ["console=hvc0", "quiet", "then=reboot"]
probe_path = "/healthz"
memory_mib = 96
min = 1
max = 1
start_deadline = "10m"
"#
    )
}

/// The daemon in dom0. What it made goes with this, also where the test fails.
struct Appliance<'a>(&'a Dom0);

/// A client's namespace that is wired to `eth1`.
fn outside(dom0: &Dom0) -> Namespace {
    const SPACE: &str = "sv-appliance-client";
    // A killed run may have left it.
    Namespace::remove(SPACE).unwrap();
    let client = Namespace::create(SPACE).unwrap();
    wire::plug(&client, "wire0", &dom0.wire().unwrap()).unwrap();
    client.add_address("wire0", CLIENT.0.into(), 24).unwrap();
    client.add_route("default", EDGE.0.into()).unwrap();
    dom0.exec(&format!("ip addr flush dev eth1; ip addr add {}/24 dev eth1; ip link set eth1 up", EDGE.0)).unwrap();
    client
}

impl<'a> Appliance<'a> {
    fn install(dom0: &'a Dom0, directory: &Path) -> Self {
        for program in ["selvedged", "selvedge"] {
            dom0.install(program, directory).unwrap();
        }
        let appliance = Self(dom0);
        appliance.configure(&config(), directory);
        appliance
    }

    /// Puts its configuration where it is read.
    fn configure(&self, text: &str, directory: &Path) {
        let file = directory.join("selvedge.toml");
        std::fs::write(&file, text).unwrap();
        self.0.put(&file, CONFIG).unwrap();
    }

    fn start(&self) {
        // The file descriptors of the way in are not kept open.
        let line = format!(
            "setsid /tmp/selvedged --config {CONFIG} </dev/null >>/tmp/selvedged.log 2>&1 & echo $! >/tmp/selvedged.pid"
        );
        self.0.exec(&line).unwrap();
    }

    fn try_status(&self) -> Option<Status> {
        let text = self.0.exec("SELVEDGE_SOCKET=/run/selvedged.sock /tmp/selvedge status --json").ok()?;
        Some(serde_json::from_str(&text).expect("a status"))
    }

    fn status(&self) -> Status {
        self.wait_for("its status", |_| true)
    }

    /// The last lines of its log.
    fn log(&self) -> String {
        self.0.exec("tail -n 40 /tmp/selvedged.log").unwrap_or_default()
    }

    /// Looks until its status is as wanted.
    fn wait_for(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.try_status().filter(&wanted) {
                return status;
            }
            assert!(begun.elapsed() < LONG, "{what}: not within {LONG:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Names of the guests that are there, in order, whoever made them.
    fn guests(&self) -> Vec<String> {
        let listed = self.0.exec("xl list").unwrap();
        let names = listed.lines().skip(1).filter_map(|line| line.split_whitespace().next());
        let mut guests: Vec<_> = names.filter(|name| *name != "Domain-0").map(str::to_owned).collect();
        guests.sort();
        guests
    }

    /// Waits until no guest is there, not even one whose memory the hypervisor is still taking back.
    fn wait_for_no_guest(&self) {
        let begun = Instant::now();
        loop {
            let guests = self.guests();
            if guests.is_empty() {
                return;
            }
            assert!(begun.elapsed() < LONG, "{guests:?} are there still after {LONG:?}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn end(&self) -> tests::lab::Result<String> {
        let wait = "while [ -d /proc/$(cat /tmp/selvedged.pid) ]; do usleep 50000; done";
        self.0.exec(&format!(
            "kill $(cat /tmp/selvedged.pid) 2>/dev/null; {wait}; /tmp/selvedge clear --yes --config {CONFIG}"
        ))
    }
}

impl Drop for Appliance<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
            // The host may be one that stays up.
            let _ = self.end();
        }
    }
}

/// Clients that come at the same pace however slow the guests are.
struct Clients<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    namespace: &'scope Namespace,
    windows: Vec<ScopedJoinHandle<'scope, LoadReport>>,
}

impl Clients<'_, '_> {
    /// One window's downloads by name, under way once it is over.
    fn come(&mut self, requests: u32) {
        let options =
            LoadOptions { timeout: LONG, dns_timeout: Duration::from_secs(60), ..downloads(vec![requests], WINDOW, 1) };
        let namespace = self.namespace;
        let offer = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(control::load::run(options, None, std::future::pending())).unwrap()
        };
        self.windows.push(self.scope.spawn(move || namespace.run_in(offer).unwrap()));
        std::thread::sleep(WINDOW);
    }

    /// How many downloads there were, once all are at their end. None has failed.
    fn all_served(self) -> u64 {
        let reports = self.windows.into_iter().map(|window| window.join().unwrap());
        reports.inspect(|report| assert!(report.all_ok(), "{report}")).map(|report| report.total.ok).sum()
    }
}

/// A client that asks and downloads: guests go from one to three and back, and the daemon is killed on the way. Then a
/// guest that reboots without end beside it.
#[test]
#[ignore = "needs a Xen host: make test-xen-appliance"]
fn guests_follow_the_load_and_outlive_the_daemon() {
    if !is_root("guests_follow_the_load_and_outlive_the_daemon") {
        return;
    }
    let _lock = Lock::take("sv-appliance").unwrap();
    let (dom0, directory) = (Dom0::find().unwrap(), tempfile::tempdir().unwrap());
    let client = outside(&dom0);
    let appliance = Appliance::install(&dom0, directory.path());
    let links = || dom0.exec("ls /sys/class/net").unwrap();
    let before = links();

    appliance.start();
    let first = appliance.wait_for("the first guest", |status| serving(status).len() == 1);
    let attached: Vec<_> = first.interfaces.iter().map(|i| (i.interface.as_str(), i.mode.as_str())).collect();
    assert_eq!(attached, [("eth1", "native")], "{}", appliance.log());
    let answer = dig(&client, &["+time=60", &format!("@{}", EDGE.0), NAME, "A"]).addresses();
    let guest = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[..2] == [10, 215]);
    assert!(answer.len() == 1 && answer.iter().all(guest), "{answer:?}");

    let downloaded = std::thread::scope(|scope| {
        let mut clients = Clients { scope, namespace: &client, windows: Vec::new() };
        for _ in 0..3 {
            clients.come(CALM);
        }
        assert_eq!(serving(&appliance.status()), serving(&first), "one is enough");

        let begun = Instant::now();
        while serving(&appliance.status()).len() < 3 {
            clients.come(RUSH);
            assert!(begun.elapsed() < LONG, "not three guests within {LONG:?}\n{}", appliance.log());
        }
        println!("three guests after {} s", begun.elapsed().as_secs());

        let (three, guests) = (appliance.status(), appliance.guests());
        assert_eq!(guests.len(), 3);
        appliance.0.exec("kill -9 $(cat /tmp/selvedged.pid)").unwrap();
        clients.come(RUSH);
        assert_eq!(appliance.guests(), guests, "they do not depend on the daemon");
        appliance.start();
        clients.come(RUSH);
        appliance.wait_for("adoption", |status| serving(status) == serving(&three));
        assert_eq!(appliance.guests(), guests, "adopted, not made anew");

        let begun = Instant::now();
        while appliance.guests().len() > 1 {
            clients.come(CALM);
            assert!(begun.elapsed() < LONG, "not one guest within {LONG:?}\n{}", appliance.log());
        }
        println!("one guest after {} s more", begun.elapsed().as_secs());
        clients.all_served()
    });
    let last = appliance.wait_for("the last guest", |status| serving(status).len() == 1);
    // Each lookup was one query, and the kernel alone has answered: those of dig and of the client.
    let service = video(&last);
    let (kernel, daemon) = (service.answered_in_kernel, service.answered_by_daemon);
    println!("{downloaded} downloads, none failed; answered in the kernel: {kernel}, by the daemon: {daemon}");
    assert_eq!((kernel, daemon), (downloaded + 1, 0));

    // One that reboots again and again is told each time, and replaced; never is there more than one of it.
    appliance.configure(&(config() + &rebooting()), directory.path());
    dom0.exec("kill -HUP $(cat /tmp/selvedged.pid)").unwrap();
    let reboots = |status: &Status| {
        let told =
            status.transitions.iter().filter(|t| t.service.as_str() == "reboots" && t.to == InstanceState::Failed);
        told.filter(|t| t.reason.contains("reboot")).count()
    };
    let looped = appliance.wait_for("a guest's second reboot", |status| {
        let guests = appliance.guests();
        // The one that serves, one that has ended and is being removed, and the next.
        assert!(guests.len() <= 3, "{guests:?}");
        reboots(status) >= 2
    });
    assert_eq!(serving(&looped), serving(&last), "the other one serves on");

    let said = appliance.end().unwrap();
    assert!(said.contains("xen-pv instance") && said.contains("bridge sv-appliance"), "{said}");
    appliance.wait_for_no_guest();
    assert_eq!(links(), before);
}

/// Xen's store cannot be started anew. Where it dies, the daemon says so once, starts nothing more, and what runs is served
/// and answered for as before, also by the next daemon. In a host of its own, which is of no use afterwards.
#[test]
#[ignore = "needs a Xen host: make test-xen-appliance"]
fn guests_and_answers_outlive_the_store() {
    if !is_root("guests_and_answers_outlive_the_store") {
        return;
    }
    let _lock = Lock::take("sv-appliance").unwrap();
    let (host, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dom0 = Dom0::find().unwrap().second(host.path()).unwrap();
    let client = outside(&dom0);
    let appliance = Appliance::install(&dom0, directory.path());
    let links = || dom0.exec("ls /sys/class/net").unwrap();
    let is_off = |status: &Status| status.technologies.get("xen-pv").is_some_and(|xen| !xen.available);

    appliance.start();
    let first = appliance.wait_for("the first guest", |status| serving(status).len() == 1);
    let before = links();
    dom0.exec("kill -9 $(cat /run/xen/xenstored.pid)").unwrap();
    appliance.wait_for("that Xen is off", is_off);
    let downloaded = std::thread::scope(|scope| {
        let mut clients = Clients { scope, namespace: &client, windows: Vec::new() };
        clients.come(CALM);
        // One more is wanted, and cannot be had.
        appliance.configure(&config().replace("min = 1", "min = 2"), directory.path());
        dom0.exec("kill -HUP $(cat /tmp/selvedged.pid)").unwrap();
        clients.come(CALM);
        clients.come(CALM);
        let status = appliance.status();
        assert_eq!((serving(&status), video(&status).instances.len(), links()), (serving(&first), 1, before.clone()));
        let said = appliance.0.exec("grep -cE 'WARN|ERROR' /tmp/selvedged.log").unwrap();
        assert_eq!(said.trim(), "2", "that the store went away, and that a guest has no place: {}", appliance.log());

        dom0.exec("kill -9 $(cat /tmp/selvedged.pid)").unwrap();
        clients.come(CALM);
        appliance.start();
        let next = appliance.wait_for("adoption", |status| is_off(status) && serving(status) == serving(&first));
        assert_eq!((video(&next).instances.len(), links()), (1, before));
        clients.come(CALM);
        clients.all_served()
    });
    let status = appliance.status();
    let service = video(&status);
    assert_eq!((service.answered_in_kernel, service.answered_by_daemon), (downloaded, 0), "{}", appliance.log());
    let said = appliance.0.exec("grep -c 'off until it can be reached' /tmp/selvedged.log").unwrap();
    assert_eq!(said.trim(), "1", "{}", appliance.log());
}
