//! On real interfaces, in namespaces of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use hickory_proto::op::Message;
use support::lab::{CLIENT, SERVER, in_lab, ip};
use support::{A, AAAA, PinDir, addresses, name, pinned, privileged, table};
use xdp_balancer::testing::{Query, send_frame};
use xdp_balancer::{AttachedMode, Dataplane, Error, Mode, Rendered, Verdict, attach_pass, detach, remove_all, show};
use xdp_balancer_common::ANSWER_BYTES;

/// No reply comes later than this; waits end with the reply, or with the ICMP error of a closed port.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks over a real socket. The error tells "nobody answers" from "no reply at all".
fn ask(server: &str, query: &Query) -> io::Result<Message> {
    let socket = UdpSocket::bind(if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" })?;
    socket.connect((server, 53))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(&query.build())?;
    let mut reply = [0; 4096];
    let len = socket.recv(&mut reply)?;
    Ok(Message::from_vec(&reply[..len]).unwrap())
}

fn answers(server: &str, qtype: u16) -> usize {
    ask(server, &Query::new("wWw.example.net", qtype).opt(1232, false, &[])).unwrap().answers.len()
}

fn publish(dataplane: &mut Dataplane, generation: u64) {
    let www = name(
        "www.example.net",
        0,
        vec![(A, vec![addresses(&["10.0.0.1", "10.0.0.2"])]), (AAAA, vec![addresses(&["fd00::1"])])],
    );
    dataplane.publish(&table(generation, vec![www])).unwrap();
}

#[test]
fn a_client_is_answered_whatever_becomes_of_the_process() {
    if !privileged("a_client_is_answered_whatever_becomes_of_the_process") {
        return;
    }
    in_lab(|lab| {
        let pins = PinDir::new();
        let mut dataplane = pins.open();
        publish(&mut dataplane, 1);
        let first = dataplane.attach(SERVER, Mode::Native).unwrap();
        assert_eq!(first.mode, Some(AttachedMode::Native));
        assert_eq!(dataplane.attachments().unwrap(), std::slice::from_ref(&first));
        lab.at_client();
        attach_pass(CLIENT).unwrap();
        assert_eq!((answers("192.0.2.53", A), answers("192.0.2.53", AAAA)), (2, 1));
        assert_eq!((answers("2001:db8::53", A), answers("2001:db8::53", AAAA)), (2, 1));
        let counters = dataplane.counters(1).unwrap();
        assert_eq!((counters.verdict(Verdict::Answered), counters.services[0].answered()), (4, 4));

        // The process goes; answers stay.
        drop(dataplane);
        assert_eq!(answers("192.0.2.53", A), 2);

        // Another one comes, with its program: in the same link, while somebody keeps asking.
        lab.at_server();
        let shown = show(&pins.0).unwrap().unwrap();
        assert_eq!(shown.attachments, std::slice::from_ref(&first));
        let link = pinned(&pins, "links").join(SERVER);
        let mut dataplane = pins.open();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                lab.at_client();
                let mut asked = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) || asked == 0 {
                    assert_eq!(answers("192.0.2.53", A), 2, "after {asked} answers");
                    asked += 1;
                }
                asked
            });
            for _ in 0..20 {
                let second = dataplane.attach(SERVER, Mode::Auto).unwrap();
                assert_ne!(second.program_id, first.program_id);
                assert_eq!((second.ifindex, second.mode), (first.ifindex, first.mode));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(asking.join().unwrap() > 0);
        });
        assert!(link.exists());
        assert_eq!(dataplane.attachments().unwrap().len(), 1);

        // Off the interface, with the process alive: now the stack says that the port is closed.
        assert_eq!(detach(&pins.0, Some("other")).unwrap(), Vec::<String>::new());
        assert_eq!(detach(&pins.0, Some(SERVER)).unwrap(), [SERVER]);
        assert!(!link.exists());
        assert_eq!(dataplane.attachments().unwrap(), []);
        lab.at_client();
        let error = ask("192.0.2.53", &Query::new("www.example.net", A)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        lab.at_server();
    });
}

