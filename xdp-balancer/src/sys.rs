//! The few kernel calls that aya does not offer in the form needed here: links with their raw error
//! numbers, link information, memory-mapped arrays, locks.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
#[cfg(feature = "testing")]
const BPF_PROG_TEST_RUN: libc::c_long = 10;
#[cfg(feature = "testing")]
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_LINK_DETACH: libc::c_long = 34;
/// Attach type of XDP programs on interfaces.
const BPF_XDP: u32 = 37;
/// The same of classifiers on an interface's way out, without a qdisc (since Linux 6.6).
const BPF_TCX_EGRESS: u32 = 47;
/// Attach in front of the others.
const BPF_F_BEFORE: u32 = 1 << 3;
/// Most programs in such a place.
const MOST_TCX: usize = 64;
const BPFFS_MAGIC: i64 = 0xcafe_4a11;

/// Attach by the driver.
pub(crate) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// Attach in the network stack.
pub(crate) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
/// Attach only where nothing is.
pub(crate) const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1 << 0;

/// `union bpf_attr`, as far as used here: 32-bit words, large enough for each command.
#[repr(C, align(8))]
struct Attr([u32; 16]);

impl Attr {
    fn new() -> Self {
        Self([0; 16])
    }

    fn pointer(&mut self, word: usize, address: usize) {
        let bytes = (address as u64).to_ne_bytes();
        self.0[word] = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        self.0[word + 1] = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    }

    fn call(&mut self, command: libc::c_long) -> io::Result<i32> {
        // SAFETY: the attribute outlives the call and its size is passed; pointers in it are valid
        // for the call, which each caller below sees to.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), std::mem::size_of_val(&self.0)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
    }

    fn call_fd(&mut self, command: libc::c_long) -> io::Result<OwnedFd> {
        let fd = self.call(command)?;
        // SAFETY: a new descriptor from the kernel that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// Opens a pinned object.
pub(crate) fn get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = Attr::new();
    attr.pointer(0, path.as_ptr() as usize);
    attr.call_fd(BPF_OBJ_GET)
}

/// Pins an object.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = Attr::new();
    attr.pointer(0, path.as_ptr() as usize);
    attr.0[2] = raw(fd);
    attr.call(BPF_OBJ_PIN).map(drop)
}

/// Makes an array map.
pub(crate) fn create_array(value: usize, len: u32, flags: u32) -> io::Result<OwnedFd> {
    const ARRAY: u32 = 2;
    let mut attr = Attr::new();
    attr.0[..5].copy_from_slice(&[ARRAY, size_of::<u32>() as u32, value as u32, len, flags]);
    attr.call_fd(BPF_MAP_CREATE)
}

/// All elements of a hash map, a thousand and more per call. What is written meanwhile may be in it or not.
pub(crate) fn lookup_batch<K: aya::Pod + Default, V: aya::Pod + Default>(
    map: BorrowedFd<'_>,
) -> io::Result<Vec<(K, V)>> {
    let (mut found, mut room) = (Vec::new(), 1024_u32);
    // Where the next call goes on, in the kernel's own terms.
    let mut place: Option<u64> = None;
    loop {
        let (mut keys, mut values) = (vec![K::default(); room as usize], vec![V::default(); room as usize]);
        let mut next = 0_u64;
        let mut attr = Attr::new();
        if let Some(place) = &mut place {
            attr.pointer(0, std::ptr::from_mut(place) as usize);
        }
        attr.pointer(2, std::ptr::from_mut(&mut next) as usize);
        attr.pointer(4, keys.as_mut_ptr() as usize);
        attr.pointer(6, values.as_mut_ptr() as usize);
        (attr.0[8], attr.0[9]) = (room, raw(map));
        let result = attr.call(BPF_MAP_LOOKUP_BATCH);
        let last = match result {
            Ok(_) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                // One bucket has more than there is room for.
                Some(libc::ENOSPC) => {
                    room = room.saturating_mul(2);
                    continue;
                }
                _ => return Err(error),
            },
        };
        let count = attr.0[8].min(room) as usize;
        found.extend(keys.into_iter().zip(values).take(count));
        if last {
            return Ok(found);
        }
        place = Some(next);
    }
}

