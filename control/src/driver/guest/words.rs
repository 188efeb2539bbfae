//! From an instance to the words that its guest is told its address with.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use super::template::{Values, Word};
use crate::driver::{Attachment, InstanceSpec};
use crate::model::Launch;

/// How a library operating system is told its address; `arguments` follow unless the words hold them.
const fn words(launch: Launch) -> &'static [&'static [Word]] {
    match launch {
        Launch::Selvedge => &[&["ip={ip}/{prefix}"], &["gw={gw}"], &["ip6={ip6}/{prefix6}"], &["gw6={gw6}"]],
        Launch::Mirage => &[
            &["--ipv4={ip}/{prefix}"],
            &["--ipv4-gateway={gw}"],
            &["--ipv6={ip6}/{prefix6}"],
            &["--ipv6-gateway={gw6}"],
        ],
        Launch::Unikraft => &[&["netdev.ip={ip}/{prefix}:{gw}"], &["--"]],
        Launch::Osv => &[&["--ip=eth0,{ip},{mask}"], &["--defaultgw={gw}"]],
        Launch::Nanos => {
            &[&["en1.ipaddr={ip}"], &["en1.netmask={mask}"], &["en1.gateway={gw}"], &["en1.ip6addr={ip6}"]]
        }
        Launch::Rumprun => &[&[
            r#"{"net":{"if":"vioif0","type":"inet","method":"static","addr":"{ip}","mask":"{prefix}","gw":"{gw}"},"cmdline":"{arguments}"}"#,
        ]],
        // Documentation/admin-guide/nfs/nfsroot.rst of Linux; it has no form for IPv6.
        Launch::Linux => &[&["ip={ip}::{gw}:{mask}::eth0:off"]],
        // Its Click configuration holds the address.
        Launch::ClickOs => &[],
    }
}

/// The guest's words, its application's own not among them unless its form has a place for them. An image that says how
/// it is told its address (`own`) is told it so.
pub(in crate::driver) fn words_of(launch: Launch, own: Option<&str>, values: &Values) -> Vec<String> {
    match own {
        Some(own) => own.split_whitespace().filter_map(|word| values.fill(word)).collect(),
        None => values.expand(words(launch)),
    }
}

/// What the placeholders of a form stand for.
pub(in crate::driver) fn values(spec: &InstanceSpec, attachment: &Attachment) -> Values {
    let mut values = Values::default();
    values.set("memory", spec.resources.memory_mib);
    values.set("arguments", spec.guest.arguments.join(" "));
    values.set_some("disk", spec.guest.disk.as_ref());
    values.set("tap", &attachment.interface);
    values.set_some("tap_fd", attachment.descriptor.as_ref().map(OwnedFd::as_raw_fd));
    let mac = attachment.mac.map(|byte| format!("{byte:02x}"));
    values.set("mac", mac.join(":"));
    if let Some((address, prefix, gateway)) = attachment.v4 {
        values.set("ip", address);
        values.set("prefix", prefix);
        values.set("mask", mask(prefix));
        values.set("gw", gateway);
    }
    if let Some((address, prefix, gateway)) = attachment.v6 {
        values.set("ip6", address);
        values.set("prefix6", prefix);
        values.set("gw6", gateway);
    }
    values
}

/// A prefix's length as a mask.
fn mask(prefix: u8) -> Ipv4Addr {
    let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    Ipv4Addr::from(!host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_right_at_the_ends() {
        assert_eq!(
            [0, 8, 24, 31, 32].map(mask).map(|m| m.to_string()).join(" "),
            "0.0.0.0 255.0.0.0 255.255.255.0 255.255.255.254 255.255.255.255"
        );
    }
}
