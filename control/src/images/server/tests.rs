//! The protocol as a client meets it: over a socket, byte by byte.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::*;
use crate::images::{Digest, Reference, UnikernelConfig};

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn code(&self) -> String {
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        document["errors"][0]["code"].as_str().unwrap().to_owned()
    }
}

struct Fixture {
    address: SocketAddr,
    store: Arc<Store>,
    terms: Terms,
    stop: oneshot::Sender<()>,
    dir: tempfile::TempDir,
}

impl Fixture {
    async fn new(terms: Terms) -> Self {
        Self::on(tempfile::tempdir().unwrap(), terms).await
    }

    async fn on(dir: tempfile::TempDir, terms: Terms) -> Self {
        let store = Arc::new(Store::open(dir.path()).unwrap());
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let address = "127.0.0.1:0".parse().unwrap();
        let address = serve(address, Arc::clone(&store), terms.clone(), shutdown).await.unwrap();
        Self { address, store, terms, stop, dir }
    }

    /// Another server on the same directory; it knows nothing but the files.
    async fn restart(self) -> Self {
        self.stop.send(()).unwrap();
        while tokio::net::TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        Self::on(self.dir, self.terms).await
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let (address, body) = (self.address, body.to_vec());
        let exchange = move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            // A refusal may come before all was sent.
            let _ = stream.write_all(&body);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        };
        let answer = tokio::task::spawn_blocking(exchange).await.unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|l| l.split_once(": ")).map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()));
        Answer { status, headers: headers.collect(), body: answer[end + 4..].to_vec() }
    }

    async fn begin(&self) -> String {
        let begun = self.ask("POST", "/v2/r/blobs/uploads/", &[], b"").await;
        assert_eq!(begun.status, 202);
        begun.headers["location"].clone()
    }

    fn ingests(&self) -> usize {
        std::fs::read_dir(self.store.ingest_path("")).unwrap().count()
    }
}

