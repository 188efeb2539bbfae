//! The shape that ARCHITECTURE.md draws, held: who may depend on whom, who may name which vendor's crate,
//! and a few habits that a compiler does not check. Needs neither root nor a build.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate of the workspace, and what it may depend on there.
const CRATES: &[(&str, &[&str])] = &[
    ("autoscale", &[]),
    ("xdp-balancer-common", &[]),
    ("xdp-balancer-ebpf", &["xdp-balancer-common"]),
    ("xdp-balancer", &["xdp-balancer-common"]),
    ("xen-manager", &[]),
    ("control", &["autoscale", "xdp-balancer", "xdp-balancer-common", "xen-manager"]),
    ("tests", &["control", "xdp-balancer", "xdp-balancer-common", "xen-manager"]),
];

/// Crates that are named in one place only. Tests look from outside and may name all.
const NAMED_ONLY: &[(&str, &[&str])] = &[
    (
        "autoscale",
        &[
            "control/src/cli/replay.rs",
            "control/src/cli/tune.rs",
            "control/src/config/",
            "control/src/orchestrator/",
            "autoscale/",
        ],
    ),
    // The orphan rule puts the loader's trait impls into the common crate.
    ("aya", &["xdp-balancer/", "xdp-balancer-common/"]),
    ("aya_log", &["xdp-balancer/"]),
    ("aya_ebpf", &["xdp-balancer-ebpf/"]),
    ("aya_log_ebpf", &["xdp-balancer-ebpf/"]),
    ("bollard", &["control/src/driver/docker"]),
    // The form of records in the configuration is the master file's, which hickory reads.
    ("hickory_proto", &["control/src/dns/", "control/src/config/rdata.rs"]),
    ("rtnetlink", &["control/src/netlink/"]),
    ("netlink_packet_route", &["control/src/netlink/"]),
    ("redb", &["control/src/store/"]),
    ("prometheus", &["control/src/metrics/"]),
    ("xen_manager", &["control/src/driver/xen/", "xen-manager/"]),
    ("xdp_balancer", &["control/src/datapath/", "xdp-balancer/"]),
    ("ratatui", &["control/src/cli/"]),
    ("clap", &["control/src/bin/", "control/src/cli/", "control/src/load/"]),
    ("axum", &["control/src/api/", "control/src/images/server/"]),
    ("hyper_rustls", &["control/src/images/client/"]),
    ("tokio_rustls", &["control/src/api/"]),
];

/// Modules of `control` that know these others of it, and no more.
const KNOWS_ONLY: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("placement", &["model"]),
    ("telemetry", &["model"]),
    ("store", &["model"]),
    ("orders", &["model", "store"]),
    ("driver", &["model"]),
    ("images", &["model"]),
    ("catalogue", &["model"]),
    ("netlink", &["model"]),
    ("dns", &["model"]),
    ("zonefile", &["model"]),
];

/// Modules of `control` that must not know these others of it.
const MUST_NOT_KNOW: &[(&str, &[&str])] = &[
    ("config", &["api", "cli", "daemon", "datapath", "dns", "driver", "netlink", "orchestrator", "reconcile", "store"]),
    ("orchestrator", &["datapath", "dns", "driver", "netlink", "reconcile"]),
    ("reconcile", &["api", "cli", "orchestrator"]),
    ("datapath", &["driver", "netlink", "reconcile", "orchestrator"]),
    ("bench", &["cli", "daemon", "datapath", "orchestrator", "store"]),
    ("metrics", &["datapath", "driver", "netlink", "placement", "reconcile", "orchestrator"]),
    ("capture", &["cli", "daemon", "driver", "netlink", "orchestrator", "placement", "reconcile", "store"]),
    ("explain", &["api", "cli", "daemon", "driver", "netlink", "orchestrator", "placement", "reconcile", "store"]),
    ("api", &["cli", "daemon", "driver", "netlink"]),
    ("cli", &["dns", "driver", "netlink", "orchestrator", "placement", "reconcile", "store"]),
];

/// Split by noun before this.
const MOST_LINES: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The workspace's packages as cargo sees them.
fn packages() -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

/// One line of a manifest's dependencies.
struct Dependency<'a> {
    on: &'a str,
    optional: bool,
    /// For tests only.
    dev: bool,
}

fn dependencies(package: &Value) -> Vec<Dependency<'_>> {
    let all = package["dependencies"].as_array().unwrap().iter();
    let read = |d| Dependency {
        on: name(d),
        optional: d["optional"].as_bool().unwrap(),
        dev: d["kind"].as_str() == Some("dev"),
    };
    all.map(read).collect()
}

