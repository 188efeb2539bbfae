//! A machine with another kernel, emulated: the daemon as its only program, one network card, the other end of the
//! wire in a namespace of the lab. Needs root, QEMU and what `tests/kernels/fetch.sh` makes.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use super::daemon::binary;
use super::error::{LabError, Result};
use super::netns::Namespace;
use super::process::{run, wait_for};

/// Longest wait for a machine to boot and its daemon to answer; a tenth of it is usual.
const BOOT: Duration = Duration::from_secs(300);
/// Longest wait for its last words.
const END: Duration = Duration::from_secs(60);
/// Address of the machine's card, which its neighbour knows without asking.
const MAC: &str = "52:54:00:99:00:01";

/// A kernel that machines boot, as `tests/kernels/fetch.sh` leaves it.
#[derive(Debug, Clone)]
pub struct Kernel {
    directory: PathBuf,
}

impl Kernel {
    /// The kernel of that version (`6.1`), if it has been fetched; else says that `test` is skipped.
    ///
    /// # Errors
    /// [`LabError`] where this program's own path is not known.
    pub fn find(version: &str, test: &str) -> Result<Option<Self>> {
        let own = std::env::current_exe().map_err(LabError::system("find", "this program"))?;
        let directories = own.ancestors().skip(1).map(|above| above.join("kernels").join(version));
        let found = directories.into_iter().find(|directory| directory.join("release").is_file());
        if found.is_none() {
            println!("SKIPPED (no kernel {version}; run tests/setup.sh kernels): {test}");
        }
        Ok(found.map(|directory| Self { directory }))
    }
}

/// Whether this QEMU has a network card of that name.
///
/// # Errors
/// [`LabError`] where there is no QEMU.
pub fn has_card(card: &str) -> Result<bool> {
    let cards = run(Command::new("qemu-system-x86_64").args(["-device", "help"]))?;
    Ok(cards.contains(&format!("name \"{card}\"")))
}

/// What the machine tells of itself once its daemon answers.
#[derive(Debug, Clone, Deserialize)]
pub struct Shown {
    /// Release of its kernel.
    pub release: String,
    /// Driver of its card.
    pub driver: String,
    /// `selvedge dataplane show --json`.
    pub dataplane: serde_json::Value,
}

/// What it tells at its end.
#[derive(Debug, Clone)]
pub struct Finished {
    /// `selvedge status --json`.
    pub status: serde_json::Value,
    /// What `selvedge capture --json` told of the first query.
    pub captured: serde_json::Value,
}

/// A running machine; ended on drop.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    directory: PathBuf,
}

