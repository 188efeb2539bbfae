//! Declared networks on the real kernel: shaping as measured, repair of what others change, nothing of others touched.
//! Each test in network namespaces of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use control::model::{AddressPair, InstanceId, NetReport, PortKind, RouteSpec, Shaping, TapUse, UplinkSpec, VxlanSpec};
use control::netlink::{BridgeSpec, Keeper, Net, Network, PortSpec};
use tests::lab::node::{Guest, Node, Sleeper};
use tests::lab::process::run;
use tests::lab::{Namespace, is_root};

const PORT: &str = "sv00000009";
const SHAPER: &str = "svi00000009";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 9);

fn bridge() -> BridgeSpec {
    BridgeSpec {
        name: "sv-br".to_owned(),
        v4: (Ipv4Addr::new(10, 73, 0, 1), "10.73.0.0/24".parse().unwrap()),
        v6: Some(("fd73::1".parse().unwrap(), "fd73::/64".parse().unwrap())),
        shaping: None,
    }
}

fn mbit(rate: u64) -> Option<Shaping> {
    Some(Shaping::with_default_burst(rate * 1_000_000))
}

fn port(shaping: Option<Shaping>) -> PortSpec {
    let v6: Ipv6Addr = "fd73::9".parse().unwrap();
    PortSpec {
        instance: InstanceId::from_number(9),
        bridge: bridge(),
        addresses: AddressPair { v4: Some(ADDRESS), v6: Some(v6) },
        shaping,
        kind: PortKind::Pair,
    }
}

fn vxlan() -> VxlanSpec {
    VxlanSpec {
        name: "sv-vx".to_owned(),
        vni: 42,
        local: "10.73.0.1".parse().unwrap(),
        remotes: vec!["10.73.0.200".parse().unwrap(), "10.73.0.201".parse().unwrap()],
        port: 4789,
        mtu: 1450,
        addresses: vec!["10.99.0.1/24".parse().unwrap()],
    }
}

fn route(to: &str, via: &str) -> RouteSpec {
    RouteSpec { to: to.parse().unwrap(), via: Some(via.parse().unwrap()), device: None, metric: 100 }
}

/// Bridge, tunnel and routes.
fn network() -> Network {
    Network {
        bridges: vec![BridgeSpec { shaping: mbit(500), ..bridge() }],
        tunnels: vec![vxlan()],
        routes: vec![route("10.214.0.0/24", "10.99.0.2"), route("fd74::/64", "fd73::77")],
        uplinks: Vec::new(),
    }
}

fn tc(namespace: &Namespace, arguments: &[&str]) -> String {
    run(namespace.command("tc").unwrap().args(arguments)).unwrap()
}

/// The bridge and an instance on it.
async fn furnish(net: &Net, guest: &Guest, shaping: Option<Shaping>) {
    net.ensure_bridge(&bridge()).await.unwrap();
    net.declare(Network { bridges: vec![bridge()], ..Network::default() }).await.unwrap();
    let port = net.create_port(&port(shaping)).await.unwrap();
    net.attach_port(&port, guest.pid()).await.unwrap();
}

/// Bytes of content that came in each of the first two seconds of a transfer, counted from its first byte.
fn transfer(from: &Namespace, to: &Namespace, address: IpAddr) -> [u64; 2] {
    let listener = to.run_in(|| TcpListener::bind(SocketAddr::new(address, 7000))).unwrap().unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = from.run_in(|| TcpStream::connect(SocketAddr::new(address, 7000))).unwrap().unwrap();
            let chunk = vec![0; 1 << 16];
            while !over.load(Ordering::Relaxed) {
                // The reader's end is the end of it.
                if stream.write_all(&chunk).is_err() {
                    break;
                }
            }
        });
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 18];
        let mut seconds = [0, 0];
        let mut begun = None;
        loop {
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "the sender ended early");
            let second = begun.get_or_insert_with(Instant::now).elapsed().as_secs() as usize;
            match seconds.get_mut(second) {
                Some(sum) => *sum += count as u64,
                None => break,
            }
        }
        over.store(true, Ordering::Relaxed);
        drop(stream);
        seconds
    })
}

