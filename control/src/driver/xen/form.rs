//! From an instance to its domain: how each library operating system is told its address on Xen. Pure but for the Click
//! configuration, which is a file.

use std::io;

use xen_manager::store::Access;
use xen_manager::{DomainKind, DomainSpec, Entry, Mac, MacError, NameError, Scheduling, Vif};

use crate::driver::guest::{ImageFile, Values, values, words_of};
use crate::driver::{Attachment, InstanceSpec};
use crate::model::Launch;

/// Linux may be given so many times the memory that it begins with. Other guests have no driver that would take more.
const LINUX_MEMORY: u32 = 2;

/// Most bytes of a Click configuration that stand in one entry of the store. Its value may be longer, but the guest reads
/// so much at once (ClickOS, `minios/xenbus`; its own tool parts it so).
const CHUNK: usize = 1024;

/// On the command line of a guest that is started in advance: it writes an entry once it waits, and finds its words in
/// another one.
const AWAIT: &str = "await";
pub(super) const AWAITS: &str = "data/awaits";
const ARGUMENTS: &str = "data/arguments";

/// Address of an interface of which nobody knows yet whose it will be; it is joined to nothing.
const NO_MAC: &str = "02:00:00:00:00:02";

/// Rumprun's configuration on Xen (`doc/config.md` of Rumprun): the interface is made by it.
const RUMPRUN: &str = r#"{"net":{"interfaces":{"xenif0":{"create":true,"addrs":[{"type":"inet","method":"static","addr":"{ip}/{prefix}"}]}},"gateways":[{"type":"inet","addr":"{gw}"}]}"#;

/// What an instance is as a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    /// The domain.
    pub domain: DomainSpec,
    /// What it finds in the store at its first instruction.
    pub entries: Vec<Entry>,
}

/// An instance as a domain that is made before anybody knows which instance it will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prepared {
    /// The domain.
    pub domain: DomainSpec,
    /// How far it comes.
    pub until: Until,
}

/// How far a prepared domain comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// It is held before its first instruction: it reads the store once, at its start.
    Start,
    /// It has booted, says that it waits and sleeps until its words are there.
    Asleep,
    /// It has booted and says that it waits; it is held then, for its init may look for its words again and again.
    Booted,
}

impl Until {
    /// How far guests of that launch form come; `None` where they are told by their command line alone.
    pub const fn of(launch: Launch) -> Option<Self> {
        match launch {
            Launch::Rumprun | Launch::ClickOs => Some(Self::Start),
            Launch::Selvedge => Some(Self::Asleep),
            Launch::Linux => Some(Self::Booted),
            Launch::Mirage | Launch::Unikraft | Launch::Osv | Launch::Nanos => None,
        }
    }
}

/// Why an instance can be no domain.
#[derive(Debug, thiserror::Error)]
pub(super) enum FormError {
    /// Its name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Its interface's address.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// Its Click configuration.
    #[error("{file}: {source}")]
    Click {
        /// The file.
        file: String,
        /// What was met.
        source: io::Error,
    },
}

impl Form {
    /// The domain of that name for `spec`.
    pub fn of(
        kind: DomainKind,
        name: &str,
        spec: &InstanceSpec,
        image: &ImageFile,
        attachment: &Attachment,
    ) -> Result<Self, FormError> {
        let values = values(spec, attachment);
        let guest = &spec.guest;
        let told_by_store = Until::of(guest.launch) == Some(Until::Start);
        let cmdline = if told_by_store { String::new() } else { words(spec, image, &values) };
        let entries = if told_by_store { store_entries(spec, &values)? } else { Vec::new() };
        Ok(Self { domain: domain(kind, name, spec, image, (cmdline, mac(attachment)?))?, entries })
    }

    /// What a prepared domain finds in the store once it is the instance.
    pub fn told(spec: &InstanceSpec, image: &ImageFile, attachment: &Attachment) -> Result<Vec<Entry>, FormError> {
        let values = values(spec, attachment);
        let mut words = match Until::of(spec.guest.launch) {
            Some(Until::Start) => return store_entries(spec, &values),
            _ => words(spec, image, &values),
        };
        if spec.guest.launch == Launch::Linux {
            // Its driver has been given another one at the boot.
            words.push_str(&format!(" mac={}", mac(attachment)?));
        }
        Ok(vec![Entry { path: ARGUMENTS.to_owned(), value: words.into_bytes(), access: None }])
    }
}

impl Prepared {
    /// The domain of that name that can become an instance like `spec`; `None` where its guest is told all that it needs
    /// to know by its command line, which is fixed when the domain is made.
    pub fn of(kind: DomainKind, name: &str, spec: &InstanceSpec, image: &ImageFile) -> Result<Option<Self>, FormError> {
        let Some(until) = Until::of(spec.guest.launch) else { return Ok(None) };
        // A Linux kernel reads its own words at the boot, so they stand there, too.
        let own = if spec.guest.launch == Launch::Linux { spec.guest.arguments.as_slice() } else { &[] };
        let words = std::iter::once(AWAIT).chain(own.iter().map(String::as_str));
        let cmdline = if until == Until::Start { String::new() } else { words.collect::<Vec<_>>().join(" ") };
        Ok(Some(Self { domain: domain(kind, name, spec, image, (cmdline, NO_MAC.parse()?))?, until }))
    }
}

