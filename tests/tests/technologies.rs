//! `selvedge bench lifecycle` and `density` for each technology, in one run on one machine: nginx in Docker beside our
//! unikernel. RUNS and COUNT make it as long as one likes (`make bench-technologies`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use serde_json::Value;
use tests::lab::daemon::selvedge;
use tests::lab::unikernel::Unikernels;
use tests::lab::{Engine, flask, image, is_root};

/// Technologies with their images' names in the catalogue: the paper's two containers, and our unikernel.
const TECHNOLOGIES: [(&str, &str); 4] =
    [("docker", "nginx"), ("docker", "flask"), ("spt", "web"), ("qemu-microvm", "web")];

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn technologies_are_measured_side_by_side() {
    const TEST: &str = "technologies_are_measured_side_by_side";
    if !is_root(TEST) {
        return;
    }
    let dir = tempfile::Builder::new().prefix("selvedge-technologies-").tempdir().unwrap();
    let Some(_) = Unikernels::copy(dir.path(), TEST).unwrap() else { return };
    let (runs, count) = (number("RUNS", 3), number("COUNT", 10));
    let contents: &[u32] = if runs < 10 { &[1, 5] } else { &[1, 5, 10, 20] };
    let engine = Engine::start(&dir.path().join("engine")).unwrap();
    for megabytes in contents {
        let bytes = *megabytes as usize * 1_000_000;
        image::build_nginx_image(&engine, &format!("selvedge-bench/nginx:{megabytes}"), bytes).unwrap();
        flask::build_flask_image(&engine, &format!("selvedge-bench/flask:{megabytes}"), bytes).unwrap();
    }
    let bench = |what: &str, technology: &str, image: &str, arguments: &[&str]| -> Value {
        let (socket, directory) = (engine.socket().to_string_lossy(), dir.path().to_string_lossy());
        let image = format!("selvedge-bench/{image}:{{content}}");
        let mut all = vec!["bench", what, "--technology", technology, "--unikernels", &directory, "--json"];
        if technology == "docker" {
            all.extend(["--docker-socket", &socket, "--image", &image]);
        }
        all.extend(arguments);
        let (code, out, said) = selvedge(None, &all).unwrap();
        assert_eq!(code, Some(0), "{technology}: {said}{out}");
        assert_eq!(said, "", "nothing but the figures is said where nobody watches");
        serde_json::from_str(&out).unwrap()
    };

    let list = contents.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let (table, kept) = (dir.path().join("table.md"), dir.path().join("catalogue.json"));
    let (table, kept) = (table.to_str().unwrap(), kept.to_str().unwrap());
    for (technology, image) in TECHNOLOGIES {
        let runs = runs.to_string();
        let arguments = ["--content", &list, "--runs", &runs, "--markdown", table, "--measurements", kept];
        let figures = bench("lifecycle", technology, image, &arguments);
        let sizes = figures["contents"].as_array().unwrap();
        assert_eq!(sizes.len(), contents.len());
        for size in sizes {
            let spread = |name: &str| {
                let [median, p95, min, max] = ["median", "p95", "min", "max"].map(|s| size[name][s].as_f64().unwrap());
                assert!(0.0 < min && min <= median && median <= p95 && p95 <= max, "{technology}: {size}");
                median
            };
            let (allocation, removal) = (spread("allocation_ms"), spread("removal_ms"));
            let parts: f64 =
                ["port", "start", "accept", "answer"].map(|p| size["parts_ms"][p].as_f64().unwrap()).iter().sum();
            assert!(parts > 0.0 && parts < 2.0 * allocation, "{technology}: {size}");
            assert!(removal > 0.0 && spread("cold_start_ms") < allocation && spread("download_ms") > 0.0);
            assert!(
                size["memory_mb"].as_f64().unwrap() > 0.1 && size["image_bytes"].as_u64().unwrap() > 100_000,
                "{size}"
            );
        }
    }
    let rows = std::fs::read_to_string(table).unwrap();
    assert_eq!(rows.lines().count(), 2 + TECHNOLOGIES.len() * contents.len(), "{rows}");
    println!("{rows}");

    // What was measured is what the catalogue tells from then on.
    let (code, out, said) = selvedge(None, &["catalog", "--measurements", kept, "--json"]).unwrap();
    assert_eq!(code, Some(0), "{said}");
    let catalogue: Value = serde_json::from_str(&out).unwrap();
    for (technology, image) in TECHNOLOGIES {
        let is = |entry: &&Value| entry["technology"] == technology && entry["image"] == image;
        let entry = catalogue["entries"].as_array().unwrap().iter().find(is).unwrap();
        assert_eq!(entry["measured"]["runs"], runs, "{entry}");
        assert!(entry["size_bytes"].as_u64().unwrap() > 100_000 && entry["throughput_mbit"].is_number(), "{entry}");
    }

    for technology in ["docker", "spt"] {
        // Containers are as many as a test has patience for.
        let wanted = if technology == "docker" { count.min(50) } else { count };
        let figures = bench("density", technology, "nginx", &["--count", &wanted.to_string()]);
        assert_eq!(figures["started"], wanted, "{figures}");
        let figure = |name: &str| figures[name].as_f64().unwrap();
        println!(
            "{technology:<14}{wanted:>5} at once in {:.2} s ({:.0} per second), {:.2} MB each, gone in {:.2} s",
            figure("seconds"),
            figure("per_second"),
            figure("rss_mb_each"),
            figure("removal_seconds")
        );
    }
    engine.stop().unwrap();
}

#[test]
fn what_is_missing_is_said_plainly() {
    if !is_root("what_is_missing_is_said_plainly") {
        return;
    }
    for (arguments, said) in [
        (&["--technology", "spt", "--unikernels", "/nonexistent"][..], "build it with make unikernel"),
        (&["--technology", "docker"], "--image NAME"),
        (&["--technology", "vmware"], "use one of docker, spt"),
    ] {
        let (code, out, error) = selvedge(None, &[&["bench", "lifecycle"], arguments].concat()).unwrap();
        assert!(matches!(code, Some(1 | 2)) && out.is_empty(), "{code:?} {out}");
        assert!(error.contains(said), "{error}");
    }
}