/// The stack's buffers have more or less room behind a frame; whatever it is, small answers fit.
#[test]
fn small_answers_fit_whatever_the_size_of_the_query() {
    if !privileged("small_answers_fit_whatever_the_size_of_the_query") {
        return;
    }
    in_lab(|lab| {
        let pins = PinDir::new();
        let mut dataplane = pins.open();
        let hosts: Vec<String> =
            (1..=60).map(|len| format!("{}.{}example.net", "x".repeat(len), "y.".repeat(60))).collect();
        let ring = || vec![(A, vec![addresses(&["10.0.0.1", "10.0.0.2", "10.0.0.3"])])];
        dataplane.publish(&table(1, hosts.iter().map(|host| name(host, 0, ring())).collect())).unwrap();
        dataplane.attach(SERVER, Mode::Native).unwrap();
        lab.at_client();
        attach_pass(CLIENT).unwrap();
        for host in &hosts {
            for server in ["192.0.2.53", "2001:db8::53"] {
                for query in [Query::new(host, A), Query::new(host, A).opt(1232, true, &[0, 10, 0, 0])] {
                    let reply = ask(server, &query).unwrap_or_else(|error| panic!("{server} {host}: {error}"));
                    assert_eq!((reply.answers.len(), reply.edns.is_some()), (3, query.counts[3] == 1));
                }
            }
        }
        lab.at_server();
    });
}

#[test]
fn a_program_that_is_not_ours_stays() {
    if !privileged("a_program_that_is_not_ours_stays") {
        return;
    }
    in_lab(|_lab| {
        let (pins, others) = (PinDir::new(), PinDir::new());
        let mut dataplane = pins.open();
        // Attached without a link.
        attach_pass(SERVER).unwrap();
        for mode in [Mode::Auto, Mode::Native, Mode::Generic] {
            let error = dataplane.attach(SERVER, mode).unwrap_err();
            match error {
                Error::Foreign { interface, id, name, tag } => {
                    assert_eq!((interface.as_str(), name.as_str()), (SERVER, "selvedge_pass"));
                    assert!(id != 0 && tag != 0);
                }
                other => panic!("{other}"),
            }
        }
        assert!(matches!(attach_pass(SERVER), Err(Error::Foreign { .. })));
        ip(&format!("link set {SERVER} xdp off"));

        // Attached by a link of another installation.
        let mut other = others.open();
        let theirs = other.attach(SERVER, Mode::Native).unwrap();
        let error = dataplane.attach(SERVER, Mode::Auto).unwrap_err();
        assert!(matches!(&error, Error::Foreign { id, .. } if *id == theirs.program_id), "{error}");
        assert_eq!(other.attachments().unwrap(), [theirs]);
        assert_eq!(dataplane.attachments().unwrap(), []);
    });
}

#[test]
fn modes_are_what_was_asked_for() {
    if !privileged("modes_are_what_was_asked_for") {
        return;
    }
    in_lab(|lab| {
        let pins = PinDir::new();
        let mut dataplane = pins.open();
        publish(&mut dataplane, 1);
        assert!(matches!(dataplane.attach("nothere0", Mode::Auto), Err(Error::NoInterface { .. })));

        // A driver without XDP.
        let error = dataplane.attach("lo", Mode::Native).unwrap_err();
        assert!(matches!(error, Error::System { operation: "attach to", .. }), "{error}");
        assert!(!error.is_permission() && error.errno().is_some(), "{error:?}");
        assert_eq!(dataplane.attach("lo", Mode::Auto).unwrap().mode, Some(AttachedMode::Generic));

        // A veth, whatever the other end runs.
        let attached = dataplane.attach(SERVER, Mode::Auto).unwrap();
        assert_eq!(attached.mode, Some(AttachedMode::Generic));
        let error = dataplane.attach(SERVER, Mode::Native).unwrap_err();
        assert!(matches!(error, Error::OtherMode { found: "generic", wanted: "native", .. }), "{error}");
        lab.at_client();
        assert_eq!((answers("192.0.2.53", A), answers("2001:db8::53", AAAA)), (2, 1));
        lab.at_server();

        // Everything off and away at once.
        let mut detached = remove_all(&pins.0).unwrap();
        detached.sort();
        assert_eq!(detached, ["lo", SERVER]);
        assert!(!pins.0.exists());
    });
}

/// On the kernel that runs here; `tests/tests/kernels.rs` asks others.
#[test]
fn the_verifier_walks_no_more_than_its_budget() {
    if !privileged("the_verifier_walks_no_more_than_its_budget") {
        return;
    }
    in_lab(|_lab| {
        let pins = PinDir::new();
        let attached = pins.open().attach(SERVER, Mode::Native).unwrap();
        let walked = xdp_balancer::verified_instructions(attached.program_id).unwrap();
        println!("{walked} instructions verified");
        assert!(walked <= 600_000, "{walked}");
    });
}

