//! An image with Debian's nginx, as small as it runs: the program, its libraries, a configuration, the content.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::TryStreamExt;

use super::docker::{Engine, block_on};
use super::error::{LabError, Result};
use super::process::run;

/// Where the program is, in the machine and in the image.
const NGINX: &str = "/usr/sbin/nginx";

/// What the image runs.
pub const SERVE: &[&str] = &[NGINX, "-c", "/etc/nginx/nginx.conf"];

/// Label with the digest of what is in the image.
const DIGEST: &str = "selvedge.lab.digest";

/// One worker as in a container with one CPU, no log of requests, IPv4 and IPv6.
const CONFIGURATION: &str = "\
worker_processes 1;
daemon off;
pid /run/nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_timeout 65;
    keepalive_requests 100000;
    server {
        listen 80 backlog=4096;
        listen [::]:80 ipv6only=on backlog=4096;
        root /srv;
        location = /healthz { default_type text/plain; }
    }
}
";

const PASSWD: &str = "root:x:0:0:root:/:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\nnobody:x:65533:\n";

/// Makes the image `tag` (`name:tag`) with nginx and `content_bytes` bytes at `/content` and `ok` at `/healthz`. Nothing is done
/// where the engine has it already with the same things in it.
///
/// # Errors
/// [`LabError`]: nginx is not installed here, or the engine refused.
pub fn build_nginx_image(engine: &Engine, tag: &str, content_bytes: usize) -> Result<()> {
    build(engine, tag, content_bytes, SERVE)
}

/// The same with another command, for images that do not work.
///
/// # Errors
/// As [`build_nginx_image`].
pub fn build(engine: &Engine, tag: &str, content_bytes: usize, command: &[&str]) -> Result<()> {
    import(engine, tag, archive(content_bytes)?, command)
}

/// Makes an image of a file system. Nothing is done where the engine has it already with the same things in it.
pub(super) fn import(engine: &Engine, tag: &str, archive: Vec<u8>, command: &[&str]) -> Result<()> {
    let command = format!("CMD {}", serde_json::json!(command));
    let digest = format!("{:016x}", fnv(&archive) ^ fnv(command.as_bytes()));
    let client = engine.client()?;
    block_on(async move {
        if let Ok(found) = client.inspect_image(tag).await {
            let labels = found.config.and_then(|config| config.labels).unwrap_or_default();
            if labels.get(DIGEST) == Some(&digest) {
                return Ok(());
            }
        }
        let (name, version) = tag.rsplit_once(':').unwrap_or((tag, "latest"));
        let changes = vec![command, format!("LABEL {DIGEST}={digest}"), "EXPOSE 80".to_owned()];
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(name).tag(version).changes(changes).build();
        let body = bollard::body_full(archive.into());
        let imported = client.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await;
        imported.map(drop).map_err(LabError::engine("import image", tag))
    })
}

/// The image's file system, the same for the same machine and size.
///
/// # Errors
/// [`LabError`]: nginx is not installed here.
pub fn archive(content_bytes: usize) -> Result<Vec<u8>> {
    let mut archive = Archive::with_users();
    for dir in ["etc/nginx", "usr/sbin", "var", "var/lib", "var/lib/nginx"] {
        archive.directory(dir, 0o755);
    }
    archive.file("etc/nginx/nginx.conf", 0o644, CONFIGURATION.as_bytes());
    archive.file("srv/healthz", 0o644, b"ok\n");
    archive.file("srv/content", 0o644, &content(content_bytes));
    archive.copy(Path::new(NGINX))?;
    for path in libraries(Path::new(NGINX))? {
        archive.copy(&path)?;
    }
    Ok(archive.finish())
}

/// Bytes that do not compress well and differ by position, so that a mixed-up answer is seen.
#[must_use]
pub fn content(bytes: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()
    };
    let mut all = Vec::with_capacity(bytes + 8);
    while all.len() < bytes {
        all.extend_from_slice(&next());
    }
    all.truncate(bytes);
    all
}

/// The shared libraries of a program with the loader, by the paths under which they are looked for.
pub(super) fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let text = run(Command::new("ldd").arg(program))?;
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

/// FNV-1a: enough to tell whether two archives of ours are the same.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A tar archive (POSIX ustar) with files of root's, written by hand because that is 40 lines.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
}

