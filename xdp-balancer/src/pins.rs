//! Where things are pinned, and what is pinned there.
//!
//! ```text
//! <pin_dir>/v<LAYOUT>/POOL, SERVICES, …    one pin per map
//! <pin_dir>/v<LAYOUT>/links/<interface>    one pin per attachment
//! <pin_dir>/v<LAYOUT>/egress/<interface>   one pin per interface whose replies are rewritten on the way out, by tcx
//! <pin_dir>/EPOCH                          which set of counters this is, whatever the layout
//! <pin_dir>/LOG                            what the programs say, where somebody has chosen
//! <pin_dir>/off/<interface>                a directory: taken off by order, and to stay so
//! ```
//!
//! Another layout is another directory, so no version reads tables that it does not understand. Three things go across
//! layouts: taking ours off an interface; taking over a link, with another program; and counters, which stay where they
//! were counted and are added up (see `carried`).

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use xdp_balancer_common::LAYOUT;

use crate::error::Error;
use crate::sys::{self, LinkInfo};

/// The pins of one layout.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    base: PathBuf,
    root: PathBuf,
}

/// A pinned link.
#[derive(Debug)]
pub(crate) struct PinnedLink {
    /// Its pin.
    pub path: PathBuf,
    /// The link.
    pub link: OwnedFd,
    /// What the kernel says of it.
    pub info: LinkInfo,
}

impl Pins {
    /// The pins of this version's layout.
    pub(crate) fn new(pin_dir: &Path) -> Self {
        Self { base: pin_dir.to_owned(), root: pin_dir.join(format!("v{LAYOUT}")) }
    }

    /// The directory of all layouts.
    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// The pin of the word that says which set of counters this is.
    pub(crate) fn epoch(&self) -> PathBuf {
        self.base.join("EPOCH")
    }

    /// The pin of the word of what the programs say, for tables that are made anew.
    pub(crate) fn log(&self) -> PathBuf {
        self.base.join("LOG")
    }

    /// The directories of other layouts.
    pub(crate) fn others(&self) -> Result<Vec<PathBuf>, Error> {
        let mut found = layouts(&self.base)?;
        found.retain(|layout| *layout != self.root);
        Ok(found)
    }

    /// Whether the program was taken off an interface by order.
    pub(crate) fn is_off(&self, interface: &str) -> bool {
        off_mark(&self.base, interface).is_dir()
    }

    /// Forgets such an order.
    pub(crate) fn forget_off(&self, interface: &str) -> Result<(), Error> {
        remove_dir(&off_mark(&self.base, interface))
    }

    /// Those of a directory of any layout.
    pub(crate) fn at(layout: &Path) -> Self {
        Self { base: layout.parent().unwrap_or(layout).to_owned(), root: layout.to_owned() }
    }

    /// The directory of maps.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The pin of a map.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn links_dir(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The pin of an interface's link.
    pub(crate) fn link(&self, interface: &str) -> PathBuf {
        self.links_dir().join(encode(interface))
    }

    /// The directory of links on the way out, which is there only where there is one.
    pub(crate) fn egress_dir(&self) -> PathBuf {
        self.root.join("egress")
    }

    /// The pin of an interface's link on the way out.
    pub(crate) fn egress(&self, interface: &str) -> PathBuf {
        self.egress_dir().join(encode(interface))
    }

    /// Makes the directories.
    pub(crate) fn create(&self) -> Result<(), Error> {
        let exists = self.root.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        if !sys::is_bpffs(exists).map_err(Error::system("inspect", exists.display().to_string()))? {
            return Err(Error::NotBpffs { path: self.root.clone() });
        }
        let links = self.links_dir();
        fs::create_dir_all(&links).map_err(Error::system("create the directory", links.display().to_string()))?;
        for path in self.directories() {
            let object = path.display().to_string();
            let owner = fs::symlink_metadata(&path).map_err(Error::system("inspect", object))?.uid();
            if owner != 0 && owner != sys::user() {
                return Err(Error::NotOwned { path, owner });
            }
        }
        Ok(())
    }

