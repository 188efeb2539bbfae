//! The driver for guests of Xen on a real hypervisor: in dom0 of `tests/xen/lab`, whose guests below `/guest` it starts.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use control::driver::xen::{Settings, Xen};
use control::driver::{Driver, DriverEvent, InstanceSpec, Resized, Resources, Running};
use control::model::{AddressPair, Guest, InstanceId, Launch, OwnerId, PortEnd, PortKind, ServiceName, Technology};
use control::netlink::{BridgeSpec, Net, PortSpec};
use control::reconcile::attachment;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tests::contract::{self, Fixture, Outside, get, next};
use xen_manager::store::Store;
use xen_manager::{Creation, DomainKind, DomainSpec, Scheduling};

/// Who has domains prepared.
const POOL: u64 = 0x6f;
/// What the linked kernel is told beside its address: that it may be crashed from outside.
const WORDS: [&str; 3] = ["console=hvc0", "quiet", "sysrq_always_enabled"];

fn settings() -> Settings {
    Settings { program: "xl".into(), store: Store::default_socket() }
}

fn driver(technology: Technology, owner: &OwnerId) -> Xen {
    Xen::new(technology, &settings(), owner).unwrap()
}

fn linux(owner: &OwnerId, number: u32) -> InstanceSpec {
    InstanceSpec {
        id: InstanceId::from_number(number),
        owner: owner.clone(),
        service: ServiceName::new("video").unwrap(),
        image: "/guest/vmlinuz".to_owned(),
        guest: Guest {
            launch: Launch::Linux,
            arguments: WORDS.map(ToOwned::to_owned).to_vec(),
            ramdisk: Some("/guest/initrd".to_owned()),
            ..Guest::default()
        },
        resources: Resources { vcpus: 1.0, memory_mib: 96 },
    }
}

fn bridge() -> BridgeSpec {
    BridgeSpec {
        name: "sv-xen".to_owned(),
        v4: (Ipv4Addr::new(10, 83, 0, 1), "10.83.0.0/24".parse().unwrap()),
        v6: None,
        shaping: None,
    }
}

fn port(number: u32) -> PortSpec {
    let addresses = AddressPair { v4: Some(Ipv4Addr::new(10, 83, 0, 9)), v6: None };
    let instance = InstanceId::from_number(number);
    PortSpec { instance, bridge: bridge(), addresses, shaping: None, kind: PortKind::Vif }
}

/// The reference unikernel, which `tests/xen/run.sh` copies there if it was built.
const UNIKERNEL: &str = "/guest/unikernel.xen";

fn unikernel(owner: &OwnerId) -> InstanceSpec {
    InstanceSpec {
        image: UNIKERNEL.to_owned(),
        guest: Guest::default(),
        resources: Resources { vcpus: 1.0, memory_mib: 32 },
        ..linux(owner, 0)
    }
}

/// `xl` with these words; what it printed.
async fn xl(words: &[&str]) -> String {
    let output = tokio::process::Command::new("xl").args(words).output().await.unwrap();
    assert!(output.status.success(), "xl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Domains of whatever owner, as `xl` shows them.
struct Domains;

/// The domain's number, from the name that its interface was made with.
fn number(running: &Running) -> String {
    let Some(PortEnd::Interface(name)) = &running.end else { panic!("{running:?} does not run") };
    name.strip_prefix("vif").unwrap().split('.').next().unwrap().to_owned()
}

/// The same, whose guest has no way to be crashed but an interrupt that it does not handle: the hypervisor resets it.
struct Interrupted;

impl Outside for Interrupted {
    fn kill<'a>(&'a self, running: &'a Running) -> BoxFuture<'a, ()> {
        async { drop(xl(&["trigger", &number(running), "nmi"]).await) }.boxed()
    }

    fn is_there<'a>(&'a self, running: &'a Running) -> BoxFuture<'a, bool> {
        Domains.is_there(running)
    }

    fn cause(&self) -> &'static [&'static str] {
        &["reboot"]
    }
}

impl Outside for Domains {
    fn kill<'a>(&'a self, running: &'a Running) -> BoxFuture<'a, ()> {
        async { drop(xl(&["sysrq", &number(running), "c"]).await) }.boxed()
    }

    fn is_there<'a>(&'a self, running: &'a Running) -> BoxFuture<'a, bool> {
        async {
            let (all, number) = (xl(&["list"]).await, number(running));
            // Name, number, memory, processors, state. One that is dying ran once; its memory is being taken back.
            all.lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>())
                .any(|words| matches!(words[..], [_, id, _, _, state, ..] if id == number && !state.ends_with('d')))
        }
        .boxed()
    }

    fn cause(&self) -> &'static [&'static str] {
        &["crash"]
    }
}

