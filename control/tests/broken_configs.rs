#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]
//! Every file under `tests/configs/broken` is refused, with one line for each fault that its head names.
//!
//! The head holds lines `# expect: LINE: KEY: FRAGMENT`, in the order of the faults: the line in the
//! file, the key, and a part of what is said about it.

use std::fs;
use std::path::{Path, PathBuf};

use control::config;

const FEWEST: usize = 30;

struct Expected {
    line: usize,
    key: String,
    fragment: String,
}

fn files() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/configs/broken");
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn expected(path: &Path) -> Vec<Expected> {
    let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let heads = text.lines().map_while(|line| line.strip_prefix("# expect: "));
    heads
        .map(|head| {
            let mut parts = head.splitn(3, ": ").map(str::to_owned);
            let mut part = || parts.next().unwrap_or_else(|| panic!("{}: {head}", path.display()));
            let line = part().parse().unwrap();
            Expected { line, key: part(), fragment: part().trim().to_owned() }
        })
        .collect()
}

#[test]
fn each_broken_file_is_refused_with_place_and_remedy() {
    let files = files();
    assert!(files.len() >= FEWEST, "only {} files", files.len());
    for path in files {
        let (code, text) = config::check_command(&path);
        assert_eq!(code, 2, "{}: {text}", path.display());
        let (expected, lines) = (expected(&path), text.lines().collect::<Vec<_>>());
        assert!(!expected.is_empty(), "{} expects nothing", path.display());
        assert_eq!(lines.len(), expected.len(), "{}:\n{text}", path.display());
        for (expected, line) in expected.iter().zip(lines) {
            let place = format!("{}:{}: {}: ", path.display(), expected.line, expected.key);
            let said = line.strip_prefix(&place).unwrap_or_else(|| panic!("expected {place}\ngot      {line}"));
            assert!(said.contains(&expected.fragment), "expected {:?} in\n{line}", expected.fragment);
            let remedy = said.split_once("; ").map_or("", |(_, remedy)| remedy);
            assert!(!remedy.is_empty(), "no remedy in\n{line}");
            println!("{}", line.rsplit_once("/broken/").map_or(line, |(_, short)| short));
        }
    }
}

/// What follows the head is what is wrong: each file is broken by its content, not by its comments.
#[test]
fn the_packaged_file_is_not_broken() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/selvedge.toml");
    let (code, text) = config::check_command(&path);
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("selvedge.toml: sound; zones: 0, services: 0\n"), "{text}");
}
