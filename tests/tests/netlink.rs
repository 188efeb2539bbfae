//! Bridges and ports on the real kernel, each test in a network namespace of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use control::model::{AddressPair, InstanceId, OwnerId, PortKind, TapUse};
use control::netlink::{BridgeSpec, Kind, Net, NetError, PortSpec};
use tests::lab::node::{Guest, Node, Sleeper, unique};
use tests::lab::{Namespace, is_root};

fn bridge() -> BridgeSpec {
    BridgeSpec {
        name: "sv-br".to_owned(),
        v4: (Ipv4Addr::new(10, 71, 0, 1), "10.71.0.0/24".parse().unwrap()),
        v6: Some(("fd71::1".parse().unwrap(), "fd71::/64".parse().unwrap())),
        shaping: None,
    }
}

fn port(number: u8) -> PortSpec {
    let v6 = Ipv6Addr::from(u128::from("fd71::".parse::<Ipv6Addr>().unwrap()) + u128::from(number));
    PortSpec {
        instance: InstanceId::from_number(number.into()),
        bridge: bridge(),
        addresses: AddressPair { v4: Some(Ipv4Addr::new(10, 71, 0, number)), v6: Some(v6) },
        shaping: None,
        kind: PortKind::Pair,
    }
}

/// One exchange with a server on `address` in `server`, asked from `client`.
fn talk(client: &Namespace, server: &Namespace, address: IpAddr) {
    let listener = server.run_in(|| TcpListener::bind(SocketAddr::new(address, 8080))).unwrap().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"hello").unwrap();
        });
        let mut text = String::new();
        let ask = || TcpStream::connect_timeout(&SocketAddr::new(address, 8080), Duration::from_secs(5));
        let mut stream = client.run_in(ask).unwrap().unwrap_or_else(|e| panic!("{address}: {e}"));
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    });
}

#[test]
fn an_instance_is_reached_through_its_port_and_from_outside() {
    if !is_root("an_instance_is_reached_through_its_port_and_from_outside") {
        return;
    }
    let (node, guest) = (Node::new(), Guest::new());
    let spec = port(9);
    node.run(async |net| {
        let state = net.ensure_bridge(&bridge()).await.unwrap();
        assert!(state.created);
        assert!(state.changed.iter().any(|c| c.path == "ipv4/ip_forward" && c.before == "0"), "{:?}", state.changed);
        let again = net.ensure_bridge(&bridge()).await.unwrap();
        assert_eq!((again.index, again.created, again.changed), (state.index, false, vec![]));
        let port = net.create_port(&spec).await.unwrap();
        net.attach_port(&port, guest.pid()).await.unwrap();
    });
    for address in [IpAddr::V4(spec.addresses.v4.unwrap()), IpAddr::V6(spec.addresses.v6.unwrap())] {
        talk(&node.namespace, &guest.namespace, address);
        assert!(node.neighbours().contains(&address.to_string()), "{}", node.neighbours());
    }

    // A client in another network, by a route over the node: forwarding and the instance's default routes.
    let client = Namespace::create(&unique("client")).unwrap();
    tests::lab::netns::veth((&client, "up0"), (&node.namespace, "down0")).unwrap();
    for (namespace, interface, host) in [(&client, "up0", 2), (&node.namespace, "down0", 1)] {
        namespace.add_address(interface, format!("192.0.2.{host}").parse().unwrap(), 24).unwrap();
        namespace.add_address(interface, format!("2001:db8::{host}").parse().unwrap(), 64).unwrap();
    }
    client.add_route("default", "192.0.2.1".parse().unwrap()).unwrap();
    client.add_route("default", "2001:db8::1".parse().unwrap()).unwrap();
    talk(&client, &guest.namespace, spec.addresses.v4.unwrap().into());
    talk(&client, &guest.namespace, spec.addresses.v6.unwrap().into());

    let counters = node.run(async |net| net.port_counters(&spec.instance).await.unwrap().unwrap());
    assert!(counters.from_instance_packets >= 8 && counters.to_instance_bytes > 500, "{counters:?}");
}