/// A rate as tc counts it, from the content that came in a second: full frames of 1514 bytes carry 1448 of it.
fn frames_bps(content: u64) -> f64 {
    content as f64 * 8.0 * 1514.0 / 1448.0
}

#[test]
fn rates_are_held_from_the_first_second() {
    if !is_root("rates_are_held_from_the_first_second") {
        return;
    }
    for rate in [200, 10] {
        let (node, guest) = (Node::new(), Guest::new());
        node.run(async |net| furnish(net, &guest, mbit(rate)).await);
        let gateway = IpAddr::V4(bridge().v4.0);
        for (way, from, to, address) in [
            ("from the instance", &guest.namespace, &node.namespace, gateway),
            ("to the instance", &node.namespace, &guest.namespace, IpAddr::V4(ADDRESS)),
        ] {
            // A machine that is busy elsewhere can only make it slower; three tries are for that.
            let mut seen = Vec::new();
            let held = (0..3).any(|_| {
                let seconds = transfer(from, to, address).map(|content| frames_bps(content) / (rate as f64 * 1e6));
                seen.push(seconds);
                assert!(seconds[0] < 1.05 && seconds[1] < 1.05, "{rate} Mbit/s {way}: {seen:?} of the rate");
                seconds.iter().all(|share| *share > 0.95)
            });
            println!("{rate} Mbit/s {way}: {seen:?} of the rate in the first and second second");
            assert!(held, "{rate} Mbit/s {way}: {seen:?} of the rate");
        }
    }
}

#[test]
fn a_bridge_holds_its_rate_for_all_its_instances() {
    if !is_root("a_bridge_holds_its_rate_for_all_its_instances") {
        return;
    }
    let (node, guest) = (Node::new(), Guest::new());
    node.run(async |net| {
        furnish(net, &guest, None).await;
        let shaped = BridgeSpec { shaping: mbit(20), ..bridge() };
        net.declare(Network { bridges: vec![shaped], ..Network::default() }).await.unwrap();
    });
    let gateway = IpAddr::V4(bridge().v4.0);
    for (from, to, address) in
        [(&guest.namespace, &node.namespace, gateway), (&node.namespace, &guest.namespace, IpAddr::V4(ADDRESS))]
    {
        let mut seen = Vec::new();
        let held = (0..3).any(|_| {
            let share = frames_bps(transfer(from, to, address)[1]) / 20e6;
            seen.push(share);
            (0.95..1.05).contains(&share)
        });
        assert!(held, "{seen:?}");
    }
    // And no more once it is not declared.
    node.run(async |net| {
        net.declare(Network { bridges: vec![BridgeSpec { shaping: mbit(20), ..bridge() }], ..Network::default() })
            .await
            .unwrap();
        net.declare(Network { bridges: vec![bridge()], ..Network::default() }).await.unwrap();
    });
    let content = transfer(&guest.namespace, &node.namespace, gateway)[1];
    assert!(frames_bps(content) > 40e6, "{content}");
}

