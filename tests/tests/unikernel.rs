//! The unikernel driver with real monitors and the reference unikernel.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use control::driver::unikernel::{Settings, Unikernel};
use control::driver::{Driver, DriverError, DriverEvent, InstanceSpec, Resized, Resources};
use control::model::{AddressPair, Guest, InstanceId, OwnerId, ServiceName, Technology};
use control::netlink::{BridgeSpec, Net, PortSpec};
use control::reconcile::attachment;
use tests::contract::{self, Fixture, get, kill, next};
use tests::lab::unikernel::Unikernels;
use tests::lab::{Namespace, is_root};

/// Tests run one at a time: one of them counts what the whole process has open.
static ALONE: Mutex<()> = Mutex::new(());

/// Root, the built unikernel, and a namespace to be the node in.
struct Lab {
    unikernels: Unikernels,
    technology: Technology,
    owner: OwnerId,
    node: Namespace,
    dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Lab {
    /// `None` where something is missing, which has been said.
    fn new(test: &str, technology: Technology, owner: u64) -> Option<Self> {
        if !is_root(test) {
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = tempfile::Builder::new().prefix("selvedge-unikernel-").tempdir().unwrap();
        let unikernels = Unikernels::copy(dir.path(), test).unwrap()?;
        let node = Namespace::create(&format!("svu-{}-{owner:x}", std::process::id())).unwrap();
        Some(Self { unikernels, technology, owner: OwnerId::from_number(owner), node, dir, _alone: alone })
    }

    fn settings(&self) -> Settings {
        self.unikernels.settings(self.technology)
    }

    fn driver_with(&self, settings: Settings, owner: &OwnerId) -> Unikernel {
        Unikernel::new(self.technology, settings, owner.clone()).unwrap()
    }

    fn driver(&self) -> Unikernel {
        self.driver_with(self.settings(), &self.owner)
    }

    fn memory_mib(&self) -> u64 {
        if self.technology == Technology::Spt { 32 } else { 128 }
    }

    fn spec(&self, number: u32) -> InstanceSpec {
        InstanceSpec {
            id: InstanceId::from_number(number),
            owner: self.owner.clone(),
            service: ServiceName::new("video").unwrap(),
            image: self.unikernels.image(self.technology).to_string_lossy().into_owned(),
            guest: Guest::default(),
            resources: Resources { vcpus: 1.0, memory_mib: self.memory_mib() },
        }
    }

    /// Runs `work` inside the node's namespace.
    fn run<F: Future<Output = ()>>(&self, work: impl FnOnce(Net) -> F + Send) {
        let owner = self.owner.clone();
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        self.node.run_in(move || runtime().block_on(async { work(Net::new(owner).unwrap()).await })).unwrap();
    }

    /// Control groups and directories of this owner's instances that are there.
    fn left(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mounts = ["cpu", "cpuacct", "memory", "pids", "."];
        let groups = mounts.map(|m| Path::new("/sys/fs/cgroup").join(m).join("selvedge").join(self.owner.as_str()));
        let directory = self.dir.path().join("instances").join(self.owner.as_str());
        found.extend(groups.into_iter().chain([directory]).filter(|path| path.exists()));
        found
    }
}

fn bridge() -> BridgeSpec {
    BridgeSpec {
        name: "sv-uni".to_owned(),
        v4: (Ipv4Addr::new(10, 82, 0, 1), "10.82.0.0/24".parse().unwrap()),
        v6: Some(("fd82::1".parse().unwrap(), "fd82::/64".parse().unwrap())),
        shaping: None,
    }
}

fn addresses(host: u8) -> AddressPair {
    let v6 = format!("fd82::{host:x}").parse().unwrap();
    AddressPair { v4: Some(Ipv4Addr::new(10, 82, 0, host)), v6: Some(v6) }
}

fn port(number: u32, host: u8, driver: &Unikernel) -> PortSpec {
    let instance = InstanceId::from_number(number);
    PortSpec { instance, bridge: bridge(), addresses: addresses(host), shaping: None, kind: driver.port() }
}

fn keeps_the_contract(test: &str, technology: Technology, owner: u64) {
    let Some(lab) = Lab::new(test, technology, owner) else { return };
    let (driver, again) = (lab.driver(), lab.driver());
    let other = lab.driver_with(lab.settings(), &OwnerId::from_number(0xfeed));
    let spec = lab.spec(0);
    lab.run(async |net| {
        let fixture = Fixture {
            driver: &driver,
            again: &again,
            other: &other,
            spec,
            resizes: Resized { vcpus: true, memory: false },
            share: 0.05,
            window: Duration::from_secs(1),
            load: "/content",
            outside: &contract::Processes,
            absent_image: "/nonexistent/image",
            net: &net,
            bridge: bridge(),
            addresses: addresses(9),
        };
        contract::suite(&fixture).await;
    });
    assert_eq!(lab.left(), Vec::<PathBuf>::new());
}

#[test]
fn spt_keeps_the_contract() {
    keeps_the_contract("spt_keeps_the_contract", Technology::Spt, 0x51);
}

#[test]
fn qemu_microvm_keeps_the_contract() {
    keeps_the_contract("qemu_microvm_keeps_the_contract", Technology::QemuMicrovm, 0x52);
}

/// Each thing that can be wrong has an error of its own that names it, and leaves nothing.
#[test]
fn faults_are_named_and_leave_nothing() {
    let Some(lab) = Lab::new("faults_are_named_and_leave_nothing", Technology::Spt, 0x53) else { return };
    let image = std::fs::read(lab.unikernels.image(Technology::Spt)).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = lab.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_string_lossy().into_owned()
    };
    let (half, script) = (write("half", &image[..image.len() / 2]), write("script", b"#!/bin/sh\n"));
    let closed = write("closed", &image);
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o600)).unwrap();
    let full = lab.dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8k", "none"]).arg(&full).status().unwrap();
    assert!(mounted.success());
    let _ = std::fs::write(full.join("filler"), vec![0; 1 << 16]);

    lab.run(async |net| {
        net.ensure_bridge(&bridge()).await.unwrap();
        let driver = lab.driver();
        let start = async |driver: &Unikernel, spec: &InstanceSpec| {
            let mut port = net.create_port(&port(1, 9, driver)).await.unwrap();
            let started = driver.start(spec, attachment(&mut port)).await;
            drop(port);
            net.delete_port(&spec.id).await.unwrap();
            started.unwrap_err().to_string()
        };
        for (file, said) in [(&half, "it is cut off"), (&script, "it is no ELF file")] {
            let spec = InstanceSpec { image: file.clone(), ..lab.spec(1) };
            let validated = driver.validate(&spec).await.unwrap_err();
            assert!(validated.to_string().contains(said) && validated.to_string().contains(file), "{validated}");
            assert!(start(&driver, &spec).await.contains(said));
            assert_eq!(lab.left(), Vec::<PathBuf>::new());
        }

        // What only the monitor finds out is told with its own words.
        let mut events = driver.events();
        let spec = InstanceSpec { image: closed.clone(), ..lab.spec(1) };
        let mut made = net.create_port(&port(1, 9, &driver)).await.unwrap();
        driver.start(&spec, attachment(&mut made)).await.unwrap();
        drop(made);
        let DriverEvent::Exited { cause, .. } = next(&mut events).await else { panic!("an exit is expected") };
        assert!(cause.starts_with("exit code 1") && cause.contains("Permission denied"), "{cause}");
        driver.stop(&spec.id, Duration::ZERO).await.unwrap();
        net.delete_port(&spec.id).await.unwrap();
        assert_eq!(net.list_owned().await.unwrap().len(), 1, "the bridge alone");

        let absent = Settings { program: "/nonexistent/tender".into(), ..lab.settings() };
        let nobody = Settings { user: "no-such-user".to_owned(), ..lab.settings() };
        let no_room = Settings { directory: full.clone(), ..lab.settings() };
        for (settings, said) in
            [(absent, "/nonexistent/tender"), (nobody, "no-such-user"), (no_room, "No space left on device")]
        {
            let broken = lab.driver_with(settings.clone(), &lab.owner);
            if settings.directory != full {
                let error = broken.check().await.unwrap_err();
                assert!(
                    matches!(error, DriverError::Unavailable { .. }) && error.to_string().contains(said),
                    "{error}"
                );
            }
            let error = start(&broken, &lab.spec(1)).await;
            assert!(error.contains(said), "{error}");
            assert_eq!(lab.left(), Vec::<PathBuf>::new(), "{said}");
        }
        assert_eq!(std::fs::read_dir(&full).unwrap().count(), 1, "only what filled it");

        // The interface's name is another's: it stays, and nothing is started.
        lab.node.ip(&["tuntap", "add", &lab.spec(1).id.interface(), "mode", "tap"]).unwrap();
        let error = net.create_port(&port(1, 9, &driver)).await.unwrap_err();
        assert_eq!(error.label(), "foreign", "{error}");
        assert!(lab.node.interfaces().unwrap().contains(&lab.spec(1).id.interface()));
        lab.node.ip(&["link", "del", &lab.spec(1).id.interface()]).unwrap();
    });
    assert!(Command::new("umount").arg(&full).status().unwrap().success());
    assert_eq!(lab.left(), Vec::<PathBuf>::new());
}