/// A tap is complete before anybody serves it, bears our mark, and goes with its last descriptor.
#[test]
fn a_tap_is_a_port_without_an_instance() {
    if !is_root("a_tap_is_a_port_without_an_instance") {
        return;
    }
    let node = Node::new();
    let spec = PortSpec { kind: PortKind::Tap(TapUse::Descriptor), ..port(8) };
    let named = PortSpec { kind: PortKind::Tap(TapUse::Name { user: 65534 }), ..port(9) };
    node.run(async |net| {
        net.ensure_bridge(&bridge()).await.unwrap();
        let mut made = net.create_port(&spec).await.unwrap();
        let shown = node.namespace.ip(&["-d", "link", "show", "sv00000008"]).unwrap();
        for word in [
            "tun type tap",
            "master sv-br",
            "UP,LOWER_UP",
            "persist off",
            &format!("alias selvedge:{}:port:00000008", node.owner),
        ] {
            assert!(shown.contains(word), "{word} not in {shown}");
        }
        for address in [IpAddr::V4(spec.addresses.v4.unwrap()), IpAddr::V6(spec.addresses.v6.unwrap())] {
            assert!(node.neighbours().contains(&address.to_string()), "{}", node.neighbours());
        }
        // Whoever serves it still has it open: it goes all the same.
        let serving = made.descriptor.take().unwrap();
        net.delete_port(&spec.instance).await.unwrap();
        assert_eq!(net.list_owned().await.unwrap().len(), 1, "the bridge alone");
        assert!(!node.neighbours().contains("10.71.0.8"), "{}", node.neighbours());
        drop(serving);

        // Made anew under the same name, and made twice.
        for _ in 0..2 {
            net.create_port(&spec).await.unwrap();
        }
        net.delete_port(&spec.instance).await.unwrap();

        // One that is opened by name stays without a descriptor, and is its user's.
        let made = net.create_port(&named).await.unwrap();
        assert!(made.descriptor.is_none());
        let shown = node.namespace.ip(&["-d", "link", "show", "sv00000009"]).unwrap();
        assert!(shown.contains("persist on") && shown.contains("user nobody"), "{shown}");
        net.delete_port(&named.instance).await.unwrap();
        assert_eq!(net.list_owned().await.unwrap().len(), 1);

        // Those of a daemon that ends go with their processes, of which there are none here.
        net.create_port(&spec).await.unwrap();
    });
    assert_eq!(node.run(async |net| net.list_owned().await.unwrap()).len(), 1);
}

#[test]
fn the_mark_is_there_and_only_the_owner_sees_it() {
    if !is_root("the_mark_is_there_and_only_the_owner_sees_it") {
        return;
    }
    let node = Node::new();
    let spec = port(7);
    let owned = node.run(async |net| {
        net.ensure_bridge(&bridge()).await.unwrap();
        net.create_port(&spec).await.unwrap();
        net.list_owned().await.unwrap()
    });
    let mut kinds: Vec<_> = owned.iter().map(|link| (link.name.as_str(), &link.kind)).collect();
    kinds.sort_by_key(|(name, _)| *name);
    assert_eq!(kinds, [("sv-br", &Kind::Bridge), ("sv00000007", &Kind::Port(spec.instance.clone()))]);
    let shown = node.namespace.ip(&["-d", "link", "show", "sv-br"]).unwrap();
    assert!(
        shown.contains(&format!("alias selvedge:{}:bridge", node.owner)) && shown.contains("stp_state 0"),
        "{shown}"
    );

    // The moment between making a link and naming its owner: it is still known as ours.
    for interface in ["sv-br", "sv00000007"] {
        node.namespace.ip(&["link", "set", interface, "alias", ""]).unwrap();
    }
    assert_eq!(node.run(async |net| net.list_owned().await.unwrap()).len(), 2);

    let other = OwnerId::from_number(0x99);
    node.run_as(&other, async |net| {
        assert_eq!(net.list_owned().await.unwrap(), []);
        assert!(matches!(net.delete_port(&spec.instance).await, Err(NetError::Foreign { .. })));
        assert!(matches!(net.remove_bridge("sv-br").await, Err(NetError::Foreign { .. })));
        assert!(matches!(net.port_counters(&spec.instance).await, Err(NetError::Foreign { .. })));
        assert!(matches!(net.create_port(&spec).await, Err(NetError::Foreign { .. })));
    });
    assert_eq!(node.run(async |net| net.list_owned().await.unwrap()).len(), 2);
}

#[test]
fn a_foreign_bridge_is_refused_and_untouched() {
    if !is_root("a_foreign_bridge_is_refused_and_untouched") {
        return;
    }
    let node = Node::new();
    node.namespace.ip(&["link", "add", "sv-br", "type", "bridge", "stp_state", "1"]).unwrap();
    let show = || {
        let links = node.namespace.ip(&["-d", "link", "show", "sv-br"]).unwrap();
        let addresses = node.namespace.ip(&["addr", "show", "sv-br"]).unwrap();
        // The bridge's timers run by themselves.
        let still = links.split_whitespace().filter(|w| w.parse::<f64>().is_err()).collect::<Vec<_>>().join(" ");
        (still, addresses)
    };
    let before = show();
    let error = node.run(async |net| net.ensure_bridge(&bridge()).await.unwrap_err());
    assert_eq!(error.label(), "foreign");
    assert!(error.to_string().contains("sv-br"), "{error}");
    assert_eq!(show(), before);
    assert_eq!(node.namespace.setting("ipv4/ip_forward").unwrap(), "0");
}

