//! Clients that come to an instance when no answer names it any more: forwarded, cut at the drain's deadline, or kept, as
//! the service says; over a `kill -9` of the daemon. Needs root, nginx, dockerd and `nft` (`make setup`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "shared with tests that need more of it")]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use control::api::{InstanceStatus, LeftStatus, Status};
use control::model::{InstanceState, LateClients};
use nix::sys::signal::Signal;
use support::{PATIENCE, lab, metrics, serving, video, wait_until};
use tests::edge::{EdgeLab, NAME};
use tests::lab::daemon::{Daemon, selvedge};
use tests::lab::{Namespace, is_root};

/// Bytes of the lab's file.
const FILE: usize = 100_000;
/// The lab's bridge and engine are the machine's.
static ALONE: Mutex<()> = Mutex::new(());

/// A client that knows an instance's address, whatever the name says by now.
struct Client(TcpStream);

impl Client {
    fn connect(from: &Namespace, address: IpAddr) -> std::io::Result<Self> {
        let at = SocketAddr::new(address, 80);
        let stream = from.run_in(|| TcpStream::connect_timeout(&at, Duration::from_secs(10))).unwrap()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// One download over the open connection.
    fn request(&mut self) -> std::io::Result<()> {
        self.0.write_all(format!("GET /content HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes())?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let mut body = vec![0; FILE];
        self.0.read_exact(&mut body)
    }
}

/// Two instances become one; the one that goes.
fn drain_one(lab: &EdgeLab, daemon: &mut Daemon) -> InstanceStatus {
    let good = std::fs::read_to_string(lab.config()).unwrap();
    let less = good.replace("min = 2", "min = 1").replace("[[service]]", "[[service]]\ncapacity = 1000");
    std::fs::write(lab.config(), less).unwrap();
    daemon.signal(Signal::SIGHUP).unwrap();
    let status = daemon.wait_for("a drain", PATIENCE, |s| draining(s).is_some()).unwrap();
    draining(&status).unwrap().clone()
}

/// An instance whose answers have run out.
fn draining(status: &Status) -> Option<&InstanceStatus> {
    video(status).instances.iter().find(|i| i.report.drain.is_some())
}

fn v4(instance: &InstanceStatus) -> IpAddr {
    instance.report.instance.addresses.v4.unwrap().into()
}

fn left(status: &Status) -> Option<&LeftStatus> {
    video(status).left.first()
}

fn tables(edge: &Namespace) -> String {
    let output = edge.command("nft").unwrap().args(["list", "ruleset"]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn late_clients_are_forwarded_during_the_drain_behind_it_and_over_a_kill() {
    if !is_root("late_clients_are_forwarded_during_the_drain_behind_it_and_over_a_kill") {
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let keys = "min = 2\nmax = 2\nttl_s = 1\ndrain_quiet = \"500ms\"\ndrain_deadline = \"60s\"\n\
                drain_late = \"forward\"\ndrain_forward = \"25s\"";
    let mut lab = lab("late-forward", keys);
    let mut daemon = lab.start_daemon().unwrap();
    let status = daemon.wait_for("two instances", PATIENCE, |s| serving(s).len() == 2).unwrap();
    assert_eq!(video(&status).late_clients, "forward");
    let addresses: Vec<IpAddr> = video(&status).instances.iter().map(v4).collect();
    let mut in_time: Vec<Client> =
        addresses.iter().map(|address| Client::connect(&lab.client, *address).unwrap()).collect();
    in_time.iter_mut().for_each(|client| client.request().unwrap());

    let (done, failed, stop) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let client = lab.client.name().to_owned();
    let (going, mut daemon) = std::thread::scope(|scope| {
        let mut daemon = daemon;
        // Clients that never ask again: a new connection for each request, to both addresses.
        for address in &addresses {
            let (client, done, failed, stop) = (&client, &done, &failed, &stop);
            scope.spawn(move || {
                let from = Namespace::existing(client);
                while !stop.load(Ordering::Relaxed) {
                    match Client::connect(&from, *address).and_then(|mut client| client.request()) {
                        Ok(()) => done.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            println!("late client of {address}: {error}");
                            failed.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        // Whatever fails below, the clients end.
        let _stop = StopOnDrop(&stop);
        let going = drain_one(&lab, &mut daemon);
        let id = going.report.instance.id.clone();
        // The connection from before keeps the old one; who comes new is answered by the other.
        let forwarded = |s: &Status| left(s).is_some_and(|l| l.in_force && l.connections > 20);
        let status = daemon.wait_for("forwarded clients", PATIENCE, forwarded).unwrap();
        let found = left(&status).unwrap();
        assert_eq!((&found.report.left.instance, found.report.left.until), (&id, None));
        assert_eq!(found.report.to.as_ref().map(ToString::to_string), serving(&status).into_iter().next());
        for client in &mut in_time {
            client.request().unwrap();
        }
        let drain = draining(&status).unwrap().report.drain.clone().unwrap();
        assert_eq!((drain.late, drain.open), (LateClients::Forward, Some(1)));
        let (_, shown, _) = selvedge(None, &["status", "--socket", &lab.socket().to_string_lossy()]).unwrap();
        println!("{shown}");
        assert!(shown.contains("LATE FOR"), "{shown}");

        // The daemon is killed while it drains, and goes on with it.
        daemon.kill().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        daemon = lab.start_daemon().unwrap();
        daemon.wait_for("the drain again", PATIENCE, |s| draining(s).is_some() && left(s).is_some()).unwrap();
        in_time.clear();
        let gone = |s: &Status| video(s).instances.len() == 1 && left(s).is_some_and(|l| l.report.left.until.is_some());
        let status = daemon.wait_for("the removal", PATIENCE, gone).unwrap();
        let ends = status.transitions.iter().find(|t| t.instance == id && t.to == InstanceState::Stopped).unwrap();
        assert!(ends.reason.contains("traffic has ended"), "the late clients kept it: {ends:?}");
        // And once more when nothing is left of the instance but its address.
        daemon.kill().unwrap();
        std::thread::sleep(Duration::from_secs(1));
        daemon = lab.start_daemon().unwrap();
        let before = done.load(Ordering::Relaxed);
        let forwarded = |s: &Status| left(s).is_some_and(|l| l.in_force && l.connections > 20);
        daemon.wait_for("forwarded clients of one that is gone", PATIENCE, forwarded).unwrap();
        wait_until("more requests", || (done.load(Ordering::Relaxed) > before + 50).then_some(()));
        let text = metrics(&lab.edge);
        assert!(text.contains(&format!("selvedge_late_forwards{{instance=\"{id}\",service=\"video\"}} 1")), "{text}");
        stop.store(true, Ordering::Relaxed);
        (going, daemon)
    });
    let (done, failed) = (done.into_inner(), failed.into_inner());
    println!("{done} requests, {failed} lost");
    assert!(done > 100, "{done}");
    assert_eq!(failed, 0);

    // Its time over, nothing of it is left.
    daemon.wait_for("the end of the forward", PATIENCE, |s| left(s).is_none()).unwrap();
    wait_until("no rule", || (!tables(&lab.edge).contains(&v4(&going).to_string())).then_some(()));
    daemon.terminate().unwrap();
    assert!(tables(&lab.edge).contains("table inet selvedge-"), "the table goes with the policy, not with the daemon");
    let cleared = lab.edge.command(tests::lab::daemon::binary("selvedge").unwrap().to_str().unwrap());
    let output = cleared.unwrap().args(["clear", "--yes", "--config"]).arg(lab.config()).output().unwrap();
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(tables(&lab.edge), "");
    lab.remove().unwrap();
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A client that comes late while another keeps the instance; the other leaves. What becomes of the late one.
fn come_late(name: &str, policies: &str, look: impl FnOnce(&mut Daemon, &mut Client, &InstanceStatus)) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let keys = format!("min = 2\nmax = 2\nttl_s = 1\ndrain_quiet = \"500ms\"\ndrain_deadline = \"8s\"\n{policies}");
    let mut lab = lab(name, &keys);
    let mut daemon = lab.start_daemon().unwrap();
    let status = daemon.wait_for("two instances", PATIENCE, |s| serving(s).len() == 2).unwrap();
    let mut in_time: Vec<Client> =
        video(&status).instances.iter().map(|i| Client::connect(&lab.client, v4(i)).unwrap()).collect();
    in_time.iter_mut().for_each(|client| client.request().unwrap());
    let going = drain_one(&lab, &mut daemon);
    let mut late = Client::connect(&lab.client, v4(&going)).unwrap();
    late.request().unwrap();
    in_time.clear();
    let seen = |s: &Status| draining(s).and_then(|i| i.report.drain.clone()).is_some_and(|d| d.late_open == Some(1));
    let status = daemon.wait_for("the late client", PATIENCE, seen).unwrap();
    assert_eq!(draining(&status).unwrap().report.drain.as_ref().unwrap().late_clients.len(), 1);
    assert_eq!(left(&status), None);
    look(&mut daemon, &mut late, &going);
    assert_eq!(tables(&lab.edge), "", "nothing is kept track of where nothing is forwarded");
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// The instance stopped, and why.
fn stopped(daemon: &mut Daemon, instance: &InstanceStatus) -> String {
    let id = &instance.report.instance.id;
    let ended = |s: &Status| s.transitions.iter().any(|t| t.instance == *id && t.to == InstanceState::Stopped);
    let status = daemon.wait_for("its end", PATIENCE, ended).unwrap();
    let end = status.transitions.iter().find(|t| t.instance == *id && t.to == InstanceState::Stopped);
    end.unwrap().reason.clone()
}

#[test]
fn late_clients_are_cut_at_the_deadline() {
    if !is_root("late_clients_are_cut_at_the_deadline") {
        return;
    }
    // Whoever came in time would be kept.
    let policies = "drain_at_deadline = \"keep\"\ndrain_late = \"cut\"";
    come_late("late-cut", policies, |daemon, late, going| {
        let reason = stopped(daemon, going);
        assert!(reason.contains("still had traffic after 8s"), "{reason}");
        late.request().expect_err("cut off");
    });
}

#[test]
fn late_clients_are_kept_behind_the_deadline() {
    if !is_root("late_clients_are_kept_behind_the_deadline") {
        return;
    }
    let policies = "drain_late = \"keep\"";
    come_late("late-keep", policies, |daemon, late, going| {
        let deadline = |s: &Status| {
            let drain = draining(s).and_then(|i| i.report.drain.as_ref()).expect("it drains still");
            s.at.0 > drain.deadline.0 + 2_000
        };
        daemon.wait_for("two seconds behind the deadline", PATIENCE, deadline).unwrap();
        late.request().expect("kept");
        late.0.shutdown(std::net::Shutdown::Both).unwrap();
        let reason = stopped(daemon, going);
        // Behind the deadline nothing is waited for but an open connection.
        assert!(reason.contains("traffic has ended") || reason.contains("0 connections open"), "{reason}");
    });
}