/// The first `len` elements of a per-CPU array in one call (since Linux 5.13), of each the values of all CPUs.
pub(crate) fn lookup_batch_per_cpu<V: aya::Pod + Default>(
    map: BorrowedFd<'_>,
    len: u32,
    cpus: usize,
) -> io::Result<Vec<V>> {
    const { assert!(size_of::<V>().is_multiple_of(8), "the kernel hands out values at multiples of eight bytes") };
    if len == 0 {
        return Ok(Vec::new());
    }
    let (mut keys, mut next) = (vec![0_u32; len as usize], 0_u32);
    let mut values = vec![V::default(); len as usize * cpus];
    let mut attr = Attr::new();
    attr.pointer(2, std::ptr::from_mut(&mut next) as usize);
    attr.pointer(4, keys.as_mut_ptr() as usize);
    attr.pointer(6, values.as_mut_ptr() as usize);
    (attr.0[8], attr.0[9]) = (len, raw(map));
    match attr.call(BPF_MAP_LOOKUP_BATCH) {
        // It says so, too, where the last element was the array's last.
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ if attr.0[8] != len => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        _ => Ok(values),
    }
}

/// Removes an element of a map.
pub(crate) fn delete<K: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let mut attr = Attr::new();
    attr.0[0] = raw(map);
    attr.pointer(2, std::ptr::from_ref(key) as usize);
    attr.call(BPF_MAP_DELETE_ELEM).map(drop)
}

/// Nanoseconds on the clock that programs read.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one timespec, which the call fills; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Runs a frame through a program: what it returned, the length of the frame in `out`, and nanoseconds.
#[cfg(feature = "testing")]
pub(crate) fn test_run(program: BorrowedFd<'_>, frame: &[u8], out: &mut [u8]) -> io::Result<(u32, usize, u32)> {
    let mut attr = Attr::new();
    attr.0[0] = raw(program);
    (attr.0[2], attr.0[3]) = (frame.len() as u32, out.len() as u32);
    attr.pointer(4, frame.as_ptr() as usize);
    attr.pointer(6, out.as_mut_ptr() as usize);
    attr.0[8] = 1;
    attr.call(BPF_PROG_TEST_RUN)?;
    Ok((attr.0[1], attr.0[3] as usize, attr.0[9]))
}

/// Attaches an XDP program by a link.
pub(crate) fn link_create(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new();
    attr.0[0] = raw(program);
    attr.0[1] = ifindex;
    attr.0[2] = BPF_XDP;
    attr.0[3] = flags;
    attr.call_fd(BPF_LINK_CREATE)
}

/// Attaches a classifier to an interface's way out by a link, in front of those there.
pub(crate) fn tcx_create(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new();
    attr.0[..4].copy_from_slice(&[raw(program), ifindex, BPF_TCX_EGRESS, BPF_F_BEFORE]);
    attr.call_fd(BPF_LINK_CREATE)
}

/// A program on an interface's way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Classifier {
    /// Its number.
    pub program_id: u32,
    /// That of its link; 0: it has none.
    pub link_id: u32,
}

/// The programs attached to an interface's way out, in their order; `None` where the kernel has no such place.
pub(crate) fn tcx_programs(ifindex: u32) -> io::Result<Option<Vec<Classifier>>> {
    let (mut programs, mut links) = ([0_u32; MOST_TCX], [0_u32; MOST_TCX]);
    let mut attr = Attr::new();
    attr.0[..2].copy_from_slice(&[ifindex, BPF_TCX_EGRESS]);
    attr.pointer(4, programs.as_mut_ptr() as usize);
    attr.0[6] = MOST_TCX as u32;
    attr.pointer(10, links.as_mut_ptr() as usize);
    match attr.call(BPF_PROG_QUERY) {
        // A kernel that does not know the place, or not that links have numbers.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
        // Nothing was ever there.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Some(Vec::new())),
        other => other?,
    };
    let both = programs.into_iter().zip(links).take((attr.0[6] as usize).min(MOST_TCX));
    Ok(Some(both.map(|(program_id, link_id)| Classifier { program_id, link_id }).collect()))
}

/// A program by its number.
#[cfg(feature = "testing")]
pub(crate) fn program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = Attr::new();
    attr.0[0] = id;
    attr.call_fd(BPF_PROG_GET_FD_BY_ID)
}

/// Puts another program into a link; no packet sees the interface without one.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attr::new();
    attr.0[0] = raw(link);
    attr.0[1] = raw(program);
    attr.call(BPF_LINK_UPDATE).map(drop)
}

/// Detaches a link, whoever else holds it.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attr::new();
    attr.0[0] = raw(link);
    attr.call(BPF_LINK_DETACH).map(drop)
}

/// What the kernel tells of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkInfo {
    /// Program in it.
    pub program_id: u32,
    /// Interface; zero once the interface is gone.
    pub ifindex: u32,
}

/// Asks the kernel about a link on an interface.
pub(crate) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // type, id, prog_id, padding, then a union whose first word is the interface for links of XDP and tcx.
    let info = object_info(link)?;
    Ok(LinkInfo { program_id: info[2], ifindex: info[4] })
}

/// The kernel's number of a map or link.
pub(crate) fn object_id(object: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(object_info(object)?[1])
}

