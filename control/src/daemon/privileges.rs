//! What the daemon must be allowed to do, asked before anything is tried, so that the answer is a plain
//! sentence and not an errno from the depths.

use crate::config::{Config, Networks};

/// Capabilities that the daemon is without.
#[derive(Debug, thiserror::Error)]
#[error("not allowed to {what}: {} missing; run it as root or by its systemd unit", .missing.join(" and "))]
pub struct Missing {
    what: &'static str,
    missing: Vec<&'static str>,
}

/// Bits of the effective set, by `linux/capability.h`.
const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
const BPF: u32 = 39;

/// Checks what this configuration needs; the empty one needs nothing.
pub(super) fn check(config: &Config) -> Result<(), Missing> {
    let effective = effective();
    let lacks = |capability: u32| effective & (1 << capability) == 0;
    let mut missing = Vec::new();
    let mut what = "listen on port 53";
    if !config.listen.is_empty() && lacks(NET_BIND_SERVICE) {
        missing.push("CAP_NET_BIND_SERVICE");
    }
    let networks = config.networks != Networks::default();
    if !config.dataplane.interfaces.is_empty() || !config.services.is_empty() || networks {
        what = "attach programs and make network interfaces";
        // CAP_SYS_ADMIN stands for CAP_BPF too.
        if lacks(BPF) && lacks(SYS_ADMIN) {
            missing.push("CAP_BPF");
        }
        if lacks(NET_ADMIN) {
            missing.push("CAP_NET_ADMIN");
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Missing { what, missing }) }
}

/// The effective capabilities of this process; none where they cannot be read.
fn effective() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}
