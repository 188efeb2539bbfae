//! The whole on real parts: the daemon in a namespace, a container engine, `dig` and downloads from a client.
//! Needs root, `dig`, nginx and dockerd (`make setup`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{PATIENCE, dig, lab, metrics, serving, under_load, video, wait_until};
use tests::edge::{EDGE, NAME};
use tests::lab::daemon::{binary, selvedge};
use tests::lab::{Namespace, is_root};

/// Flags, TTLs, counts and sections of every kind of answer, over both families, and the same RRsets from the
/// kernel and from the daemon.
#[test]
fn answers_are_as_the_rfcs_say() {
    if !is_root("answers_are_as_the_rfcs_say") {
        return;
    }
    let mut lab = lab("answers", "min = 2\nmax = 2\nttl_s = 7");
    let mut daemon = lab.start_daemon().unwrap();
    let status = daemon.wait_for("two instances", PATIENCE, |s| serving(s).len() == 2).unwrap();
    assert_eq!(status.interfaces[0].mode, "native");
    let of_instances = |pick: fn(&control::model::AddressPair) -> IpAddr| -> BTreeSet<IpAddr> {
        video(&status).instances.iter().map(|i| pick(&i.report.instance.addresses)).collect()
    };
    let v4 = of_instances(|pair| pair.v4.unwrap().into());
    let v6 = of_instances(|pair| pair.v6.unwrap().into());

    for server in [format!("@{}", EDGE.0), format!("@{}", EDGE.1)] {
        for (qtype, addresses) in [("A", &v4), ("AAAA", &v6)] {
            for extra in [&[][..], &["+noedns"], &["+tcp"], &["+nocookie"], &["+dnssec"], &["+norecurse", "+cdflag"]] {
                let what = format!("{server} {qtype} {extra:?}");
                let before = video(&daemon.status().unwrap()).answered_in_kernel;
                let reply = dig(&lab.client, &[&[server.as_str(), NAME, qtype], extra].concat());
                let after = video(&daemon.status().unwrap()).answered_in_kernel;
                let kernel = !extra.contains(&"+tcp");
                assert_eq!(after - before, u64::from(kernel), "{what}: who answered");
                assert_eq!(reply.status, "NOERROR", "{what}");
                assert!(reply.flag("qr") && reply.flag("aa"), "{what}: {:?}", reply.flags);
                assert!(!reply.flag("ra") && !reply.flag("ad") && !reply.flag("tc") && !reply.flag("cd"), "{what}");
                assert_eq!(reply.flag("rd"), !extra.contains(&"+norecurse"), "{what}");
                assert_eq!(reply.addresses(), *addresses, "{what}");
                assert!(reply.answer.iter().all(|r| r[1] == "7"), "{what}: TTL");
                assert!(reply.authority.is_empty(), "{what}");
                assert_eq!(reply.edns, !extra.contains(&"+noedns"), "{what}: OPT");
            }
        }
        // Any letter case, echoed as asked.
        let mixed = dig(&lab.client, &[&server, "ViDeO.eDgE.TeSt", "A"]);
        assert_eq!((mixed.question.as_str(), &mixed.addresses()), ("ViDeO.eDgE.TeSt.", &v4));
        assert!(mixed.answer.iter().all(|r| r[0] == "ViDeO.eDgE.TeSt."), "{mixed:?}");

        for extra in ["+notcp", "+tcp"] {
            let unknown = dig(&lab.client, &[&server, "nobody.edge.test", "A", extra]);
            assert_eq!(unknown.status, "NXDOMAIN");
            let nodata = dig(&lab.client, &[&server, NAME, "TXT", extra]);
            assert_eq!(nodata.status, "NOERROR", "a name that exists is never NXDOMAIN");
            for negative in [&unknown, &nodata] {
                assert!(negative.flag("aa") && negative.answer.is_empty(), "{negative:?}");
                let soa: Vec<_> = negative.authority.iter().map(|r| (r[0].as_str(), r[3].as_str())).collect();
                assert_eq!(soa, [("edge.test.", "SOA")]);
            }
            let apex = dig(&lab.client, &[&server, "edge.test", "SOA", extra]);
            assert_eq!((apex.status.as_str(), apex.answer.len()), ("NOERROR", 1));
            let servers = dig(&lab.client, &[&server, "edge.test", "NS", extra]);
            assert_eq!(servers.answer.len(), 1, "{servers:?}");
            let own = dig(&lab.client, &[&server, &servers.answer[0][4], "A", extra]);
            assert_eq!(own.addresses(), BTreeSet::from([IpAddr::V4(EDGE.0)]), "a name server inside has an address");
            let foreign = dig(&lab.client, &[&server, "example.org", "A", extra]);
            assert_eq!((foreign.status.as_str(), foreign.flag("aa")), ("REFUSED", false));
        }
    }
    let text = metrics(&lab.edge);
    for line in [
        "selvedge_xdp_attached{interface=\"e0\",mode=\"native\"} 1",
        "selvedge_service_replicas{kind=\"serving\",service=\"video\"} 2",
    ] {
        assert!(text.contains(line), "{line} not in {text}");
    }
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// `kill -9` under load: answers go on, a restart adopts instances and tables, no download fails.
#[test]
fn a_killed_daemon_loses_nothing() {
    if !is_root("a_killed_daemon_loses_nothing") {
        return;
    }
    let mut lab = lab("killed", "min = 3\nmax = 3\nttl_s = 1");
    let mut daemon = lab.start_daemon().unwrap();
    let before = daemon.wait_for("three instances", PATIENCE, |s| serving(s).len() == 3).unwrap();
    let client = Namespace::existing(lab.client.name());
    let (report, daemon) = under_load(client, vec![40; 60], || {
        std::thread::sleep(Duration::from_secs(2));
        daemon.kill().unwrap();
        // Nobody but the kernel is there now.
        for _ in 0..20 {
            let reply = dig(&lab.client, &[&format!("@{}", EDGE.0), NAME, "A"]);
            assert_eq!((reply.status.as_str(), reply.addresses().len()), ("NOERROR", 3));
        }
        std::thread::sleep(Duration::from_secs(2));
        let mut daemon = lab.start_daemon().unwrap();
        // Adopted, told by the new daemon itself, and measured again.
        daemon
            .wait_for("adoption", PATIENCE, |s| serving(s) == serving(&before) && video(s).history.len() >= 3)
            .unwrap();
        daemon
    });
    let after = daemon.status().unwrap();
    daemon.terminate().unwrap();
    assert_eq!(serving(&after), serving(&before), "the same instances");
    assert!(after.transitions.iter().all(|t| t.from.is_some()), "nothing was started: {:?}", after.transitions);
    assert!(video(&after).answered_in_kernel > video(&before).answered_in_kernel, "counters went on");
    assert!(report.total.ok > 200, "{report}");
    assert_eq!((report.total.failed, report.total.dns_lost), (0, 0), "{report}");
    lab.remove().unwrap();
}

/// The way down under load: out of the answers, TTL, quiet, stop; no request is lost. And a wrong
/// configuration changes nothing.
#[test]
fn reload_and_drain_lose_nothing() {
    if !is_root("reload_and_drain_lose_nothing") {
        return;
    }
    let mut lab = lab("drain", "min = 4\nmax = 4\nttl_s = 1\ndrain_quiet = \"500ms\"");
    let mut daemon = lab.start_daemon().unwrap();
    daemon.wait_for("four instances", PATIENCE, |s| serving(s).len() == 4).unwrap();
    let good = std::fs::read_to_string(lab.config()).unwrap();

    std::fs::write(lab.config(), good.replace("ttl_s = 1", "ttl_s = -1")).unwrap();
    daemon.signal(Signal::SIGHUP).unwrap();
    let refused = daemon.wait_for("the refusal", PATIENCE, |s| s.config_rejected == 1).unwrap();
    assert_eq!(serving(&refused).len(), 4);

    let client = Namespace::existing(lab.client.name());
    let (report, ()) = under_load(client, vec![60; 60], || {
        // Far more capacity than load: the plan falls to the minimum.
        let less = good.replace("min = 4", "min = 1").replace("[[service]]", "[[service]]\ncapacity = 1000");
        std::fs::write(lab.config(), less).unwrap();
        daemon.signal(Signal::SIGHUP).unwrap();
        daemon.wait_for("one instance", PATIENCE, |s| video(s).instances.len() == 1 && serving(s).len() == 1).unwrap();
    });
    assert!(report.total.ok > 100, "{report}");
    assert_eq!(report.total.failed, 0, "{report}");
    let status = daemon.status().unwrap();
    let quiet = status.transitions.iter().filter(|t| t.reason.contains("traffic has ended")).count();
    assert_eq!(quiet, 3, "drains ended by their traffic, not by the deadline: {:?}", status.transitions);
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// The program taken off while the daemon runs: its counts stand still, which is no silence. The daemon answers and
/// counts what comes, and no target falls.
#[test]
fn a_detached_program_lowers_no_target() {
    if !is_root("a_detached_program_lowers_no_target") {
        return;
    }
    let mut lab = lab("detached", "capacity = 20\nmin = 1\nmax = 4\nttl_s = 1");
    let mut daemon = lab.start_daemon().unwrap();
    daemon.wait_for("the first instance", PATIENCE, |s| serving(s).len() == 1).unwrap();
    let client = Namespace::existing(lab.client.name());
    let (report, after) = under_load(client, vec![60; 60], || {
        let before = daemon.wait_for("three instances", PATIENCE, |s| serving(s).len() >= 3).unwrap();
        let pins = lab.pins();
        let (code, _, said) =
            selvedge(Some(&lab.edge), &["dataplane", "detach", "--pin-dir", &pins.to_string_lossy()]).unwrap();
        assert_eq!(code, Some(0), "{said}");
        let windows = video(&before).history.last().map_or(0, |w| w.window) + 6;
        daemon
            .wait_for("six windows", PATIENCE, |s| video(s).history.last().is_some_and(|w| w.window >= windows))
            .unwrap()
    });
    assert!(video(&after).answered_by_daemon > 200, "the daemon answered: {}", video(&after).answered_by_daemon);
    assert!(serving(&after).len() >= 3, "{}", video(&after).decision);
    assert_eq!(report.total.failed, 0, "{report}");
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// An instance that dies is replaced; while nothing else serves, its last good answer stays.
#[test]
fn a_dead_instance_is_replaced_and_a_lost_engine_survived() {
    if !is_root("a_dead_instance_is_replaced_and_a_lost_engine_survived") {
        return;
    }
    let mut lab = lab("dead", "min = 1\nmax = 2\nttl_s = 1");
    let mut daemon = lab.start_daemon().unwrap();
    let before = daemon.wait_for("an instance", PATIENCE, |s| serving(s).len() == 1).unwrap();
    let first = serving(&before);
    let process = lab.engine.as_ref().unwrap().processes().unwrap();
    kill(Pid::from_raw(process[0].cast_signed()), Signal::SIGKILL).unwrap();
    let server = format!("@{}", EDGE.0);
    let replaced = daemon
        .wait_for("a replacement", PATIENCE, |s| {
            assert_eq!(dig(&lab.client, &[&server, NAME, "A"]).addresses().len(), 1, "never empty");
            serving(s).len() == 1 && serving(s) != first
        })
        .unwrap();
    assert!(replaced.transitions.iter().any(|t| t.to == control::model::InstanceState::Failed));

    // Without the engine what runs goes on being answered, and nothing is scaled down.
    lab.engine.as_mut().unwrap().kill().unwrap();
    daemon.wait_for("the loss", PATIENCE, |s| !s.technologies["docker"].available).unwrap();
    assert_eq!(dig(&lab.client, &[&server, NAME, "A"]).addresses().len(), 1);
    lab.engine.as_mut().unwrap().restart().unwrap();
    daemon.wait_for("the return", PATIENCE, |s| s.technologies["docker"].available && serving(s).len() == 1).unwrap();
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// Without an engine that technology is off with a warning and everything else runs; break-glass needs no daemon.
#[test]
fn without_docker_everything_else_runs() {
    if !is_root("without_docker_everything_else_runs") {
        return;
    }
    let mut lab = lab("nodocker", "");
    let text = std::fs::read_to_string(lab.config()).unwrap();
    let socket = lab.engine.as_ref().unwrap().socket().to_string_lossy().into_owned();
    std::fs::write(lab.config(), text.replace(&socket, "/nonexistent/docker.sock")).unwrap();
    let mut daemon = lab.start_daemon().unwrap();
    let status = daemon.wait_for("the daemon", PATIENCE, |s| s.technologies.contains_key("docker")).unwrap();
    assert!(!status.technologies["docker"].available);
    assert!(status.technologies["docker"].detail.contains("/nonexistent/docker.sock"), "{status:?}");
    let server = format!("@{}", EDGE.0);
    let reply = wait_until("NODATA for a service without instances", || {
        let reply = dig(&lab.client, &[&server, NAME, "A"]);
        (reply.status == "NOERROR").then_some(reply)
    });
    assert_eq!((reply.answer.len(), reply.authority.len()), (0, 1));
    assert!(daemon.log().contains("off until it can be reached"), "{}", daemon.log());

    // A second daemon on the same state says so plainly.
    let twice = lab.edge.command(&binary("selvedged").unwrap().to_string_lossy()).unwrap();
    let mut twice = twice;
    let output = twice.arg("--config").arg(lab.config()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");

    daemon.terminate().unwrap();
    let pins = lab.pins().to_string_lossy().into_owned();
    let (code, out, _) = selvedge(None, &["dataplane", "show", "--pin-dir", &pins]).unwrap();
    assert_eq!((code, out.starts_with("e0: none")), (Some(0), true), "seen from another namespace: {out}");
    let (code, out, _) = selvedge(Some(&lab.edge), &["dataplane", "show", "--pin-dir", &pins]).unwrap();
    assert_eq!(code, Some(0));
    assert!(out.contains("e0: native"), "the end of the daemon is not the end of the dataplane: {out}");
    let (code, out, _) = selvedge(Some(&lab.edge), &["dataplane", "detach", "--pin-dir", &pins]).unwrap();
    assert_eq!((code, out.trim()), (Some(0), "detached from e0"));
    let links = lab.edge.ip(&["-d", "link", "show", "e0"]).unwrap();
    assert!(!links.contains("xdp"), "{links}");
    lab.remove().unwrap();
}

/// What Selvedge made it can remove entirely, without its daemon; what it did not make stays.
#[test]
fn clear_leaves_nothing_of_ours() {
    if !is_root("clear_leaves_nothing_of_ours") {
        return;
    }
    let mut lab = lab("clear", "min = 2\nmax = 2");
    for setting in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        lab.edge.set(setting, "0").unwrap();
    }
    let links = lab.edge.interfaces().unwrap();
    let mut daemon = lab.start_daemon().unwrap();
    daemon.wait_for("two instances", PATIENCE, |s| serving(s).len() == 2).unwrap();
    let config = lab.config().to_string_lossy().into_owned();
    let (code, _, said) = selvedge(Some(&lab.edge), &["clear", "--yes", "--config", &config]).unwrap();
    assert_eq!(code, Some(1), "the daemon runs: {said}");
    daemon.terminate().unwrap();
    assert_eq!(lab.edge.setting("ipv4/ip_forward").unwrap(), "1");

    let (code, would, said) = selvedge(Some(&lab.edge), &["clear", "--config", &config]).unwrap();
    assert_eq!(code, Some(0), "{said}");
    for thing in ["program on e0", "docker instance", "port sv", "bridge sv-docker", "setting", "--yes removes these"] {
        assert!(would.contains(thing), "{thing} not in {would}");
    }
    assert_eq!(lab.engine.as_ref().unwrap().processes().unwrap().len(), 2, "only said, not done");
    let (code, _, said) = selvedge(Some(&lab.edge), &["clear", "--yes", "--config", &config]).unwrap();
    assert_eq!(code, Some(0), "{said}");
    assert!(lab.engine.as_ref().unwrap().processes().unwrap().is_empty());
    assert_eq!(lab.edge.interfaces().unwrap(), links);
    assert_eq!(lab.edge.setting("ipv4/ip_forward").unwrap(), "0");
    assert_eq!(lab.edge.setting("ipv6/conf/all/forwarding").unwrap(), "0");
    assert!(!lab.edge.ip(&["-d", "link", "show", "e0"]).unwrap().contains("xdp"));
    let (code, left, _) = selvedge(Some(&lab.edge), &["clear", "--config", &config]).unwrap();
    assert_eq!((code, left.trim()), (Some(0), "nothing of ours is here"));
    lab.remove().unwrap();
}

/// A user without privileges is told in one plain sentence.
#[test]
fn without_root_a_plain_sentence() {
    if !is_root("without_root_a_plain_sentence") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("selvedge.toml");
    std::fs::write(&config, "[dataplane]\ninterfaces = [\"lo\"]\n[dns]\nlisten = [\"127.0.0.1\"]\n").unwrap();
    let copy = dir.path().join("selvedged");
    std::fs::copy(binary("selvedged").unwrap(), &copy).unwrap();
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
    let output = Command::new(&copy).arg("--config").arg(&config).uid(65534).gid(65534).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("CAP_NET_ADMIN") && said.contains("run it as root"), "{said}");
}
