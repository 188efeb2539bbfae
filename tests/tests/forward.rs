//! New connections for one address go to another by the kernel's own NAT, with real packets: TCP and UDP, IPv4 and IPv6,
//! from another machine and from the node. Needs root, and `nft` to interfere with (`make setup`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use control::model::{InstanceId, NetReport, OwnerId};
use control::netlink::{Forward, Forwards, Keeper, Net};
use control::stop::{Stopper, stop};
use tests::lab::netns::veth;
use tests::lab::node::unique;
use tests::lab::{Namespace, is_root};

const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 80;

/// A client, the node between, and a place with four addresses that stand for instances.
struct Lab {
    client: Namespace,
    node: Namespace,
    place: Namespace,
}

/// The addresses of instance `number` by family.
fn addresses(number: u8) -> [IpAddr; 2] {
    [format!("10.91.0.{number}").parse().unwrap(), format!("fd91::{number}").parse().unwrap()]
}

impl Lab {
    fn new() -> Self {
        let [client, node, place] = ["client", "node", "place"].map(|part| Namespace::create(&unique(part)).unwrap());
        veth((&client, "c0"), (&node, "n0")).unwrap();
        veth((&node, "n1"), (&place, "p0")).unwrap();
        for (space, link, host, net) in [(&client, "c0", 2, 90), (&node, "n0", 1, 90), (&node, "n1", 1, 91)] {
            space.add_address(link, format!("10.{net}.0.{host}").parse().unwrap(), 24).unwrap();
            space.add_address(link, format!("fd{net}::{host}").parse().unwrap(), 64).unwrap();
        }
        for address in (2..=4).flat_map(addresses) {
            place.add_address("p0", address, if address.is_ipv4() { 24 } else { 64 }).unwrap();
        }
        for (space, net) in [(&client, 90), (&place, 91)] {
            space.add_route("default", format!("10.{net}.0.1").parse().unwrap()).unwrap();
            space.add_route("default", format!("fd{net}::1").parse().unwrap()).unwrap();
        }
        node.set("ipv4/ip_forward", "1").unwrap();
        node.set("ipv6/conf/all/forwarding", "1").unwrap();
        for address in (2..=4).flat_map(addresses) {
            let at = SocketAddr::new(address, PORT);
            let (tcp, udp) = place.run_in(|| (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap())).unwrap();
            std::thread::spawn(move || {
                tcp.incoming().flatten().for_each(|stream| drop(std::thread::spawn(|| tell(stream))))
            });
            std::thread::spawn(move || {
                let mut byte = [0];
                while let Ok((_, from)) = udp.recv_from(&mut byte) {
                    let _ = udp.send_to(address.to_string().as_bytes(), from);
                }
            });
        }
        Self { client, node, place }
    }

    /// Who answers a new connection to an instance's address, over TCP and UDP.
    fn who(from: &Namespace, address: IpAddr) -> Vec<IpAddr> {
        let at = SocketAddr::new(address, PORT);
        let tcp = || ask(&mut TcpStream::connect_timeout(&at, PATIENCE).unwrap());
        let udp = || {
            let any: IpAddr = if at.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(at).unwrap();
            socket.send(&[1]).unwrap();
            let mut text = [0; 64];
            let len = socket.recv(&mut text).unwrap();
            String::from_utf8_lossy(&text[..len]).parse().unwrap()
        };
        from.run_in(|| vec![tcp(), udp()]).unwrap()
    }

    /// New connections to instance `asked` are answered by `by`, from the client and from the node.
    fn expect(&self, asked: u8, by: u8) {
        for from in [&self.client, &self.node] {
            for (asked, by) in addresses(asked).into_iter().zip(addresses(by)) {
                assert_eq!(Self::who(from, asked), [by; 2], "{asked} asked from {}", from.name());
            }
        }
    }

    fn connect(&self, asked: u8) -> Vec<TcpStream> {
        let connect = |address| TcpStream::connect_timeout(&SocketAddr::new(address, PORT), PATIENCE).unwrap();
        self.client.run_in(|| addresses(asked).map(connect).into()).unwrap()
    }

    fn nft(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.node.command("nft").unwrap().args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }
}

/// Tells each client, for each byte of its, to whom it is connected.
fn tell(mut stream: TcpStream) {
    let own = stream.local_addr().unwrap().ip().to_string();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        if stream.write_all(&[&[u8::try_from(own.len()).unwrap()], own.as_bytes()].concat()).is_err() {
            break;
        }
    }
}

fn ask(stream: &mut TcpStream) -> IpAddr {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[1]).unwrap();
    let mut len = [0];
    stream.read_exact(&mut len).unwrap();
    let mut text = vec![0; len[0].into()];
    stream.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap().parse().unwrap()
}

/// A run of the daemon, as far as this is concerned.
struct Run {
    net: Arc<Net>,
    stop: Stopper,
    keeper: tokio::task::JoinHandle<()>,
}

impl Run {
    fn start(owner: &OwnerId) -> Self {
        let net = Arc::new(Net::new(owner.clone()).unwrap());
        let (stopper, mut stopped) = stop();
        let keeper = Keeper::new(Arc::clone(&net), Box::new(|_| ()));
        let keeper = tokio::spawn(keeper.run(async move { stopped.ordered().await }));
        Self { net, stop: stopper, keeper }
    }

