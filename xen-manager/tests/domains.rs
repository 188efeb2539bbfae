//! Real domains on a real Xen: `make test-xen` runs this in dom0 of the lab, whose guests are below `/guest`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use xen_manager::store::{Access, Store};
use xen_manager::{
    Assignment, Console, Creation, Domain, DomainKind, DomainSpec, DomainState, End, Ended, Entry, Error, Event, Host,
    Owner, Scheduling, Vif, Xl,
};

const KINDS: [DomainKind; 2] = [DomainKind::Pv, DomainKind::Pvh];
/// An emulated machine is slow, and may be held while others measure.
const LONG: Duration = Duration::from_secs(300);

fn owner(number: u64) -> Owner {
    Owner::new(0x7e57_0000_0000 + number).unwrap()
}

fn host_of(number: u64) -> Host {
    let xl = Xl { deadline: LONG, ..Xl::default() };
    Host::new(Store::new(Store::default_socket(), LONG), xl, owner(number))
}

fn host() -> Host {
    host_of(1)
}

/// The smallest guest: a boot loader that waits for a key.
fn nano(kind: DomainKind, name: &str) -> DomainSpec {
    let kernel = match kind {
        DomainKind::Pv => "/guest/nano-pv",
        DomainKind::Pvh => "/guest/nano-pvh",
    };
    DomainSpec {
        name: name.parse().unwrap(),
        kind,
        kernel: kernel.into(),
        ramdisk: None,
        cmdline: String::new(),
        memory_mib: 32,
        max_memory_mib: 32,
        vcpus: 1,
        max_vcpus: 1,
        scheduling: Scheduling::default(),
        vifs: Vec::new(),
    }
}

/// Linux with a web server.
fn linux(kind: DomainKind, name: &str, words: &str) -> DomainSpec {
    DomainSpec {
        kernel: "/guest/vmlinuz".into(),
        ramdisk: Some("/guest/initrd".into()),
        cmdline: format!("console=hvc0 quiet {words}"),
        memory_mib: 96,
        max_memory_mib: 96,
        ..nano(kind, name)
    }
}

fn creation(spec: &DomainSpec) -> Creation<'_> {
    Creation { spec, labels: BTreeMap::new(), entries: Vec::new(), paused: false }
}

/// All that a domain could leave behind.
async fn traces(host: &Host) -> BTreeMap<&'static str, Vec<String>> {
    let mut found = BTreeMap::new();
    let domains = host.list_all().await.unwrap().into_iter().filter(|row| row.state != DomainState::Dying);
    found.insert("domains", domains.map(|row| format!("{} {}", row.id, row.name)).collect());
    for (name, path) in [("entries", "/local/domain"), ("vms", "/vm"), ("vifs", "/local/domain/0/backend/vif")] {
        found.insert(name, host.store().list(path).await.unwrap_or_default());
    }
    let files = |directory: &str| -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    found.insert("interfaces", files("/sys/class/net").into_iter().filter(|name| name.starts_with("vif")).collect());
    let userdata =
        files("/var/lib/xen").into_iter().filter(|name| name.starts_with("userdata") && !name.contains(".0."));
    found.insert("files", userdata.collect());
    for names in found.values_mut() {
        names.sort();
    }
    found
}

