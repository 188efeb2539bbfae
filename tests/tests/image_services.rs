//! Images as services and operators meet them: pulled by the engine when a service needs them, there without the
//! registry ever after, and at hand by the command. Root parts need `dig`, nginx, dockerd (`make setup`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[expect(dead_code, reason = "shared with tests that need more of it")]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use control::driver::docker::Docker;
use control::driver::{Driver as _, DriverError, InstanceSpec, Resources};
use control::model::{Guest, InstanceId, OwnerId, ServiceName};
use serde_json::Value;
use support::{PATIENCE, dig, lab, serving};
use tests::edge::{EDGE, NAME};
use tests::lab::daemon::selvedge;
use tests::lab::process::run;
use tests::lab::{Engine, Repository, image, is_root};
use tokio::runtime::Runtime;

/// Pushes an image of the engine to a repository and takes it from the engine. Gives the name by which it can be
/// pulled.
fn move_out(engine: &Engine, image: &str, repository: &Repository, name: &str) -> String {
    let there = format!("{}/{name}", repository.address);
    for arguments in [vec!["tag", image, &there], vec!["push", "--quiet", &there], vec!["rmi", &there, image]] {
        docker(engine, &arguments);
    }
    there
}

fn docker(engine: &Engine, arguments: &[&str]) -> String {
    let host = format!("unix://{}", engine.socket().display());
    run(Command::new("docker").args(["-H", &host]).args(arguments)).unwrap()
}

#[test]
fn the_engine_pulls_what_it_lacks_and_needs_no_registry_after() {
    if !is_root("the_engine_pulls_what_it_lacks_and_needs_no_registry_after") {
        return;
    }
    const IMAGE: &str = "selvedge-test/nginx:1";
    let dir = tempfile::Builder::new().prefix("selvedge-docker-").tempdir().unwrap();
    let engine = Engine::start(dir.path()).unwrap();
    image::build_nginx_image(&engine, IMAGE, 3_000_000).unwrap();
    let runtime = Runtime::new().unwrap();
    let repository = runtime.block_on(Repository::new());
    let there = move_out(&engine, IMAGE, &repository, "shop/nginx:1");
    let digest = repository.store.entries().unwrap()[0].manifest.digest.clone();

    let owner = OwnerId::from_number(0x00c0_ffee);
    let driver = Docker::new(engine.socket().to_owned(), owner.clone());
    let spec = |image: &str| InstanceSpec {
        id: InstanceId::from_number(1),
        owner: owner.clone(),
        service: ServiceName::new("video").unwrap(),
        image: image.to_owned(),
        guest: Guest::default(),
        resources: Resources { vcpus: 1.0, memory_mib: 64 },
    };
    let by_digest = format!("{}/shop/nginx@{digest}", repository.address);
    let quiet = |_: String| {};
    runtime.block_on(async {
        for image in [&there, &by_digest] {
            assert_eq!(driver.validate(&spec(image)).await.unwrap_err().label(), "no_image");
            driver.fetch(&spec(image), &quiet).await.unwrap();
            driver.validate(&spec(image)).await.unwrap();
            if *image == there {
                docker(&engine, &["rmi", image]);
            }
        }
    });
    drop(repository);
    runtime.block_on(async {
        // What is there needs no registry.
        driver.fetch(&spec(&by_digest), &quiet).await.unwrap();
        driver.start(&spec(&by_digest), None).await.unwrap();
        driver.stop(&InstanceId::from_number(1), Duration::ZERO).await.unwrap();

        // What is not there is tried some times, and says so.
        let told = Mutex::new(Vec::new());
        let note = |text: String| told.lock().unwrap().push(text);
        let absent = there.replace("nginx:1", "nginx:2");
        let error = driver.fetch(&spec(&absent), &note).await.unwrap_err();
        let DriverError::NotFetched { attempts: 4, image, .. } = &error else { panic!("{error}") };
        assert_eq!((image, error.label()), (&absent, "no_image"));
        assert_eq!(told.lock().unwrap().len(), 3, "a report between two attempts: {told:?}");
        // Without a registry in its name it is looked for here only.
        let error = driver.fetch(&spec("selvedge-test/absent:1"), &note).await.unwrap_err();
        assert!(matches!(error, DriverError::NoImage { .. }), "{error}");
    });
    engine.stop().unwrap();
}

