//! The Docker driver against a real engine of the lab's own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::HashMap;
use std::error::Error as _;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use control::driver::docker::{Docker, EngineError};
use control::driver::{Driver, DriverError, DriverEvent, InstanceSpec, Resized, Resources};
use control::model::{AddressPair, Guest, InstanceId, OwnerId, PortKind, ServiceName};
use control::netlink::{BridgeSpec, Net};
use tests::contract::{self, Fixture, get, kill, next};
use tests::lab::podman::Podman;
use tests::lab::{Engine, Namespace, image, is_root};

const IMAGE: &str = "selvedge-test/nginx:1";
const BROKEN: &str = "selvedge-test/broken:1";
const CONTENT: usize = 100_000;

fn owner() -> OwnerId {
    OwnerId::from_number(0x00c0_ffee)
}

fn spec(number: u32) -> InstanceSpec {
    InstanceSpec {
        id: InstanceId::from_number(number),
        owner: owner(),
        service: ServiceName::new("video").unwrap(),
        image: IMAGE.to_owned(),
        guest: Guest::default(),
        resources: Resources { vcpus: 1.0, memory_mib: 64 },
    }
}

/// An engine with its images, and a namespace to be the node in.
struct Lab {
    engine: Engine,
    node: Namespace,
    _dir: tempfile::TempDir,
}

impl Lab {
    fn new(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("selvedge-docker-").tempdir().unwrap();
        let engine = Engine::start(dir.path()).unwrap();
        image::build_nginx_image(&engine, IMAGE, CONTENT).unwrap();
        let node = Namespace::create(&format!("svt-{}-{name}", std::process::id())).unwrap();
        Self { engine, node, _dir: dir }
    }

    fn driver(&self) -> Docker {
        Docker::new(self.engine.socket().to_owned(), owner())
    }
}

