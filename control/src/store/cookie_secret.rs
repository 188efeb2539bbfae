//! The secret of DNS cookies: a file of its own, for it must survive a lost store and may be shared by servers.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xdp_balancer_common::CookieSecret;

/// The file inside the state directory, where the configuration names no other.
pub const COOKIE_SECRET_FILE_NAME: &str = "cookie_secret";
/// Bytes of a secret (RFC 9018, section 4: SipHash-2-4 takes a key of 128 bits).
const SECRET_BYTES: usize = 16;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the cookie secret {path}: {source}; check dns.cookie_secret_file and the file's permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no secret.
    #[error("the cookie secret {path} does not hold 32 hex digits; make one with `openssl rand -hex 16`")]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// Everybody may read it.
    #[error("everybody on this machine may read the cookie secret {path}; run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// A new one cannot be made or kept.
    #[error("cannot make the cookie secret {path}: {source}; control.state_dir must be a directory to write to")]
    Make {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl SecretError {
    /// Short fixed name: metric label and log field.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Read { .. } => "secret_read",
            Self::Content { .. } => "secret_content",
            Self::Exposed { .. } => "secret_exposed",
            Self::Make { .. } => "secret_make",
        }
    }
}

/// The secret in the file that is given; without one, the secret of this installation, which is made where there is
/// none yet. The state directory must exist then.
///
/// # Errors
/// [`SecretError`]; an existing file is never replaced.
pub fn cookie_secret(given: Option<&Path>, state_dir: &Path) -> Result<CookieSecret, SecretError> {
    let path = given.map_or_else(|| state_dir.join(COOKIE_SECRET_FILE_NAME), Path::to_owned);
    match read(&path) {
        Err(SecretError::Read { source, .. }) if given.is_none() && source.kind() == ErrorKind::NotFound => {
            make(&path).map_err(|source| SecretError::Make { path: path.clone(), source })?;
            read(&path)
        }
        read => read,
    }
}

fn read(path: &Path) -> Result<CookieSecret, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & 0o004 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned() });
    }
    let mut text = Vec::new();
    // More than a secret and the end of its line is none.
    file.take(2 * SECRET_BYTES as u64 + 3).read_to_end(&mut text).map_err(failed)?;
    decode(text.trim_ascii_end()).ok_or_else(|| SecretError::Content { path: path.to_owned() })
}

/// The two words that SipHash takes, each read little-endian.
fn decode(hex: &[u8]) -> Option<CookieSecret> {
    let mut bytes = [0; SECRET_BYTES];
    if hex.len() != 2 * SECRET_BYTES {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        *byte = u8::try_from(digit(&digits[0])? << 4 | digit(&digits[1])?).ok()?;
    }
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    Some([word(0), word(8)])
}

/// Writes a new one whole: a crash leaves none or this one.
fn make(path: &Path) -> std::io::Result<()> {
    let mut bytes = [0_u8; SECRET_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let new = path.with_extension("new");
    // What a crash left there may have another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(file, "{hex}")?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_own_secret_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = cookie_secret(None, dir.path()).unwrap();
        assert_eq!(cookie_secret(None, dir.path()).unwrap(), first);
        let path = dir.path().join(COOKIE_SECRET_FILE_NAME);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(cookie_secret(None, other.path()).unwrap(), first);
        // One that is damaged is told, not replaced: other servers may have it.
        fs::write(&path, "x").unwrap();
        assert_eq!(cookie_secret(None, dir.path()).unwrap_err().label(), "secret_content");
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }

    /// The secret of RFC 9018, appendix A.1, gives its cookie.
    #[test]
    fn a_given_secret_is_read_as_the_rfc_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("given");
        fs::write(&path, "e5e973e5a6b2a43f48E7dc849e37bfcf\r\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let secret = cookie_secret(Some(&path), Path::new("/nonexistent")).unwrap();
        let client = u64::from_ne_bytes([0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57]);
        let address = u64::from_ne_bytes([198, 51, 100, 100, 0, 0, 0, 0]);
        let cookie = xdp_balancer_common::server_cookie(secret, client, 1_559_731_985, [address, 0], true);
        assert_eq!(cookie[1].to_ne_bytes(), [0x1f, 0x81, 0x30, 0xc3, 0xee, 0xe2, 0x94, 0x80]);
    }

    #[test]
    fn what_is_no_secret_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("given");
        let label = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            cookie_secret(Some(&path), dir.path()).unwrap_err().label()
        };
        let good = "00112233445566778899aabbccddeeff";
        for bad in ["", "00", &good[1..], &format!("{good}0"), &format!("+{}", &good[1..]), &format!("{good}\n{good}")]
        {
            assert_eq!(label(bad, 0o600), "secret_content", "{bad:?}");
        }
        assert_eq!(label(good, 0o644), "secret_exposed");
        let missing = cookie_secret(Some(&dir.path().join("missing")), dir.path());
        assert_eq!(missing.unwrap_err().label(), "secret_read");
        assert_eq!(cookie_secret(None, &dir.path().join("missing")).unwrap_err().label(), "secret_make");
    }
}