/// Bytes of a key and of a value, and elements of a map.
pub(crate) fn map_size(map: BorrowedFd<'_>) -> io::Result<[u32; 3]> {
    let info = object_info(map)?;
    Ok([info[2], info[3], info[4]])
}

/// What the kernel tells of a map or link: type, id, and what depends on the type.
fn object_info(object: BorrowedFd<'_>) -> io::Result<[u32; 32]> {
    let mut info = [0_u32; 32];
    let mut attr = Attr::new();
    attr.0[0] = raw(object);
    attr.0[1] = std::mem::size_of_val(&info) as u32;
    attr.pointer(2, info.as_mut_ptr() as usize);
    attr.call(BPF_OBJ_GET_INFO_BY_FD)?;
    Ok(info)
}

/// An element of an array per CPU, whose value is words of 64 bits: theirs, one CPU after the other, into `words`, which
/// has room for those of all CPUs that there may be.
pub(crate) fn lookup_words(map: BorrowedFd<'_>, index: u32, words: &mut [u64]) -> io::Result<()> {
    let mut attr = Attr::new();
    attr.0[0] = raw(map);
    attr.pointer(2, std::ptr::from_ref(&index) as usize);
    attr.pointer(4, words.as_mut_ptr() as usize);
    attr.call(BPF_MAP_LOOKUP_ELEM).map(drop)
}

/// An element of an array whose value is a word of 32 bits; `None` where it is empty.
pub(crate) fn lookup_u32(map: BorrowedFd<'_>, index: u32) -> io::Result<Option<u32>> {
    let mut word = 0_u32;
    let mut attr = Attr::new();
    attr.0[0] = raw(map);
    attr.pointer(2, std::ptr::from_ref(&index) as usize);
    attr.pointer(4, std::ptr::from_mut(&mut word) as usize);
    match attr.call(BPF_MAP_LOOKUP_ELEM) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        other => other.map(|_| Some(word)),
    }
}

/// Puts a program into an array of programs.
pub(crate) fn set_program(map: BorrowedFd<'_>, index: u32, program: BorrowedFd<'_>) -> io::Result<()> {
    let word = raw(program);
    let mut attr = Attr::new();
    attr.0[0] = raw(map);
    attr.pointer(2, std::ptr::from_ref(&index) as usize);
    attr.pointer(4, std::ptr::from_ref(&word) as usize);
    attr.call(BPF_MAP_UPDATE_ELEM).map(drop)
}

/// Index of an interface.
pub(crate) fn if_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// Name of an interface.
pub(crate) fn if_name(index: u32) -> Option<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call wants.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) }.is_null() {
        return None;
    }
    let len = name.iter().position(|byte| *byte == 0)?;
    String::from_utf8(name[..len].to_vec()).ok()
}

/// Whether an interface has Ethernet frames.
pub(crate) fn is_ethernet(name: &str) -> io::Result<bool> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: zero is a valid value of this plain struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IF_NAMESIZE - 1)) {
        *to = from as libc::c_char;
    }
    // SAFETY: an open socket, and the request that this call fills.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled by the call.
    let kind = unsafe { request.ifr_ifru.ifru_hwaddr.sa_family };
    Ok(matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK))
}

