//! A domain's specification as `xl`'s configuration (xl.cfg(5)). Pure.

use std::fmt::Write;
use std::path::Path;

use crate::identity::Uuid;
use crate::spec::{DomainKind, DomainSpec};

/// What libxl runs when a vif comes or goes. Joining it to a network is the caller's, so nothing is to be done; a script
/// cannot be left out, and stock ones need not be there.
const NO_SCRIPT: &str = "/bin/true";

/// The configuration for `spec`, which is valid.
pub(crate) fn text(spec: &DomainSpec, uuid: Uuid) -> String {
    let mut lines = Lines::default();
    lines.text("name", spec.name.as_str());
    lines.text("uuid", &uuid.to_string());
    lines.text(
        "type",
        match spec.kind {
            DomainKind::Pv => "pv",
            DomainKind::Pvh => "pvh",
        },
    );
    lines.path("kernel", &spec.kernel);
    if let Some(ramdisk) = &spec.ramdisk {
        lines.path("ramdisk", ramdisk);
    }
    lines.text("cmdline", &spec.cmdline);
    lines.number("memory", spec.memory_mib);
    lines.number("maxmem", spec.max_memory_mib);
    lines.number("vcpus", spec.vcpus);
    lines.number("maxvcpus", spec.max_vcpus);
    lines.number("cpu_weight", spec.scheduling.weight.into());
    lines.number("cap", spec.scheduling.cap);
    if !spec.scheduling.processors.is_empty() {
        let processors: Vec<String> = spec.scheduling.processors.iter().map(ToString::to_string).collect();
        lines.text("cpus", &processors.join(","));
    }
    let vifs: Vec<String> = spec.vifs.iter().map(|vif| quote(&format!("mac={},script={NO_SCRIPT}", vif.mac))).collect();
    lines.raw("vif", &format!("[{}]", vifs.join(", ")));
    // What an end means is for the caller to decide, who looks at the domain first.
    for event in ["on_poweroff", "on_reboot", "on_watchdog", "on_crash"] {
        lines.text(event, "preserve");
    }
    lines.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn raw(&mut self, name: &str, value: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{name} = {value}");
    }

    fn text(&mut self, name: &str, value: &str) {
        self.raw(name, &quote(value));
    }

    fn path(&mut self, name: &str, value: &Path) {
        self.text(name, &value.to_string_lossy());
    }

    fn number(&mut self, name: &str, value: u32) {
        self.raw(name, &value.to_string());
    }
}

/// A string of the configuration's: what would end it, or begin an escape, stands behind a backslash.
fn quote(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::identity::Owner;
    use crate::spec::{Scheduling, Vif};

    fn spec() -> DomainSpec {
        DomainSpec {
            name: "web-1".parse().unwrap(),
            kind: DomainKind::Pvh,
            kernel: "/images/web".into(),
            ramdisk: None,
            cmdline: "ip=192.0.2.7".into(),
            memory_mib: 32,
            max_memory_mib: 64,
            vcpus: 1,
            max_vcpus: 2,
            scheduling: Scheduling::default(),
            vifs: vec![Vif { mac: "00:16:3e:00:00:01".parse().unwrap() }],
        }
    }

    #[test]
    fn a_small_domain() {
        let uuid = Uuid::of(Owner::new(0x00c0_ffee).unwrap(), [0; 16]);
        assert_eq!(
            text(&spec(), uuid),
            r#"name = "web-1"
uuid = "000000c0-ffee-8000-8000-000000000000"
type = "pvh"
kernel = "/images/web"
cmdline = "ip=192.0.2.7"
memory = 32
maxmem = 64
vcpus = 1
maxvcpus = 2
cpu_weight = 256
cap = 0
vif = ["mac=00:16:3e:00:00:01,script=/bin/true"]
on_poweroff = "preserve"
on_reboot = "preserve"
on_watchdog = "preserve"
on_crash = "preserve"
"#
        );
    }

    #[test]
    fn all_that_can_be_said() {
        let second = Vif { mac: "00:16:3e:00:00:02".parse().unwrap() };
        let spec = DomainSpec {
            kind: DomainKind::Pv,
            ramdisk: Some("/images/initrd".into()),
            cmdline: r#"{"net":"a \ b"}"#.into(),
            scheduling: Scheduling { weight: 512, cap: 50, processors: vec![0, 2] },
            vifs: vec![spec().vifs.remove(0), second],
            ..spec()
        };
        let text = text(&spec, Uuid::of(Owner::new(1).unwrap(), [0; 16]));
        for line in [
            r#"type = "pv""#,
            r#"ramdisk = "/images/initrd""#,
            r#"cmdline = "{\"net\":\"a \\ b\"}""#,
            "cpu_weight = 512",
            "cap = 50",
            r#"cpus = "0,2""#,
            r#"vif = ["mac=00:16:3e:00:00:01,script=/bin/true", "mac=00:16:3e:00:00:02,script=/bin/true"]"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }
}
