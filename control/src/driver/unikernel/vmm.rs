//! What runs unikernels, as data: one row for each monitor, with the command line that starts it.

use crate::driver::guest::Word;
use crate::model::Technology;

/// One monitor.
#[derive(Debug)]
pub(super) struct Vmm {
    /// Its technology.
    pub technology: Technology,
    /// Words of its command line, in groups; see [`crate::driver::guest`].
    pub command: &'static [&'static [Word]],
    /// It opens its tap by name; otherwise it inherits the descriptor.
    pub opens_tap: bool,
    /// The guest's words are words of the command line; otherwise one word.
    pub splits_guest: bool,
    /// Its image must be an ELF file.
    pub wants_elf: bool,
    /// Memory of the monitor itself, in MiB, beside the guest's.
    pub overhead_mib: u64,
    /// Processes and threads that it needs.
    pub tasks: u32,
    /// A file that it reads its configuration from, `{config}` on its command line.
    pub config: Option<&'static str>,
    /// Commas on its command line are doubled in the words of a guest that is loaded by Multiboot.
    pub doubles_commas: bool,
}

const SOLO5: &[&[Word]] = &[
    &["--mem={memory}"],
    &["--net:service=@{tap_fd}"],
    &["--net-mac:service={mac}"],
    &["--block:storage={disk}"],
    &["--", "{image}"],
    &["{guest}"],
];

/// What the emulator may not do, beyond what its user may not.
const SANDBOX: &[Word] = &["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"];
const BARE: &[Word] = &["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"];

const MICROVM: &[&[Word]] = &[
    &["-M", "microvm,accel={accel},acpi=off,pit=off,pic=off,rtc=off,x-option-roms=off"],
    &["-bios", "qboot.rom"],
    &["-cpu", "max"],
    &["-m", "{memory}M"],
    BARE,
    SANDBOX,
    &["-kernel", "{image}"],
    &["-append", "{guest}"],
    &["-global", "virtio-mmio.force-legacy=false"],
    &["-drive", "id=disk,file={disk},format=raw,if=none,snapshot=on", "-device", "virtio-blk-device,drive=disk"],
    &["-netdev", "tap,id=net,fd={tap_fd}", "-device", "virtio-net-device,netdev=net,mac={mac}"],
];

const PC: &[&[Word]] = &[
    &["-M", "pc,accel={accel}"],
    &["-cpu", "max"],
    &["-m", "{memory}M"],
    BARE,
    SANDBOX,
    &["-kernel", "{image}"],
    &["-append", "{guest}"],
    &["-drive", "file={disk},format=raw,if=virtio,snapshot=on"],
    &["-netdev", "tap,id=net,fd={tap_fd}", "-device", "virtio-net-pci,netdev=net,mac={mac}"],
];

/// Firecracker's configuration file. `{guest_json}` is a JSON string, `{drives_json}` a JSON list.
const FIRECRACKER: &str = r#"{
  "boot-source": {"kernel_image_path": "{image}", "boot_args": {guest_json}},
  "drives": {drives_json},
  "machine-config": {"vcpu_count": 1, "mem_size_mib": {memory}},
  "network-interfaces": [{"iface_id": "net", "guest_mac": "{mac}", "host_dev_name": "{tap}"}]
}
"#;

/// All of them.
static VMMS: [Vmm; 5] = [
    Vmm {
        technology: Technology::Spt,
        command: SOLO5,
        opens_tap: false,
        splits_guest: true,
        wants_elf: true,
        overhead_mib: 8,
        tasks: 4,
        config: None,
        doubles_commas: false,
    },
    Vmm {
        technology: Technology::Hvt,
        command: SOLO5,
        opens_tap: false,
        splits_guest: true,
        wants_elf: true,
        overhead_mib: 16,
        tasks: 8,
        config: None,
        doubles_commas: false,
    },
    Vmm {
        technology: Technology::QemuMicrovm,
        command: MICROVM,
        opens_tap: false,
        splits_guest: false,
        wants_elf: false,
        overhead_mib: 192,
        tasks: 64,
        config: None,
        doubles_commas: true,
    },
    Vmm {
        technology: Technology::QemuPc,
        command: PC,
        opens_tap: false,
        splits_guest: false,
        wants_elf: false,
        overhead_mib: 256,
        tasks: 64,
        config: None,
        doubles_commas: true,
    },
    Vmm {
        technology: Technology::Firecracker,
        command: &[&["--no-api"], &["--config-file", "{config}"]],
        opens_tap: true,
        splits_guest: false,
        wants_elf: false,
        overhead_mib: 16,
        tasks: 16,
        config: Some(FIRECRACKER),
        doubles_commas: false,
    },
];

/// The monitor of a technology; `None` of one that runs no unikernels.
pub(super) fn of(technology: Technology) -> Option<&'static Vmm> {
    VMMS.iter().find(|vmm| vmm.technology == technology)
}