fn terms() -> Terms {
    Terms { push_from: vec!["127.0.0.0/8".parse().unwrap()], largest_blob: 1 << 20 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_pushed_in_chunks_and_pulled_in_parts() {
    let f = Fixture::new(terms()).await;
    assert_eq!(f.ask("GET", "/v2/", &[], b"").await.status, 200);
    let digest = Digest::of(b"hello, world");
    let place = format!("/v2/r/blobs/{digest}");
    let absent = f.ask("GET", &place, &[], b"").await;
    assert_eq!((absent.status, absent.code().as_str()), (404, "BLOB_UNKNOWN"));
    assert_eq!(f.ask("HEAD", &place, &[], b"").await.status, 404);

    let location = f.begin().await;
    let first = f.ask("PATCH", &location, &[("Content-Range", "0-4")], b"hello").await;
    assert_eq!((first.status, first.headers["range"].as_str()), (202, "0-4"));
    let gap = f.ask("PATCH", &location, &[("Content-Range", "7-11")], b"world").await;
    assert_eq!((gap.status, gap.headers["range"].as_str()), (416, "0-4"), "no holes");
    let status = f.ask("GET", &location, &[], b"").await;
    assert_eq!((status.status, status.headers["range"].as_str()), (204, "0-4"));
    let wrong = f.ask("PUT", &location, &[], b"").await;
    assert_eq!((wrong.status, wrong.code().as_str()), (400, "DIGEST_INVALID"));
    let done = f.ask("PUT", &format!("{location}?digest={digest}"), &[("Content-Range", "5-11")], b", world").await;
    assert_eq!((done.status, &done.headers["docker-content-digest"]), (201, &digest.to_string()));
    assert_eq!(f.ask("GET", &location, &[], b"").await.status, 404, "the upload has ended");

    let whole = f.ask("GET", &done.headers["location"], &[], b"").await;
    assert_eq!((whole.status, whole.body.as_slice()), (200, b"hello, world".as_slice()));
    let head = f.ask("HEAD", &place, &[], b"").await;
    assert_eq!((head.status, head.headers["content-length"].as_str()), (200, "12"));
    let part = f.ask("GET", &place, &[("Range", "bytes=7-")], b"").await;
    assert_eq!((part.status, part.headers["content-range"].as_str()), (206, "bytes 7-11/12"));
    assert_eq!(part.body, b"world");
    assert_eq!(f.ask("GET", &place, &[("Range", "bytes=12-")], b"").await.status, 416);

    // The same in one request, and from another repository.
    let other = Digest::of(b"other");
    let one = f.ask("POST", &format!("/v2/r/blobs/uploads/?digest={other}"), &[], b"other").await;
    assert_eq!(one.status, 201);
    let mounted = f.ask("POST", &format!("/v2/q/blobs/uploads/?mount={digest}&from=r"), &[], b"").await;
    assert_eq!((mounted.status, mounted.headers["location"].clone()), (201, format!("/v2/q/blobs/{digest}")));
    let not = f.ask("POST", &format!("/v2/q/blobs/uploads/?mount={}&from=r", Digest::of(b"no")), &[], b"").await;
    assert_eq!(not.status, 202, "what is not there has to be sent");
    assert_eq!(f.ask("DELETE", &not.headers["location"], &[], b"").await.status, 204);
    assert_eq!(f.ingests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_outlives_a_broken_connection_and_a_restart() {
    let f = Fixture::new(terms()).await;
    let location = f.begin().await;
    // Five of ten bytes, then the connection breaks.
    let address = f.address;
    let head = format!("PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello");
    tokio::task::spawn_blocking(move || TcpStream::connect(address).unwrap().write_all(head.as_bytes()).unwrap())
        .await
        .unwrap();
    let length = async || f.ask("GET", &location, &[], b"").await.headers["range"].clone();
    while length().await != "0-4" {
        tokio::task::yield_now().await;
    }
    let f = f.restart().await;
    assert_eq!(f.ask("GET", &location, &[], b"").await.headers["range"], "0-4");
    let finish = format!("{location}?digest={}", Digest::of(b"hello world"));
    assert_eq!(f.ask("PUT", &finish, &[("Content-Range", "5-10")], b" world").await.status, 201);
    assert_eq!(f.ingests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_are_kept_and_leave_nothing() {
    let f = Fixture::new(terms()).await;
    let large = vec![0; (1 << 20) + 1];
    let location = f.begin().await;
    let refused = f.ask("PATCH", &location, &[], &large).await;
    assert_eq!((refused.status, refused.code().as_str()), (413, "SIZE_INVALID"));
    let refused = f.ask("PUT", "/v2/r/manifests/1", &[], &vec![b' '; (4 << 20) + 1]).await;
    assert_eq!((refused.status, refused.code().as_str()), (413, "SIZE_INVALID"));
    let digest = Digest::of(b"another");
    let refused = f.ask("POST", &format!("/v2/r/blobs/uploads/?digest={digest}"), &[], b"content").await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(f.ingests(), 0);
    for (path, code) in [
        ("/v2/../etc/manifests/1", "NAME_INVALID"),
        ("/v2/r/blobs/sha256:..", "DIGEST_INVALID"),
        ("/v2/r/manifests/absent", "MANIFEST_UNKNOWN"),
        ("/v2/absent/tags/list", "NAME_UNKNOWN"),
        ("/v2/r/blobs/uploads/0123456789abcdef0123456789abcdef", "BLOB_UPLOAD_UNKNOWN"),
        ("/etc/passwd", "UNSUPPORTED"),
    ] {
        assert_eq!(f.ask("GET", path, &[], b"").await.code(), code, "{path}");
    }
    assert_eq!(f.ask("DELETE", "/v2/r/manifests/1", &[], b"").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_listed_clients_may_push() {
    let f = Fixture::new(Terms { push_from: vec!["192.0.2.0/24".parse().unwrap()], ..terms() }).await;
    let refused = f.ask("POST", "/v2/r/blobs/uploads/", &[], b"").await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "DENIED"));
    assert_eq!(f.ask("PUT", "/v2/r/manifests/1", &[], b"{}").await.status, 403);
    assert_eq!(f.ask("GET", "/v2/", &[], b"").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_tags_and_referrers_are_listed() {
    let f = Fixture::new(terms()).await;
    let file = f.store.dir().join("file");
    std::fs::write(&file, b"unikernel").unwrap();
    let config = UnikernelConfig { vmm: "spt".to_owned(), memory_mib: 16, arguments: None };
    for name in ["r/a:1", "r/a:2", "r/a:3", "b:1"] {
        let name: Reference = name.parse().unwrap();
        f.store.put_unikernel(&name, &file, &config).unwrap();
    }
    let text = |answer: Answer| String::from_utf8(answer.body).unwrap();
    assert_eq!(text(f.ask("GET", "/v2/_catalog", &[], b"").await), r#"{"repositories":["b","r/a"]}"#);
    let some = f.ask("GET", "/v2/r/a/tags/list?n=1&last=1", &[], b"").await;
    assert_eq!(text(some), r#"{"name":"r/a","tags":["2"]}"#);

    let found = f.ask("GET", "/v2/r/a/manifests/2", &[], b"").await;
    let digest = Digest::of(&found.body);
    assert_eq!(found.headers["docker-content-digest"], digest.to_string());
    assert_eq!(found.headers["content-type"], "application/vnd.oci.image.manifest.v1+json");
    let by_digest = f.ask("HEAD", &format!("/v2/r/a/manifests/{digest}"), &[], b"").await;
    assert_eq!((by_digest.status, by_digest.headers["content-length"].clone()), (200, found.body.len().to_string()));

    // A signature, say: a manifest about another.
    let mut about: serde_json::Value = serde_json::from_slice(&found.body).unwrap();
    about["artifactType"] = "application/x.signature".into();
    about["subject"] = serde_json::json!({ "mediaType": "m", "digest": digest.as_str(), "size": found.body.len() });
    let about = about.to_string();
    let put = f.ask("PUT", &format!("/v2/r/a/manifests/{}", Digest::of(about.as_bytes())), &[], about.as_bytes()).await;
    assert_eq!((put.status, &put.headers["oci-subject"]), (201, &digest.to_string()));
    let list = f.ask("GET", &format!("/v2/r/a/referrers/{digest}"), &[], b"").await;
    let list: serde_json::Value = serde_json::from_slice(&list.body).unwrap();
    assert_eq!(list["manifests"][0]["artifactType"], "application/x.signature");
    let filtered = f.ask("GET", &format!("/v2/r/a/referrers/{digest}?artifactType=other"), &[], b"").await;
    assert_eq!(filtered.headers["oci-filters-applied"], "artifactType");
    let filtered: serde_json::Value = serde_json::from_slice(&filtered.body).unwrap();
    assert_eq!(filtered["manifests"].as_array().unwrap().len(), 0);

    let broken = f.ask("PUT", "/v2/r/a/manifests/x", &[], b"{}").await;
    assert_eq!((broken.status, broken.code().as_str()), (400, "MANIFEST_INVALID"));
    let absent = Digest::of(b"absent");
    let text = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{absent}","size":6}},"layers":[]}}"#);
    let missing = f.ask("PUT", "/v2/r/a/manifests/x", &[], text.as_bytes()).await;
    assert_eq!((missing.status, missing.code().as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
}