/// Entries and interfaces of guests that are there.
fn traces() -> Vec<String> {
    let interfaces = std::fs::read_dir("/sys/class/net").unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    interfaces.map(name).filter(|name| name.starts_with("vif") || name.starts_with("sv")).collect()
}

/// The network of an owner in a host where nothing is left of a test that failed.
async fn fresh(owner: &OwnerId) -> Net {
    for left in (0x61..0x67).chain([POOL, 0xfeed]) {
        let left = OwnerId::from_number(left);
        let net = Net::new(left.clone()).unwrap();
        for technology in Technology::XEN {
            let driver = driver(technology, &left);
            driver.prepare(&[]).await.unwrap();
            for running in driver.list_owned().await.unwrap() {
                driver.stop(&running.id, Duration::ZERO).await.unwrap();
            }
        }
        for link in net.list_owned().await.unwrap() {
            match link.instance() {
                Some(id) => net.delete_port(id).await.unwrap(),
                None => net.remove_bridge(&bridge().name).await.unwrap(),
            }
        }
    }
    Net::new(owner.clone()).unwrap()
}

/// What differs between guests that keep the contract.
struct Guests<'a> {
    spec: InstanceSpec,
    memory: bool,
    share: f64,
    load: &'static str,
    outside: &'a dyn Outside,
}

async fn keeps_the_contract_with_linux(technology: Technology, owner: u64) {
    let owner = OwnerId::from_number(owner);
    let spec = linux(&owner, 0);
    let guests = Guests { spec, memory: true, share: 0.4, load: "/cgi-bin/work", outside: &Domains };
    keeps_the_contract(technology, &owner, guests).await;
}

