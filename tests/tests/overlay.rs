//! Two nodes with a tunnel between them: an instance of one is reached from an instance of the other. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use control::model::{AddressPair, InstanceId, OwnerId, PortKind, RouteSpec, VxlanSpec};
use control::netlink::{BridgeSpec, Network, PortSpec};
use tests::lab::is_root;
use tests::lab::netns::veth;
use tests::lab::node::{Guest, Node};

/// Bytes that are sent over.
const CONTENT: usize = 4_000_000;

/// The node of that number (1 or 2) with an instance, as configuration would have it: its pool, the tunnel, and the way
/// to the other's pool through it.
struct Side {
    number: u8,
    node: Node,
    guest: Guest,
}

impl Side {
    fn new(number: u8) -> Self {
        Self { number, node: Node::new(), guest: Guest::new() }
    }

    const fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 70 + self.number, 0, 9)
    }

    fn furnish(&self) {
        let (own, other) = (self.number, 3 - self.number);
        let bridge = BridgeSpec {
            name: "sv-br".to_owned(),
            v4: (Ipv4Addr::new(10, 70 + own, 0, 1), format!("10.{}.0.0/24", 70 + own).parse().unwrap()),
            v6: None,
            shaping: None,
        };
        let tunnel = VxlanSpec {
            name: "sv-vx".to_owned(),
            vni: 42,
            local: IpAddr::from([192, 0, 2, own]),
            remotes: vec![IpAddr::from([192, 0, 2, other])],
            port: 4789,
            mtu: 1450,
            addresses: vec![format!("10.99.0.{own}/24").parse().unwrap()],
        };
        let route = RouteSpec {
            to: format!("10.{}.0.0/24", 70 + other).parse().unwrap(),
            via: Some(IpAddr::from([10, 99, 0, other])),
            device: None,
            metric: 100,
        };
        let port = PortSpec {
            instance: InstanceId::from_number(9),
            bridge: bridge.clone(),
            addresses: AddressPair { v4: Some(self.address()), v6: None },
            shaping: None,
            kind: PortKind::Pair,
        };
        // Hardware addresses derive from the owner's mark, which each node has its own of.
        self.node.run_as(&OwnerId::from_number(u64::from(own)), async |net| {
            net.ensure_bridge(&bridge).await.unwrap();
            let network =
                Network { bridges: vec![bridge], tunnels: vec![tunnel], routes: vec![route], uplinks: Vec::new() };
            net.declare(network).await.unwrap();
            let port = net.create_port(&port).await.unwrap();
            net.attach_port(&port, self.guest.pid()).await.unwrap();
        });
    }

    /// Bytes that its end of the tunnel has sent.
    fn sent(&self) -> usize {
        let text = self.node.namespace.ip(&["-s", "-j", "link", "show", "sv-vx"]).unwrap();
        let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
        shown[0]["stats64"]["tx"]["bytes"].as_u64().unwrap() as usize
    }
}

#[test]
fn instances_of_two_nodes_talk_through_the_tunnel() {
    if !is_root("instances_of_two_nodes_talk_through_the_tunnel") {
        return;
    }
    let sides = [Side::new(1), Side::new(2)];
    veth((&sides[0].node.namespace, "u0"), (&sides[1].node.namespace, "u0")).unwrap();
    for side in &sides {
        side.node.namespace.add_address("u0", IpAddr::from([192, 0, 2, side.number]), 24).unwrap();
        side.furnish();
    }
    for [from, to] in [[&sides[0], &sides[1]], [&sides[1], &sides[0]]] {
        let address = SocketAddr::from((to.address(), 7000));
        let before = from.sent();
        let listener = to.guest.namespace.run_in(|| TcpListener::bind(address)).unwrap().unwrap();
        let received = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut stream = from.guest.namespace.run_in(|| TcpStream::connect(address)).unwrap().unwrap();
                let content: Vec<u8> = (0..CONTENT).map(|at| (at % 251) as u8).collect();
                stream.write_all(&content).unwrap();
            });
            let (mut stream, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip(), from.address(), "by its own address");
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            received
        });
        assert_eq!(received.len(), CONTENT);
        assert!(received.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251));
        assert!(from.sent() - before > CONTENT, "it went through the tunnel");
    }
}