#[test]
fn services_come_back_with_the_registry_away() {
    if !is_root("services_come_back_with_the_registry_away") {
        return;
    }
    let mut lab = lab("registry", "min = 1\nmax = 1\nttl_s = 1");
    let runtime = Runtime::new().unwrap();
    let repository = runtime.block_on(Repository::new());
    let config = fs::read_to_string(lab.config()).unwrap();
    let line = config.lines().find(|line| line.starts_with("image = ")).expect("the service's image").to_owned();
    let local = line.trim_start_matches("image = ").trim_matches('"').to_owned();
    let there = move_out(lab.engine.as_ref().unwrap(), &local, &repository, "shop/video:1");
    let config = config.replace(&line, &format!("image = \"{there}\""));
    fs::write(lab.config(), format!("{config}\n[images]\nlisten = \"127.0.0.1:5000\"\n")).unwrap();

    let mut daemon = lab.start_daemon().unwrap();
    daemon.wait_for("an instance", PATIENCE, |s| serving(s).len() == 1).unwrap();

    // The daemon serves what the command puts into its directory, to another node with a directory of its own.
    let other = tempfile::tempdir().unwrap();
    let file = other.path().join("web.spt");
    fs::write(&file, image::content(100_000)).unwrap();
    let (file, own, second) =
        (file.display().to_string(), lab.config().display().to_string(), other.path().join("store"));
    let second = second.display().to_string();
    for arguments in [
        vec!["image", "push", "uni/web:1", "--file", &file, "--vmm", "spt", "--config", &own],
        vec!["image", "pull", "127.0.0.1:5000/uni/web:1", "--store", &second, "--config", &own],
    ] {
        let (code, _, err) = selvedge(Some(&lab.edge), &arguments).unwrap();
        assert_eq!(code, Some(0), "{arguments:?}: {err}");
    }

    drop(repository);
    daemon.kill().unwrap();
    let engine = lab.engine.as_mut().unwrap();
    engine.kill().unwrap();
    engine.restart().unwrap();
    engine.remove_containers("selvedge.owner").unwrap();
    let mut daemon = lab.start_daemon().unwrap();
    daemon.wait_for("an instance again", PATIENCE, |s| serving(s).len() == 1).unwrap();
    let reply = dig(&lab.client, &[&format!("@{}", EDGE.0), NAME, "A"]);
    assert_eq!((reply.status.as_str(), reply.answer.len()), ("NOERROR", 1));
    daemon.terminate().unwrap();
    lab.remove().unwrap();
}

/// The command's exit code, standard output as JSON, standard error.
fn command(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let (code, out, err) = selvedge(None, arguments).unwrap();
    (code, serde_json::from_str(&out).unwrap_or(Value::Null), err)
}