/// Whether a path lies on a BPF file system.
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    // SAFETY: zero is a valid value of this plain struct.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a terminated path and a buffer of the right type.
    if unsafe { libc::statfs(path.as_ptr(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between targets")]
    let kind = stat.f_type as i64;
    Ok(kind == BPFFS_MAGIC)
}

/// The user that this process acts as.
pub(crate) fn user() -> u32 {
    // SAFETY: a plain call.
    unsafe { libc::geteuid() }
}

/// The lock on a directory. Given back by name, for a child that is about to run another program has a copy of the
/// descriptor for a moment, and closing ours would leave the lock with it.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // SAFETY: an open descriptor. Should it fail, the lock ends with the last copy.
        unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

/// Takes the lock on a directory for as long as the value lives; `None` if another process has it.
pub(crate) fn lock(directory: &Path) -> io::Result<Option<Lock>> {
    let file = File::open(directory)?;
    // SAFETY: an open descriptor.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(Some(Lock(file)));
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
}

/// A random number that is not zero.
pub(crate) fn random() -> io::Result<u64> {
    loop {
        let mut bytes = [0_u8; 8];
        // SAFETY: the buffer and its size.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let value = u64::from_ne_bytes(bytes);
        if got == 8 && value != 0 {
            return Ok(value);
        }
    }
}

/// Instructions after rewriting, bytes of machine code, instructions that the verifier walked through.
#[cfg(feature = "bench")]
pub(crate) fn program_size(program: BorrowedFd<'_>) -> io::Result<[u32; 3]> {
    // type, id, tag (two words), length of machine code, length of instructions, …
    const VERIFIED: usize = 216 / size_of::<u32>();
    let mut info = [0_u32; 64];
    let mut attr = Attr::new();
    attr.0[0] = raw(program);
    attr.0[1] = std::mem::size_of_val(&info) as u32;
    attr.pointer(2, info.as_mut_ptr() as usize);
    attr.call(BPF_OBJ_GET_INFO_BY_FD)?;
    Ok([info[5] / 8, info[4], info[VERIFIED]])
}

/// Release of the running kernel.
#[cfg(feature = "bench")]
pub(crate) fn release() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(text.trim().to_owned())
}

/// Nanoseconds that this thread has run.
#[cfg(feature = "bench")]
pub(crate) fn thread_time() -> io::Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a buffer of the right type.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Keeps this thread on the CPU that it runs on, for as long as the value lives.
#[cfg(feature = "bench")]
pub(crate) fn stay_on_cpu() -> io::Result<OnCpu> {
    // SAFETY: zero is a valid value of this plain struct.
    let mut before: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: a buffer and its size; 0 is this thread.
    if unsafe { libc::sched_getaffinity(0, size, &mut before) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let mut one: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a plain call, and an index that the kernel gave.
    unsafe { libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut one) };
    // SAFETY: a buffer and its size.
    if unsafe { libc::sched_setaffinity(0, size, &one) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(OnCpu { before })
}

/// See [`stay_on_cpu`].
#[cfg(feature = "bench")]
pub(crate) struct OnCpu {
    before: libc::cpu_set_t,
}

#[cfg(feature = "bench")]
impl Drop for OnCpu {
    fn drop(&mut self) {
        // SAFETY: the set that the kernel gave. If it fails, the thread stays where it is.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.before) };
    }
}

/// A memory-mapped array map.
#[derive(Debug)]
pub(crate) struct Memory {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory; all that is shared with programs is read and written through atomics or before it can be
// reached, and the mapping lives as long as the value.
unsafe impl Send for Memory {}
// SAFETY: as above; writing takes `&mut`.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps an array map of `len` bytes that was created to be mapped.
    pub(crate) fn map(fd: impl AsFd, len: usize) -> io::Result<Self> {
        // SAFETY: a shared mapping of a map's memory at an address that the kernel chooses.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_fd().as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self { base, len })
    }

    /// Reads; `None` beyond the end.
    pub(crate) fn read(&self, offset: usize, len: usize) -> Option<Vec<u8>> {
        let end = offset.checked_add(len)?;
        let mut bytes = vec![0; len];
        // SAFETY: inside the mapping, and into a buffer of that length.
        (end <= self.len).then(|| unsafe {
            self.base.as_ptr().add(offset).copy_to_nonoverlapping(bytes.as_mut_ptr(), len);
        })?;
        Some(bytes)
    }

    /// Writes where no program reads; what is beyond the end is left out.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        let inside = offset.checked_add(bytes.len()).is_some_and(|end| end <= self.len);
        debug_assert!(inside, "{offset} + {} of {}", bytes.len(), self.len);
        if inside {
            // SAFETY: inside the mapping.
            unsafe { self.base.as_ptr().add(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
    }

    /// Reads a value as it lies there; `None` beyond the end.
    pub(crate) fn get<T: aya::Pod>(&self, offset: usize) -> Option<T> {
        let end = offset.checked_add(size_of::<T>())?;
        // SAFETY: inside the mapping, and any bytes are a `T`.
        (end <= self.len).then(|| unsafe { self.base.as_ptr().add(offset).cast::<T>().read_unaligned() })
    }

    /// Writes a value; a program that runs may meet a part of it.
    pub(crate) fn put<T: aya::Pod>(&mut self, offset: usize, value: &T) {
        // SAFETY: any value of it is bytes.
        let bytes = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast::<u8>(), size_of::<T>()) };
        self.write(offset, bytes);
    }

    fn word(&self, offset: usize) -> Option<&AtomicU64> {
        let inside = offset.is_multiple_of(8) && offset.checked_add(8).is_some_and(|end| end <= self.len);
        // SAFETY: inside the mapping, which is page-aligned, at a multiple of eight.
        inside.then(|| unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU64>() })
    }

    /// Writes a word; what was written before is seen by whoever sees the word, and whoever begins after the
    /// call sees it.
    pub(crate) fn store(&self, offset: usize, value: u64) {
        let word = self.word(offset);
        debug_assert!(word.is_some(), "{offset} of {}", self.len);
        if let Some(word) = word {
            word.store(value, Ordering::SeqCst);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made above; nothing borrows from it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