#[test]
fn a_bridge_is_adjusted_to_its_specification() {
    if !is_root("a_bridge_is_adjusted_to_its_specification") {
        return;
    }
    let node = Node::new();
    node.run(async |net| {
        net.ensure_bridge(&bridge()).await.unwrap();
    });
    node.namespace.ip(&["link", "set", "sv-br", "type", "bridge", "stp_state", "1"]).unwrap();
    node.namespace.ip(&["link", "set", "sv-br", "down"]).unwrap();
    let mut moved = bridge();
    moved.v4 = (Ipv4Addr::new(10, 72, 0, 1), "10.72.0.0/16".parse().unwrap());
    let state = node.run(async |net| net.ensure_bridge(&moved).await.unwrap());
    assert!(!state.created);
    let shown = node.namespace.ip(&["-d", "addr", "show", "sv-br"]).unwrap();
    for (text, wanted) in
        [("10.72.0.1/16", true), ("10.71.0.1", false), ("fd71::1/64", true), ("stp_state 0", true), (",UP", true)]
    {
        assert_eq!(shown.contains(text), wanted, "{text} in {shown}");
    }
    node.run(async |net| {
        net.remove_bridge("sv-br").await.unwrap();
        net.remove_bridge("sv-br").await.unwrap();
    });
    assert_eq!(node.interfaces(), ["lo"]);
}

#[test]
fn settings_of_the_node_are_put_back() {
    if !is_root("settings_of_the_node_are_put_back") {
        return;
    }
    let node = Node::new();
    node.namespace.ip(&["link", "add", "wan", "type", "veth", "peer", "name", "wan-peer"]).unwrap();
    let setting = |path: &str| node.namespace.setting(path).unwrap();
    assert_eq!(setting("ipv6/conf/wan/accept_ra"), "1");
    let changed = node.run(async |net| net.ensure_bridge(&bridge()).await.unwrap().changed);
    assert_eq!((setting("ipv4/ip_forward"), setting("ipv6/conf/all/forwarding")), ("1".to_owned(), "1".to_owned()));
    assert_eq!(setting("ipv6/conf/wan/accept_ra"), "2", "a forwarding node would lose its advertised routes");
    node.run(async |net| {
        net.remove_bridge("sv-br").await.unwrap();
        net.restore(&changed).unwrap();
        net.restore(&changed).unwrap();
    });
    assert_eq!((setting("ipv4/ip_forward"), setting("ipv6/conf/all/forwarding")), ("0".to_owned(), "0".to_owned()));
    assert_eq!(setting("ipv6/conf/wan/accept_ra"), "1");
}

#[test]
fn what_cannot_be_attached_leaves_nothing() {
    if !is_root("what_cannot_be_attached_leaves_nothing") {
        return;
    }
    let node = Node::new();
    let furnished = Guest::new();
    furnished.namespace.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth1"]).unwrap();
    // A namespace in which the last step fails: its route to the gateway is taken already.
    let crowded = Guest::new();
    crowded.namespace.up("lo").unwrap();
    crowded.namespace.ip(&["route", "add", "default", "dev", "lo"]).unwrap();
    let dead = Guest::new().pid();
    let here = Sleeper::new(&node.namespace);

    let spec = port(5);
    node.run(async |net| net.ensure_bridge(&bridge()).await.map(drop).unwrap());
    let before = node.interfaces();
    for (pid, label, kind) in [
        (dead, "namespace", ErrorKind::NotFound),
        (here.pid(), "namespace", ErrorKind::InvalidInput),
        (furnished.pid(), "namespace", ErrorKind::AlreadyExists),
        (crowded.pid(), "refused", ErrorKind::AlreadyExists),
    ] {
        let error = node.run(async |net| {
            let port = net.create_port(&spec).await.unwrap();
            net.attach_port(&port, pid).await.unwrap_err()
        });
        let (NetError::Namespace { source, .. } | NetError::Refused { source, .. }) = &error else { panic!("{error}") };
        assert_eq!((error.label(), source.kind()), (label, kind), "{error}");
        assert_eq!(node.interfaces(), before, "after {error}");
        assert_eq!(node.neighbours(), "", "after {error}");
    }
    assert_eq!(crowded.namespace.interfaces().unwrap(), ["lo"]);
    assert_eq!(furnished.namespace.interfaces().unwrap().len(), 3);
}

