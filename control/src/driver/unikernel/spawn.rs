//! Starts a program from a large process without copying it.
//!
//! A fork copies the page tables of the daemon, whose tables of names are tens of megabytes, and afterwards each page that
//! it writes is copied, too: milliseconds of a cold start. Here the new process shares the memory, and the caller's thread
//! stands still, until the program is loaded (`clone(2)` with `CLONE_VM | CLONE_VFORK`, as `posix_spawn(3)` has it, which
//! cannot enter control groups).

use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use super::process::User;

/// What is needed to start a process.
pub(super) struct Launch<'a> {
    pub program: &'a Path,
    pub arguments: &'a [String],
    pub user: User,
    /// Files through which it enters its control group.
    pub doors: Vec<File>,
    /// Inherited as they are.
    pub descriptors: Vec<OwnedFd>,
    /// Where its output goes.
    pub console: File,
}

/// Stack of the new process until its program is loaded; it makes system calls only.
const STACK: usize = 64 << 10;

/// Starts it. When this returns the program is loaded, in its group and without privileges; the number of its process.
pub(super) fn spawn(launch: &Launch<'_>) -> io::Result<u32> {
    let program = text(launch.program.as_os_str())?;
    let arguments = launch.arguments.iter().map(|word| text(OsStr::new(word))).collect::<io::Result<Vec<_>>>()?;
    let words = std::iter::once(&program).chain(&arguments).map(|word| word.as_ptr());
    let words: Vec<*const c_char> = words.chain(std::iter::once(std::ptr::null())).collect();
    let nothing = File::open("/dev/null")?;
    let doors: Vec<RawFd> = launch.doors.iter().map(AsRawFd::as_raw_fd).collect();
    let kept: Vec<RawFd> = launch.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mut plan = Plan {
        program: program.as_ptr(),
        words: words.as_ptr(),
        user: launch.user,
        doors: &doors,
        kept: &kept,
        streams: [nothing.as_raw_fd(), launch.console.as_raw_fd(), launch.console.as_raw_fd()],
        failed: 0,
    };

    let mut stack = vec![0_u128; STACK / size_of::<u128>()];
    // No handler of this process may run in the other one, where it would write to the same memory.
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: takes numbers only.
    let dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: stack and plan outlive the call, since it returns only when the other process has left this memory; what
    // runs there makes system calls only.
    let pid =
        unsafe { libc::clone(enter, stack.as_mut_ptr_range().end.cast(), flags, (&raw mut plan).cast::<c_void>()) };
    let cloned = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) };
    // A change of user in the other process has changed this for the memory that both have.
    // SAFETY: takes numbers only.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, dumpable, 0, 0, 0) };
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    let pid = cloned?;
    // SAFETY: the other process has written it, or has not, before this one went on.
    let failed = unsafe { (&raw const plan.failed).read_volatile() };
    if failed != 0 {
        // It has ended, or is about to.
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None)?;
        return Err(io::Error::from_raw_os_error(failed));
    }
    u32::try_from(pid).map_err(io::Error::other)
}

fn text(word: &OsStr) -> io::Result<CString> {
    CString::new(word.as_bytes()).map_err(io::Error::from)
}

/// All that the new process needs, made before it is there.
struct Plan<'a> {
    program: *const c_char,
    /// With a null at the end, the program first.
    words: *const *const c_char,
    user: User,
    doors: &'a [RawFd],
    kept: &'a [RawFd],
    streams: [RawFd; 3],
    /// Error number of what did not work.
    failed: c_int,
}

/// The new process, in the memory of the old one.
extern "C" fn enter(plan: *mut c_void) -> c_int {
    let plan = plan.cast::<Plan<'_>>();
    // SAFETY: the caller's plan, which nobody else touches meanwhile.
    let error = unsafe { load(&*plan) };
    // SAFETY: as above.
    unsafe { (&raw mut (*plan).failed).write_volatile(error) };
    127
}