/// Waits until the console has said something.
async fn said(console: &Console, what: &str) -> String {
    let wait = async {
        loop {
            let text = console.text();
            if text.contains(what) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(LONG, wait).await {
        Ok(text) => text,
        Err(_) => panic!("{what:?} was not said, but:\n{}", console.text()),
    }
}

fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A bridge for as long as it is held.
struct Bridge(&'static str);

impl Bridge {
    fn create(name: &'static str, address: &str) -> Self {
        run("brctl", &["addbr", name]);
        let bridge = Self(name);
        run("ip", &["addr", "add", address, "dev", name]);
        run("ip", &["link", "set", name, "up"]);
        bridge
    }

    fn join(&self, interface: &str) {
        run("brctl", &["addif", self.0, interface]);
        run("ip", &["link", "set", interface, "up"]);
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "set", self.0, "down"]).status();
        let _ = Command::new("brctl").args(["delbr", self.0]).status();
    }
}

async fn try_get(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

async fn get(address: &str) -> String {
    try_get(address).await.unwrap()
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn a_domain_lives_and_leaves_nothing() {
    let host = host();
    println!("Xen {}", host.check().await.unwrap());
    for kind in KINDS {
        let before = traces(&host).await;
        let spec = DomainSpec {
            scheduling: Scheduling { weight: 512, cap: 50, processors: vec![1] },
            ..nano(kind, "selvedge-nano")
        };
        let labels =
            BTreeMap::from([("instance".to_owned(), "00000007".to_owned()), ("service".into(), "video".into())]);
        let domain = host.create(&Creation { labels: labels.clone(), ..creation(&spec) }).await.unwrap();
        assert_eq!(domain.uuid.owner(), Some(owner(1)));
        let listed = host.list().await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((&listed[0].domain, listed[0].labels.as_ref()), (&domain, Some(&labels)));
        assert_eq!((listed[0].row.state, listed[0].row.vcpus), (DomainState::Running, 1));
        assert!((31..=33).contains(&listed[0].row.memory_mib), "{:?}", listed[0].row);
        let schedule = Command::new("xl").args(["sched-credit2", "-d", &domain.id.to_string()]).output().unwrap();
        let schedule = String::from_utf8(schedule.stdout).unwrap();
        let words: Vec<&str> = schedule.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(words[words.len() - 2..], ["512", "50"], "weight and cap: {schedule}");

        host.pause(&domain).await.unwrap();
        assert_eq!(host.look(&domain).await.unwrap().unwrap().state, DomainState::Paused);
        host.unpause(&domain).await.unwrap();
        assert_eq!(host.look(&domain).await.unwrap().unwrap().state, DomainState::Running);
        host.destroy(&domain).await.unwrap();
        assert_eq!(host.look(&domain).await.unwrap(), None);
        host.destroy(&domain).await.unwrap();
        assert_eq!(host.shutdown(&domain, LONG).await.unwrap(), Ended::Gone);
        assert_eq!(host.pause(&domain).await.unwrap_err().label(), "gone");
        assert_eq!(traces(&host).await, before);
    }
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn a_guest_finds_its_words_and_serves_and_is_resized() {
    let (host, bridge) = (host(), Bridge::create("xmt0", "10.83.0.1/24"));
    for kind in KINDS {
        let before = traces(&host).await;
        let odd = r#"odd="a\b"'c'"#;
        let mut spec = linux(kind, "selvedge-linux", &format!("show ip=10.83.0.9/24 gw=10.83.0.1 {odd}"));
        spec.max_memory_mib = 160;
        spec.max_vcpus = 2;
        spec.vifs = vec![Vif { mac: "00:16:3e:00:00:09".parse().unwrap() }];
        let entries = vec![
            Entry { path: "data/clickos/0/status".into(), value: b"Running".to_vec(), access: Some(Access::Write) },
            Entry { path: "rumprun/cfg".into(), value: br#"{"rc":[]}"#.to_vec(), access: None },
        ];
        let domain = host.create(&Creation { entries, ..creation(&spec) }).await.unwrap();
        let console = host.console(&domain, LONG).await.unwrap();
        bridge.join(&domain.interface(0));
        host.connect_vif(&domain, 0).await.unwrap();
        let text = said(&console, "GUEST shown").await;
        assert!(text.contains("GUEST cmdline console=hvc0 quiet show ip=10.83.0.9/24"), "{text}");
        assert!(text.contains(odd), "{text}");
        assert!(text.contains(r#"/clickos/0/status = "Running""#), "{text}");
        assert!(text.contains(r#"cfg = "{"rc":[]}""#) || text.contains(r#"cfg = "{\"rc\":[]}""#), "{text}");
        host.vif_connected(&domain, 0, LONG).await.unwrap();
        said(&console, "GUEST serving 10.83.0.9/24").await;
        assert!(get("10.83.0.9:80").await.ends_with("hello from a guest\n"));

        // A second handle, as after a restart, finds it.
        let found = self::host().list().await.unwrap();
        assert_eq!(found.iter().map(|owned| &owned.domain).collect::<Vec<_>>(), [&domain]);
        host.set_memory(&domain, 128).await.unwrap();
        host.set_vcpus(&domain, 2).await.unwrap();
        let grown = async {
            loop {
                let row = host.look(&domain).await.unwrap().unwrap();
                if row.memory_mib >= 126 && row.vcpus == 2 {
                    return row;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let grown = match tokio::time::timeout(LONG, grown).await {
            Ok(row) => row,
            Err(_) => panic!("{:?}\n{}", host.look(&domain).await, console.text()),
        };
        assert!(grown.cpu > Duration::ZERO);
        assert!(get("10.83.0.9:80").await.ends_with("hello from a guest\n"), "it serves on after that");
        assert_eq!(host.shutdown(&domain, LONG).await.unwrap(), Ended::Itself(End::PowerOff), "{}", console.text());
        assert_eq!(traces(&host).await, before);
    }
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn ends_are_told_with_their_reason() {
    let (host, before) = (host(), traces(&host()).await);
    let mut events = host.events().await.unwrap();
    // Others' domains are no events.
    let others = nano(DomainKind::Pv, "selvedge-others");
    let other = host_of(2).create(&Creation { paused: true, ..creation(&others) }).await.unwrap();
    let ends = [
        (DomainKind::Pv, "crash", End::Crash),
        (DomainKind::Pv, "reboot", End::Reboot),
        (DomainKind::Pvh, "crash", End::Crash),
        (DomainKind::Pvh, "off", End::PowerOff),
    ];
    for (kind, word, end) in ends {
        let spec = linux(kind, "selvedge-ends", &format!("then={word}"));
        let domain = host.create(&creation(&spec)).await.unwrap();
        let mut told = Vec::new();
        while told.len() < 2 {
            told.push(tokio::time::timeout(LONG, events.next()).await.unwrap());
        }
        assert_eq!(told, [Event::Appeared(domain.clone()), Event::Ended(domain.clone(), end)]);
        let row = host.look(&domain).await.unwrap().unwrap();
        let state = if end == End::Crash { DomainState::Crashed } else { DomainState::Shutdown };
        assert_eq!((row.state, row.end), (state, Some(end)));
        // One who comes later is told as well.
        let mut later = host.events().await.unwrap();
        assert_eq!(later.next().await, Event::Ended(domain.clone(), end));
        host.destroy(&domain).await.unwrap();
        assert_eq!(tokio::time::timeout(LONG, events.next()).await.unwrap(), Event::Gone(domain));
    }
    assert!(host_of(2).look(&other).await.unwrap().is_some());
    host_of(2).destroy(&other).await.unwrap();
    assert_eq!(traces(&host).await, before);
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn every_fault_is_told_by_kind_and_leaves_nothing() {
    let host = host();
    let dir = tempfile::tempdir().unwrap();
    let (empty, cut) = (dir.path().join("empty"), dir.path().join("cut"));
    std::fs::write(&empty, b"").unwrap();
    std::fs::write(&cut, &std::fs::read("/guest/vmlinuz").unwrap()[..1_000_000]).unwrap();
    let first = nano(DomainKind::Pv, "selvedge-first");
    let first = (host.create(&Creation { paused: true, ..creation(&first) }).await.unwrap(), first);
    let before = traces(&host).await;
    for kind in KINDS {
        let with_kernel = |kernel: &Path| DomainSpec { kernel: kernel.to_owned(), ..nano(kind, "selvedge-fault") };
        let nowhere = Path::new("/nonexistent/kernel");
        let huge = DomainSpec { memory_mib: 4000, max_memory_mib: 4000, ..nano(kind, "selvedge-fault") };
        let wrong = DomainSpec { vcpus: 0, ..nano(kind, "selvedge-fault") };
        let no_ramdisk = DomainSpec { ramdisk: Some(nowhere.into()), ..nano(kind, "selvedge-fault") };
        for (spec, label) in [
            (wrong, "spec"),
            (with_kernel(nowhere), "file"),
            (with_kernel(&empty), "file"),
            (with_kernel(dir.path()), "file"),
            (no_ramdisk, "file"),
            (with_kernel(&cut), "xl"),
            (huge, "no_memory"),
            (DomainSpec { kind, ..first.1.clone() }, "name_taken"),
        ] {
            let error = host.create(&creation(&spec)).await.unwrap_err();
            println!("{label}: {error}");
            assert_eq!(error.label(), label, "{error}");
            assert_eq!(traces(&host).await, before, "after {error}");
        }
        // A guest without a driver for its interface: nothing connects, and that is told.
        let mut spec = nano(kind, "selvedge-fault");
        spec.vifs = vec![Vif { mac: "00:16:3e:00:00:08".parse().unwrap() }];
        let domain = host.create(&creation(&spec)).await.unwrap();
        host.connect_vif(&domain, 0).await.unwrap();
        let error = host.vif_connected(&domain, 0, Duration::from_secs(2)).await.unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        assert_eq!(host.shutdown(&domain, Duration::from_secs(1)).await.unwrap(), Ended::Forced);
        assert_eq!(traces(&host).await, before);
    }
    let absent = Host::new(host.store().clone(), Xl { program: "/nonexistent/xl".into(), ..Xl::default() }, owner(1));
    assert!(absent.create(&creation(&first.1)).await.unwrap_err().is_unavailable());
    let closed = Host::new(Store::new("/nonexistent/socket".into(), LONG), Xl::default(), owner(1));
    let spec = nano(DomainKind::Pv, "selvedge-fault");
    assert!(closed.check().await.unwrap_err().is_unavailable());
    let error = closed.create(&creation(&spec)).await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    // The hypervisor knows which one it was.
    assert_eq!(traces(&host).await, before);
    host.destroy(&first.0).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn a_creation_that_is_killed_at_any_time_is_found_and_removed() {
    let (host, before) = (host(), traces(&host()).await);
    let mut spec = nano(DomainKind::Pv, "selvedge-killed");
    spec.vifs = vec![Vif { mac: "00:16:3e:00:00:07".parse().unwrap() }];
    let (mut half, mut whole, mut none) = (0, 0, 0);
    let mut step = 50;
    // Later each time, until two come through.
    while step <= 60_000 && whole < 2 {
        // Dropped, it kills its `xl` at once.
        let made = tokio::time::timeout(Duration::from_millis(step), host.create(&creation(&spec))).await;
        let left = host.list().await.unwrap();
        match left.as_slice() {
            [] => none += 1,
            [owned] if owned.labels.is_none() => half += 1,
            [_] => whole += 1,
            more => panic!("{more:?}"),
        }
        assert!(made.is_err() || left.iter().all(|owned| owned.labels.is_some()));
        for owned in left {
            host.destroy(&owned.domain).await.unwrap();
        }
        assert_eq!(traces(&host).await, before, "after {step} ms");
        step += 75.max(step / 10);
    }
    println!("killed before there was a domain: {none}, half-made: {half}, whole: {whole}");
    assert!(half > 0 && whole > 0);
    // One that takes too long is undone by itself.
    let hasty = Host::new(host.store().clone(), Xl { deadline: Duration::from_millis(20), ..Xl::default() }, owner(1));
    let error = hasty.create(&creation(&spec)).await.unwrap_err();
    assert!(error.to_string().contains("has not ended within"), "{error}");
}

/// Passes connections on to the real store. What follows after so many bytes of the store's, in new connections too, is
/// nonsense, or the end.
async fn spoiler(listener: UnixListener, mut bytes: u64, nonsense: bool) {
    loop {
        let (mut from_client, mut to_client) = listener.accept().await.unwrap().0.into_split();
        if bytes == 0 {
            // A question, so that there is something to answer.
            let _ = from_client.read(&mut [0; 64]).await;
        } else {
            let (from_store, mut to_store) = UnixStream::connect(Store::default_socket()).await.unwrap().into_split();
            let mut from_store = from_store.take(bytes);
            tokio::select! {
                _ = tokio::io::copy(&mut from_client, &mut to_store) => {}
                _ = tokio::io::copy(&mut from_store, &mut to_client) => {}
            }
            bytes = from_store.limit();
        }
        if nonsense {
            let _ = to_client.write_all(&[0xff; 64]).await;
        }
    }
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn a_store_that_ends_midway_or_answers_nonsense_leaves_nothing() {
    let (host, before) = (host(), traces(&host()).await);
    let mut spec = nano(DomainKind::Pv, "selvedge-spoilt");
    spec.vifs = vec![Vif { mac: "00:16:3e:00:00:05".parse().unwrap() }];
    let dir = tempfile::tempdir().unwrap();
    for nonsense in [false, true] {
        let mut told = BTreeMap::<&str, usize>::new();
        // Later each time, until it comes through.
        for bytes in (0..).step_by(30) {
            let socket = dir.path().join(format!("{bytes}{nonsense}"));
            let relay = tokio::spawn(spoiler(UnixListener::bind(&socket).unwrap(), bytes, nonsense));
            let made = Host::new(Store::new(socket, LONG), Xl::default(), owner(1)).create(&creation(&spec)).await;
            relay.abort();
            match made {
                Ok(domain) => {
                    host.destroy(&domain).await.unwrap();
                    break;
                }
                Err(Error::Store { source, .. }) => *told.entry(source.label()).or_default() += 1,
                // In the middle of a list what is nonsense can be anything.
                Err(error) => *told.entry(error.label()).or_default() += 1,
            }
            assert_eq!(traces(&host).await, before, "after {bytes} bytes");
        }
        println!("{told:?}");
        assert!(told.contains_key(if nonsense { "nonsense" } else { "lost" }), "{told:?}");
        assert!(told.keys().all(|label| ["nonsense", "lost", "gone"].contains(label)), "{told:?}");
        assert_eq!(traces(&host).await, before);
    }
}

/// The processes that make a domain just now.
fn makers() -> Vec<nix::unistd::Pid> {
    let numbers =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let makes =
        |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.starts_with(b"xl\0create\0"));
    numbers.filter(makes).map(nix::unistd::Pid::from_raw).collect()
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn a_tool_that_somebody_kills_is_told_and_leaves_nothing() {
    let (host, before) = (host(), traces(&host()).await);
    for kind in KINDS {
        let mut spec = nano(kind, "selvedge-shot");
        spec.vifs = vec![Vif { mac: "00:16:3e:00:00:04".parse().unwrap() }];
        let error = loop {
            let mut appear = host.store().watch("@introduceDomain").unwrap();
            // A watch tells once when it is set.
            appear.changed().await;
            let (making, host) = (spec.clone(), host.clone());
            let making = tokio::spawn(async move { host.create(&creation(&making)).await });
            appear.changed().await;
            for pid in makers() {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            match making.await.unwrap() {
                Err(error) => break error,
                // It was done sooner.
                Ok(domain) => self::host().destroy(&domain).await.unwrap(),
            }
        };
        assert!(error.to_string().contains("was ended by signal 9"), "{error}");
        assert_eq!(traces(&host).await, before, "{error}");
    }
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn others_domains_are_never_touched() {
    let (host, other) = (host(), host_of(2));
    let spec = nano(DomainKind::Pv, "selvedge-theirs");
    let theirs = other.create(&creation(&spec)).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plain.cfg");
    std::fs::write(&file, "name='plain'\ntype='pv'\nkernel='/guest/nano-pv'\nmemory=32\n").unwrap();
    run("xl", &["create", "-q", "-e", file.to_str().unwrap()]);
    assert_eq!(host.list().await.unwrap(), []);
    let all = host.list_all().await.unwrap();
    let plain = all.iter().find(|row| row.name == "plain").unwrap();
    assert_eq!(plain.uuid.owner(), None);

    // A number that is another's by now.
    let mine = host.create(&creation(&nano(DomainKind::Pv, "selvedge-mine"))).await.unwrap();
    host.destroy(&mine).await.unwrap();
    for id in [theirs.id, plain.id] {
        let stale = Domain { id, ..mine.clone() };
        assert_eq!(host.pause(&stale).await.unwrap_err().label(), "gone");
        assert_eq!(host.connect_vif(&stale, 0).await.unwrap_err().label(), "gone");
        assert_eq!(host.shutdown(&stale, LONG).await.unwrap(), Ended::Gone);
        host.destroy(&stale).await.unwrap();
    }
    let names = |rows: Vec<xen_manager::Row>| rows.into_iter().map(|row| (row.name, row.state)).collect::<Vec<_>>();
    let left = names(host.list_all().await.unwrap());
    for name in ["selvedge-theirs", "plain"] {
        assert!(left.contains(&(name.to_owned(), DomainState::Running)), "{left:?}");
    }
    other.destroy(&theirs).await.unwrap();
    run("xl", &["destroy", "plain"]);
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn domains_are_made_side_by_side() {
    let (host, before) = (host(), traces(&host()).await);
    let specs: Vec<_> = (0..4).map(|n| nano(KINDS[n % 2], &format!("selvedge-side-{n}"))).collect();
    let make = |spec: DomainSpec| {
        let host = host.clone();
        tokio::spawn(async move { host.create(&creation(&spec)).await })
    };
    let tasks: Vec<_> = specs.into_iter().map(make).collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let all = host.list().await.unwrap();
    assert_eq!(all.len(), 4);
    for owned in all {
        host.destroy(&owned.domain).await.unwrap();
    }
    assert_eq!(traces(&host).await, before);
}

/// Waits until somebody serves, and says how long it took.
async fn until_served(address: &str, begun: Instant) -> Duration {
    let wait = async {
        loop {
            if let Ok(Ok(text)) = tokio::time::timeout(Duration::from_secs(1), try_get(address)).await
                && text.ends_with("hello from a guest\n")
            {
                return begun.elapsed();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, wait).await.unwrap()
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn a_domain_prepared_and_held_serves_where_it_is_told_to() {
    let (host, bridge) = (host(), Bridge::create("xmt1", "10.84.0.1/24"));
    let before = traces(&host).await;
    let with_vif = |name: &str, words: &str| DomainSpec {
        vifs: vec![Vif { mac: "00:16:3e:00:00:06".parse().unwrap() }],
        ..linux(DomainKind::Pvh, name, words)
    };
    let begun = Instant::now();
    let cold = host.create(&creation(&with_vif("selvedge-cold", "ip=10.84.0.8/24"))).await.unwrap();
    bridge.join(&cold.interface(0));
    host.connect_vif(&cold, 0).await.unwrap();
    let cold_start = until_served("10.84.0.8:80", begun).await;
    host.destroy(&cold).await.unwrap();

    // Booted as far as it comes without an address, then held.
    let prepared = host.create(&creation(&with_vif("selvedge-pool", "await"))).await.unwrap();
    bridge.join(&prepared.interface(0));
    host.connect_vif(&prepared, 0).await.unwrap();
    assert_eq!(host.written(&prepared, "data/awaits", LONG).await.unwrap(), "data/arguments");
    host.pause(&prepared).await.unwrap();
    let used = host.look(&prepared).await.unwrap().unwrap().cpu;

    let begun = Instant::now();
    let labels = BTreeMap::from([("instance".to_owned(), "00000009".to_owned())]);
    let words = b"ip=10.84.0.9/24 mac=00:16:3e:00:00:09";
    let arguments = Entry { path: "data/arguments".into(), value: words.to_vec(), access: None };
    let name = "selvedge-taken".parse().unwrap();
    let mac = "00:16:3e:00:00:09".parse().unwrap();
    let assignment = Assignment { name: &name, mac, labels: labels.clone(), entries: vec![arguments] };
    let assigned = host.assign(&prepared, &assignment).await.unwrap();
    host.unpause(&assigned).await.unwrap();
    let warm_start = until_served("10.84.0.9:80", begun).await;
    println!("Linux PVH to HTTP 200: {cold_start:.1?} from nothing, {warm_start:.1?} prepared");
    let listed = host.list().await.unwrap();
    assert_eq!((listed[0].labels.as_ref(), &listed[0].domain), (Some(&labels), &assigned));
    assert!(listed[0].row.cpu >= used && listed[0].row.name == "selvedge-taken");
    host.destroy(&prepared).await.unwrap();
    assert_eq!(host.configure(&prepared, &labels, &[]).await.unwrap_err().label(), "gone");
    assert_eq!(traces(&host).await, before);
}

/// A guest with rings, store and network of its own, which `tests/xen/run.sh` copies there where it was built.
#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn the_reference_unikernel_serves_and_rests_and_ends() {
    const IMAGE: &str = "/guest/unikernel.xen";
    if !Path::new(IMAGE).exists() {
        println!("SKIPPED (no unikernel; run make unikernel): the_reference_unikernel_serves_and_rests_and_ends");
        return;
    }
    let (host, bridge) = (host(), Bridge::create("xmt2", "10.85.0.1/24"));
    for kind in KINDS {
        let before = traces(&host).await;
        let with = |words: &str| DomainSpec {
            kernel: IMAGE.into(),
            cmdline: words.to_owned(),
            vifs: vec![Vif { mac: "00:16:3e:00:00:07".parse().unwrap() }],
            ..nano(kind, "selvedge-unikernel")
        };
        let begun = Instant::now();
        let domain = host.create(&creation(&with("ip=10.85.0.8/24"))).await.unwrap();
        bridge.join(&domain.interface(0));
        host.connect_vif(&domain, 0).await.unwrap();
        host.vif_connected(&domain, 0, LONG).await.unwrap();
        // Two requests on one connection.
        let mut stream = TcpStream::connect("10.85.0.8:80").await.unwrap();
        let pages =
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /content/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(pages).await.unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).await.unwrap();
        println!("our unikernel, {kind:?}, to the end of 1 MB: {:.1?} from nothing", begun.elapsed());
        let (heads, content) = answers.split_at(answers.len() - 1_000_000);
        let heads = String::from_utf8_lossy(heads);
        assert!(heads.starts_with("HTTP/1.1 200 ") && heads.contains("\r\n\r\nok\nHTTP/1.1 200 "), "{heads}");
        assert!(content.iter().enumerate().all(|(at, byte)| at % 251 == usize::from(*byte)));

        let used = async || host.look(&domain).await.unwrap().unwrap().cpu;
        let then = used().await;
        // Time passes and nothing happens: that is what is looked at.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(used().await - then <= Duration::from_millis(100), "one step of the count at most: it rests");
        assert_eq!(host.shutdown(&domain, LONG).await.unwrap(), Ended::Itself(End::PowerOff));
        assert_eq!(traces(&host).await, before);

        // What it cannot go on with is said, and is a crash.
        let mut events = host.events().await.unwrap();
        let domain = host.create(&creation(&with("ip=nonsense"))).await.unwrap();
        let end = loop {
            if let Event::Ended(_, end) = tokio::time::timeout(LONG, events.next()).await.unwrap() {
                break end;
            }
        };
        assert_eq!(end, End::Crash);
        host.destroy(&domain).await.unwrap();
        assert_eq!(traces(&host).await, before);
    }
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen"]
async fn what_making_a_domain_costs_beside_plain_xl() {
    const RUNS: usize = 5;
    let (host, dir) = (host(), tempfile::tempdir().unwrap());
    for (kind, word, kernel) in [(DomainKind::Pv, "pv", "/guest/nano-pv"), (DomainKind::Pvh, "pvh", "/guest/nano-pvh")]
    {
        let file = dir.path().join(word);
        std::fs::write(&file, format!("name='plain'\ntype='{word}'\nkernel='{kernel}'\nmemory=32\n")).unwrap();
        let spec = nano(kind, "selvedge-cost");
        let labels = BTreeMap::from([("instance".to_owned(), "00000001".to_owned())]);
        let [mut plain, mut ours, mut plain_end, mut ours_end] = [const { Vec::new() }; 4];
        for _ in 0..RUNS {
            let begun = Instant::now();
            run("xl", &["create", "-q", "-e", file.to_str().unwrap()]);
            plain.push(begun.elapsed());
            let begun = Instant::now();
            run("xl", &["destroy", "plain"]);
            plain_end.push(begun.elapsed());
            let begun = Instant::now();
            let domain = host.create(&Creation { labels: labels.clone(), ..creation(&spec) }).await.unwrap();
            ours.push(begun.elapsed());
            let begun = Instant::now();
            host.destroy(&domain).await.unwrap();
            ours_end.push(begun.elapsed());
        }
        let median = |times: &mut Vec<Duration>| {
            times.sort_unstable();
            times[RUNS / 2]
        };
        let [plain, ours, plain_end, ours_end] = [&mut plain, &mut ours, &mut plain_end, &mut ours_end].map(median);
        println!(
            "{word}: made in {} ms (xl {} ms), removed in {} ms (xl {} ms)",
            ours.as_millis(),
            plain.as_millis(),
            ours_end.as_millis(),
            plain_end.as_millis()
        );
    }
}