    /// Removes the directories that nothing is in; after a failure to open nothing stays behind.
    pub(crate) fn remove_empty(&self) {
        for path in self.directories() {
            // What is not empty, or not ours, stays.
            let _ = fs::remove_dir(path);
        }
    }

    /// Ours, innermost first.
    fn directories(&self) -> Vec<PathBuf> {
        let mut directories = vec![self.links_dir(), self.root.clone()];
        directories.extend(self.root.parent().map(Path::to_owned));
        directories
    }

    /// All pinned links of this layout.
    pub(crate) fn links(&self) -> Result<Vec<PinnedLink>, Error> {
        links_in(&self.links_dir())
    }
}

/// The directories of all layouts under a pin directory.
pub(crate) fn layouts(pin_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = entries(pin_dir)?;
    found.retain(|path| path.is_dir() && number_of(path).is_some());
    Ok(found)
}

/// The number of a layout's directory.
pub(crate) fn number_of(layout: &Path) -> Option<u32> {
    file_name(layout).strip_prefix('v')?.parse().ok()
}

/// The directory of orders that the program stays off.
pub(crate) fn off_dir(pin_dir: &Path) -> PathBuf {
    pin_dir.join("off")
}

/// The mark of such an order.
pub(crate) fn off_mark(pin_dir: &Path, interface: &str) -> PathBuf {
    off_dir(pin_dir).join(encode(interface))
}

/// Removes a directory that is ours; gone already, or holding what is not ours, is fine.
pub(crate) fn remove_dir(path: &Path) -> Result<(), Error> {
    match fs::remove_dir(path) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTEMPTY)) => {
            Err(Error::system("remove the directory", path.display().to_string())(error))
        }
        _ => Ok(()),
    }
}

/// All pinned links in one directory.
pub(crate) fn links_in(directory: &Path) -> Result<Vec<PinnedLink>, Error> {
    let mut links = Vec::new();
    for path in entries(directory)? {
        let object = || path.display().to_string();
        let link = match sys::get(&path) {
            Ok(link) => link,
            // Taken off since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::system("open the pinned link", object())(error)),
        };
        let info = sys::link_info(link.as_fd()).map_err(Error::system("inspect the link", object()))?;
        links.push(PinnedLink { path, link, info });
    }
    Ok(links)
}

/// The interface that a link's pin was made for.
pub(crate) fn interface_of(path: &Path) -> String {
    decode(&file_name(path))
}

/// Removes a pin; gone already is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::system("remove the pin", path.display().to_string())(error))
        }
        _ => Ok(()),
    }
}

/// What is in a directory, sorted; nothing where it does not exist.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = || -> io::Result<Vec<PathBuf>> { fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect() };
    match list() {
        Ok(mut paths) => {
            paths.sort();
            Ok(paths)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::system("read the directory", directory.display().to_string())(error)),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// An interface's name as a pin's name: the BPF file system wants no dots, which VLAN interfaces have.
fn encode(interface: &str) -> String {
    let mut encoded = String::new();
    for byte in interface.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02x}"));
        }
    }
    encoded
}

fn decode(encoded: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = encoded;
    while let Some(at) = rest.find('%') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest.get(at + 1..at + 3).and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[at + 3..];
            }
            None => {
                bytes.push(b'%');
                rest = &rest[at + 1..];
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_survive_their_pins() {
        for name in ["eth0", "eth0.100", "br-lan_1", "a%2eb", "ü"] {
            let encoded = encode(name);
            assert!(!encoded.contains('.'), "{encoded}");
            assert_eq!(decode(&encoded), name);
        }
    }

    #[test]
    fn a_missing_directory_holds_nothing() {
        assert_eq!(entries(Path::new("/nonexistent/selvedge")).ok(), Some(Vec::new()));
    }
}
