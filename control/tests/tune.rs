#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! `selvedge tune` from a recorded load to a section that a configuration takes.

use std::path::Path;
use std::process::{Command, Output};

use control::config;
use serde_json::Value;

/// Windows of half a minute, ten to a season, of which eight are busy; what comes wavers by a tenth.
fn write_load(file: &Path) {
    let row = |t: u32| {
        let level = if t % 10 < 8 { 100 } else { 20 };
        format!("{},{}\n", 30 * t, level * (90 + t * 7919 % 21) / 100)
    };
    let rows: String = (0..240).map(row).collect();
    std::fs::write(file, format!("time_unix_s,requests\n{rows}")).unwrap();
}

fn tune(file: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge"));
    command.arg("tune").arg(file).args(options).output().unwrap()
}

#[test]
fn a_recorded_load_becomes_a_section_that_a_configuration_takes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("load.csv");
    write_load(&file);
    let told = tune(&file, &["--short", "5", "--capacity", "10", "--json"]);
    assert_eq!(told.status.code(), Some(0), "{}", String::from_utf8_lossy(&told.stderr));
    let report: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&report["trace"], &report["windows"], &report["reached"]), (&"load".into(), &240.into(), &true.into()));
    let number = |candidate: &Value, key: &str| candidate[key].as_f64().unwrap();
    let proposed = &report["proposed"];
    assert!(number(proposed, "tau_u") <= 5.0, "{proposed}");
    let candidates = report["candidates"].as_array().unwrap();
    assert!(candidates.contains(proposed));
    let cheaper = candidates.iter().filter(|c| number(c, "tau_u") <= 5.0);
    let least = cheaper.map(|c| number(c, "instance_seconds_ratio")).fold(f64::INFINITY, f64::min);
    assert!(number(proposed, "instance_seconds_ratio") <= least * 1.01, "{proposed}, and {least} is possible");

    let section = report["toml"].as_str().unwrap();
    let config = dir.path().join("selvedge.toml");
    let service = "[dns]\nlisten = [\"192.0.2.1\"]\n[[zone]]\nname = \"edge.example\"\n[[service]]\nname = \"video\"\n\
        names = [\"video.edge.example\"]\nimage = \"nginx:1.28\"\ncapacity = 10\n";
    std::fs::write(&config, format!("{service}{section}")).unwrap();
    let (code, text) = config::check_command(&config);
    assert_eq!(code, 0, "{text}\n{section}");

    let shown = tune(&file, &["--short", "5", "--capacity", "10"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.trim_end().ends_with(section.trim_end()), "{shown}");
    assert!(shown.lines().any(|line| line.starts_with('*')), "{shown}");
}

#[test]
fn a_goal_out_of_reach_and_a_load_that_is_none_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("load.csv");
    // Nothing foretells windows that come and go by no rule, and the goal allows none to be short.
    let rows: String =
        (0..60u32).map(|t| format!("{},{}\n", 30 * t, if t * t % 7 == 2 { 500 } else { t % 3 })).collect();
    std::fs::write(&file, format!("time_unix_s,requests\n{rows}")).unwrap();
    let told = tune(&file, &["--short", "0", "--train", "4", "--json"]);
    let report: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(report["reached"], false, "{report}");
    assert_eq!(report["proposed"], report["candidates"][0], "the one with the fewest windows short");

    std::fs::write(&file, "time_unix_s,requests\n0,1\n30,lots\n").unwrap();
    let told = tune(&file, &[]);
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(2), "{said}");
    assert!(said.contains("load.csv") && said.contains('3'), "{said}");
}
