//! Pulls with signatures, from a server of the test's own.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::*;
use crate::images::UnikernelConfig;
use crate::images::server::{Terms, serve};
use crate::images::signature::tests::Pair;

#[tokio::test(flavor = "multi_thread")]
async fn with_a_key_only_signed_images_come() {
    let dir = tempfile::tempdir().unwrap();
    let from = Arc::new(Store::open(&dir.path().join("from")).unwrap());
    let file = dir.path().join("file");
    std::fs::write(&file, b"unikernel").unwrap();
    let config = UnikernelConfig { vmm: "spt".to_owned(), memory_mib: 16, arguments: None };
    let local: Reference = "web:1".parse().unwrap();
    let digest = from.put_unikernel(&local, &file, &config).unwrap();
    let terms = Terms { push_from: Vec::new(), largest_blob: 1 };
    let anywhere = "127.0.0.1:0".parse().unwrap();
    let address = serve(anywhere, Arc::clone(&from), terms, std::future::pending()).await.unwrap();

    let key = dir.path().join("key.pub");
    let own = Pair::p256();
    own.public(&key);
    let to = Arc::new(Store::open(&dir.path().join("to")).unwrap());
    let settings = Settings { parallel: 1, verify_key: Some(key), ..Settings::default() };
    let client = Client::new(Arc::clone(&to), settings);
    let name: Reference = format!("{address}/web:1").parse().unwrap();
    let pull = async || client.pull(&name, &Meter::default()).await.map_err(|e| e.label());
    let has = || to.manifest(&local.repository, &local.target).is_ok();

    assert_eq!(pull().await.unwrap_err(), "unsigned");
    Pair::p256().put(&from, &local, &digest, &digest);
    assert_eq!(pull().await.unwrap_err(), "unsigned");
    assert!(!has());
    own.put(&from, &local, &digest, &digest);
    assert_eq!(pull().await.unwrap().digest, digest);
    assert!(has());
}

#[test]
fn loopback_needs_no_tls() {
    for (registry, expected) in [
        ("localhost", true),
        ("localhost:5000", true),
        ("127.0.0.1:5000", true),
        ("127.8.0.1", true),
        ("[::1]:5000", true),
        ("[::1]", true),
        ("192.0.2.1:5000", false),
        ("localhost.example:5000", false),
        ("reg.example", false),
    ] {
        assert_eq!(is_loopback(registry), expected, "{registry}");
    }
}
