//! `[images]`: where images are kept, who may have them, and how registries are talked to.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::de::DeValue;

use super::errors::Complaint;
use super::reader::Section;
use super::shared::without_doubles;
use super::values::{absolute_path, prefix, socket_address, text, whole, whole32};

/// Most blobs that are transferred at once.
const MOST_PARALLEL: u32 = 16;
/// Largest bound on a blob, in MiB: 1 TiB.
const LARGEST_BLOB_MIB: u64 = 1 << 20;
/// Largest bound on bandwidth, in Mbit/s.
const MOST_MBIT: u64 = 1_000_000;

/// The repository of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Directory of the store.
    pub dir: PathBuf,
    /// Where the store is served over HTTP; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// Clients that may push to it.
    pub push_from: Vec<IpNet>,
    /// Largest blob that is taken from them, in MiB.
    pub largest_blob_mib: u64,
    /// Registries, `host[:port]`, that are spoken to without TLS.
    pub plain_http: Vec<String>,
    /// Credentials for registries, in the form of Docker's `config.json`.
    pub auth_file: Option<PathBuf>,
    /// Blobs that are transferred at once; 1 to 16.
    pub parallel: u32,
    /// Bound of all transfers from and to registries together, in Mbit/s; `None` for no bound.
    pub bandwidth_mbit: Option<u64>,
    /// Public key that images pulled into the repository have to be signed with.
    pub verify_key: Option<PathBuf>,
}

pub(super) fn images(section: &Section<'_, '_>, state_dir: &Path) -> Images {
    section.allow(&[
        "dir",
        "listen",
        "push_from",
        "largest_blob_mib",
        "plain_http",
        "auth_file",
        "parallel",
        "bandwidth_mbit",
        "verify_key",
    ]);
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
    let push_from = match section.list("push_from", "[\"127.0.0.0/8\"]", prefix) {
        None => vec![
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
        ],
        list => without_doubles(section, "push_from", list).into_iter().map(|f| f.value).collect(),
    };
    let plain = without_doubles(section, "plain_http", section.list("plain_http", "[\"10.0.0.1:5000\"]", registry));
    Images {
        dir: section.or("dir", state_dir.join("images"), absolute_path).value,
        listen: section.optional("listen", anywhere, socket_address).map(|f| f.value),
        push_from,
        largest_blob_mib: section.or("largest_blob_mib", 16_384, |v| whole(v, 1, LARGEST_BLOB_MIB)).value,
        plain_http: plain.into_iter().map(|f| f.value).collect(),
        auth_file: section.optional("auth_file", PathBuf::new(), absolute_path).map(|f| f.value),
        parallel: section.or("parallel", 3, |v| whole32(v, 1, MOST_PARALLEL)).value,
        bandwidth_mbit: section.optional("bandwidth_mbit", 1, |v| whole(v, 1, MOST_MBIT)).map(|f| f.value),
        verify_key: section.optional("verify_key", PathBuf::new(), absolute_path).map(|f| f.value),
    }
}

/// A registry as it stands before an image's name.
fn registry(value: &DeValue<'_>) -> Result<String, Complaint> {
    let given = text(value)?;
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if given.is_empty() || !given.chars().all(sound) {
        let fix = "write host or host:port, as before an image's name, without http://";
        return Err(Complaint::new(format!("{given:?} is no registry"), fix));
    }
    Ok(given)
}