async fn keeps_the_contract(technology: Technology, owner: &OwnerId, guests: Guests<'_>) {
    let net = fresh(owner).await;
    let others = OwnerId::from_number(0xfeed);
    let fixture = Fixture {
        driver: &driver(technology, owner),
        again: &driver(technology, owner),
        other: &driver(technology, &others),
        spec: guests.spec,
        resizes: Resized { vcpus: true, memory: guests.memory },
        share: guests.share,
        window: Duration::from_secs(5),
        load: guests.load,
        outside: guests.outside,
        absent_image: "/nonexistent/image",
        net: &net,
        bridge: bridge(),
        addresses: port(0).addresses,
    };
    contract::suite(&fixture).await;
    net.remove_bridge(&bridge().name).await.unwrap();
    assert_eq!(traces(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen-driver"]
async fn pv_linux_keeps_the_contract() {
    keeps_the_contract_with_linux(Technology::XenPv, 0x61).await;
}

#[tokio::test]
#[ignore = "needs a Xen host: make test-xen-driver"]
async fn pvh_linux_keeps_the_contract() {
    keeps_the_contract_with_linux(Technology::XenPvh, 0x62).await;
}

/// The reference unikernel, which is there in a second where Linux takes ten.
#[tokio::test]
#[ignore = "needs a Xen host: make test-xen-driver"]
async fn pvh_unikernel_keeps_the_contract() {
    if !std::path::Path::new(UNIKERNEL).exists() {
        println!("SKIPPED (no unikernel; run make unikernel): pvh_unikernel_keeps_the_contract");
        return;
    }
    let owner = OwnerId::from_number(0x66);
    let spec = unikernel(&owner);
    let guests = Guests { spec, memory: false, share: 0.4, load: "/work/1000", outside: &Interrupted };
    keeps_the_contract(Technology::XenPvh, &owner, guests).await;
}

/// Each thing that can be wrong has an error of its own that names it, and leaves nothing.
#[tokio::test]
#[ignore = "needs a Xen host: make test-xen-driver"]
async fn faults_are_named_and_leave_nothing() {
    let owner = OwnerId::from_number(0x63);
    let net = fresh(&owner).await;
    net.ensure_bridge(&bridge()).await.unwrap();
    let driver = driver(Technology::XenPv, &owner);
    let nano = |image: &str| InstanceSpec {
        image: image.to_owned(),
        guest: Guest::default(),
        resources: Resources { vcpus: 1.0, memory_mib: 32 },
        ..linux(&owner, 1)
    };
    let dir = tempfile::tempdir().unwrap();
    let half = dir.path().join("half");
    let whole = std::fs::read("/guest/nano-pv").unwrap();
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let half = half.to_string_lossy().into_owned();
    let mut no_ramdisk = linux(&owner, 1);
    no_ramdisk.guest.ramdisk = Some("/nonexistent/initrd".to_owned());
    let mut too_large = nano("/guest/nano-pv");
    too_large.resources.memory_mib = 1 << 20;
    for (spec, label, said) in [
        (nano("/nonexistent/kernel"), "no_image", "/nonexistent/kernel"),
        (nano(&half), "failed", "cut off"),
        (no_ramdisk, "no_image", "/nonexistent/initrd"),
        (too_large, "failed", "MiB are free"),
    ] {
        let mut made = net.create_port(&port(1)).await.unwrap();
        let error = driver.start(&spec, attachment(&mut made)).await.unwrap_err();
        let text = control::model::in_full(&error);
        assert!(error.label() == label && text.contains(said), "{text}");
        net.delete_port(&spec.id).await.unwrap();
        assert_eq!((driver.list_owned().await.unwrap(), traces()), (vec![], vec!["sv-xen".to_owned()]), "{said}");
    }

    // Our name, but another's domain: it stays.
    let name = format!("xen-pv-{owner}-{}", InstanceId::from_number(1));
    let file = dir.path().join("taken.cfg");
    let text = format!("name = \"{name}\"\ntype = \"pv\"\nkernel = \"/guest/nano-pv\"\nmemory = 16\n");
    std::fs::write(&file, text).unwrap();
    xl(&["create", "-q", &file.to_string_lossy()]).await;
    let mut made = net.create_port(&port(1)).await.unwrap();
    let error = driver.start(&nano("/guest/nano-pv"), attachment(&mut made)).await.unwrap_err();
    assert!(control::model::in_full(&error).contains("the name is that of domain"), "{error}");
    driver.stop(&InstanceId::from_number(1), Duration::ZERO).await.unwrap();
    xl(&["destroy", &name]).await;

    // A guest that ends at once, by whichever end of its own, is told with the reason.
    for (word, cause) in [("then=crash", "crash"), ("then=reboot", "reboot"), ("then=off", "poweroff")] {
        let mut spec = linux(&owner, 1);
        spec.guest.arguments.push(word.to_owned());
        let mut events = driver.events();
        let mut made = net.create_port(&port(1)).await.unwrap();
        let running = driver.start(&spec, attachment(&mut made)).await.unwrap();
        net.attach_port(&made, running.end.unwrap()).await.unwrap();
        let DriverEvent::Exited { id, cause: told } = next(&mut events).await else { panic!("an exit is expected") };
        assert!(id == spec.id && told.contains(cause), "{told}");
        driver.stop(&id, Duration::ZERO).await.unwrap();
        net.delete_port(&id).await.unwrap();
        assert_eq!((driver.list_owned().await.unwrap(), traces()), (vec![], vec!["sv-xen".to_owned()]), "{word}");
    }

    // A guest that has no driver for its interface serves nobody, and goes as any other.
    let mut made = net.create_port(&port(1)).await.unwrap();
    let running = driver.start(&nano("/guest/nano-pv"), attachment(&mut made)).await.unwrap();
    net.attach_port(&made, running.end.unwrap()).await.unwrap();
    driver.stop(&running.id, Duration::from_secs(1)).await.unwrap();
    net.delete_port(&running.id).await.unwrap();
    net.remove_bridge(&bridge().name).await.unwrap();
    assert_eq!((driver.list_owned().await.unwrap(), traces()), (vec![], vec![]));
}

/// What each form of launch puts where its guest looks: a Linux guest stands in for it and shows what it finds.
#[tokio::test]
#[ignore = "needs a Xen host: make test-xen-driver"]
async fn forms_of_launch_reach_the_guest() {
    let owner = OwnerId::from_number(0x64);
    let net = fresh(&owner).await;
    net.ensure_bridge(&bridge()).await.unwrap();
    let driver = driver(Technology::XenPvh, &owner);
    let dir = tempfile::tempdir().unwrap();
    let click = dir.path().join("web.click");
    std::fs::write(&click, format!("define($IP {{ip}});\n{}// end", "// filler\n".repeat(300))).unwrap();
    let store = Store::new(Store::default_socket(), Duration::from_secs(60));
    for launch in [Launch::Mirage, Launch::Rumprun, Launch::ClickOs] {
        let mut spec = linux(&owner, 1);
        spec.guest.launch = launch;
        spec.guest.click = (launch == Launch::ClickOs).then(|| click.to_string_lossy().into_owned());
        spec.guest.arguments = vec!["show".to_owned()];
        let mut made = net.create_port(&port(1)).await.unwrap();
        let running = driver.start(&spec, attachment(&mut made)).await.unwrap();
        let own = format!("/local/domain/{}", number(&running));
        let read = async |path: &str| store.read_text(&format!("{own}/{path}")).await.unwrap().unwrap_or_default();
        match launch {
            Launch::Rumprun => {
                let config: serde_json::Value = serde_json::from_str(&read("rumprun/cfg").await).unwrap();
                assert_eq!(config["net"]["interfaces"]["xenif0"]["addrs"][0]["addr"], "10.83.0.9/24");
            }
            Launch::ClickOs => {
                let mut text = String::new();
                for chunk in 0..4 {
                    text += &read(&format!("data/clickos/0/config/{chunk}")).await;
                }
                assert!(text.starts_with("define($IP 10.83.0.9);") && text.ends_with("// end"), "{text}");
                assert_eq!(read("data/clickos/0/status").await, "Running");
            }
            _ => {
                let listed = xl(&["list", "-l", &number(&running)]).await;
                assert!(listed.contains("--ipv4=10.83.0.9/24 --ipv4-gateway=10.83.0.1 show"), "{listed}");
            }
        }
        driver.stop(&spec.id, Duration::ZERO).await.unwrap();
        net.delete_port(&spec.id).await.unwrap();
    }
    net.remove_bridge(&bridge().name).await.unwrap();
}

/// What a guest sends is shaped at its interface, on the host.
#[tokio::test]
#[ignore = "needs a Xen host: make test-xen-driver"]
async fn a_rate_holds_at_a_guests_interface() {
    let owner = OwnerId::from_number(0x65);
    let net = fresh(&owner).await;
    net.ensure_bridge(&bridge()).await.unwrap();
    let driver = driver(Technology::XenPv, &owner);
    let spec = linux(&owner, 1);
    let shaping = control::model::Shaping { rate_bps: 2_000_000, burst_bytes: 20_000 };
    let mut made = net.create_port(&PortSpec { shaping: Some(shaping), ..port(1) }).await.unwrap();
    let running = driver.start(&spec, attachment(&mut made)).await.unwrap();
    net.attach_port(&made, running.end.unwrap()).await.unwrap();
    let address = port(1).addresses.v4.unwrap().into();
    get(address, "/healthz").await;
    let begun = std::time::Instant::now();
    let bits = get(address, "/content").await.len() as f64 * 8.0;
    let least = (bits - 8.0 * 20_000.0) / 2_000_000.0;
    assert!(begun.elapsed().as_secs_f64() > 0.8 * least, "{:?} for {bits} bits", begun.elapsed());
    assert!(net.port_counters(&spec.id).await.unwrap().unwrap().from_instance_bytes > 100_000);
    driver.stop(&spec.id, Duration::from_secs(30)).await.unwrap();
    net.delete_port(&spec.id).await.unwrap();
    net.remove_bridge(&bridge().name).await.unwrap();
    assert_eq!(traces(), Vec::<String>::new());
}

/// Numbers of domains that are prepared, by their names.
async fn prepared() -> BTreeMap<String, String> {
    let all = xl(&["list"]).await;
    let words = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.filter(|words| words[0].contains("-pool-")).map(|w| (w[0].to_owned(), w[1].to_owned())).collect()
}

/// Runs of `xl create` that are under way.
fn creations() -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter(|p| std::fs::read(p.path().join("cmdline")).is_ok_and(|c| c.starts_with(b"xl\0create\0"))).count()
}

/// Filled, several at a time; taken; found again by a second driver; filled up where one was lost; renewed; cleared.
#[tokio::test]
#[ignore = "needs a Xen host: make test-xen-driver"]
async fn prepared_domains_become_instances() {
    const IMAGE: &str = "/guest/unikernel.xen";
    if !std::path::Path::new(IMAGE).exists() {
        println!("SKIPPED (no unikernel; run make unikernel): prepared_domains_become_instances");
        return;
    }
    let owner = OwnerId::from_number(POOL);
    let net = fresh(&owner).await;
    net.ensure_bridge(&bridge()).await.unwrap();
    let form = |memory_mib| InstanceSpec {
        image: IMAGE.to_owned(),
        guest: Guest { arguments: vec!["content=12345".to_owned()], ..Guest::default() },
        resources: Resources { vcpus: 1.0, memory_mib },
        ..linux(&owner, 1)
    };
    let ready = |count| BTreeMap::from([(form(32).service, count)]);
    let first = driver(Technology::XenPvh, &owner);
    let mut events = first.events();

    let (wanted, mut most) = ([(form(32), 5)], 0);
    let mut filling = first.prepare(&wanted);
    let filled = loop {
        tokio::select! {
            filled = &mut filling => break filled.unwrap(),
            event = next(&mut events) => panic!("{event:?} of what is no instance"),
            () = tokio::time::sleep(Duration::from_millis(5)) => most = most.max(creations()),
        }
    };
    assert_eq!((filled.ready, filled.failed.len()), (ready(5), 0), "{:?}", filled.failed);
    assert!((2..=4).contains(&most), "{most} domains were made at a time");
    let before = prepared().await;
    assert_eq!((before.len(), first.list_owned().await.unwrap()), (5, vec![]));

    // The guest learns address, gateway and words then, and its interface's address.
    let mut made = net.create_port(&port(1)).await.unwrap();
    let begun = std::time::Instant::now();
    let running = first.start(&form(32), attachment(&mut made)).await.unwrap();
    net.attach_port(&made, running.end.clone().unwrap()).await.unwrap();
    let address = port(1).addresses.v4.unwrap().into();
    assert_eq!(get(address, "/content").await.len(), 12_345);
    println!("prepared, from the order to the end of an answer: {:.2?}", begun.elapsed());
    assert!(before.values().any(|id| *id == number(&running)), "{running:?} is none of {before:?}");
    assert_eq!((prepared().await.len(), first.list_owned().await.unwrap()), (4, vec![running.clone()]));

    // Fewer; then a second driver, as after a restart, to which nobody has told what is there. Somebody else's domain of
    // such a name stays; what is half-made does not.
    assert_eq!(first.prepare(&[(form(32), 3)]).await.unwrap().ready, ready(3));
    let kept = prepared().await;
    let host = xen_manager::Host::new(
        Store::new(Store::default_socket(), Duration::from_secs(60)),
        xen_manager::Xl::default(),
        xen_manager::Owner::new(POOL).unwrap(),
    );
    let half = DomainSpec {
        name: format!("xen-pvh-{owner}-pool-77").parse().unwrap(),
        kind: DomainKind::Pv,
        kernel: "/guest/nano-pv".into(),
        ramdisk: None,
        cmdline: String::new(),
        memory_mib: 16,
        max_memory_mib: 16,
        vcpus: 1,
        max_vcpus: 1,
        scheduling: Scheduling::default(),
        vifs: vec![],
    };
    let creation = Creation { spec: &half, labels: BTreeMap::new(), entries: vec![], paused: true };
    host.create(&creation).await.unwrap();
    let again = driver(Technology::XenPvh, &owner);
    let mut events_again = again.events();
    assert_eq!(again.prepare(&[(form(32), 3)]).await.unwrap().ready, ready(3));
    assert_eq!(prepared().await, kept);

    // Lost ones are told: a prepared one as such, an instance as an instance, though it was known as prepared.
    let lost = kept.values().next().unwrap();
    let told = async { tokio::join!(next(&mut events_again), async { drop(xl(&["destroy", lost]).await) }).0 };
    assert_eq!(told.await, DriverEvent::Unprepared);
    assert_eq!(again.prepare(&[(form(32), 3)]).await.unwrap().ready, ready(3));
    assert!(prepared().await.len() == 3 && !prepared().await.values().any(|id| id == lost));
    xl(&["destroy", &number(&running)]).await;
    loop {
        match next(&mut events).await {
            // It has the other driver's end of it, too.
            DriverEvent::Unprepared => {}
            DriverEvent::Exited { id, .. } => break assert_eq!(id, running.id),
            other => panic!("{other:?}"),
        }
    }
    net.delete_port(&running.id).await.unwrap();

    // Another form: what was prepared is no use. One that cannot be prepared is told, and does not hurt the others.
    let missing =
        InstanceSpec { image: "/nonexistent".to_owned(), service: ServiceName::new("audio").unwrap(), ..form(32) };
    let outcome = again.prepare(&[(missing, 1), (form(40), 1)]).await.unwrap();
    assert_eq!((outcome.ready, outcome.failed[0].1.label()), (ready(1), "no_image"));
    let renewed = prepared().await;
    assert!(renewed.len() == 1 && !renewed.values().any(|id| kept.values().any(|old| old == id)), "{renewed:?}");

    assert!(again.prepare(&[]).await.unwrap().ready.is_empty());
    net.remove_bridge(&bridge().name).await.unwrap();
    assert_eq!((prepared().await.len(), again.list_owned().await.unwrap(), traces()), (0, vec![], vec![]));
}