fn fixture<'a>(driver: &'a Docker, again: &'a Docker, other: &'a Docker, net: &'a Net) -> Fixture<'a> {
    Fixture {
        driver,
        again,
        other,
        spec: spec(0),
        resizes: Resized { vcpus: true, memory: true },
        share: 0.05,
        window: Duration::from_secs(1),
        load: "/content",
        outside: &contract::Processes,
        absent_image: "selvedge-test/absent:1",
        net,
        bridge: BridgeSpec {
            name: "sv-docker".to_owned(),
            v4: (Ipv4Addr::new(10, 81, 0, 1), "10.81.0.0/24".parse().unwrap()),
            v6: Some(("fd81::1".parse().unwrap(), "fd81::/64".parse().unwrap())),
            shaping: None,
        },
        addresses: AddressPair { v4: Some(Ipv4Addr::new(10, 81, 0, 9)), v6: Some("fd81::9".parse().unwrap()) },
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn the_contract_is_kept() {
    if !is_root("the_contract_is_kept") {
        return;
    }
    let lab = Lab::new("contract");
    let again = lab.driver();
    let (driver, other) = (lab.driver(), Docker::new(lab.engine.socket().to_owned(), OwnerId::from_number(0xfeed)));
    let run = || {
        block_on(async {
            let net = Net::new(owner()).unwrap();
            let fixture = fixture(&driver, &again, &other, &net);
            contract::suite(&fixture).await;

            // What is particular to this technology and image.
            assert!(driver.check().await.unwrap().starts_with("Docker "), "{:?}", driver.check().await);
            let running = driver.start(&spec(9), None).await.unwrap();
            let port = control::netlink::PortSpec {
                instance: running.id.clone(),
                bridge: fixture.bridge.clone(),
                addresses: fixture.addresses,
                shaping: None,
                kind: PortKind::Pair,
            };
            let port = net.create_port(&port).await.unwrap();
            net.attach_port(&port, running.pid().unwrap()).await.unwrap();
            assert_eq!(get(fixture.addresses.v4.unwrap().into(), "/content").await, image::content(CONTENT));
            driver.stop(&running.id, Duration::from_secs(2)).await.unwrap();
        });
    };
    lab.node.run_in(run).unwrap();
    lab.engine.stop().unwrap();
}

/// The same contract on the socket that Podman has for Docker's clients.
#[test]
fn podman_keeps_the_contract() {
    const TEST: &str = "podman_keeps_the_contract";
    if !is_root(TEST) {
        return;
    }
    let dir = tempfile::Builder::new().prefix("selvedge-podman-").tempdir().unwrap();
    let Some(podman) = Podman::start(dir.path()).unwrap() else {
        println!("SKIPPED (no podman): {TEST}");
        return;
    };
    let image = "localhost/selvedge-test/nginx:1";
    podman.import(image, &image::archive(CONTENT).unwrap(), image::SERVE).unwrap();
    let of = |owner: OwnerId| Docker::new(podman.socket(), owner);
    let (driver, again, other) = (of(owner()), of(owner()), of(OwnerId::from_number(0xfeed)));
    let node = Namespace::create(&format!("svd-{}-podman", std::process::id())).unwrap();
    let run = || {
        block_on(async {
            let net = Net::new(owner()).unwrap();
            let fixture = Fixture {
                spec: InstanceSpec { image: image.to_owned(), ..spec(0) },
                absent_image: "selvedge-test/absent:1",
                // Podman 4 has no call for it.
                resizes: Resized::default(),
                ..fixture(&driver, &again, &other, &net)
            };
            contract::suite(&fixture).await;
        });
    };
    node.run_in(run).unwrap();
}

#[test]
fn limits_reach_the_engine_and_others_containers_are_untouched() {
    if !is_root("limits_reach_the_engine_and_others_containers_are_untouched") {
        return;
    }
    let lab = Lab::new("others");
    let driver = lab.driver();
    block_on(async {
        let client = lab.engine.client().unwrap();
        let create = async |name: &str, labels: &[(&str, &str)]| {
            let labels: HashMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let body =
                ContainerCreateBody { image: Some(IMAGE.to_owned()), labels: Some(labels), ..Default::default() };
            let options = CreateContainerOptionsBuilder::new().name(name).build();
            client.create_container(Some(options), body).await.unwrap().id
        };
        let us = owner().to_string();
        let taken = format!("selvedge-{us}-00000007");
        let others = [
            create("only-owner", &[("selvedge.owner", &us)]).await,
            create("only-instance", &[("selvedge.instance", "00000007")]).await,
            create(&taken, &[]).await,
            create("no-identifier", &[("selvedge.owner", &us), ("selvedge.instance", "not ours!")]).await,
        ];

        assert_eq!(driver.list_owned().await.unwrap(), []);
        driver.stop(&InstanceId::from_number(7), Duration::ZERO).await.unwrap();
        let error = driver.start(&spec(7), None).await.unwrap_err();
        assert_eq!(error.label(), "failed", "a name that is taken is not ours to free: {error}");
        let running = driver.start(&spec(8), None).await.unwrap();
        let host = client.inspect_container(&running.handle, None).await.unwrap().host_config.unwrap();
        assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
        assert_eq!((host.nano_cpus, host.pids_limit), (Some(1_000_000_000), Some(512)));
        assert_eq!(host.network_mode.as_deref(), Some("none"));
        let (more, less) = (Resources { vcpus: 1.5, memory_mib: 96 }, Resources { vcpus: 0.5, memory_mib: 48 });
        for resources in [more, less] {
            driver.resize(&running.id, resources).await.unwrap();
            let host = client.inspect_container(&running.handle, None).await.unwrap().host_config.unwrap();
            let bytes = Some(resources.memory_mib as i64 * (1 << 20));
            assert_eq!((host.memory, host.memory_swap), (bytes, bytes));
            assert_eq!(host.nano_cpus, Some((resources.vcpus * 1e9) as i64));
        }
        // Below what the engine takes at all: refused, and nothing changes.
        let refused = driver.resize(&running.id, Resources { vcpus: 0.5, memory_mib: 1 }).await.unwrap_err();
        assert_eq!(refused.label(), "failed", "{refused}");
        driver.stop(&running.id, Duration::ZERO).await.unwrap();

        for id in others {
            client.inspect_container(&id, None).await.unwrap();
        }
    });
    lab.engine.stop().unwrap();
}

#[test]
fn a_container_that_ends_at_once_says_why() {
    if !is_root("a_container_that_ends_at_once_says_why") {
        return;
    }
    let lab = Lab::new("broken");
    image::build(&lab.engine, BROKEN, 1, &["/usr/sbin/nginx", "-c", "/missing.conf"]).unwrap();
    image::build(&lab.engine, "selvedge-test/no-program:1", 1, &["/no/such/program"]).unwrap();
    let driver = lab.driver();
    block_on(async {
        let mut events = driver.events();
        let broken = InstanceSpec { image: BROKEN.to_owned(), ..spec(1) };
        let left = match driver.start(&broken, None).await {
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("exit code 1") && text.contains("/missing.conf"), "{text}");
                assert_eq!(driver.list_owned().await.unwrap(), []);
                false
            }
            // It was still running when it was looked at: its end is told as any other.
            Ok(_) => true,
        };
        let DriverEvent::Exited { id, cause } = next(&mut events).await else { panic!("an exit is expected") };
        assert_eq!(id, broken.id);
        assert!(cause.starts_with("exit code 1;"), "{cause}");
        if left {
            assert!(cause.contains("/missing.conf"), "{cause}");
        }
        driver.stop(&broken.id, Duration::ZERO).await.unwrap();

        let none = InstanceSpec { image: "selvedge-test/no-program:1".to_owned(), ..spec(2) };
        let error = driver.start(&none, None).await.unwrap_err();
        assert_eq!(error.label(), "failed", "{error}");
        assert_eq!(driver.list_owned().await.unwrap(), [], "a failed start leaves nothing");
    });
    lab.engine.stop().unwrap();
}