#[test]
fn pins_follow_interfaces() {
    if !privileged("pins_follow_interfaces") {
        return;
    }
    in_lab(|lab| {
        let pins = PinDir::new();
        let mut dataplane = pins.open();
        let first = dataplane.attach(SERVER, Mode::Native).unwrap();
        let renamed = "selv.100";
        ip(&format!("link set {SERVER} down"));
        ip(&format!("link set {SERVER} name {renamed}"));
        let second = dataplane.attach(renamed, Mode::Native).unwrap();
        assert_eq!((second.interface.as_str(), second.ifindex), (renamed, first.ifindex));
        assert_eq!(dataplane.attachments().unwrap(), [second]);
        assert!(!pinned(&pins, "links").join(SERVER).exists());

        // Gone and made again under the same name: the pin of the old one is no obstacle.
        ip(&format!("link set {renamed} name {SERVER}"));
        dataplane.attach(SERVER, Mode::Native).unwrap();
        ip(&format!("link del {SERVER}"));
        assert_eq!(dataplane.attachments().unwrap(), []);
        lab.join();
        let third = dataplane.attach(SERVER, Mode::Native).unwrap();
        assert_eq!(dataplane.attachments().unwrap(), [third]);
    });
}

#[test]
fn an_answer_without_room_is_passed() {
    if !privileged("an_answer_without_room_is_passed") {
        return;
    }
    in_lab(|_lab| {
        let pins = PinDir::new();
        let mut dataplane = pins.open();
        let large = Rendered { bytes: vec![0; ANSWER_BYTES], ..addresses(&[]) };
        dataplane.publish(&table(1, vec![name("", 0, vec![(A, vec![large])])])).unwrap();
        let mut log = dataplane.take_log().unwrap();
        // In generic mode the program works on the stack's own small buffer.
        dataplane.attach("lo", Mode::Generic).unwrap();
        let error = ask("192.0.2.53", &Query::new("", A).opt(1232, false, &[])).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "passed on to a closed port");
        let counters = dataplane.counters(1).unwrap();
        assert_eq!((counters.verdict(Verdict::NoRoom), counters.verdict(Verdict::Answered)), (1, 0));
        assert_eq!((counters.services[0].queries, counters.services[0].answered()), (1, 0));

        let logged = support::logged(|| {
            let mut poll =
                libc::pollfd { fd: std::os::fd::AsFd::as_fd(&log).as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one descriptor of which the call is told.
            assert_eq!(unsafe { libc::poll(&mut poll, 1, 10_000) }, 1);
            log.drain();
        });
        assert!(logged.iter().any(|line| line.contains("no room for an answer")), "{logged:?}");
    });
}

#[test]
fn instances_are_counted_at_their_interface() {
    if !privileged("instances_are_counted_at_their_interface") {
        return;
    }
    in_lab(|lab| {
        let pins = PinDir::new();
        let mut dataplane = pins.open();
        dataplane.count_flows(SERVER).unwrap();
        // Twice: as after a restart.
        drop(dataplane);
        let mut dataplane = pins.open();
        dataplane.count_flows(SERVER).unwrap();
        let ifindex = dataplane.flows().unwrap()[0];
        let flow = |dataplane: &Dataplane| dataplane.flow(ifindex).unwrap().unwrap();
        assert_eq!(dataplane.flow(ifindex + 1).unwrap(), None);

        // One SYN to the instance, one RST back; ARP and neighbour discovery do not count.
        for (address, connections) in [("192.0.2.1:80", 1), ("[2001:db8::1]:80", 2), ("192.0.2.1:80", 3)] {
            let error = TcpStream::connect(address).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            let flow = flow(&dataplane);
            assert_eq!((flow.packets_to, flow.packets_from, flow.connections), (connections, connections, connections));
        }
        let before = flow(&dataplane);
        assert!(before.bytes_to >= 3 * 54 && before.bytes_from >= 3 * 54, "{before:?}");

        // From the instance: a query to a closed port, and the error that goes back.
        lab.at_client();
        ask("192.0.2.53", &Query::new("www.example.net", A)).unwrap_err();
        lab.at_server();
        let after = flow(&dataplane);
        assert_eq!((after.packets_from - before.packets_from, after.packets_to - before.packets_to), (1, 1));
        assert_eq!(after.connections, before.connections);
        // The query of 33 bytes in its headers.
        assert_eq!(after.bytes_from - before.bytes_from, 14 + 20 + 8 + 33);

        // What is refused is over at once.
        assert_eq!(dataplane.connections(ifindex).unwrap(), []);

        dataplane.forget_flow(ifindex).unwrap();
        dataplane.forget_flow(ifindex).unwrap();
        TcpStream::connect("192.0.2.1:80").unwrap_err();
        assert_eq!(dataplane.flow(ifindex).unwrap(), None, "a late packet brings nothing back");
    });
}