/// Datagrams in bursts that have to wait in the queue, while the rate is changed: each has to arrive.
#[test]
fn a_change_of_rate_loses_no_packet() {
    if !is_root("a_change_of_rate_loses_no_packet") {
        return;
    }
    const BURSTS: u32 = 150;
    const IN_BURST: u32 = 12;
    let (node, guest) = (Node::new(), Guest::new());
    let gateway = bridge().v4.0;
    let receiver = |namespace: &Namespace, address: Ipv4Addr| {
        let socket = namespace.run_in(|| UdpSocket::bind((address, 7001))).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    };
    node.run(async |net| furnish(net, &guest, mbit(10)).await);
    // A link that has just come up may drop its first packets, and a neighbour has to be found.
    for (from, to) in [(&guest.namespace, gateway), (&node.namespace, ADDRESS)] {
        let other = if to == gateway { &node.namespace } else { &guest.namespace };
        let _listener = other.run_in(|| TcpListener::bind((to, 7002))).unwrap().unwrap();
        let connect = || TcpStream::connect_timeout(&(to, 7002).into(), Duration::from_secs(30));
        from.run_in(connect).unwrap().unwrap();
    }
    let ways = [
        (&guest.namespace, receiver(&node.namespace, gateway), gateway),
        (&node.namespace, receiver(&guest.namespace, ADDRESS), ADDRESS),
    ];
    let sending = AtomicBool::new(true);
    let sending = &sending;
    let (changes, got) = std::thread::scope(|scope| {
        let senders: Vec<_> = ways
            .iter()
            .map(|(from, _, to)| {
                let socket = from.run_in(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap().unwrap();
                scope.spawn(move || {
                    for burst in 0..BURSTS {
                        for number in 0..IN_BURST {
                            let mut datagram = [0; 1000];
                            datagram[..4].copy_from_slice(&(burst * IN_BURST + number).to_be_bytes());
                            socket.send_to(&datagram, (*to, 7001)).unwrap();
                        }
                        // 12 kB each 16 ms are 6 Mbit/s: less than each of the rates.
                        std::thread::sleep(Duration::from_millis(16));
                    }
                })
            })
            .collect();
        let receivers: Vec<_> = ways
            .iter()
            .map(|(_, socket, _)| {
                scope.spawn(move || {
                    let (mut numbers, mut buffer) = (std::collections::BTreeSet::new(), [0; 1500]);
                    while numbers.len() as u32 != BURSTS * IN_BURST {
                        // Asked before: a pause of the whole machine is not the end.
                        let over = !sending.load(Ordering::Relaxed);
                        match socket.recv(&mut buffer) {
                            Ok(count) => {
                                assert_eq!(count, 1000);
                                numbers.insert(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
                            }
                            Err(_) if over => break,
                            Err(_) => {}
                        }
                    }
                    numbers.len() as u32
                })
            })
            .collect();
        let changer = scope.spawn(|| {
            let mut changes = 0;
            node.run(async |net| {
                net.intend(Network { bridges: vec![bridge()], ..Network::default() });
                net.adopt_port(&port(mbit(10)), Some(guest.pid())).unwrap();
                while sending.load(Ordering::Relaxed) {
                    for rate in [200, 12, 50, 10] {
                        net.reshape(&BTreeMap::from([(InstanceId::from_number(9), mbit(rate))]));
                        let done = net.redeclare().await.unwrap();
                        assert_eq!(done.changes.len(), 2, "{done:?}");
                        changes += 1;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            });
            changes
        });
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        sending.store(false, Ordering::Relaxed);
        let got: Vec<u32> = receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect();
        (changer.join().unwrap(), got)
    });
    println!("{changes} changes of the rate");
    assert!(changes > 20, "{changes}");
    let counts = [PORT, SHAPER].map(|link| tc(&node.namespace, &["-s", "qdisc", "show", "dev", link]));
    assert_eq!(got, [BURSTS * IN_BURST; 2], "after {changes} changes: {counts:?}");
}

/// What is deleted by hand, one thing after the other, and the kind of thing that has to be counted as repaired.
const FLUSHED: &[(&str, &str)] = &[
    ("ip link del sv-br", "bridge"),
    ("ip link set sv-br down", "bridge"),
    ("ip link set sv-br type bridge stp_state 1", "bridge"),
    ("ip link set sv-br alias ''", "bridge"),
    ("ip addr del 10.73.0.1/24 dev sv-br", "address"),
    ("ip addr del fd73::1/64 dev sv-br", "address"),
    ("ip addr flush dev sv-br", "address"),
    ("ip link set sv00000009 nomaster", "port"),
    ("ip link set sv00000009 down", "port"),
    ("ip link del sv00000009", "port"),
    ("ip neigh del 10.73.0.9 dev sv-br", "neighbour"),
    ("ip neigh flush dev sv-br nud permanent", "neighbour"),
    ("ip route del 10.214.0.0/24 metric 100", "route"),
    ("ip -6 route del fd74::/64 metric 100", "route"),
    ("ip link del sv-vx", "vxlan"),
    ("ip link set sv-vx down", "vxlan"),
    ("ip addr del 10.99.0.1/24 dev sv-vx", "address"),
    ("bridge fdb del 00:00:00:00:00:00 dev sv-vx dst 10.73.0.201", "vxlan"),
    ("tc qdisc del dev sv00000009 root", "qdisc"),
    ("tc qdisc del dev sv00000009 clsact", "qdisc"),
    ("tc filter del dev sv00000009 ingress", "redirect"),
    ("tc qdisc del dev svi00000009 root", "qdisc"),
    ("ip link set svi00000009 down", "shaper"),
    ("ip link del svi00000009", "shaper"),
    ("tc qdisc del dev sv-br root", "qdisc"),
    ("tc qdisc del dev sv-br clsact", "qdisc"),
];

/// Carries a command out and waits until a repair of that kind of thing was counted and nothing is left to do.
async fn flush(node: &Node, net: &Net, command: &str, object: &str) -> Duration {
    let mut report = net.report();
    let before = report.borrow_and_update().repairs.get(object).copied().unwrap_or(0);
    let words: Vec<&str> = command.split(' ').map(|word| word.trim_matches('\'')).collect();
    let mut order = node.namespace.command(words[0]).unwrap();
    order.args(&words[1..]);
    tokio::task::spawn_blocking(move || run(&mut order).unwrap()).await.unwrap();
    let begun = Instant::now();
    let repaired = |r: &NetReport| r.repairs.get(object).is_some_and(|n| *n > before);
    tokio::time::timeout(Duration::from_secs(300), report.wait_for(repaired)).await.unwrap().unwrap();
    while !net.plan(&network()).await.unwrap().changes.is_empty() {
        tokio::time::timeout(Duration::from_secs(300), report.changed()).await.unwrap().unwrap();
    }
    let took = begun.elapsed();
    assert_eq!(report.borrow().problem, None, "{command}");
    let named = report.borrow().recent.back().unwrap().change.clone();
    assert!(!named.name.is_empty() && !named.what.is_empty());
    took
}

#[test]
fn what_others_delete_is_back_counted_and_named() {
    if !is_root("what_others_delete_is_back_counted_and_named") {
        return;
    }
    let (node, guest) = (Node::new(), Guest::new());
    let inside = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let net = Arc::new(Net::new(node.owner.clone()).unwrap());
            furnish(&net, &guest, mbit(200)).await;
            net.declare(network()).await.unwrap();
            let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
            let noted = Arc::clone(&asked);
            let keeper =
                Keeper::new(Arc::clone(&net), Box::new(move |port| noted.lock().unwrap().push(port.to_owned())));
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let keeper = tokio::spawn(keeper.run(async move { drop(stopped.await) }));
            let problems = Arc::new(std::sync::Mutex::new(Vec::new()));
            let (met, mut watched) = (Arc::clone(&problems), net.report());
            tokio::spawn(async move {
                while watched.changed().await.is_ok() {
                    met.lock().unwrap().extend(watched.borrow_and_update().problem.clone());
                }
            });
            assert_eq!(net.plan(&network()).await.unwrap().changes, []);

            for (command, object) in FLUSHED {
                // By the timer it would take up to half a minute; a machine that stands still meanwhile gets further tries.
                let mut took = Vec::new();
                while took.iter().all(|took: &Duration| *took > Duration::from_secs(1)) {
                    assert!(took.len() < 3, "{command}: back after {took:?} only");
                    took.push(flush(&node, &net, command, object).await);
                }
                println!("{command}: back after {took:?}");
            }
            let asked = asked.lock().unwrap().clone();
            assert!(asked.iter().filter(|port| *port == PORT).count() >= 2, "{asked:?}");
            // A step may meet a link that is just going; it is tried again.
            println!("problems met on the way: {:?}", problems.lock().unwrap());
            drop(stop);
            keeper.await.unwrap();
        });
    };
    node.namespace.run_in(inside).unwrap();
    assert!(tc(&node.namespace, &["qdisc", "show", "dev", SHAPER]).contains("rate 200Mbit"));
    let content = transfer(&guest.namespace, &node.namespace, IpAddr::V4(bridge().v4.0));
    assert!(frames_bps(content[1]) < 210e6, "{content:?}");
}

/// What others do to a tap that can be mended, and what is mended.
const ON_A_TAP: [(&str, &str); 6] = [
    ("ip link set sv00000009 nomaster", "port"),
    ("ip link set sv00000009 alias ''", "port"),
    ("ip neigh del 10.73.0.9 dev sv-br", "neighbour"),
    ("tc qdisc del dev sv00000009 root", "qdisc"),
    ("tc filter del dev sv00000009 ingress", "redirect"),
    ("ip link del svi00000009", "shaper"),
];

/// A tap is looked after as a pair is, also one that an earlier run of the daemon made; one that is gone is named.
#[test]
fn a_tap_is_kept_and_one_that_is_gone_is_told() {
    if !is_root("a_tap_is_kept_and_one_that_is_gone_is_told") {
        return;
    }
    let node = Node::new();
    // Whoever has the tap's other end is a process in the node's own namespace, as a monitor is.
    let monitor = Sleeper::new(&node.namespace);
    let inside = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let net = Arc::new(Net::new(node.owner.clone()).unwrap());
            net.ensure_bridge(&bridge()).await.unwrap();
            net.declare(network()).await.unwrap();
            let spec = PortSpec { kind: PortKind::Tap(TapUse::Descriptor), ..port(mbit(200)) };
            let mut made = net.create_port(&spec).await.unwrap();
            let tap = made.descriptor.take().unwrap();
            net.attach_port(&made, monitor.pid()).await.unwrap();
            assert_eq!(net.plan(&network()).await.unwrap().changes, []);
            drop(net);

            let net = Arc::new(Net::new(node.owner.clone()).unwrap());
            net.declare(network()).await.unwrap();
            net.adopt_port(&spec, Some(monitor.pid())).unwrap();
            assert_eq!(net.plan(&network()).await.unwrap().changes, []);
            let keeper = Keeper::new(Arc::clone(&net), Box::new(|_| ()));
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let keeper = tokio::spawn(keeper.run(async move { drop(stopped.await) }));
            for (command, object) in ON_A_TAP {
                flush(&node, &net, command, object).await;
            }
            let shown = node.namespace.ip(&["-d", "link", "show", PORT]).unwrap();
            assert!(shown.contains("tun type tap") && shown.contains("master sv-br"), "{shown}");

            let mut report = net.report();
            node.namespace.ip(&["link", "del", PORT]).unwrap();
            let told = |r: &NetReport| r.hazards.iter().any(|h| h.starts_with("sv00000009: was removed"));
            tokio::time::timeout(Duration::from_secs(300), report.wait_for(told)).await.unwrap().unwrap();
            assert!(!node.interfaces().contains(&PORT.to_owned()), "{:?}", node.interfaces());
            // It stands in nothing's way, and goes with its instance.
            net.redeclare().await.unwrap();
            net.delete_port(&spec.instance).await.unwrap();
            assert!(!node.interfaces().contains(&SHAPER.to_owned()), "{:?}", node.interfaces());
            assert_eq!(net.plan(&network()).await.unwrap().hazards, Vec::<String>::new());
            drop(tap);
            drop(stop);
            keeper.await.unwrap();
        });
    };
    node.namespace.run_in(inside).unwrap();
}