/// The domain with that command line and address.
fn domain(
    kind: DomainKind,
    name: &str,
    spec: &InstanceSpec,
    image: &ImageFile,
    (cmdline, mac): (String, Mac),
) -> Result<DomainSpec, FormError> {
    let (memory_mib, vcpus) = (mib(spec.resources.memory_mib), vcpus(spec.resources.vcpus));
    let is_linux = spec.guest.launch == Launch::Linux;
    Ok(DomainSpec {
        name: name.parse()?,
        kind,
        kernel: image.path.clone(),
        ramdisk: spec.guest.ramdisk.as_ref().map(Into::into),
        cmdline,
        memory_mib,
        max_memory_mib: if is_linux { memory_mib.saturating_mul(LINUX_MEMORY) } else { memory_mib },
        vcpus,
        // Linux brings all up that there may ever be.
        max_vcpus: vcpus,
        scheduling: Scheduling { cap: cap(spec.resources.vcpus), ..Scheduling::default() },
        vifs: vec![Vif { mac }],
    })
}

/// Address of its interface.
pub(super) fn mac(attachment: &Attachment) -> Result<Mac, MacError> {
    attachment.mac.map(|byte| format!("{byte:02x}")).join(":").parse()
}

/// What the guest is told in words, its application's own behind them.
fn words(spec: &InstanceSpec, image: &ImageFile, values: &Values) -> String {
    let mut words = words_of(spec.guest.launch, image.arguments.as_deref(), values);
    words.extend(spec.guest.arguments.iter().cloned());
    words.join(" ")
}

/// What a guest that is told by the store finds there at its first instruction.
fn store_entries(spec: &InstanceSpec, values: &Values) -> Result<Vec<Entry>, FormError> {
    match spec.guest.launch {
        Launch::ClickOs => click(values, spec),
        _ => Ok(vec![rumprun(values, &spec.guest.arguments)]),
    }
}

/// Memory in MiB as Xen counts it.
pub(super) fn mib(memory_mib: u64) -> u32 {
    u32::try_from(memory_mib).unwrap_or(u32::MAX)
}

/// Processors that a share of processor time needs.
pub(super) fn vcpus(share: f64) -> u32 {
    share.ceil().clamp(1.0, f64::from(DomainSpec::MAX_VCPUS)) as u32
}

/// A share of processor time as the scheduler's cap, in percent of one processor.
pub(super) fn cap(share: f64) -> u32 {
    (share * 100.0).round().clamp(1.0, f64::from(u32::MAX)) as u32
}

/// Its first argument is the program, the others are the program's.
fn rumprun(values: &Values, arguments: &[String]) -> Entry {
    let mut text = values.fill(RUMPRUN).unwrap_or_else(|| "{\"net\":{}".to_owned());
    if let Some((program, rest)) = arguments.split_first() {
        let run = serde_json::json!([{"bin": program, "args": rest}]);
        text.push_str(&format!(",\"rc\":{run}"));
    }
    text.push('}');
    Entry { path: "rumprun/cfg".to_owned(), value: text.into_bytes(), access: None }
}

