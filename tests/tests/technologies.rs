//! `selvedge bench lifecycle` and `density` for each technology, in one run on one machine: nginx in Docker beside our
//! unikernel. RUNS and COUNT make it as long as one likes (`make bench-technologies`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use serde_json::Value;
use tests::lab::daemon::selvedge;
use tests::lab::unikernel::Unikernels;
use tests::lab::{Engine, image, is_root};

const TECHNOLOGIES: [&str; 3] = ["docker", "spt", "qemu-microvm"];

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
        let tag = format!("selvedge-bench/nginx:{megabytes}");
        image::build_nginx_image(&engine, &tag, *megabytes as usize * 1_000_000).unwrap();
    }
    let bench = |what: &str, technology: &str, arguments: &[&str]| -> Value {
        let (socket, directory) = (engine.socket().to_string_lossy(), dir.path().to_string_lossy());
        let mut all = vec!["bench", what, "--technology", technology, "--unikernels", &directory, "--json"];
        if technology == "docker" {
            all.extend(["--docker-socket", &socket, "--image", "selvedge-bench/nginx:{content}"]);
        }
        all.extend(arguments);
        let (code, out, said) = selvedge(None, &all).unwrap();
        assert_eq!(code, Some(0), "{technology}: {said}{out}");
        assert_eq!(said, "", "nothing but the figures is said where nobody watches");
        serde_json::from_str(&out).unwrap()
    };

    let list = contents.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    println!(
        "{:<14}{:>8}{:>16}{:>16}{:>12}{:>14}{:>10}",
        "", "content", "allocation", "cold start", "removal", "download", "CPU peak"
    );
    for technology in TECHNOLOGIES {
        let figures = bench("lifecycle", technology, &["--content", &list, "--runs", &runs.to_string()]);
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
            println!(
                "{technology:<14}{:>5} MB{allocation:>13.2} ms{:>13.2} ms{removal:>9.2} ms{:>11.2} ms{:>8.0} %",
                size["content_mb"],
                spread("cold_start_ms"),
                spread("download_ms"),
                size["cpu_peak_percent"].as_f64().unwrap()
            );
        }
    }
    println!();
    for technology in ["docker", "spt"] {
        // Containers are as many as a test has patience for.
        let wanted = if technology == "docker" { count.min(50) } else { count };
        let figures = bench("density", technology, &["--count", &wanted.to_string()]);
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
        (&["--technology", "xen"], "use one of docker, spt"),
    ] {
        let (code, out, error) = selvedge(None, &[&["bench", "lifecycle"], arguments].concat()).unwrap();
        assert!(matches!(code, Some(1 | 2)) && out.is_empty(), "{code:?} {out}");
        assert!(error.contains(said), "{error}");
    }
}