/// Everything of a namespace's network, as iproute2 shows it, without timers, counters and numbers of links.
fn state(namespace: &Namespace) -> String {
    let mut all = String::new();
    for words in [
        "ip -d link",
        "ip addr",
        "ip -4 route show table all",
        "ip -6 route show table all",
        "ip rule",
        "ip -6 rule",
        "ip neigh show nud permanent",
        "bridge fdb show",
        "tc qdisc show",
        "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding",
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        all += &run(namespace.command(words[0]).unwrap().args(&words[1..])).unwrap();
    }
    for link in namespace.interfaces().unwrap() {
        all += &tc(namespace, &["filter", "show", "dev", &link, "ingress"]);
    }
    // What moves by itself: the bridges' timers, what they learn, and the kernel's search for doubles of its own addresses.
    let moving = |line: &str| line.contains("_timer");
    let still =
        |line: &str| line.split_whitespace().filter(|w| w.parse::<f64>().is_err()).collect::<Vec<_>>().join(" ");
    let learned =
        |line: &str| line.contains(" master ") && line.split(' ').nth(1) == Some("dev") && !line.contains("permanent");
    let lines = all.lines().filter(|line| !learned(line));
    let lines = lines.map(|line| if moving(line) { still(line) } else { line.replace(" tentative", "") });
    lines.collect::<Vec<_>>().join("\n")
}

