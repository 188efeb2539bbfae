//! The whole on real parts with unikernels: the daemon starts them, the kernel answers with their addresses, clients
//! download from them. Needs root, dockerd for the lab, and the unikernel (`make unikernel`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[allow(dead_code, reason = "other tests use the rest")]
mod support;

use std::process::{Child, Stdio};
use std::time::Duration;

use control::api::{ServiceStatus, Status};
use control::model::{InstanceState, Technology};
use support::{PATIENCE, dig, lab, serving, under_load, video, wait_until};
use tests::edge::{EDGE, EdgeLab, NAME};
use tests::lab::daemon::selvedge;
use tests::lab::unikernel::Unikernels;
use tests::lab::{Namespace, is_root};

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
    let client = Namespace::existing(lab.client.name());
    let (report, (mut daemon, after)) = under_load(client, vec![40; 60], || {
        std::thread::sleep(Duration::from_secs(1));
        daemon.kill().unwrap();
        assert_eq!(unikernels.tenders().len(), 2, "they do not depend on the daemon");
        let mut daemon = lab.start_daemon().unwrap();
        let adopted = |s: &_| serving(s) == serving(&status) && video(s).history.len() >= 2;
        let after = daemon.wait_for("adoption", PATIENCE, adopted).unwrap();
        (daemon, after)
    });
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

/// Another node's daemon: nothing but its repository.
struct Repository {
    daemon: Child,
    dir: tempfile::TempDir,
}

impl Repository {
    const ADDRESS: &str = "10.53.0.2:5000";

    /// Started where clients are, with the unikernel as `page:1`.
    fn start(lab: &EdgeLab, unikernels: &Unikernels) -> Self {
        let dir = tempfile::Builder::new().prefix("selvedge-repository-").tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        let text = format!(
            "[node]\nname = \"other\"\n[images]\nlisten = \"{}\"\n[control]\nstate_dir = \"{}\"\nsocket = \"{}\"\n\
             metrics = \"127.0.0.1:9553\"\n[dataplane]\npin_dir = \"/sys/fs/bpf/{}-other\"\n",
            Self::ADDRESS,
            at("state"),
            at("socket"),
            lab.client.name(),
        );
        std::fs::write(at("selvedge.toml"), text).unwrap();
        let image = unikernels.image(Technology::Spt).to_string_lossy().into_owned();
        let config = at("selvedge.toml");
        let push = ["image", "push", "page:1", "--file", &image, "--vmm", "spt", "--config", &config];
        let (code, said, error) = selvedge(None, &push).unwrap();
        assert_eq!(code, Some(0), "{said}{error}");
        lab.client.up("lo").unwrap();
        let program = tests::lab::daemon::binary("selvedged").unwrap();
        let log = std::fs::File::create(at("log")).unwrap();
        let mut command = lab.client.command(&program.to_string_lossy()).unwrap();
        let daemon = command.args(["--config", &config]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let repository = Self { daemon: daemon.unwrap(), dir };
        wait_until("the other node's repository", || {
            lab.client.run_in(|| std::net::TcpStream::connect(Self::ADDRESS).ok()).unwrap()
        });
        repository
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        println!("the other node said:\n{log}");
    }
}

/// A unikernel that another node's daemon has: pulled, started and, with that node away and engine and daemon started
/// anew, started again with the containers.
#[test]
fn a_unikernel_comes_from_another_node_and_needs_it_once() {
    const TEST: &str = "a_unikernel_comes_from_another_node_and_needs_it_once";
    if !is_root(TEST) {
        return;
    }
    let dir = tempfile::Builder::new().prefix("selvedge-edge-pull-").tempdir().unwrap();
    let Some(unikernels) = Unikernels::copy(dir.path(), TEST).unwrap() else { return };
    let mut lab = lab("pull", "min = 1\nmax = 1\nttl_s = 1\ndrain_quiet = \"100ms\"");
    let other = Repository::start(&lab, &unikernels);
    let text = std::fs::read_to_string(lab.config()).unwrap();
    let more = format!(
        "[images]\nplain_http = [\"{0}\"]\n[technology.unikernel]\nbridge = \"sv-uni\"\npool = \"10.214.0.0/24\"\n\
         [technology.spt]\nprogram = \"{1}\"\n[[service]]\nname = \"page\"\nnames = [\"page.edge.test\"]\n\
         probe_path = \"/healthz\"\ntechnology = \"spt\"\nimage = \"{0}/page:1\"\nmemory_mib = 32\nttl_s = 1\n\
         drain_quiet = \"100ms\"\n",
        Repository::ADDRESS,
        unikernels.monitor(Technology::Spt).display()
    );
    std::fs::write(lab.config(), format!("{text}{more}")).unwrap();
    let serves = |service: &ServiceStatus| {
        service.instances.iter().filter(|i| i.report.instance.state == InstanceState::Serving).count() == 1
    };
    let all_serve = |s: &Status| s.services.len() == 2 && s.services.values().all(serves);
    let answers = |lab: &EdgeLab| {
        for name in [NAME, "page.edge.test"] {
            let address = *dig(&lab.client, &[&format!("@{}", EDGE.0), name]).addresses().first().unwrap();
            let url = format!("http://{address}/healthz");
            let got = lab.client.command("curl").unwrap().args(["-sS", "--max-time", "20", &url]).output().unwrap();
            assert_eq!(got.stdout, b"ok\n", "{name}: {}", String::from_utf8_lossy(&got.stderr));
        }
    };

    let mut daemon = lab.start_daemon().unwrap();
    daemon.wait_for("both services", PATIENCE, all_serve).unwrap();
    assert!(daemon.log().contains("image pulled"), "{}", daemon.log());
    answers(&lab);

    // The other node is away, and everything of this one starts anew.
    drop(other);
    daemon.kill().unwrap();
    unikernels.tenders().into_iter().for_each(tests::contract::kill);
    let engine = lab.engine.as_mut().unwrap();
    engine.kill().unwrap();
    engine.restart().unwrap();
    let mut daemon = lab.start_daemon().unwrap();
    daemon.wait_for("both services again", PATIENCE, all_serve).unwrap();
    answers(&lab);
    // The image is needed, so it stays, whatever its age.
    let config = lab.config().to_string_lossy().into_owned();
    let (code, said, _) =
        selvedge(None, &["image", "gc", "--unused", "--grace", "0s", "--json", "--config", &config]).unwrap();
    let swept: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, swept["blobs"].as_u64()), (Some(0), Some(0)), "{said}");

    // A service that has left the file while no daemon ran leaves nothing.
    daemon.kill().unwrap();
    std::fs::write(lab.config(), text).unwrap();
    let daemon = lab.start_daemon().unwrap();
    wait_until("the end of the unikernel", || unikernels.tenders().is_empty().then_some(()));
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}
