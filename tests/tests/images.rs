//! The image repository against real clients and registries: Docker, Debian's docker-registry, and itself, over
//! connections that break.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use control::images::client::{Client, Meter, Settings};
use control::images::{Digest, ImageError, Manifest, Reference, Store, Sweep};
use tests::lab::process::run;
use tests::lab::{Cutter, DebianRegistry, Engine, Repository, image, is_root};

const SEED: u64 = 0x5e1f_ed9e;
/// Fewest interruptions of a transfer. No connection is spared, and a layer is far larger than what one lets through:
/// without going on where it stood, a transfer would not end.
const CUTS: u32 = 50;
const ALWAYS: u32 = u32::MAX;
/// Bytes after which a connection is cut.
const AFTER: std::ops::Range<u64> = 64..(1 << 20);

/// Every blob of the image is there and is what its name says.
fn verify(store: &Store, name: &str, digest: &Digest) {
    let name: Reference = name.parse().unwrap();
    let stored = store.manifest(&name.repository, &name.target).unwrap();
    assert_eq!(stored.descriptor.digest, *digest);
    let manifest = Manifest::read(&stored.bytes, "test").unwrap();
    assert!(manifest.blobs().count() > 0);
    for blob in manifest.blobs() {
        assert_eq!(Digest::of(&fs::read(store.blob_path(&blob.digest)).unwrap()), blob.digest);
    }
}

