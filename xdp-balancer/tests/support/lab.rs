//! Two network namespaces of the test's own, joined by a veth pair.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

/// The server's end.
pub const SERVER: &str = "selvsrv0";
/// The client's end.
pub const CLIENT: &str = "selvcli0";

/// Both namespaces. They go with the last descriptor, and the veth pair with them.
pub struct Lab {
    server: File,
    client: File,
}

/// Runs a test in a thread of its own, since namespaces belong to threads.
pub fn in_lab(test: impl FnOnce(Lab) + Send + 'static) {
    let result = std::thread::spawn(move || test(Lab::new())).join();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn new_namespace() -> File {
    // SAFETY: moves this thread alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", std::io::Error::last_os_error());
    ip("link set lo up");
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn enter(namespace: &File) {
    // SAFETY: an open descriptor of a network namespace; moves this thread alone.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

impl Lab {
    fn new() -> Self {
        let server = new_namespace();
        let client = new_namespace();
        let lab = Self { server, client };
        lab.join();
        lab
    }

    /// Makes the veth pair with its addresses. The calling thread ends up at the server's end.
    pub fn join(&self) {
        self.at_client();
        ip(&format!("link add {CLIENT} type veth peer name {SERVER}"));
        let server = format!("/proc/{}/fd/{}", std::process::id(), self.server.as_raw_fd());
        ip(&format!("link set {SERVER} netns {server}"));
        // Otherwise the sum of a query is left to a device that does not exist.
        no_transmit_checksum_offload(CLIENT);
        ip(&format!("link set {CLIENT} up"));
        ip(&format!("address add 192.0.2.1/24 dev {CLIENT}"));
        ip(&format!("address add 2001:db8::1/64 dev {CLIENT} nodad"));
        self.at_server();
        ip(&format!("link set {SERVER} up"));
        ip(&format!("address add 192.0.2.53/24 dev {SERVER}"));
        ip(&format!("address add 2001:db8::53/64 dev {SERVER} nodad"));
    }

    /// Moves the thread to the server's end.
    pub fn at_server(&self) {
        enter(&self.server);
    }

    /// Moves the thread to the client's end.
    pub fn at_client(&self) {
        enter(&self.client);
    }
}

fn no_transmit_checksum_offload(interface: &str) {
    const SIOCETHTOOL: libc::c_ulong = 0x8946;
    const ETHTOOL_STXCSUM: u32 = 0x17;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let mut value = [ETHTOOL_STXCSUM, 0];
    // SAFETY: zero is valid for this plain struct; the pointer in it outlives the call.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        let result = libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &request);
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}