/// The first router of ClickOS: its configuration in numbered chunks, and that it is to run.
fn click(values: &Values, spec: &InstanceSpec) -> Result<Vec<Entry>, FormError> {
    let entry = |path: &str, value: &[u8], access| Entry {
        path: format!("data/clickos/0/{path}"),
        value: value.to_vec(),
        access,
    };
    let mut text = String::new();
    if let Some(file) = &spec.guest.click {
        let failed = |source| FormError::Click { file: file.clone(), source };
        let template = std::fs::read_to_string(file).map_err(failed)?;
        let lacks = || io::Error::new(io::ErrorKind::InvalidData, "it has a placeholder for what the instance lacks");
        text = values.fill(&template).ok_or_else(lacks).map_err(failed)?;
    }
    // Handlers are written below these by the guest.
    let mut entries = vec![
        entry("elements", b"", Some(Access::Write)),
        entry("control", b"", Some(Access::Write)),
        entry("config_name", spec.service.as_str().as_bytes(), None),
    ];
    let chunks = text.as_bytes().chunks(CHUNK).enumerate();
    entries.extend(chunks.map(|(number, chunk)| entry(&format!("config/{number}"), chunk, None)));
    entries.push(entry("status", b"Running", Some(Access::Write)));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;
    use crate::driver::guest::testing;
    use crate::model::Guest;

    fn form(guest: Guest) -> Result<Form, FormError> {
        let spec = testing::spec(guest, 1.5);
        let image = ImageFile::at("/images/x".into());
        Form::of(DomainKind::Pv, "x-1", &spec, &image, &testing::attachment(false))
    }

    fn launch(launch: Launch, arguments: &[&str]) -> Form {
        let arguments = arguments.iter().map(ToString::to_string).collect();
        form(Guest { launch, arguments, ..Guest::default() }).unwrap()
    }

    #[test]
    fn what_is_told_on_the_command_line() {
        for (how, words) in [
            (Launch::Selvedge, "ip=10.0.0.9/24 gw=10.0.0.1 more"),
            (Launch::Mirage, "--ipv4=10.0.0.9/24 --ipv4-gateway=10.0.0.1 more"),
            (Launch::Linux, "ip=10.0.0.9::10.0.0.1:255.255.255.0::eth0:off more"),
        ] {
            let Form { domain, entries } = launch(how, &["more"]);
            assert_eq!((domain.cmdline.as_str(), entries), (words, Vec::new()));
            domain.validate().unwrap();
        }
    }

    #[test]
    fn a_share_of_processors_is_a_number_of_them_and_a_cap() {
        let domain = launch(Launch::Mirage, &[]).domain;
        assert_eq!((domain.vcpus, domain.max_vcpus, domain.scheduling.cap), (2, 2, 150));
        assert_eq!((domain.memory_mib, domain.max_memory_mib), (32, 32));
        let linux = launch(Launch::Linux, &[]).domain;
        assert_eq!((linux.max_vcpus, linux.max_memory_mib), (2, 64));
        assert_eq!((vcpus(0.05), cap(0.05), vcpus(1.0), cap(0.001)), (1, 5, 1, 1));
    }

    #[test]
    fn a_prepared_domain_knows_nothing_of_its_instance() {
        let attachment = testing::attachment(false);
        let image = ImageFile::at("/images/x".into());
        for (launch, cmdline, until, entry, told) in [
            (Launch::Selvedge, "await", Until::Asleep, ARGUMENTS, "ip=10.0.0.9/24 gw=10.0.0.1 more"),
            (
                Launch::Linux,
                "await more",
                Until::Booted,
                ARGUMENTS,
                "ip=10.0.0.9::10.0.0.1:255.255.255.0::eth0:off more mac=02:00:00:00:00:ab",
            ),
            (Launch::Rumprun, "", Until::Start, "rumprun/cfg", r#"{"net":"#),
        ] {
            let guest = Guest { launch, arguments: vec!["more".to_owned()], ..Guest::default() };
            let spec = testing::spec(guest, 1.0);
            let prepared = Prepared::of(DomainKind::Pvh, "x", &spec, &image).unwrap().unwrap();
            assert_eq!((prepared.domain.cmdline.as_str(), prepared.until), (cmdline, until));
            prepared.domain.validate().unwrap();
            let entries = Form::told(&spec, &image, &attachment).unwrap();
            assert_eq!(entries[0].path, entry);
            assert!(String::from_utf8_lossy(&entries[0].value).starts_with(told), "{entries:?}");
        }
        let spec = testing::spec(Guest { launch: Launch::Mirage, ..Guest::default() }, 1.0);
        assert_eq!(Prepared::of(DomainKind::Pvh, "x", &spec, &image).unwrap(), None);
    }

    #[test]
    fn rumprun_finds_json_in_the_store() {
        let Form { domain, entries } = launch(Launch::Rumprun, &["httpd", "-p", "a\"b"]);
        assert_eq!((domain.cmdline.as_str(), entries[0].path.as_str(), entries.len()), ("", "rumprun/cfg", 1));
        let config: serde_json::Value = serde_json::from_slice(&entries[0].value).unwrap();
        assert_eq!(config["net"]["interfaces"]["xenif0"]["create"], true);
        assert_eq!(config["net"]["interfaces"]["xenif0"]["addrs"][0]["addr"], "10.0.0.9/24");
        assert_eq!(config["net"]["gateways"][0]["addr"], "10.0.0.1");
        assert_eq!(config["rc"][0], serde_json::json!({"bin": "httpd", "args": ["-p", "a\"b"]}));
    }

    #[test]
    fn clickos_finds_its_configuration_in_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web.click");
        let click = Some(file.to_string_lossy().into_owned());
        let guest = Guest { launch: Launch::ClickOs, click, ..Guest::default() };
        assert!(form(guest.clone()).unwrap_err().to_string().contains("web.click"), "it is not there");

        std::fs::write(&file, format!("define($A {{ip}}, $M {{mac}});\n{}", "x".repeat(2 * CHUNK))).unwrap();
        let entries = form(guest.clone()).unwrap().entries;
        let path = |entry: &Entry| entry.path.strip_prefix("data/clickos/0/").unwrap().to_owned();
        let paths: Vec<String> = entries.iter().map(path).collect();
        assert_eq!(paths, ["elements", "control", "config_name", "config/0", "config/1", "config/2", "status"]);
        let text: Vec<u8> = entries[3..6].iter().flat_map(|entry| entry.value.clone()).collect();
        assert!(text.starts_with(b"define($A 10.0.0.9, $M 02:00:00:00:00:ab);\nxx"));
        assert_eq!((entries[6].value.as_slice(), entries[6].access), (b"Running".as_slice(), Some(Access::Write)));

        std::fs::write(&file, "define($A {ip6});").unwrap();
        assert!(form(guest).unwrap_err().to_string().contains("placeholder"), "the instance has no IPv6 address");
    }
}
