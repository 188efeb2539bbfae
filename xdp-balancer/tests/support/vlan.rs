//! Two small programs that put a VLAN tag on what goes out and take it off what comes in, for kernels without VLAN
//! devices. Written down instruction by instruction: all they do is one call.

use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::PathBuf;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const SCHED_CLS: u32 = 3;
const VLAN_PUSH: u32 = 18;
const VLAN_POP: u32 = 19;

/// The programs, pinned for `tc` until this is dropped.
pub struct Tags(PathBuf);

impl Tags {
    pub fn load(id: u16) -> Self {
        let directory = PathBuf::from(format!("/sys/fs/bpf/selv-tags{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let tags = Self(directory);
        // r2 = ETH_P_8021Q in network order, r3 = id; the context is in r1.
        let immediate = |register: u64, value: u32| 0xb7 | register << 8 | u64::from(value) << 32;
        let call = |helper: u32| 0x85 | u64::from(helper) << 32;
        let exit = 0x95;
        pin(
            &[
                immediate(2, u32::from(0x8100_u16.to_be())),
                immediate(3, id.into()),
                call(VLAN_PUSH),
                immediate(0, 0),
                exit,
            ],
            &tags.push(),
        );
        pin(&[call(VLAN_POP), immediate(0, 0), exit], &tags.pop());
        tags
    }

    pub fn push(&self) -> String {
        self.0.join("push").display().to_string()
    }

    pub fn pop(&self) -> String {
        self.0.join("pop").display().to_string()
    }
}

impl Drop for Tags {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.push());
        let _ = fs::remove_file(self.pop());
        let _ = fs::remove_dir(&self.0);
    }
}

fn pin(instructions: &[u64], path: &str) {
    let licence = c"GPL";
    let mut load = [0_u64; 16];
    load[0] = u64::from(SCHED_CLS) | (instructions.len() as u64) << 32;
    (load[1], load[2]) = (instructions.as_ptr() as u64, licence.as_ptr() as u64);
    let program = call(BPF_PROG_LOAD, &load);
    // SAFETY: a new descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let path = std::ffi::CString::new(path).unwrap();
    let mut pin = [0_u64; 16];
    (pin[0], pin[1]) = (path.as_ptr() as u64, program.as_raw_fd() as u64);
    call(BPF_OBJ_PIN, &pin);
}

fn call(command: libc::c_long, attributes: &[u64; 16]) -> i32 {
    // SAFETY: attributes of the command, whose pointers are alive.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result as i32
}