/// A SYN-ACK between two addresses of a family, in a frame for a station that is not there: only the classifier sees it.
fn syn_ack(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut frame = vec![0; 12];
    match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
            frame.extend(from.octets().into_iter().chain(to.octets()));
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
            frame.extend(from.octets().into_iter().chain(to.octets()));
        }
        _ => panic!("{from} and {to}"),
    }
    frame.extend(from.port().to_be_bytes().into_iter().chain(to.port().to_be_bytes()));
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x12, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

/// From the first SYN to the last FIN, or to a reset of either side; over both families.
#[test]
fn open_connections_are_known() {
    if !privileged("open_connections_are_known") {
        return;
    }
    in_lab(|lab| {
        let pins = PinDir::new();
        let mut dataplane = pins.open();
        dataplane.count_flows(SERVER).unwrap();
        let ifindex = dataplane.flows().unwrap()[0];
        lab.at_client();
        let listeners = ["192.0.2.1:80", "[2001:db8::1]:80"].map(|address| TcpListener::bind(address).unwrap());
        lab.at_server();
        for listener in &listeners {
            let address = listener.local_addr().unwrap();
            let connect = || {
                let ours = TcpStream::connect(address).unwrap();
                (ours, listener.accept().unwrap().0)
            };
            let pairs: Vec<_> = (0..3).map(|_| connect()).collect();
            let open = dataplane.connections(ifindex).unwrap();
            let wanted: BTreeSet<_> = pairs.iter().map(|(ours, _)| ours.local_addr().unwrap()).collect();
            assert_eq!(open.iter().map(|c| c.client).collect::<BTreeSet<_>>(), wanted);
            assert!(open.iter().all(|c| c.port == 80 && c.age < Duration::from_secs(60)), "{open:?}");

            let mut pairs = pairs.into_iter();
            let (mut ours, mut theirs) = pairs.next().unwrap();
            // The instance's half alone: the client still sends.
            theirs.shutdown(Shutdown::Write).unwrap();
            assert_eq!(ours.read(&mut [0]).unwrap(), 0);
            assert_eq!(dataplane.connections(ifindex).unwrap().len(), 3);
            ours.shutdown(Shutdown::Write).unwrap();
            assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
            assert_eq!(dataplane.connections(ifindex).unwrap().len(), 2);

            // A reset: something was sent and not read.
            let (mut ours, theirs) = pairs.next().unwrap();
            ours.write_all(b"unread").unwrap();
            while theirs.peek(&mut [0; 6]).unwrap() < 6 {}
            drop(theirs);
            assert_eq!(ours.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(dataplane.connections(ifindex).unwrap().len(), 1);

            // A client that gives up first, and an instance so slow that it repeats its SYN-ACK behind that.
            let repeat = |ours: &TcpStream| {
                let before = dataplane.flow(ifindex).unwrap().unwrap().packets_from;
                lab.at_client();
                send_frame(CLIENT, &syn_ack(address, ours.local_addr().unwrap())).unwrap();
                lab.at_server();
                while dataplane.flow(ifindex).unwrap().unwrap().packets_from == before {}
            };
            let (ours, mut theirs) = pairs.next().unwrap();
            repeat(&ours);
            assert_eq!(dataplane.connections(ifindex).unwrap().len(), 1, "known already");
            ours.shutdown(Shutdown::Write).unwrap();
            assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
            repeat(&ours);
            assert_eq!(dataplane.connections(ifindex).unwrap(), [], "its client has closed it");
            drop(theirs);
            drop(ours);
            dataplane.forget_flow(ifindex).unwrap();
            assert_eq!(dataplane.connections(ifindex).unwrap(), [], "forgotten with the interface");
            dataplane.count_flows(SERVER).unwrap();
        }
    });
}