fn name(registry: impl std::fmt::Display, image: &str) -> Reference {
    format!("{registry}/{image}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_cut_fifty_times_goes_on_and_verifies() {
    let (from, to) = (Repository::new().await, Repository::new().await);
    let digest = from.put_layers("app:1");
    let cutter = Cutter::start(from.address, SEED, ALWAYS, AFTER).await.unwrap();
    let meter = Arc::new(Meter::default());
    let done = to.client().pull(&name(cutter.address(), "app:1"), &meter).await.unwrap();
    println!("pull: {:?}", done.progress);
    assert!(cutter.cuts() >= CUTS, "only {} cuts", cutter.cuts());
    verify(&to.store, "app:1", &digest);
    assert_eq!(to.unfinished(), 0);
    // Going on is not starting over: what came twice is less than what one blob has.
    assert!(done.progress.moved < done.progress.total + (8 << 20), "{:?}", done.progress);

    let again = to.client().pull(&name(from.address, "app:1"), &Arc::default()).await.unwrap();
    assert_eq!((again.progress.moved, again.progress.present), (0, again.progress.total));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_cut_fifty_times_goes_on_and_verifies() {
    let (from, to) = (Repository::new().await, Repository::new().await);
    let digest = from.put_layers("app:1");
    let cutter = Cutter::start(to.address, SEED + 1, ALWAYS, AFTER).await.unwrap();
    let to_name = name(cutter.address(), "other/app:2");
    let meter = Arc::new(Meter::default());
    let done = from.client().push(&"app:1".parse().unwrap(), &to_name, &meter).await.unwrap();
    println!("push: {:?}", done.progress);
    assert!(cutter.cuts() >= CUTS, "only {} cuts", cutter.cuts());
    verify(&to.store, "other/app:2", &digest);
    // Uploads whose beginning the client never heard of are garbage.
    let sweep = Sweep { needed: Vec::new(), unused: false, grace: Duration::ZERO, dry_run: false };
    assert_eq!(to.store.collect(&sweep).unwrap().blobs, 0);
    assert_eq!(to.unfinished(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_was_killed_goes_on_in_the_next_process() {
    let (from, to) = (Repository::new().await, Repository::new().await);
    let digest = from.put_unikernel("web:1", &image::content(8 << 20));
    let slow = Settings { parallel: 1, bytes_per_second: Some(1 << 20), ..Settings::default() };
    let meter = Arc::new(Meter::default());
    let pulling = Client::new(Arc::clone(&to.store), slow);
    let reference = name(from.address, "web:1");
    let (watched, pulled) = (Arc::clone(&meter), reference.clone());
    let pulling = tokio::spawn(async move { pulling.pull(&pulled, &watched).await });
    while meter.progress().moved < 2 << 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pulling.abort();
    assert!(pulling.await.unwrap_err().is_cancelled());
    assert!(to.store.entries().unwrap().is_empty(), "nothing is named before it is whole");
    let done = to.client().pull(&reference, &Arc::default()).await.unwrap();
    assert!(done.progress.resumed >= 1 << 20, "{:?}", done.progress);
    verify(&to.store, "web:1", &digest);
    assert_eq!(to.unfinished(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_spoils_is_not_taken() {
    let (from, to) = (Repository::new().await, Repository::new().await);
    from.put_unikernel("web:1", &image::content(100_000));
    let blob = from.store.unikernel(&"web:1".parse().unwrap()).unwrap().image;
    let mut spoilt = fs::read(&blob).unwrap();
    spoilt[50_000] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, &spoilt).unwrap();
    let error = to.client().pull(&name(from.address, "web:1"), &Arc::default()).await.unwrap_err();
    assert_eq!(error.label(), "mismatch", "{error}");
    assert_eq!((to.unfinished(), to.store.entries().unwrap().len()), (0, 0));

    let error = to.client().pull(&name(from.address, "absent:1"), &Arc::default()).await.unwrap_err();
    assert_eq!(error.label(), "not_found", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_registry_works_the_same() {
    let Some(registry) = DebianRegistry::start("another_registry_works_the_same").unwrap() else { return };
    let (from, to) = (Repository::new().await, Repository::new().await);
    let digest = from.put_layers("app:1");
    let unikernel = from.put_unikernel("web:1", &image::content(3 << 20));
    // Pushes may lose more: this registry keeps what came of a broken request only sometimes.
    let cutter = Cutter::start(registry.address, SEED + 2, 10, AFTER).await.unwrap();
    let meter = Arc::new(Meter::default());
    let pushed = from.client().push(&"app:1".parse().unwrap(), &name(cutter.address(), "x/app:1"), &meter).await;
    println!("push: {:?}, {} cuts", pushed.unwrap().progress, cutter.cuts());
    from.client().push(&"web:1".parse().unwrap(), &name(registry.address, "x/web:1"), &Arc::default()).await.unwrap();

    let cutter = Cutter::start(registry.address, SEED + 3, ALWAYS, AFTER).await.unwrap();
    let pulled = to.client().pull(&name(cutter.address(), "x/app:1"), &meter).await.unwrap();
    println!("pull: {:?}", pulled.progress);
    assert!(cutter.cuts() >= CUTS, "only {} cuts", cutter.cuts());
    verify(&to.store, "x/app:1", &digest);
    to.client().pull(&name(registry.address, "x/web:1"), &Arc::default()).await.unwrap();
    verify(&to.store, "x/web:1", &unikernel);
    assert_eq!(to.store.unikernel(&"x/web:1".parse().unwrap()).unwrap().config.vmm, "spt");
}

#[test]
fn docker_pushes_and_pulls_and_all_is_there_after_a_restart() {
    if !is_root("docker_pushes_and_pulls_and_all_is_there_after_a_restart") {
        return;
    }
    let dir = tempfile::Builder::new().prefix("selvedge-docker-").tempdir().unwrap();
    let engine = Engine::start(dir.path()).unwrap();
    image::build_nginx_image(&engine, "selvedge-test/nginx:1", 3_000_000).unwrap();
    let docker = |arguments: &[&str]| {
        let host = format!("unix://{}", engine.socket().display());
        run(Command::new("docker").args(["-H", &host]).args(arguments)).unwrap()
    };
    let id = |image: &str| docker(&["image", "inspect", "--format", "{{.Id}}", image]).trim().to_owned();
    let runtime = tokio::runtime::Runtime::new().unwrap();

    let node = runtime.block_on(Repository::new());
    let there = format!("{}/shop/nginx:1", node.address);
    docker(&["tag", "selvedge-test/nginx:1", &there]);
    let built = id(&there);
    docker(&["push", &there]);
    let digest = node.put_unikernel("uni/web:1", &image::content(200_000));
    docker(&["rmi", &there, "selvedge-test/nginx:1"]);
    docker(&["pull", &there]);
    assert_eq!(id(&there), built, "Docker has got what it pushed");

    // A second node has both, and Docker pulls the container from there, too.
    let second = runtime.block_on(async {
        let second = Repository::new().await;
        second.client().pull(&name(node.address, "shop/nginx:1"), &Arc::default()).await.unwrap();
        second.client().unikernel(&name(node.address, "uni/web:1"), &Arc::default()).await.unwrap();
        second
    });
    verify(&second.store, "uni/web:1", &digest);

    // The first node is away and the second restarted: everything is still there.
    let address = second.address;
    drop(node);
    let second = runtime.block_on(second.restart());
    verify(&second.store, "uni/web:1", &digest);
    let nobody = name("127.0.0.1:1", "uni/web:1");
    assert_eq!(runtime.block_on(second.client().unikernel(&nobody, &Arc::default())).unwrap().size, 200_000);
    docker(&["rmi", &there]);
    let by_digest = docker(&["pull", "--quiet", &format!("{address}/shop/nginx:1")]);
    assert_eq!(id(by_digest.trim()), built);

    // Nothing of what these names refer to is garbage.
    let swept = second.store.collect(&Sweep {
        needed: vec!["reg.example/uni/web:1".parse().unwrap(), name(address, "shop/nginx:1")],
        unused: true,
        grace: Duration::ZERO,
        dry_run: false,
    });
    assert_eq!(swept.unwrap().blobs, 0);
    engine.stop().unwrap();
}

/// A small file system of memory.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path) -> Self {
        nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), nix::mount::MsFlags::empty(), Some("size=2m")).unwrap();
        Self(dir.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_nothing_is_left() {
    if !is_root("a_full_disk_is_told_and_nothing_is_left") {
        return;
    }
    // In this order they go: what is in it, then the file system, then its place.
    let place = tempfile::Builder::new().prefix("selvedge-full-").tempdir().unwrap();
    let mounted = Small::mount(place.path());
    let dir = tempfile::tempdir_in(place.path()).unwrap();
    let from = Repository::new().await;
    from.put_unikernel("large:1", &image::content(6 << 20));
    from.put_unikernel("small:1", &image::content(100_000));
    let full = Repository::at(dir, "127.0.0.1:0".parse().unwrap()).await;

    let error = full.client().pull(&name(from.address, "large:1"), &Arc::default()).await.unwrap_err();
    assert!(matches!(error, ImageError::Full { .. }), "{error}");
    assert_eq!(full.unfinished(), 0);
    let pushed = from.client().push(&"large:1".parse().unwrap(), &name(full.address, "large:1"), &Arc::default()).await;
    let error = pushed.unwrap_err();
    let ImageError::Refused { status, message, .. } = &error else { panic!("{error}") };
    assert!(*status == 507 && message.contains("is full"), "{error}");
    assert_eq!((full.unfinished(), full.store.entries().unwrap().len()), (0, 0));
    // What fits goes on to be taken.
    full.client().pull(&name(from.address, "small:1"), &Arc::default()).await.unwrap();
    drop((full, mounted, place));
}
