//! Work in another process's network namespace.
//!
//! A namespace belongs to a thread, so each piece of work gets a thread of its own that enters the namespace,
//! runs a small runtime to the end and is joined; no thread of the daemon's runtime ever changes its
//! namespace.

use std::fs::File;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, setns};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};
use tokio::sync::oneshot;

use super::error::{NetError, Result, errno_of};
use super::network::Holder;
use super::{PortSpec, forwarding, link};

/// The name of an instance's interface inside its namespace.
pub(super) const INTERFACE: &str = "eth0";

/// The network namespace of a process. It is held by its descriptor, so that it stays the same namespace even if
/// the process ends and its number is used again.
#[derive(Debug)]
pub(super) struct Namespace {
    pid: u32,
    file: File,
}

/// Who holds the namespace of `pid` now.
pub(super) fn holder(pid: u32) -> Result<Holder> {
    let failed = |source| NetError::Namespace { operation: "look at the network namespace", pid, source };
    let file = std::fs::metadata(format!("/proc/{pid}/ns/net")).map_err(failed)?;
    Ok(Holder { pid, namespace: (file.dev(), file.ino()) })
}

impl Namespace {
    /// Opens the namespace of `pid`. Refused where it is our own: what is moved "into" it would stay here and be
    /// renamed over the node's interfaces.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let failed = |source| NetError::Namespace { operation: "open the network namespace", pid, source };
        let file = File::open(format!("/proc/{pid}/ns/net")).map_err(failed)?;
        let theirs = file.metadata().map_err(failed)?;
        let ours = std::fs::metadata("/proc/thread-self/ns/net").map_err(failed)?;
        if (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()) {
            return Err(failed(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is the daemon's own; an instance must have its own",
            )));
        }
        Ok(Self { pid, file })
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    /// Runs `work` with a netlink handle inside the namespace.
    async fn run<F, W>(&self, work: W) -> Result<()>
    where
        W: FnOnce(Handle) -> F + Send + 'static,
        F: Future<Output = Result<()>>,
    {
        let pid = self.pid;
        let failed = move |operation| move |source| NetError::Namespace { operation, pid, source };
        let file = self.file.try_clone().map_err(failed("hold the network namespace"))?;
        let (tell, told) = oneshot::channel();
        let body = move || {
            // The receiver is gone only if the caller was dropped; nobody is left to be told then.
            let _ = tell.send(enter(pid, &file, work));
        };
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn(body);
        let thread = thread.map_err(failed("start a thread for the network namespace"))?;
        let result = told.await;
        // It has sent its result as its last act: this does not wait for anything but its exit.
        if thread.join().is_err() {
            return Err(failed("work in the network namespace")(io::Error::other("the thread panicked")));
        }
        result.unwrap_or_else(|_| {
            Err(failed("work in the network namespace")(io::Error::other("the thread gave no result")))
        })
    }

    /// Whether the namespace is one that nobody else has furnished: nothing up but the loopback, no
    /// interface of the name that we need. So a process number that was used again for a process with a
    /// network of its own is refused.
    pub(super) async fn check_empty(&self) -> Result<()> {
        let pid = self.pid;
        self.run(move |handle| async move {
            let links = link::all(&handle).await?;
            match links.into_iter().find(|l| l.name == INTERFACE || (l.up && !l.loopback)) {
                None => Ok(()),
                Some(link) => Err(NetError::Namespace {
                    operation: "use the network namespace",
                    pid,
                    source: io::Error::new(
                        io::ErrorKind::AlreadyExists,
                        format!("it has an interface {} already", link.name),
                    ),
                }),
            }
        })
        .await
    }

    /// Brings loopback and interface up with addresses and default routes.
    pub(super) async fn configure(&self, spec: &PortSpec) -> Result<()> {
        let spec = spec.clone();
        self.run(move |handle| async move { configure(&handle, &spec).await }).await
    }
}

/// The thread's part of [`Namespace::run`].
fn enter<F, W>(pid: u32, file: &File, work: W) -> Result<()>
where
    W: FnOnce(Handle) -> F,
    F: Future<Output = Result<()>>,
{
    let failed = |operation| move |source| NetError::Namespace { operation, pid, source };
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET)
        .map_err(io::Error::from)
        .map_err(failed("enter the network namespace"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(failed("start a runtime in the network namespace"))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(failed("open a netlink socket in the network namespace"))?;
        tokio::spawn(connection);
        work(handle).await
    })
}

async fn configure(handle: &Handle, spec: &PortSpec) -> Result<()> {
    if spec.addresses.v6.is_some() {
        enable_ipv6()?;
    }
    let loopback = LinkUnspec::new_with_name("lo").up().build();
    link::change(handle, "bring up", "lo", loopback).await?;
    let interface = link::expect(handle, "configure", INTERFACE).await?;
    for (address, prefix) in spec.prefixes() {
        link::add_address(handle, &interface, address, prefix).await?;
    }
    let up = LinkUnspec::new_with_index(interface.index).up().build();
    link::change(handle, "bring up", INTERFACE, up).await?;
    for gateway in spec.gateways() {
        let route = match gateway {
            IpAddr::V4(gateway) => {
                RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(interface.index).build()
            }
            IpAddr::V6(gateway) => {
                RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(interface.index).build()
            }
        };
        handle.route().add(route).execute().await.map_err(|error| NetError::Refused {
            operation: "add default route",
            object: format!("via {gateway} of {}", spec.instance),
            source: errno_of(error),
        })?;
    }
    Ok(())
}

/// Container engines switch IPv6 off in a namespace that they give no network to. Router advertisements
/// stay without effect: the instance's addresses and routes are ours.
fn enable_ipv6() -> Result<()> {
    for interface in ["lo", INTERFACE] {
        forwarding::set(&format!("ipv6/conf/{interface}/disable_ipv6"), "0")?;
    }
    forwarding::set(&format!("ipv6/conf/{INTERFACE}/accept_ra"), "0")?;
    Ok(())
}