/// The same content as is on the disk, whole and in parts, from both kinds of block device.
#[test]
fn content_may_be_on_a_disk() {
    for (technology, owner) in [(Technology::Spt, 0x56), (Technology::QemuMicrovm, 0x57)] {
        let Some(lab) = Lab::new("content_may_be_on_a_disk", technology, owner) else { return };
        let disk = lab.dir.path().join("disk");
        // Sectors, of which the content ends inside the last.
        let (sectors, content) = (600 * 512, 600 * 512 - 77);
        let bytes = tests::lab::image::content(sectors);
        std::fs::write(&disk, &bytes).unwrap();
        // Solo5's tender opens it for writing, too.
        std::fs::set_permissions(&disk, std::fs::Permissions::from_mode(0o666)).unwrap();
        lab.run(async |net| {
            net.ensure_bridge(&bridge()).await.unwrap();
            let driver = lab.driver();
            let guest = Guest {
                arguments: vec![format!("content={content}")],
                disk: Some(disk.to_string_lossy().into_owned()),
                ..Guest::default()
            };
            let image = lab.unikernels.image_with_disk(technology).to_string_lossy().into_owned();
            let spec = InstanceSpec { guest, image, ..lab.spec(1) };
            let mut made = net.create_port(&port(1, 9, &driver)).await.unwrap();
            driver.start(&spec, attachment(&mut made)).await.unwrap();
            let address = Ipv4Addr::new(10, 82, 0, 9).into();
            assert_eq!(get(address, "/content").await, bytes[..content], "{technology:?}");
            assert_eq!(get(address, "/content/1").await.len(), 1_000_000, "the pattern is there still");
            drop(made);
            driver.stop(&spec.id, Duration::ZERO).await.unwrap();
            net.delete_port(&spec.id).await.unwrap();

            // A disk that is not there is an error of its own.
            let absent = Guest { disk: Some("/nonexistent/disk".to_owned()), ..spec.guest.clone() };
            let error = driver.validate(&InstanceSpec { guest: absent, ..spec }).await.unwrap_err();
            assert!(error.to_string().contains("/nonexistent/disk"), "{error}");
        });
        assert_eq!(std::fs::read(&disk).unwrap(), bytes, "nothing is written");
    }
}