#[test]
fn what_cannot_be_created_leaves_nothing() {
    if !is_root("what_cannot_be_created_leaves_nothing") {
        return;
    }
    let node = Node::new();
    let (no_bridge, mut outside, mut none) = (port(5), port(5), port(5));
    outside.addresses.v4 = Some(Ipv4Addr::new(10, 99, 0, 5));
    none.addresses = AddressPair::default();
    let refused = |spec: &PortSpec| {
        let error = node.run(async |net| net.create_port(spec).await.unwrap_err());
        (error.label(), error.errno())
    };
    assert_eq!(refused(&no_bridge), ("refused", Some(libc::ENODEV)));
    assert_eq!(refused(&outside), ("invalid", None));
    assert_eq!(refused(&none), ("invalid", None));
    assert_eq!(node.interfaces(), ["lo"]);

    // The name of the instance's end is taken: the request that makes the pair fails as a whole.
    node.run(async |net| net.ensure_bridge(&bridge()).await.map(drop).unwrap());
    node.namespace.ip(&["link", "add", "svp00000005", "type", "bridge"]).unwrap();
    let before = node.interfaces();
    assert_eq!(refused(&port(5)), ("refused", Some(libc::EEXIST)));
    assert_eq!(node.interfaces(), before);
}

#[test]
fn a_port_goes_with_its_instance_and_deleting_it_is_still_a_success() {
    if !is_root("a_port_goes_with_its_instance_and_deleting_it_is_still_a_success") {
        return;
    }
    let (node, guest) = (Node::new(), Guest::new());
    let spec = port(3);
    node.run(async |net| {
        net.ensure_bridge(&bridge()).await.unwrap();
        let port = net.create_port(&spec).await.unwrap();
        net.attach_port(&port, guest.pid()).await.unwrap();
    });
    assert!(node.neighbours().contains("10.71.0.3"));
    drop(guest);
    // The kernel takes a namespace apart in its own time.
    let log = std::path::Path::new("/proc/net/dev");
    let gone = || Ok((!node.interfaces().contains(&"sv00000003".to_owned())).then_some(()));
    tests::lab::process::wait_for("the end of the port", Duration::from_secs(10), log, gone).unwrap();
    assert!(node.neighbours().contains("10.71.0.3"), "the entry is the bridge's and stays until it is removed");
    node.run(async |net| {
        net.delete_port(&spec.instance).await.unwrap();
        net.delete_port(&spec.instance).await.unwrap();
        assert_eq!(net.port_counters(&spec.instance).await.unwrap(), None);
    });
    assert_eq!(node.neighbours(), "");
}

#[test]
fn an_instance_that_starts_anew_gets_its_port_anew() {
    if !is_root("an_instance_that_starts_anew_gets_its_port_anew") {
        return;
    }
    let (node, first, second) = (Node::new(), Guest::new(), Guest::new());
    let spec = port(4);
    node.run(async |net| {
        net.ensure_bridge(&bridge()).await.unwrap();
        for guest in [&first, &second] {
            let port = net.create_port(&spec).await.unwrap();
            net.attach_port(&port, guest.pid()).await.unwrap();
        }
    });
    assert_eq!(first.namespace.interfaces().unwrap(), ["lo"]);
    talk(&node.namespace, &second.namespace, spec.addresses.v4.unwrap().into());
}

#[test]
fn two_hundred_lives_leave_nothing() {
    if !is_root("two_hundred_lives_leave_nothing") {
        return;
    }
    let (node, guest) = (Node::new(), Guest::new());
    node.run(async |net| net.ensure_bridge(&bridge()).await.map(drop).unwrap());
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let names = || {
        std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok())
            .filter(|name| name.trim() == "netns")
            .count()
    };
    let before = (node.interfaces(), guest.namespace.interfaces().unwrap());
    let spec = port(8);
    node.run(async |net| {
        let started = (threads(), files());
        for _ in 0..200 {
            let port = net.create_port(&spec).await.unwrap();
            net.attach_port(&port, guest.pid()).await.unwrap();
            net.delete_port(&spec.instance).await.unwrap();
        }
        // Other tests run beside this one: only a rise by a large part of 200 is this one's doing.
        assert!(threads() < started.0 + 50 && files() < started.1 + 100, "{started:?}");
    });
    assert_eq!((node.interfaces(), guest.namespace.interfaces().unwrap()), before);
    assert_eq!(node.neighbours(), "");
    assert!(names() < 10, "threads that entered a namespace must end");
}

/// The daemon drives all this from tasks of a runtime with several threads.
#[test]
fn calls_can_be_made_from_tasks() {
    fn is_send<T: Send>(_: T) {}
    fn check(net: &Net, spec: &PortSpec, port: &control::netlink::Port) {
        is_send(net.ensure_bridge(&spec.bridge));
        is_send(net.create_port(spec));
        is_send(net.attach_port(port, 1));
        is_send(net.delete_port(&spec.instance));
        is_send(net.list_owned());
    }
    let _ = check;
}
