//! A namespace that stands for a node, and namespaces with a process that stand for its instances: what
//! `control::netlink` is tried on.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use control::model::OwnerId;
use control::netlink::Net;

use super::Namespace;

/// A namespace for the node.
#[derive(Debug)]
pub struct Node {
    /// Its network.
    pub namespace: Namespace,
    /// Whose marks are set in it.
    pub owner: OwnerId,
}

/// A process that does nothing in a namespace, ended on drop. It holds none of the test's own streams: one that
/// outlived a failed test would keep whoever reads them waiting.
#[derive(Debug)]
pub struct Sleeper(Child);

impl Sleeper {
    /// Starts it.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn new(namespace: &Namespace) -> Self {
        let mut command = namespace.command("sleep").unwrap();
        command.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An instance's process in a namespace of its own; the process ends before the namespace is removed.
#[derive(Debug)]
pub struct Guest {
    process: Sleeper,
    /// Its network.
    pub namespace: Namespace,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A name that no other test uses.
#[must_use]
pub fn unique(what: &str) -> String {
    format!("svt-{}-{what}{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Node {
    /// A node without networks; forwarding is off.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a namespace")]
    pub fn new() -> Self {
        let namespace = Namespace::create(&unique("node")).unwrap();
        // A new namespace has the machine's own IPv4 settings; these tests start from the kernel's defaults.
        namespace.set("ipv4/ip_forward", "0").unwrap();
        Self { namespace, owner: OwnerId::from_number(0x00ab_cdef) }
    }

    /// Runs an asynchronous test with a [`Net`] of `owner`'s in the node's namespace.
    ///
    /// # Panics
    /// With whatever `work` panics with.
    pub fn run_as<T: Send>(&self, owner: &OwnerId, work: impl AsyncFnOnce(&Net) -> T + Send) -> T {
        let inside = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let net = Net::new(owner.clone()).unwrap();
                work(&net).await
            })
        };
        self.namespace.run_in(inside).unwrap()
    }

    /// The same with the node's own owner.
    ///
    /// # Panics
    /// With whatever `work` panics with.
    pub fn run<T: Send>(&self, work: impl AsyncFnOnce(&Net) -> T + Send) -> T {
        self.run_as(&self.owner, work)
    }

    /// Names of all interfaces.
    ///
    /// # Panics
    /// Where they cannot be listed.
    #[must_use]
    pub fn interfaces(&self) -> Vec<String> {
        self.namespace.interfaces().unwrap()
    }

    /// Neighbour entries that were set for good, as `ip` shows them.
    ///
    /// # Panics
    /// Where they cannot be listed.
    #[must_use]
    pub fn neighbours(&self) -> String {
        self.namespace.ip(&["neigh", "show", "nud", "permanent"]).unwrap()
    }
}

impl Guest {
    /// An instance that runs and has no network yet, as a container engine leaves it.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a namespace and a process")]
    pub fn new() -> Self {
        let namespace = Namespace::create(&unique("guest")).unwrap();
        namespace.set("ipv6/conf/all/disable_ipv6", "1").unwrap();
        namespace.ip(&["link", "set", "lo", "down"]).unwrap();
        let process = Sleeper::new(&namespace);
        Self { process, namespace }
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}