/// The tender has no more rights than it needs, and a client's first packet waits for it in the tap.
#[test]
fn a_tender_runs_without_privileges() {
    let Some(lab) = Lab::new("a_tender_runs_without_privileges", Technology::Spt, 0x54) else { return };
    lab.run(async |net| {
        net.ensure_bridge(&bridge()).await.unwrap();
        let driver = lab.driver();
        let mut made = net.create_port(&port(1, 9, &driver)).await.unwrap();
        let early = tokio::spawn(async { get(Ipv4Addr::new(10, 82, 0, 9).into(), "/healthz").await });
        tokio::task::yield_now().await;
        let running = driver.start(&lab.spec(1), attachment(&mut made)).await.unwrap();
        assert_eq!(early.await.unwrap(), b"ok\n");
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid().unwrap())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        assert_eq!((field("Uid:"), field("Groups:")), (vec!["65534".to_owned(); 4], vec![]));
        assert_eq!(field("CapEff:"), ["0000000000000000"]);
        assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (vec!["1".to_owned()], vec!["2".to_owned()]));
        // Without this daemon the tap is the tender's alone, and goes with it.
        drop(net);
        driver.stop(&running.id, Duration::from_secs(1)).await.unwrap();
        assert_eq!(Net::new(lab.owner.clone()).unwrap().list_owned().await.unwrap().len(), 1, "the bridge alone");
    });
}

/// Starts that end at every step, and processes killed at any moment: nothing is left of any.
#[test]
fn nothing_is_left_of_many() {
    let Some(lab) = Lab::new("nothing_is_left_of_many", Technology::Spt, 0x55) else { return };
    let cycles: u32 = std::env::var("CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let before: BTreeSet<String> = lab.node.interfaces().unwrap().into_iter().collect();
    lab.run(async |net| {
        net.ensure_bridge(&bridge()).await.unwrap();
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let mut at_first = 0;
        for cycle in 0..cycles {
            let driver = lab.driver();
            let spec = lab.spec(cycle);
            let mut made = net.create_port(&port(cycle, 9, &driver)).await.unwrap();
            if cycle % 4 > 0 {
                let running = driver.start(&spec, attachment(&mut made)).await.unwrap();
                match cycle % 4 {
                    1 => kill(running.pid().unwrap()),
                    2 => assert_eq!(get(Ipv4Addr::new(10, 82, 0, 9).into(), "/healthz").await, b"ok\n"),
                    // A daemon that knows nothing of it takes it down.
                    _ => lab.driver().stop(&spec.id, Duration::from_secs(1)).await.unwrap(),
                }
            }
            drop(made);
            driver.stop(&spec.id, Duration::from_secs(1)).await.unwrap();
            net.delete_port(&spec.id).await.unwrap();
            assert_eq!(lab.left(), Vec::<PathBuf>::new(), "cycle {cycle}");
            if cycle == 4 {
                at_first = descriptors();
            }
        }
        assert_eq!(descriptors(), at_first);
        net.remove_bridge(&bridge().name).await.unwrap();
    });
    assert_eq!(lab.node.interfaces().unwrap().into_iter().collect::<BTreeSet<_>>(), before);
    let mine = format!("{}", lab.dir.path().display());
    let processes = tests::lab::process::all().into_iter().map(tests::lab::process::arguments);
    let left: Vec<_> = processes.filter(|words| words.iter().any(|word| word.contains(&mine))).collect();
    assert_eq!(left, Vec::<Vec<String>>::new());
}