#[test]
fn the_command_needs_no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let repository = runtime.block_on(Repository::new());
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (file, config) = (path("web.spt"), path("selvedge.toml"));
    fs::write(&file, image::content(300_000)).unwrap();
    let text = "[[zone]]\nname = \"edge.test\"\n[[service]]\nname = \"web\"\nnames = [\"web.edge.test\"]\nimage = \"reg.example/web:1\"\n";
    fs::write(&config, format!("[images]\ndir = {:?}\n{text}", path("images"))).unwrap();
    let image = |arguments: &[&str]| command(&[&["image"], arguments, &["--json", "--config", &config]].concat());

    for name in ["web:1", "other:1"] {
        let (code, pushed, err) = image(&["push", name, "--file", &file, "--vmm", "spt", "--memory-mib", "16"]);
        assert_eq!((code, pushed["image"].as_str()), (Some(0), Some(name)), "{err}");
    }
    let (_, listed, _) = image(&["list"]);
    let names: Vec<_> = listed["images"].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
    assert_eq!((names, &listed["images"][0]["kind"]), (vec!["other:1", "web:1"], &"unikernel".into()));

    let there = format!("{}/uni/web:2", repository.address);
    let (code, pushed, err) = image(&["push", &there, "--from", "web:1"]);
    assert_eq!(code, Some(0), "{err}");
    let second = path("second");
    let (code, pulled, err) = command(&["image", "pull", &there, "--store", &second, "--json", "--config", &config]);
    assert_eq!((code, pulled["image"].as_str()), (Some(0), Some("uni/web:2")), "{err}");
    assert_eq!(pulled["digest"], pushed["digest"]);
    assert!(pulled["moved"].as_u64().unwrap() > 300_000, "{pulled}");

    // What the service refers to stays; a dry run takes nothing.
    let (code, would, err) = image(&["gc", "--unused", "--grace", "0s", "--dry-run"]);
    assert_eq!((code, &would["images"]), (Some(0), &serde_json::json!(["other:1"])), "{err}");
    assert_eq!(image(&["list"]).1["images"].as_array().unwrap().len(), 2);
    let (code, swept, err) = image(&["gc", "--unused", "--grace", "0s"]);
    assert_eq!((code, &swept["images"]), (Some(0), &serde_json::json!(["other:1"])), "{err}");
    assert_eq!(image(&["list"]).1["images"][0]["name"], "web:1");

    drop(repository);
    for (arguments, code, fragment) in [
        (vec!["pull", "web:1"], 2, "a registry is needed"),
        (vec!["pull", "reg.example/../x"], 2, "no name of an image"),
        (vec!["push", "reg.example/absent:1"], 1, "absent:1 is not there"),
        (vec!["push", "web:2", "--file", "/absent", "--vmm", "spt"], 1, "/absent"),
    ] {
        let (found, _, err) = image(&arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {err}");
        assert!(err.contains(fragment), "{arguments:?}: {err}");
    }
    fs::write(&config, "[images]\nparallel = 0\n").unwrap();
    assert_eq!(image(&["list"]).0, Some(2));
    assert!(Path::new(&second).join("index.json").exists());
}

#[test]
fn catalogue_and_selector_answer_as_documents() {
    let known = ["--technologies", "docker,spt", "--json"];
    let (code, catalogue, err) = command(&[&["catalog"], known.as_slice()].concat());
    assert_eq!(code, Some(0), "{err}");
    assert!(catalogue["entries"].as_array().unwrap().len() >= 8);
    assert!(
        catalogue["entries"][0]["allocation_ms"]["p95"].is_number() && catalogue["entries"][0]["measured"].is_null()
    );

    let (code, choice, err) =
        command(&[&["select", "--start-within", "20ms", "--memory", "16M"], known.as_slice()].concat());
    assert_eq!((code, choice["technology"].as_str()), (Some(0), Some("spt")), "{err}");
    assert!(choice["reason"].as_str().unwrap().contains("starts in"));
    let (code, choice, _) = command(&[&["select", "--isolation", "vm"], known.as_slice()].concat());
    assert_eq!((code, &choice["technology"]), (Some(1), &Value::Null));
    let (code, _, err) = command(&["select", "--memory", "much"]);
    assert_eq!(code, Some(2), "{err}");

    // What a bench has measured takes the place of what was published.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("catalogue.json");
    let measured = r#"{"measurements":[{"technology":"spt","image":"web","at":1,"runs":30,"size_bytes":1,"memory_mib":2.5,
        "allocation_ms":{"p50":1,"p95":90},"removal_ms":{"p50":1,"p95":2}}]}"#;
    fs::write(&file, measured).unwrap();
    let file = file.display().to_string();
    let with = ["--measurements", &file];
    let (_, choice, _) = command(&[&["select", "--start-within", "100ms"], known.as_slice(), &with].concat());
    assert_eq!(choice["entry"]["measured"]["runs"], 30);
    fs::write(&file, "{").unwrap();
    assert_eq!(command(&[&["catalog"], with.as_slice()].concat()).0, Some(2));
}