/// Size of a tar block.
const BLOCK: usize = 512;

impl Archive {
    /// What every image has: the usual directories, root and nobody.
    pub(super) fn with_users() -> Self {
        let mut archive = Self::default();
        for dir in ["dev", "etc", "proc", "run", "srv", "sys", "usr"] {
            archive.directory(dir, 0o755);
        }
        archive.directory("tmp", 0o1777);
        archive.file("etc/passwd", 0o644, PASSWD.as_bytes());
        archive.file("etc/group", 0o644, GROUP.as_bytes());
        archive
    }

    /// A file of this machine, under the same path.
    pub(super) fn copy(&mut self, path: &Path) -> Result<()> {
        let failed = || LabError::system("read", path.display());
        let bytes = fs::read(path).map_err(failed())?;
        // With its time: Python takes a compiled file for stale otherwise.
        let time = fs::metadata(path).map_err(failed())?.mtime().max(0);
        self.entry(path.to_string_lossy().trim_start_matches('/'), 0o755, b'0', &bytes, time);
        Ok(())
    }

    fn directory(&mut self, path: &str, mode: u32) {
        self.entry(&format!("{path}/"), mode, b'5', &[], 0);
    }

    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, mode, b'0', content, 0);
    }

    /// A path longer than the header's 100 bytes is parted at a slash, as ustar has it; one that cannot be is cut and
    /// not found in the image.
    fn entry(&mut self, path: &str, mode: u32, kind: u8, content: &[u8], time: i64) {
        let part = |at: &usize| path.len() - at <= 101 && *at <= 155;
        let slash = path.match_indices('/').map(|(at, _)| at).find(part).filter(|_| path.len() > 100);
        let (prefix, name) = slash.map_or(("", path), |at| (&path[..at], &path[at + 1..]));
        let fields: [(usize, String); 10] = [
            (0, name.chars().take(100).collect()),
            (345, prefix.to_owned()),
            (100, format!("{mode:07o}")),
            (108, format!("{:07o}", 0)),
            (116, format!("{:07o}", 0)),
            (124, format!("{:011o}", content.len())),
            (136, format!("{time:011o}")),
            // The checksum counts its own field as spaces.
            (148, " ".repeat(8)),
            (156, char::from(kind).to_string()),
            (257, "ustar\u{0}00".to_owned()),
        ];
        let mut header = vec![0; BLOCK];
        for (offset, text) in &fields {
            put(&mut header, *offset, text);
        }
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut header, 148, &format!("{sum:06o}\u{0} "));
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        let end = self.bytes.len().next_multiple_of(BLOCK);
        self.bytes.resize(end, 0);
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

fn put(header: &mut [u8], offset: usize, text: &str) {
    for (place, byte) in header.iter_mut().skip(offset).zip(text.bytes()) {
        *place = byte;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::io::Write as _;
    use std::process::Stdio;

    use super::*;

    #[test]
    fn tar_reads_what_we_write() {
        let mut archive = Archive::default();
        archive.directory("etc", 0o755);
        archive.file("etc/one", 0o644, b"hello");
        archive.file("etc/two", 0o600, &content(1500));
        let deep = ["directory-of-25-characters"; 5].join("/");
        archive.file(&deep, 0o600, b"deep");
        let bytes = archive.finish();
        let dir = tempfile::tempdir().unwrap();
        let mut tar =
            Command::new("tar").args(["-x", "-f", "-", "-C"]).arg(dir.path()).stdin(Stdio::piped()).spawn().unwrap();
        tar.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert!(tar.wait().unwrap().success());
        assert_eq!(fs::read(dir.path().join(deep)).unwrap(), b"deep");
        assert_eq!(fs::read(dir.path().join("etc/one")).unwrap(), b"hello");
        assert_eq!(fs::read(dir.path().join("etc/two")).unwrap(), content(1500));
    }

    #[test]
    fn content_is_the_same_every_time_and_as_long_as_asked() {
        assert_eq!(content(1001), content(1001));
        assert_eq!(content(1001).len(), 1001);
        assert_ne!(content(16).first_chunk::<8>(), content(16).last_chunk::<8>());
    }
}