    /// Instances whose connections go to others.
    fn forward(&self, pairs: &[(u8, u8)]) {
        let forward = |(from, to): &(u8, u8)| {
            let instance = InstanceId::from_number((*from).into());
            let pairs = addresses(*from).into_iter().zip(addresses(*to));
            pairs
                .map(move |(from, to)| Forward { instance: instance.clone(), from, port: PORT, to })
                .collect::<Vec<_>>()
        };
        self.net.forward(Forwards { on: true, all: pairs.iter().flat_map(forward).collect() });
    }

    async fn wait_for(&self, what: &str, wanted: impl Fn(&NetReport) -> bool) -> NetReport {
        let mut report = self.net.report();
        let found = tokio::time::timeout(PATIENCE, report.wait_for(|report| wanted(report))).await;
        found.unwrap_or_else(|_| panic!("{what}: {:#?}", *self.net.report().borrow())).unwrap().clone()
    }

    /// As `kill -9` ends it: nothing is put away.
    async fn end(self) {
        self.stop.stop();
        self.keeper.await.unwrap();
    }
}

fn to(report: &NetReport, target: u8) -> bool {
    report.forwards.len() == 2 && report.forwards.iter().all(|forward| addresses(target).contains(&forward.to))
}

#[test]
fn new_connections_go_elsewhere_and_open_ones_stay() {
    if !is_root("new_connections_go_elsewhere_and_open_ones_stay") {
        return;
    }
    let lab = Lab::new();
    let owner = OwnerId::from_number(0x00f0_4a4d);
    let table = format!("selvedge-{owner}");
    let inside = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // One that was open before the kernel kept track of connections, one since.
            let mut open = lab.connect(2);
            let run = Run::start(&owner);
            run.forward(&[]);
            tokio::time::timeout(PATIENCE, async {
                while !lab.nft(&["list", "table", "inet", &table]).0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await
            .expect("a table");
            open.extend(lab.connect(2));
            lab.expect(2, 2);

            run.forward(&[(2, 3)]);
            run.wait_for("forwards", |r| to(r, 3)).await;
            lab.expect(2, 3);
            lab.expect(4, 4);
            for (stream, own) in open.iter_mut().zip(addresses(2).into_iter().cycle()) {
                assert_eq!(ask(stream), own, "an open connection was moved");
            }
            // Two families, two protocols, from two places.
            let counted = run.wait_for("counts", |r| r.forwarded == 8).await;
            assert!(counted.forwards.iter().all(|f| f.connections == 4), "{counted:#?}");
            println!("{}", lab.nft(&["list", "table", "inet", &table]).1);

            run.forward(&[(2, 4)]);
            run.wait_for("another target", |r| to(r, 4)).await;
            lab.expect(2, 4);
            run.end().await;

            lab.expect(2, 4);
            // The next run leaves it alone until it is told what shall be.
            let run = Run::start(&owner);
            tokio::time::sleep(Duration::from_millis(500)).await;
            lab.expect(2, 4);
            let before = lab.nft(&["-a", "list", "table", "inet", &table]).1;
            run.forward(&[(2, 4)]);
            run.wait_for("what was there", |r| to(r, 4)).await;
            let handles = |text: &str| text.lines().filter(|l| l.contains("dnat")).map(handle).collect::<Vec<_>>();
            let after = lab.nft(&["-a", "list", "table", "inet", &table]).1;
            assert_eq!(handles(&before), handles(&after), "rules were made again without need");
            run.end().await;

            // While no daemon owns it, others can spoil it; the next one puts it right.
            assert!(lab.nft(&["flush", "table", "inet", &table]).0);
            assert_eq!(Lab::who(&lab.client, addresses(2)[0]), [addresses(2)[0]; 2]);
            let run = Run::start(&owner);
            run.forward(&[(2, 4), (3, 4)]);
            run.wait_for("both", |r| r.forwards.len() == 4).await;
            lab.expect(2, 4);
            lab.expect(3, 4);
            let (done, said) = lab.nft(&["delete", "table", "inet", &table]);
            if done {
                // A kernel without owners of tables: it is put back.
                println!("the kernel has no owners of tables");
                run.wait_for("the look that misses it", |r| r.forwards.is_empty()).await;
                run.wait_for("the table", |r| r.forwards.len() == 4).await;
            } else {
                assert!(said.contains("not permitted"), "{said}");
            }
            lab.expect(2, 4);

            run.net.forward(Forwards::default());
            run.wait_for("no forward", |r| r.forwards.is_empty()).await;
            tokio::time::timeout(PATIENCE, async {
                while lab.nft(&["list", "tables"]).1.contains(&table) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await
            .expect("no table");
            lab.expect(2, 2);

            // What is left behind goes with everything else of ours.
            run.forward(&[(2, 3)]);
            run.wait_for("forwards", |r| to(r, 3)).await;
            run.end().await;
            let net = Net::new(owner.clone()).unwrap();
            let found = net.released().await.unwrap();
            assert_eq!(found.iter().map(|c| c.object.as_str()).collect::<Vec<_>>(), ["forward"]);
            net.release().await.unwrap();
            assert!(!lab.nft(&["list", "tables"]).1.contains(&table));
        });
    };
    lab.node.run_in(inside).unwrap();
    drop(lab.place);
}

/// The handle at the end of a rule's line.
fn handle(line: &str) -> String {
    line.rsplit(' ').next().unwrap().to_owned()
}