/// Comes back only with an error number. Calls go to the kernel directly where the library would tell other threads.
///
/// # Safety
/// In a process of its own, with a plan whose pointers are good.
unsafe fn load(plan: &Plan<'_>) -> c_int {
    // SAFETY: each call takes numbers or pointers to what the plan or this stack holds.
    unsafe {
        for door in plan.doors {
            if libc::write(*door, c"0".as_ptr().cast(), 1) != 1 {
                return *libc::__errno_location();
            }
        }
        let User { user, group } = plan.user;
        let nobody = std::ptr::null::<libc::gid_t>();
        // Dropping groups needs a privilege that one who starts its own programs may lack.
        let groups = libc::syscall(libc::SYS_setgroups, 0, nobody) == 0 || libc::geteuid() != 0;
        let moved = libc::chdir(c"/".as_ptr()) == 0
            && libc::setsid() != -1
            && groups
            && libc::syscall(libc::SYS_setresgid, group, group, group) == 0
            && libc::syscall(libc::SYS_setresuid, user, user, user) == 0
            && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
        if !moved {
            return *libc::__errno_location();
        }
        for (number, stream) in (0..).zip(plan.streams) {
            if libc::dup2(stream, number) == -1 {
                return *libc::__errno_location();
            }
        }
        for descriptor in plan.kept {
            if libc::fcntl(*descriptor, libc::F_SETFD, 0) == -1 {
                return *libc::__errno_location();
            }
        }
        // Loading a program resets handlers, but not the mask; with the mask open, handlers could run before that.
        for signal in 1..=libc::SIGRTMAX() {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut open: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut open);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const open, std::ptr::null_mut());
        let environment = [std::ptr::null::<c_char>()];
        libc::execve(plan.program, plan.words, environment.as_ptr());
        *libc::__errno_location()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    fn start(program: &str, words: &[&str], doors: Vec<File>) -> io::Result<u32> {
        let arguments: Vec<String> = words.iter().map(ToString::to_string).collect();
        let user = User { user: nix::unistd::getuid().as_raw(), group: nix::unistd::getgid().as_raw() };
        let console = File::options().append(true).open("/dev/null").unwrap();
        let program = Path::new(program);
        spawn(&Launch { program, arguments: &arguments, user, doors, descriptors: vec![], console })
    }

    #[test]
    fn a_program_begins_clean_and_leaves_its_parent_as_it_was() {
        let field = |pid: u32, name: &str| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            let found = status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
            found.unwrap()
        };
        let own = std::process::id();
        let before = ["SigCgt:", "SigIgn:"].map(|name| field(own, name));
        let pid = start("/bin/sleep", &["60"], vec![]).unwrap();
        for name in ["SigBlk:", "SigIgn:", "SigCgt:"] {
            // Two are the C library's own.
            let signals = u64::from_str_radix(&field(pid, name), 16).unwrap() & !(0b11 << 31);
            assert_eq!(signals, 0, "{name}");
        }
        assert_eq!(field(pid, "NoNewPrivs:"), "1");
        assert_eq!(field(pid, "NSsid:"), pid.to_string());
        assert!(std::fs::read(format!("/proc/{pid}/environ")).unwrap().is_empty());
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/fd/0")).unwrap(), Path::new("/dev/null"));
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(Pid::from_raw(pid.cast_signed()), None).unwrap();

        assert_eq!(before, ["SigCgt:", "SigIgn:"].map(|name| field(own, name)));
        // SAFETY: takes numbers only.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }, 1);
    }

    #[test]
    fn what_fails_on_the_way_is_told() {
        let shut = vec![File::open("/dev/null").unwrap()];
        let error = start("/bin/true", &[], shut).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "a group that cannot be entered");
        assert_eq!(start("/no/such/program", &[], vec![]).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(start("/bin/true", &["a\0b"], vec![]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