impl Machine {
    /// Boots `kernel` with `card` (a device of QEMU's) on a new tap in `namespace`, and in it the daemon with this
    /// configuration and zone. The machine is 10.99.0.1 and fd00:99::1, the namespace .2 and ::2.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn boot(
        kernel: &Kernel,
        card: &str,
        namespace: &Namespace,
        directory: &Path,
        config: &str,
        zone: &str,
    ) -> Result<Self> {
        let write = |name: &str, text: &str| {
            let path = directory.join("t").join(name);
            fs::write(&path, text).map_err(LabError::system("write", path.display()))
        };
        fs::create_dir_all(directory.join("t")).map_err(LabError::system("make", directory.display()))?;
        write("selvedge.toml", config)?;
        write("zone", zone)?;
        pack(&kernel.directory.join("base"), directory)?;

        namespace.ip(&["tuntap", "add", "t0", "mode", "tap", "vnet_hdr"])?;
        namespace.ip(&["addr", "add", "10.99.0.2/24", "dev", "t0"])?;
        namespace.ip(&["addr", "add", "fd00:99::2/64", "dev", "t0", "nodad"])?;
        namespace.ip(&["link", "set", "t0", "up"])?;
        for address in ["10.99.0.1", "fd00:99::1"] {
            namespace.ip(&["neigh", "add", address, "lladdr", MAC, "dev", "t0", "nud", "permanent"])?;
        }
        for end in ["in", "out"] {
            run(Command::new("mkfifo").arg(directory.join(format!("control.{end}"))))?;
        }
        let log = File::create(directory.join("qemu.log")).map_err(LabError::system("make", "qemu.log"))?;
        let path = |name: &str| directory.join(name).display().to_string();
        let child = namespace
            .command("qemu-system-x86_64")?
            .args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "512"])
            .args(["-no-reboot", "-display", "none", "-nodefaults", "-monitor", "none"])
            .args(["-append", "console=ttyS0 quiet loglevel=3 panic=-1 net.ifnames=0"])
            .arg("-kernel")
            .arg(kernel.directory.join("vmlinux"))
            .args(["-initrd", &path("initrd")])
            .args(["-serial", &format!("file:{}", path("serial")), "-serial", &format!("pipe:{}", path("control"))])
            .args(["-netdev", "tap,id=n0,ifname=t0,script=no,downscript=no"])
            .args(["-device", &format!("{card},netdev=n0,mac={MAC}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(LabError::system("start", "qemu-system-x86_64"))?;
        Ok(Self { child, directory: directory.to_owned() })
    }

    /// Waits until the daemon in it answers.
    ///
    /// # Errors
    /// [`LabError`], also where what the machine says is not understood.
    pub fn wait_until_ready(&mut self) -> Result<Shown> {
        self.wait_for_line("READY", BOOT)?;
        let shown = self.line("SHOW ").unwrap_or_default();
        serde_json::from_str(&shown).map_err(|error| LabError::system("read", shown)(error.into()))
    }

    /// Lines of the daemon's log so far.
    #[must_use]
    pub fn log(&self) -> String {
        let lines = self.serial();
        lines.lines().filter_map(|line| line.strip_prefix("LOG ")).collect::<Vec<_>>().join("\n")
    }

    /// Asks for the daemon's status and the query that was captured, and ends the machine.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn finish(mut self) -> Result<Finished> {
        let control = self.directory.join("control.in");
        let opened = File::options().write(true).open(&control);
        let asked = opened.and_then(|mut pipe| pipe.write_all(b"status\n"));
        asked.map_err(LabError::system("write", control.display()))?;
        self.wait_for_line("DONE", END)?;
        let read = |start: &str| {
            let text = self.line(start).unwrap_or_default();
            serde_json::from_str(&text)
                .map_err(|error| LabError::system("read", format!("{start}{text}"))(error.into()))
        };
        Ok(Finished { status: read("STATUS ")?, captured: read("CAPTURED ")? })
    }

    fn wait_for_line(&mut self, line: &str, deadline: Duration) -> Result<()> {
        let serial = self.directory.join("serial");
        wait_for(&format!("the machine's {line}"), deadline, &serial, || {
            if self.serial().lines().any(|said| said == line) {
                return Ok(Some(()));
            }
            match self.child.try_wait().map_err(LabError::system("wait for", "qemu-system-x86_64"))? {
                None => Ok(None),
                Some(status) => {
                    let stderr = fs::read_to_string(self.directory.join("qemu.log")).unwrap_or_default();
                    Err(LabError::Program { program: "qemu-system-x86_64".to_owned(), status, stderr })
                }
            }
        })
    }

    fn serial(&self) -> String {
        let bytes = fs::read(self.directory.join("serial")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }

    fn line(&self, start: &str) -> Option<String> {
        self.serial().lines().find_map(|line| line.strip_prefix(start)).map(str::to_owned)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Over already or not, it is collected.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The initial file system: the kernel's part and behind it the binaries with the libraries that they are linked to.
fn pack(base: &Path, directory: &Path) -> Result<()> {
    let inside = directory.join("t");
    for (name, program) in [("daemon", "selvedged"), ("command", "selvedge")] {
        let from = binary(program)?;
        // Symbols are most of it, and all of it lies in the machine's memory.
        run(Command::new("strip").arg("-o").arg(inside.join(name)).arg(&from))?;
        for (library, path) in libraries(&run(Command::new("ldd").arg(&from))?) {
            fs::copy(&path, inside.join(library)).map_err(LabError::system("copy", path))?;
        }
    }
    let initrd = directory.join("initrd");
    fs::copy(base, &initrd).map_err(LabError::system("copy", base.display()))?;
    let line = "cd \"$1\" && find t | cpio -o -H newc -R 0:0 --quiet >>initrd";
    run(Command::new("sh").args(["-c", line, "sh"]).arg(directory)).map(drop)
}

/// Libraries in `ldd`'s words, by the name that is looked for; the one that loads the others is `loader`.
fn libraries(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim);
    let one = |line: &str| match line.split_once(" => ") {
        Some((name, rest)) => Some((name.to_owned(), rest.split(' ').next()?.to_owned())),
        None if line.starts_with('/') => Some(("loader".to_owned(), line.split(' ').next()?.to_owned())),
        None => None,
    };
    lines.filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_by_the_name_that_is_looked_for() {
        let text = "\tlinux-vdso.so.1 (0x00007)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007)\n\t/lib64/ld-linux-x86-64.so.2 (0x7)\n";
        let own = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let wanted = [own("libc.so.6", "/lib/x/libc.so.6"), own("loader", "/lib64/ld-linux-x86-64.so.2")];
        assert_eq!(libraries(text), wanted);
    }
}