/// Whether a source is a test's.
fn is_test(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// All files of this repository that end in `.rs`: path below the root, text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories: Vec<PathBuf> = CRATES.iter().map(|(name, _)| root().join(name)).collect();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                if entry.file_name() != "target" {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((below, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found.sort();
    found
}

/// A word of Rust, or one other character.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Token<'a> {
    Word(&'a str),
    Other(char),
}

/// Words and other characters of a source with comments, strings and blanks left out: names in prose are
/// no dependencies.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            string(rest)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if first == '\'' {
            character(rest)
        } else if first == '_' || first.is_alphanumeric() {
            let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            found.push(Token::Word(&rest[..length]));
            length
        } else {
            if !first.is_whitespace() {
                found.push(Token::Other(first));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    found
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a raw string that starts here, as `r"…"`, `r#"…"#`, `br"…"`.
fn raw_string(text: &str) -> Option<usize> {
    let opening = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = opening.find(|c| c != '#')?;
    if !opening[hashes..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = text.len() - opening.len() + hashes + 1;
    Some(text[body..].find(&end).map_or(text.len(), |at| body + at + end.len()))
}

/// Length of a character literal, or of the apostrophe of a lifetime.
fn character(text: &str) -> usize {
    let mut following = text.chars().skip(1);
    match (following.next(), following.next()) {
        (Some('\\'), _) => text[3..].find('\'').map_or(1, |at| 3 + at + 1),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 1,
    }
}

/// Whether a source names a crate: as the start of a path, or in a `use` of its own.
fn names_crate(tokens: &[Token<'_>], name: &str) -> bool {
    let colon = Token::Other(':');
    (0..tokens.len()).filter(|&at| tokens[at] == Token::Word(name)).any(|at| {
        let before = at.checked_sub(1).map(|before| tokens[before]);
        let inside_of_path = before == Some(colon) && at >= 2 && tokens[at - 2] == colon;
        // `::name::…` starts at the root, `other::name::…` does not.
        let at_root = inside_of_path && !(at >= 3 && matches!(tokens[at - 3], Token::Word(_) | Token::Other('>')));
        let used = matches!(before, Some(Token::Word("use" | "crate"))) || at_root;
        let path = tokens.get(at + 1) == Some(&colon) && tokens.get(at + 2) == Some(&colon);
        used || (path && !inside_of_path)
    })
}

/// Modules of its own crate that a source names as `crate::module` or in `crate::{…}`.
fn own_modules<'a>(tokens: &[Token<'a>]) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for (at, window) in tokens.windows(4).enumerate() {
        if window[..3] != [Token::Word("crate"), Token::Other(':'), Token::Other(':')] {
            continue;
        }
        match window[3] {
            Token::Word(module) => {
                found.insert(module);
            }
            Token::Other('{') => {
                // The first word of each branch of the group.
                let (mut depth, mut first) = (0, true);
                for token in &tokens[at + 3..] {
                    match token {
                        Token::Other('{') => depth += 1,
                        Token::Other('}') => depth -= 1,
                        Token::Other(',') if depth == 1 => first = true,
                        Token::Word(module) if depth == 1 && first => {
                            found.insert(module);
                            first = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            Token::Other(_) => {}
        }
    }
    found
}

/// Fails with all that was found, not with the first only.
fn none(what: &str, found: &[String]) {
    let mut text = String::new();
    for line in found {
        let _ = write!(text, "\n  {line}");
    }
    assert!(found.is_empty(), "{what}:{text}");
}

#[test]
fn crates_depend_on_each_other_as_drawn() {
    let allowed: BTreeMap<_, _> = CRATES.iter().copied().collect();
    let mut found = Vec::new();
    let packages = packages();
    for package in &packages {
        let Some(may) = allowed.get(name(package)) else {
            found.push(format!("{} is not drawn in ARCHITECTURE.md", name(package)));
            continue;
        };
        for Dependency { on, .. } in dependencies(package) {
            // A package's own tests name it to switch a feature on.
            if on == name(package) {
                continue;
            }
            if allowed.contains_key(on) && !may.contains(&on) {
                found.push(format!("{} -> {on}", name(package)));
            }
        }
    }
    assert_eq!(packages.len(), CRATES.len(), "a crate that is drawn is no member");
    none("dependencies between our crates that are not drawn in ARCHITECTURE.md", &found);
}

#[test]
fn manifests_keep_vendors_in_their_places() {
    let mut found = Vec::new();
    for package in &packages() {
        for Dependency { on, optional, .. } in dependencies(package).into_iter().filter(|d| !d.dev) {
            let places = NAMED_ONLY.iter().find(|(vendor, _)| *vendor == on.replace('-', "_"));
            let Some((_, places)) = places else { continue };
            let here = format!("{}/", name(package));
            let ours = name(package) == "tests" || places.iter().any(|place| place.starts_with(&here));
            if !ours {
                found.push(format!("{} depends on {on}", name(package)));
            }
            if name(package) == "xdp-balancer-common" && !optional {
                found.push(format!("{} depends on {on} always, not only where asked", name(package)));
            }
        }
    }
    none("vendors' crates where they do not belong", &found);
}

#[test]
fn sources_keep_vendors_in_their_places() {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (path, text) in sources() {
        let tokens = tokens(&text);
        for (vendor, places) in NAMED_ONLY {
            if !names_crate(&tokens, vendor) {
                continue;
            }
            seen.insert(*vendor);
            if !is_test(&path) && !places.iter().any(|place| path.starts_with(place)) {
                found.push(format!("{path} names {vendor}"));
            }
        }
    }
    // Otherwise the scanner is broken, and the test would hold nothing.
    assert!(seen.contains("hickory_proto"), "no source names hickory_proto?");
    none("vendors' crates named where they do not belong", &found);
}

#[test]
fn modules_of_control_know_what_they_may() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        let Some(below) = path.strip_prefix("control/src/") else { continue };
        let module = below.split(['/', '.']).next().unwrap();
        let tokens = tokens(&text);
        let knows = own_modules(&tokens);
        if let Some((_, may)) = KNOWS_ONLY.iter().find(|(name, _)| *name == module) {
            for other in knows.iter().filter(|other| **other != module && !may.contains(other)) {
                found.push(format!("{path} names crate::{other}"));
            }
        }
        if let Some((_, must_not)) = MUST_NOT_KNOW.iter().find(|(name, _)| *name == module) {
            for other in knows.iter().filter(|other| must_not.contains(other)) {
                found.push(format!("{path} names crate::{other}"));
            }
        }
        // Pure modules take time as an argument and run without a runtime.
        if ["model", "placement"].contains(&module) && names_crate(&tokens, "tokio") {
            found.push(format!("{path} names tokio"));
        }
    }
    none("modules that know more than ARCHITECTURE.md allows", &found);
}

#[test]
fn every_member_inherits_the_lints() {
    let mut found = Vec::new();
    for package in &packages() {
        let manifest = fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let mut lines = manifest.lines().map(str::trim).skip_while(|line| *line != "[lints]");
        if lines.next().is_none() || lines.next() != Some("workspace = true") {
            found.push(name(package).to_owned());
        }
    }
    none("members without `[lints] workspace = true`", &found);
}

#[test]
fn files_stay_readable() {
    let mut found = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > MOST_LINES {
            found.push(format!("{path} has {lines} lines"));
        }
    }
    none(&format!("sources of more than {MOST_LINES} lines; split them by noun"), &found);
}

#[test]
fn no_object_is_committed() {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let Some(listed) = listed.ok().filter(|output| output.status.success()) else {
        println!("SKIPPED (this is no git checkout): no_object_is_committed");
        return;
    };
    let mut found = Vec::new();
    let names = String::from_utf8(listed.stdout).unwrap();
    for path in names.split('\0').filter(|path| !path.is_empty()) {
        // Deleted, but not yet in the index.
        let Ok(bytes) = fs::read(root().join(path)) else { continue };
        let extension = Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or_default();
        if bytes.starts_with(b"\x7fELF") || ["o", "bin", "so", "a"].contains(&extension) {
            found.push(path.to_owned());
        }
    }
    none("built objects in git", &found);
}

#[test]
fn the_scanner_tells_code_from_prose() {
    let named = |text: &str| names_crate(&tokens(text), "aya");
    for text in [
        "use aya::Ebpf;",
        "use aya;",
        "use aya as loader;",
        "extern crate aya;",
        "let x = aya::maps::Array::new();",
        "let x = ::aya::Ebpf::load();",
        "fn f(_: &aya::Ebpf) {}",
        "let c = '\"'; aya::f(); // \"",
        "let c = '\\''; aya::f();",
        "fn f<'a>(_: &'a aya::Ebpf) {}",
        "let s = r#\"\"#; aya::f();",
    ] {
        assert!(named(text), "missed in {text}");
    }
    for text in [
        "// aya::maps is not used here",
        "/* use aya::Ebpf; /* nested */ aya::x */",
        "let s = \"aya::maps\";",
        "let s = r#\"a \"quoted\" aya::maps\"#;",
        "let s = \"\\\"aya::maps\";",
        "use aya_log::EbpfLogger;",
        "use crate::aya::Thing;",
        "fn aya() {}",
        "route(get(aya))",
    ] {
        assert!(!named(text), "seen in {text}");
    }
    let modules = own_modules(&tokens("use crate::{model::{Ids, Text}, dns, self_test::x}; crate::store::f();"));
    assert_eq!(modules.into_iter().collect::<Vec<_>>(), ["dns", "model", "self_test", "store"]);
}