/// Fails with the lines that differ.
fn same(now: &str, before: &str, when: &str) {
    let (now, before): (Vec<&str>, Vec<&str>) = (now.lines().collect(), before.lines().collect());
    let more: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
    let less: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
    assert!(now == before, "after {when}: more {more:#?}, less {less:#?}");
}

#[test]
fn a_rejected_change_leaves_everything_as_it_was() {
    if !is_root("a_rejected_change_leaves_everything_as_it_was") {
        return;
    }
    let (node, guest) = (Node::new(), Guest::new());
    node.namespace.ip(&["link", "add", "foreign", "type", "bridge"]).unwrap();
    node.namespace.ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"]).unwrap();
    node.namespace.up("up0").unwrap();
    node.namespace.up("up1").unwrap();
    node.run(async |net| {
        furnish(net, &guest, mbit(50)).await;
        net.declare(network()).await.unwrap();
        let before = state(&node.namespace);

        let mut tunnel = vxlan();
        tunnel.addresses = vec!["10.98.0.1/24".parse().unwrap()];
        tunnel.remotes = vec!["10.73.0.200".parse().unwrap(), "10.73.0.222".parse().unwrap()];
        let second = VxlanSpec { name: "sv-vx2".to_owned(), vni: 43, addresses: Vec::new(), ..vxlan() };
        let uplink = UplinkSpec { interface: "up0".to_owned(), shaping: mbit(100).unwrap() };
        let much = Network {
            bridges: vec![BridgeSpec { shaping: mbit(7), ..bridge() }],
            tunnels: vec![tunnel, second.clone()],
            routes: vec![route("10.215.0.0/24", "10.98.0.2")],
            uplinks: vec![uplink],
        };
        // Seen beforehand: a name that is taken, an interface that is not there, a bridge that cannot be.
        let taken = VxlanSpec { name: "foreign".to_owned(), ..second.clone() };
        let absent = UplinkSpec { interface: "absent".to_owned(), shaping: mbit(1).unwrap() };
        let mut nowhere = bridge();
        nowhere.v4.0 = Ipv4Addr::new(10, 9, 9, 9);
        // Met on the way, after everything else was done: no way to the next hop.
        let unreachable = route("10.216.0.0/24", "198.51.100.7");
        let cases = [
            ("blocked", Network { tunnels: vec![vxlan(), taken], ..much.clone() }),
            ("blocked", Network { uplinks: vec![absent], ..much.clone() }),
            ("invalid", Network { bridges: vec![nowhere], ..much.clone() }),
            ("refused", Network { routes: vec![much.routes[0].clone(), unreachable], ..much.clone() }),
        ];
        for (label, wrong) in cases {
            let planned = net.plan(&wrong).await.unwrap();
            assert!(planned.changes.len() > 5, "{planned:?}");
            let error = net.declare(wrong).await.unwrap_err();
            assert_eq!(error.label(), label, "{error}");
            same(&state(&node.namespace), &before, &error.to_string());
            // And what was declared before is still what is wanted.
            assert_eq!(net.redeclare().await.unwrap().changes, [], "after {error}");
        }
        // The same without the fault goes through, and back again.
        net.declare(much).await.unwrap();
        assert_ne!(state(&node.namespace), before);
        net.declare(network()).await.unwrap();
        assert_eq!(net.plan(&network()).await.unwrap().changes, []);
    });
}

