//! From an instance to the command line of its monitor.

use std::path::Path;

use super::vmm::Vmm;
use crate::driver::guest::{ImageFile, values, words_of};
use crate::driver::{Attachment, InstanceSpec};
use crate::model::Launch;

/// What a monitor is started with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Arguments, without the program.
    pub arguments: Vec<String>,
    /// Content of its configuration file, where it has one.
    pub config: Option<String>,
}

/// The command line for `spec`. `config` is where its configuration file will be.
pub(super) fn line(
    vmm: &Vmm,
    accelerator: &str,
    spec: &InstanceSpec,
    image: &ImageFile,
    attachment: &Attachment,
    config: &Path,
) -> Line {
    let mut values = values(spec, attachment);
    values.set("image", image.path.display());
    values.set("accel", accelerator);
    let mut guest = words_of(spec.guest.launch, image.arguments.as_deref(), &values);
    if spec.guest.launch != Launch::Rumprun {
        guest.extend(spec.guest.arguments.iter().cloned());
    } else if vmm.doubles_commas {
        guest = guest.into_iter().map(|word| word.replace(',', ",,")).collect();
    }
    let joined = guest.join(" ");
    values.set("guest_json", serde_json::Value::from(joined.as_str()));
    values.set("drives_json", drives(spec));
    if vmm.config.is_some() {
        values.set("config", config.display());
    }
    let config = vmm.config.and_then(|text| values.fill(text));
    let arguments = if vmm.splits_guest {
        let mut arguments = values.expand(vmm.command);
        arguments.extend(guest);
        arguments
    } else {
        values.set("guest", joined);
        values.expand(vmm.command)
    };
    Line { arguments, config }
}

/// Firecracker's list of block devices.
fn drives(spec: &InstanceSpec) -> serde_json::Value {
    let drive = |path: &String| serde_json::json!({"drive_id": "disk", "path_on_host": path, "is_root_device": false, "is_read_only": true});
    spec.guest.disk.iter().map(drive).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::super::vmm;
    use super::*;
    use crate::driver::guest::testing;
    use crate::model::{Guest, Technology};

    fn expand(technology: Technology, launch: Launch, arguments: &[&str], disk: Option<&str>, v6: bool) -> Line {
        expand_own(technology, launch, arguments, disk, v6, None)
    }

    fn expand_own(
        technology: Technology,
        launch: Launch,
        arguments: &[&str],
        disk: Option<&str>,
        v6: bool,
        own: Option<&str>,
    ) -> Line {
        let guest = Guest {
            launch,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            disk: disk.map(ToOwned::to_owned),
            ..Guest::default()
        };
        let (spec, attachment) = (testing::spec(guest, 1.0), testing::attachment(v6));
        let image = ImageFile { arguments: own.map(ToOwned::to_owned), ..ImageFile::at(spec.image.clone().into()) };
        line(vmm::of(technology).unwrap(), "tcg", &spec, &image, &attachment, Path::new("/run/x/vmm.json"))
    }

    #[test]
    fn an_image_that_says_how_it_is_told_its_address_is_told_so() {
        let own = Some("--addr {ip}/{prefix} via={gw} --six={ip6} -q");
        let line = expand_own(Technology::Spt, Launch::Selvedge, &["more"], None, false, own);
        let guest: Vec<_> = line.arguments.iter().skip_while(|word| *word != "/images/x").skip(1).collect();
        assert_eq!(guest, ["--addr", "10.0.0.9/24", "via=10.0.0.1", "-q", "more"]);
    }

    #[test]
    fn solo5_takes_the_guests_words_as_its_own() {
        let line = expand(Technology::Spt, Launch::Selvedge, &["content=5"], None, true);
        let words = "--mem=32 --net-mac:service=02:00:00:00:00:ab -- /images/x ip=10.0.0.9/24 gw=10.0.0.1 \
                     ip6=fd00::9/64 gw6=fd00::1 content=5";
        assert_eq!(line.arguments.join(" "), words);
        let mirage = expand(Technology::Hvt, Launch::Mirage, &["--hello=a b"], Some("/d"), false);
        let words = ["--ipv4=10.0.0.9/24", "--ipv4-gateway=10.0.0.1", "--hello=a b"];
        assert_eq!(mirage.arguments[mirage.arguments.len() - 3..], words);
        assert!(mirage.arguments.contains(&"--block:storage=/d".to_owned()));
    }

    #[test]
    fn the_emulator_takes_them_as_one_word() {
        for (launch, arguments, said) in [
            (Launch::Selvedge, &[][..], "ip=10.0.0.9/24 gw=10.0.0.1"),
            (Launch::Mirage, &[], "--ipv4=10.0.0.9/24 --ipv4-gateway=10.0.0.1"),
            (Launch::Unikraft, &["-v"], "netdev.ip=10.0.0.9/24:10.0.0.1 -- -v"),
            (Launch::Osv, &["/httpd"], "--ip=eth0,10.0.0.9,255.255.255.0 --defaultgw=10.0.0.1 /httpd"),
            (Launch::Nanos, &[], "en1.ipaddr=10.0.0.9 en1.netmask=255.255.255.0 en1.gateway=10.0.0.1"),
            (
                Launch::Rumprun,
                &["httpd", "-p"],
                r#"{"net":{"if":"vioif0",,"type":"inet",,"method":"static",,"addr":"10.0.0.9",,"mask":"24",,"gw":"10.0.0.1"},,"cmdline":"httpd -p"}"#,
            ),
        ] {
            for technology in [Technology::QemuMicrovm, Technology::QemuPc] {
                let line = expand(technology, launch, arguments, None, false);
                let at = line.arguments.iter().position(|word| word == "-append").unwrap();
                assert_eq!(line.arguments[at + 1], said, "{launch:?}");
                assert!(!line.arguments.iter().any(|word| word.contains("drive") || word.contains("{disk}")));
            }
        }
        let line = expand(Technology::QemuMicrovm, Launch::Osv, &[], Some("/d.img"), false);
        assert!(line.arguments.contains(&"id=disk,file=/d.img,format=raw,if=none,snapshot=on".to_owned()));
        assert_eq!(line.config, None);
    }

    #[test]
    fn firecracker_reads_a_file() {
        let line = expand(Technology::Firecracker, Launch::Nanos, &["a\"b"], Some("/d.img"), false);
        assert_eq!(line.arguments, ["--no-api", "--config-file", "/run/x/vmm.json"]);
        let config: serde_json::Value = serde_json::from_str(&line.config.unwrap()).unwrap();
        assert_eq!(config["network-interfaces"][0]["host_dev_name"], "sv00000001");
        assert!(config["boot-source"]["boot_args"].as_str().unwrap().ends_with("en1.gateway=10.0.0.1 a\"b"));
        assert_eq!(config["drives"][0]["path_on_host"], "/d.img");
        assert_eq!(config["machine-config"]["mem_size_mib"], 32);
    }
}