#[test]
fn the_engine_may_go_and_come_back() {
    if !is_root("the_engine_may_go_and_come_back") {
        return;
    }
    let mut lab = Lab::new("lost");
    let driver = lab.driver();
    block_on(async {
        let running = driver.start(&spec(1), None).await.unwrap();
        let mut events = driver.events();
        // The stream is there when the first event has come through it.
        let probe = driver.start(&spec(2), None).await.unwrap();
        kill(probe.pid().unwrap());
        assert!(matches!(next(&mut events).await, DriverEvent::Exited { .. }));

        lab.engine.kill().unwrap();
        assert_eq!(next(&mut events).await, DriverEvent::Lost);
        let error = driver.check().await.unwrap_err();
        let DriverError::Unavailable { source, .. } = &error else { panic!("{error}") };
        let cause = source.downcast_ref::<EngineError>().expect("the engine's own error");
        assert!(matches!(cause, EngineError::NotRunning { .. }), "{cause:?}");
        assert!(cause.source().is_some(), "the system's reason is kept");
        assert_eq!(driver.list_owned().await.unwrap_err().label(), "unavailable");
        assert_eq!(driver.usage().await.unwrap_err().label(), "unavailable");

        lab.engine.restart().unwrap();
        assert_eq!(next(&mut events).await, DriverEvent::Back);
        driver.check().await.unwrap();
        let ids: Vec<_> = driver.list_owned().await.unwrap().into_iter().map(|r| r.id).collect();
        assert!(ids.contains(&running.id), "what is ours is known after the engine's return: {ids:?}");
        for id in &ids {
            driver.stop(id, Duration::ZERO).await.unwrap();
        }
        let again = driver.start(&spec(3), None).await.unwrap();
        kill(again.pid().unwrap());
        loop {
            // Exits that the returning engine brought about come first.
            match next(&mut events).await {
                DriverEvent::Exited { id, .. } if id == again.id => break,
                DriverEvent::Exited { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        driver.stop(&again.id, Duration::ZERO).await.unwrap();
    });
    lab.engine.stop().unwrap();
}

/// Another engine behind the same path: what it says of its version is what the real one says, one lower.
fn older_engine(path: &Path, real: PathBuf) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, engine) = (client.unwrap(), UnixStream::connect(&real).unwrap());
            let (mut from_client, mut to_engine) = (client.try_clone().unwrap(), engine.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_client, &mut to_engine);
            });
            let (mut engine, mut client) = (engine, client);
            std::thread::spawn(move || {
                let mut buffer = [0; 1 << 16];
                while let Ok(count @ 1..) = engine.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..count]).replace("1.41", "1.40");
                    if client.write_all(text.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// The engine is replaced by one of another version behind the same path, and back: each time its version is asked for
/// anew, one that is too old is refused by its number, and what is ours is known again.
#[test]
fn an_engine_of_another_version_takes_its_place() {
    if !is_root("an_engine_of_another_version_takes_its_place") {
        return;
    }
    let mut lab = Lab::new("version");
    let dir = tempfile::tempdir().unwrap();
    let (path, real) = (dir.path().join("engine.sock"), lab.engine.socket().to_owned());
    let at = |target: &Path| {
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(target, &path).unwrap();
    };
    at(&real);
    let driver = Docker::new(path.clone(), owner());
    block_on(async {
        let running = driver.start(&spec(1), None).await.unwrap();
        let mut events = driver.events();
        // The stream is there when the first event has come through it.
        let probe = driver.start(&spec(2), None).await.unwrap();
        kill(probe.pid().unwrap());
        assert!(matches!(next(&mut events).await, DriverEvent::Exited { .. }));

        let older = dir.path().join("older.sock");
        older_engine(&older, real.clone());
        at(&older);
        lab.engine.kill().unwrap();
        lab.engine.restart().unwrap();
        assert_eq!(next(&mut events).await, DriverEvent::Lost);
        let error = driver.check().await.unwrap_err();
        let DriverError::Unavailable { source, .. } = &error else { panic!("{error}") };
        let cause = source.downcast_ref::<EngineError>().expect("the engine's own error");
        assert!(matches!(cause, EngineError::TooOld { found } if found == "1.40"), "{cause:?}");

        at(&real);
        assert_eq!(next(&mut events).await, DriverEvent::Back);
        driver.check().await.unwrap();
        assert!(driver.list_owned().await.unwrap().iter().any(|r| r.id == running.id), "what is ours is known again");
        for id in [&running.id, &probe.id] {
            driver.stop(id, Duration::ZERO).await.unwrap();
        }
    });
    lab.engine.stop().unwrap();
}

#[test]
fn an_engine_of_a_killed_run_is_ended() {
    if !is_root("an_engine_of_a_killed_run_is_ended") {
        return;
    }
    let mut lab = Lab::new("killed");
    let pid = block_on(async { lab.driver().start(&spec(1), None).await.unwrap().pid().unwrap() });
    let dir = lab.engine.socket().parent().unwrap().to_owned();
    // The engine is gone, its helpers and containers go on.
    lab.engine.kill().unwrap();
    assert!(tests::lab::process::start_time(pid).is_some());
    Engine::clean_up(&dir).unwrap();
    assert!(tests::lab::process::start_time(pid).is_none());
    let text = dir.display().to_string();
    let left: Vec<_> = tests::lab::process::all()
        .into_iter()
        .map(tests::lab::process::arguments)
        .filter(|a| a.iter().any(|w| w.contains(&text)))
        .collect();
    assert_eq!(left, Vec::<Vec<String>>::new());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&text), "{mounts}");
    Engine::clean_up(&dir).unwrap();
}
