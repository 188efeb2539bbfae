//! The store as a whole, on a directory of the test's own.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

struct Fixture {
    store: Store,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: Store::open(&dir.path().join("images")).unwrap(), dir }
    }

    /// A unikernel whose file holds `content`.
    fn unikernel(&self, name: &str, content: &[u8]) -> Digest {
        let file = self.dir.path().join("file");
        fs::write(&file, content).unwrap();
        let config = UnikernelConfig { vmm: "spt".to_owned(), memory_mib: 16, arguments: None };
        self.store.put_unikernel(&name.parse().unwrap(), &file, &config).unwrap()
    }

    fn blobs(&self) -> usize {
        fs::read_dir(self.store.blobs()).unwrap().count()
    }

    fn ingests(&self) -> Vec<PathBuf> {
        fs::read_dir(self.store.ingest_path("")).unwrap().map(|e| e.unwrap().path()).collect()
    }

    fn collect(&self, needed: &[&str], unused: bool, grace: Duration) -> Swept {
        let needed = needed.iter().map(|n| n.parse().unwrap()).collect();
        self.store.collect(&Sweep { needed, unused, grace, dry_run: false }).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.store.entries().unwrap().into_iter().map(|e| e.name.to_string()).collect()
    }
}

#[test]
fn a_unikernel_comes_back_as_it_went_in() {
    let f = Fixture::new();
    let digest = f.unikernel("uni/web:1", b"image");
    for name in ["uni/web:1".to_owned(), format!("reg.example:5000/uni/web@{digest}")] {
        let found = f.store.unikernel(&name.parse().unwrap()).unwrap();
        assert_eq!(fs::read(&found.image).unwrap(), b"image");
        assert_eq!((found.config.vmm.as_str(), found.config.memory_mib, found.size), ("spt", 16, 5));
    }
    assert_eq!(f.ingests(), Vec::<PathBuf>::new());

    // Equal content is there once, whatever its names.
    let before = f.blobs();
    assert_eq!(f.unikernel("other:2", b"image"), digest);
    assert_eq!((f.blobs(), f.names()), (before, vec!["other:2".to_owned(), "uni/web:1".to_owned()]));
    assert_eq!(f.store.tags(&Repository::parse("uni/web").unwrap()).unwrap(), Some(vec!["1".to_owned()]));
    assert_eq!(f.store.tags(&Repository::parse("absent").unwrap()).unwrap(), None);

    let layer = f.store.unikernel(&"other:2".parse().unwrap()).unwrap().image;
    fs::remove_file(&layer).unwrap();
    fs::write(&layer, b"im").unwrap();
    let error = f.store.unikernel(&"other:2".parse().unwrap()).unwrap_err();
    assert_eq!(error.label(), "not_unikernel", "a truncated file: {error}");
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let f = Fixture::new();
    let mut ingest = f.store.ingest("a").unwrap();
    ingest.write(b"content").unwrap();
    let error = f.store.commit(ingest, &Digest::of(b"other")).unwrap_err();
    assert_eq!(error.label(), "mismatch");
    assert_eq!((f.blobs(), f.ingests().len()), (0, 0));
}

#[test]
fn an_interrupted_blob_goes_on_where_it_stood() {
    let f = Fixture::new();
    let mut ingest = f.store.ingest("a").unwrap();
    ingest.write(b"one ").unwrap();
    assert_eq!(f.store.resume("a").err().map(|e| e.label()), Some("busy"), "one writer at a time");
    drop(ingest);
    let mut ingest = f.store.resume("a").unwrap().unwrap();
    assert_eq!(ingest.length(), 4);
    ingest.write(b"two").unwrap();
    assert_eq!(f.store.commit(ingest, &Digest::of(b"one two")).unwrap(), 7);
    assert!(f.store.resume("a").unwrap().is_none());
    assert_eq!(f.store.claim(&Digest::of(b"one two")).unwrap(), Some(7));
}

#[test]
fn a_manifest_needs_all_its_blobs_and_its_own_digest() {
    let f = Fixture::new();
    let repository = Repository::parse("r").unwrap();
    let absent = Digest::of(b"absent");
    let text = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{absent}","size":6}},"layers":[]}}"#);
    let put = |target| f.store.put_manifest(&repository, &target, text.as_bytes()).map(|_| ());
    assert_eq!(put(Target::Tag("1".to_owned())).unwrap_err().label(), "missing_blob");
    assert_eq!(put(Target::Digest(absent.clone())).unwrap_err().label(), "mismatch");
    assert_eq!((f.blobs(), f.names().len()), (0, 0));
    f.store.put_blob(b"absent").unwrap();
    put(Target::Tag("1".to_owned())).unwrap();
    put(Target::Digest(Digest::of(text.as_bytes()))).unwrap();
    assert_eq!(f.names().len(), 2);
}

#[test]
fn garbage_goes_and_what_is_referred_to_stays() {
    let f = Fixture::new();
    let old = f.unikernel("web:1", b"old");
    let new = f.unikernel("web:1", b"new");
    let other = f.unikernel("other:1", b"other");
    f.store.put_blob(b"nobody's").unwrap();
    let ingest = f.store.ingest("abandoned").unwrap();

    // Young things stay: they may be part of what is being pushed.
    let swept = f.collect(&[], false, Duration::from_secs(3600));
    assert_eq!((swept.blobs, swept.uploads, swept.images.len()), (0, 0, 0));

    // A service refers to the old content by its digest; the upload is still being written.
    let needed = format!("127.0.0.1:5000/web@{old}");
    let swept = f.collect(&[&needed], false, Duration::ZERO);
    assert_eq!((swept.blobs, swept.uploads), (1, 0), "{swept:?}");
    drop(ingest);

    let would = f.store.collect(&Sweep { needed: Vec::new(), unused: false, grace: Duration::ZERO, dry_run: true });
    let swept = f.collect(&[], false, Duration::ZERO);
    assert_eq!(would.unwrap(), swept, "a dry run says the same");
    assert_eq!((swept.blobs, swept.uploads), (2, 1), "manifest and layer of the old content: {swept:?}");
    assert!(f.store.claim(&old).unwrap().is_none() && f.store.claim(&new).unwrap().is_some());

    // By name: services keep what they refer to, with whatever registry before it.
    let swept = f.collect(&["reg.example/other:1"], true, Duration::ZERO);
    assert_eq!((swept.images, f.names()), (vec!["web:1".to_owned()], vec!["other:1".to_owned()]));
    f.store.unikernel(&"other:1".parse().unwrap()).unwrap();
    assert!(f.store.claim(&other).unwrap().is_some());
}

#[test]
fn signatures_stay_with_what_they_sign() {
    let f = Fixture::new();
    let web = f.unikernel("web:1", b"web");
    f.unikernel(&format!("web:sha256-{}.sig", web.hex()), b"signature");
    let swept = f.collect(&["web:1"], true, Duration::ZERO);
    assert_eq!((swept.images.len(), f.names().len()), (0, 2));
    let swept = f.collect(&[], true, Duration::ZERO);
    assert_eq!((swept.images.len(), f.names().len(), f.blobs()), (2, 0, 0));
}
