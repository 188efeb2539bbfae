//! What one instance sends: the paper's two containers and our unikernel in one run, asked by wrk over the same bridge.
//! Figures of the machine, printed as a table; `SECONDS` makes each longer. Needs root, dockerd for the lab, the
//! unikernel (`make unikernel`) and wrk.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::net::Ipv4Addr;
use std::time::Duration;

use control::driver::docker::Docker;
use control::driver::unikernel::Unikernel;
use control::driver::{Driver, InstanceSpec, Resources};
use control::model::{AddressPair, Guest, InstanceId, OwnerId, ServiceName, Technology};
use control::netlink::{BridgeSpec, Net, PortSpec};
use control::reconcile::attachment;
use tests::contract::get;
use tests::lab::unikernel::Unikernels;
use tests::lab::{Engine, Namespace, flask, image, is_root};

/// Bytes of `/content`.
const CONTENT: usize = 1_000_000;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 84, 0, 9);

fn bridge() -> BridgeSpec {
    BridgeSpec {
        name: "sv-rate".to_owned(),
        v4: (Ipv4Addr::new(10, 84, 0, 1), "10.84.0.0/24".parse().unwrap()),
        v6: None,
        shaping: None,
    }
}

/// What wrk has seen: requests per second, and megabits of content per second.
struct Rate {
    requests: f64,
    megabits: f64,
}

fn ask(node: &Namespace, path: &str, bytes: usize) -> Rate {
    let seconds = std::env::var("SECONDS").unwrap_or_else(|_| "1".to_owned());
    let url = format!("http://{ADDRESS}{path}");
    let arguments = ["-t", "1", "-c", "16", "-d", &seconds, "--timeout", "60s", &url];
    let output = node.command("wrk").unwrap().args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
    let requests = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).unwrap_or_else(|| panic!("{text}"));
    let requests: f64 = requests.trim().parse().unwrap();
    assert!(requests > 0.0, "{text}");
    Rate { requests, megabits: requests * bytes as f64 * 8.0 / 1e6 }
}

/// Starts an instance, asks it, and removes it.
async fn measure(net: &Net, node: &Namespace, driver: &dyn Driver, image: String) -> [Rate; 2] {
    let spec = InstanceSpec {
        id: InstanceId::from_number(1),
        owner: net.owner().clone(),
        service: ServiceName::new("rate").unwrap(),
        image,
        guest: Guest { arguments: vec![format!("content={CONTENT}")], ..Guest::default() },
        resources: Resources { vcpus: 2.0, memory_mib: 128 },
    };
    let addresses = AddressPair { v4: Some(ADDRESS), v6: None };
    let port = PortSpec { instance: spec.id.clone(), bridge: bridge(), addresses, shaping: None, kind: driver.port() };
    let mut port = net.create_port(&port).await.unwrap();
    let running = driver.start(&spec, attachment(&mut port)).await.unwrap();
    net.attach_port(&port, running.pid().unwrap()).await.unwrap();
    drop(port);
    get(ADDRESS.into(), "/healthz").await;
    let rates = [ask(node, "/healthz", 3), ask(node, "/content", CONTENT)];
    driver.stop(&spec.id, Duration::ZERO).await.unwrap();
    net.delete_port(&spec.id).await.unwrap();
    rates
}

#[test]
fn one_instance_of_each_is_asked_as_fast_as_it_answers() {
    const TEST: &str = "one_instance_of_each_is_asked_as_fast_as_it_answers";
    if !is_root(TEST) {
        return;
    }
    let dir = tempfile::Builder::new().prefix("selvedge-rate-").tempdir().unwrap();
    let Some(unikernels) = Unikernels::copy(dir.path(), TEST).unwrap() else { return };
    let engine = Engine::start(&dir.path().join("engine")).unwrap();
    image::build_nginx_image(&engine, "selvedge-rate/nginx:1", CONTENT).unwrap();
    flask::build_flask_image(&engine, "selvedge-rate/flask:1", CONTENT).unwrap();
    let node = Namespace::create(&format!("svr-{}", std::process::id())).unwrap();
    let owner = OwnerId::from_number(0x71);
    let unikernel = |technology| {
        let driver = Unikernel::new(technology, unikernels.settings(technology), owner.clone()).unwrap();
        (Box::new(driver) as Box<dyn Driver>, unikernels.image(technology).to_string_lossy().into_owned())
    };
    let container = |name: &str| {
        let driver = Docker::new(engine.socket().to_owned(), owner.clone());
        (Box::new(driver) as Box<dyn Driver>, format!("selvedge-rate/{name}:1"))
    };
    let all = [
        ("docker nginx", container("nginx")),
        ("docker flask", container("flask")),
        ("spt web", unikernel(Technology::Spt)),
        ("qemu-microvm web (TCG)", unikernel(Technology::QemuMicrovm)),
    ];
    let rates = node.run_in(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let net = Net::new(owner.clone()).unwrap();
            net.ensure_bridge(&bridge()).await.unwrap();
            let mut rates = Vec::new();
            for (name, (driver, image)) in all {
                rates.push((name, measure(&net, &node, driver.as_ref(), image).await));
            }
            rates
        })
    });
    let rates = rates.unwrap();
    let nginx = rates[0].1[1].megabits;
    println!("| | requests/s, 3 bytes | requests/s, 1 MB | Mbit/s, 1 MB | of nginx |\n|---|--:|--:|--:|--:|");
    for (name, [small, large]) in &rates {
        let ([small, large, mbit], share) = ([small.requests, large.requests, large.megabits], large.megabits / nginx);
        println!("| {name} | {small:.0} | {large:.0} | {mbit:.0} | {share:.2} |");
    }
    engine.stop().unwrap();
}