#[test]
fn what_is_not_ours_stays_as_it_is() {
    if !is_root("what_is_not_ours_stays_as_it_is") {
        return;
    }
    let (node, guest) = (Node::new(), Guest::new());
    let foreign = |command: &str| {
        let words: Vec<&str> = command.split(' ').collect();
        run(node.namespace.command(words[0]).unwrap().args(&words[1..])).unwrap()
    };
    for command in [
        "ip link add lan type bridge stp_state 1",
        "ip link set lan up",
        "ip addr add 192.0.2.1/24 dev lan",
        "ip link add lan0 type veth peer name lan1",
        "ip link set lan0 master lan up",
        "ip link set lan1 up",
        "ip link add lanx type vxlan id 9 local 192.0.2.1 dstport 4790",
        "ip link add lanifb type ifb",
        "tc qdisc add dev lan0 root handle 1: tbf rate 50mbit burst 20kb limit 100kb",
        "tc qdisc add dev lan0 clsact",
        "tc filter add dev lan0 ingress protocol all u32 match u32 0 0 action mirred egress redirect dev lanifb",
        "ip route add 198.51.100.0/24 via 192.0.2.9",
        "ip route add 198.51.101.0/24 via 192.0.2.9 proto static metric 7",
        "ip rule add pref 900 to 203.0.113.0/24 table 77",
        "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev lan",
    ] {
        foreign(command);
    }
    let only_theirs = |name: &str| {
        ["ip -d link show dev", "ip addr show dev", "tc qdisc show dev"]
            .iter()
            .map(|command| foreign(&format!("{command} {name}")))
            .collect::<String>()
    };
    let names = ["lan", "lan0", "lan1", "lanx", "lanifb"];
    let kept = |text: String| {
        text.split_whitespace().filter(|w| w.parse::<f64>().is_err()).map(str::to_owned).collect::<Vec<_>>()
    };
    let before: Vec<_> = names.iter().map(|name| kept(only_theirs(name))).collect();
    let routes = || foreign("ip route show proto boot") + &foreign("ip route show proto static") + &foreign("ip rule");
    let (routes_before, filter_before) = (routes(), foreign("tc filter show dev lan0 ingress"));

    node.run(async |net| {
        furnish(net, &guest, mbit(50)).await;
        let uplink = UplinkSpec { interface: "lan1".to_owned(), shaping: mbit(100).unwrap() };
        net.declare(Network { uplinks: vec![uplink], ..network() }).await.unwrap();
        net.declare(network()).await.unwrap();

        // A queueing discipline of another's in the place of ours is named and stays.
        foreign("tc qdisc replace dev sv00000009 root handle 77: tbf rate 1mbit burst 20kb limit 100kb");
        foreign("ip addr add 10.73.0.50/32 dev lan");
        foreign("sysctl -q -w net.ipv4.ip_forward=0");
        let plan = net.plan(&network()).await.unwrap();
        assert_eq!(plan.changes.iter().filter(|c| c.object != "setting").count(), 0, "{plan:?}");
        for named in ["sv00000009: has a queueing discipline", "lan: has the address 10.73.0.50", "ip_forward is 0"] {
            assert!(plan.hazards.iter().any(|h| h.contains(named)), "{named}: {plan:?}");
        }
        assert_eq!(net.redeclare().await.unwrap_err().label(), "blocked");
        assert!(foreign("tc qdisc show dev sv00000009").contains("tbf 77: root"));
        assert_eq!(node.namespace.setting("ipv4/ip_forward").unwrap(), "0");
        foreign("ip addr del 10.73.0.50/32 dev lan");

        net.release().await.unwrap();
        net.delete_port(&InstanceId::from_number(9)).await.unwrap();
        net.remove_bridge("sv-br").await.unwrap();
    });
    let after: Vec<_> = names.iter().map(|name| kept(only_theirs(name))).collect();
    assert_eq!(after, before);
    assert_eq!(routes(), routes_before);
    assert_eq!(foreign("tc filter show dev lan0 ingress"), filter_before);
    assert!(foreign("ip neigh show dev lan nud permanent").contains("192.0.2.9"));
    let mut left = node.interfaces();
    left.sort();
    assert_eq!(left, ["lan", "lan0", "lan1", "lanifb", "lanx", "lo"]);
}
