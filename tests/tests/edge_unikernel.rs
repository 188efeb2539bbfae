//! The whole on real parts with unikernels: the daemon starts them, the kernel answers with their addresses, clients
//! download from them. Needs root, dockerd for the lab, and the unikernel (`make unikernel`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use control::model::{InstanceState, Technology};
use support::{PATIENCE, dig, lab, load, serving, video, wait_until};
use tests::edge::{EDGE, EdgeLab, NAME};
use tests::lab::daemon::selvedge;
use tests::lab::is_root;
use tests::lab::unikernel::Unikernels;

/// The lab's service as unikernels on spt.
fn use_spt(lab: &EdgeLab, unikernels: &Unikernels) {
    let text = std::fs::read_to_string(lab.config()).unwrap();
    let image = text.lines().find(|line| line.starts_with("image = ")).unwrap();
    let service = format!(
        "technology = \"spt\"\nimage = \"{}\"\narguments = [\"content=100000\"]\nmemory_mib = 32",
        unikernels.image(Technology::Spt).display()
    );
    let sections = format!(
        "[technology.unikernel]\nbridge = \"sv-uni\"\npool = \"10.214.0.0/24\"\npool6 = \"fd5e:214::/64\"\n\
         [technology.spt]\nprogram = \"{}\"\n[[service]]",
        unikernels.monitor(Technology::Spt).display()
    );
    std::fs::write(lab.config(), text.replace(image, &service).replace("[[service]]", &sections)).unwrap();
}

/// Served by name, adopted by the next daemon, replaced when one dies, and gone without a trace in the end.
#[test]
fn unikernels_serve_survive_and_go() {
    const TEST: &str = "unikernels_serve_survive_and_go";
    if !is_root(TEST) {
        return;
    }
    let dir = tempfile::Builder::new().prefix("selvedge-edge-uni-").tempdir().unwrap();
    let Some(unikernels) = Unikernels::copy(dir.path(), TEST).unwrap() else { return };
    let mut lab = lab("uni", "min = 2\nmax = 3\nttl_s = 1");
    use_spt(&lab, &unikernels);
    let links = lab.edge.interfaces().unwrap();
    let mut daemon = lab.start_daemon().unwrap();
    let status = daemon.wait_for("two unikernels", PATIENCE, |s| serving(s).len() == 2).unwrap();
    assert!(status.technologies["spt"].available, "{:?}", status.technologies);
    assert_eq!(unikernels.tenders().len(), 2);

    let server = format!("@{}", EDGE.0);
    let before = video(&daemon.status().unwrap()).answered_in_kernel;
    for qtype in ["A", "AAAA"] {
        assert_eq!(dig(&lab.client, &[&server, NAME, qtype]).addresses().len(), 2);
    }
    assert_eq!(video(&daemon.status().unwrap()).answered_in_kernel, before + 2);
    let stop = AtomicBool::new(false);
    let (report, after) = std::thread::scope(|scope| {
        let from = tests::lab::Namespace::existing(lab.client.name());
        let stop = &stop;
        let running = scope.spawn(move || load(&from, vec![40; 60], stop));
        std::thread::sleep(Duration::from_secs(1));
        daemon.kill().unwrap();
        assert_eq!(unikernels.tenders().len(), 2, "they do not depend on the daemon");
        let mut daemon = lab.start_daemon().unwrap();
        let adopted = |s: &_| serving(s) == serving(&status) && video(s).history.len() >= 2;
        let after = daemon.wait_for("adoption", PATIENCE, adopted).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let report = running.join().unwrap();
        (report, (daemon, after))
    });
    let (mut daemon, after) = after;
    assert_eq!(serving(&after), serving(&status), "the same instances");
    assert!(report.total.ok > 20, "{report}");
    assert_eq!((report.total.failed, report.total.dns_lost), (0, 0), "{report}");

    tests::contract::kill(unikernels.tenders()[0]);
    let replaced = |s: &_| serving(s).len() == 2 && serving(s) != serving(&after);
    let replaced = daemon.wait_for("a replacement", PATIENCE, replaced).unwrap();
    assert!(
        replaced
            .transitions
            .iter()
            .any(|t| t.to == InstanceState::Failed && t.reason.contains("its process is gone")
                || t.reason.contains("ended")),
        "{:?}",
        replaced.transitions
    );
    wait_until("the dead one's way down", || (unikernels.tenders().len() == 2).then_some(()));

    daemon.terminate().unwrap();
    let config = lab.config().to_string_lossy().into_owned();
    let (code, said, error) = selvedge(Some(&lab.edge), &["clear", "--yes", "--config", &config]).unwrap();
    assert_eq!(code, Some(0), "{said}{error}");
    assert!(said.contains("spt instance") && said.contains("bridge sv-uni"), "{said}");
    assert_eq!(unikernels.tenders(), Vec::<u32>::new());
    assert_eq!(lab.edge.interfaces().unwrap(), links);
    lab.remove().unwrap();
}
