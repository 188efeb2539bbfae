//! `[api]`: who may use the daemon's interface, and whether it is reached over TCP.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::errors::Complaint;
use super::reader::Section;
use super::values::{absolute_path, socket_address, text, whole32, word};

/// Most requests per second that a peer can be allowed.
const MOST_RATE: u32 = 100_000;

/// The daemon's interface. Over its Unix socket root may always write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// Group of this machine whose members may write as well.
    pub group: Option<String>,
    /// Whether everybody else on this machine may read.
    pub others_read: bool,
    /// Where it is served over TCP; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// Certificate chain and key (PEM) for TLS. Without it only loopback is listened on.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Authorities (PEM) whose clients' certificates let them write.
    pub client_ca: Option<PathBuf>,
    /// File of tokens.
    pub token_file: Option<PathBuf>,
    /// Requests per second of one peer, after a burst of as many.
    pub requests_per_second: u32,
}

/// Keys of the section.
const KEYS: [&str; 8] =
    ["group", "others", "listen", "certificate", "key", "client_ca", "token_file", "requests_per_second"];

pub(super) fn api(section: &Section<'_, '_>) -> Api {
    section.allow(&KEYS);
    let file = |key| section.optional(key, PathBuf::new(), absolute_path);
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9554));
    let (certificate, key) = (file("certificate"), file("key"));
    let (client_ca, token_file) = (file("client_ca"), file("token_file"));
    let listen = section.optional("listen", anywhere, socket_address);
    for (one, other, name) in [(&certificate, &key, "key"), (&key, &certificate, "certificate")] {
        if let (Some(one), None) = (one, other) {
            section.complain(one.line, name, "is missing beside the other", "give certificate and key, or neither");
        }
    }
    match &listen {
        Some(listen) if !listen.broken => {
            if client_ca.is_none() && token_file.is_none() {
                let what = "would let everybody in who can reach it";
                section.complain(listen.line, "listen", what, "give client_ca, token_file or both");
            }
            if certificate.is_none() && !listen.value.ip().is_loopback() {
                let what = format!("{} would be spoken to without encryption", listen.value);
                section.complain(listen.line, "listen", what, "give certificate and key, or listen on 127.0.0.1");
            }
            if let (Some(authority), None) = (&client_ca, &certificate) {
                let what = "is of no use without TLS";
                section.complain(authority.line, "client_ca", what, "give certificate and key as well");
            }
        }
        Some(_) => {}
        None => {
            for (field, name) in [(&certificate, "certificate"), (&client_ca, "client_ca"), (&token_file, "token_file")]
            {
                if let Some(field) = field {
                    section.complain(field.line, name, "is for TCP only", "give listen as well, or remove it");
                }
            }
        }
    }
    Api {
        group: section.optional("group", String::new(), group).map(|f| f.value),
        others_read: section.or("others", false, |v| word(v, &[("nothing", false), ("read", true)])).value,
        listen: listen.map(|f| f.value),
        tls: certificate.zip(key).map(|(certificate, key)| (certificate.value, key.value)),
        client_ca: client_ca.map(|f| f.value),
        token_file: token_file.map(|f| f.value),
        requests_per_second: section.or("requests_per_second", 200, |v| whole32(v, 1, MOST_RATE)).value,
    }
}

/// A group's name as groupadd(8) takes it.
fn group(value: &toml::de::DeValue<'_>) -> Result<String, Complaint> {
    let given = text(value)?;
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if given.is_empty() || given.len() > 32 || !given.chars().all(sound) {
        return Err(Complaint::new(format!("{given:?} is no group's name"), "write a group of this machine"));
    }
    Ok(given)
}
