//! What the command line says: `ip=10.0.0.2/24 gw=10.0.0.1 ip6=fd00::2/64 gw6=fd00::1 content=1000000 port=80`.
//! Words of another form are left alone: a monitor may add its own.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use smoltcp::wire::{Ipv4Cidr, Ipv6Cidr};

/// Address of the instance, and how to behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// IPv4 address with its prefix.
    pub v4: Option<Ipv4Cidr>,
    /// Default gateway, IPv4.
    pub gateway4: Option<Ipv4Addr>,
    /// IPv6 address with its prefix.
    pub v6: Option<Ipv6Cidr>,
    /// Default gateway, IPv6.
    pub gateway6: Option<Ipv6Addr>,
    /// Bytes of `/content`, where it is said.
    pub content: Option<u64>,
    /// TCP port.
    pub port: u16,
}

/// A word of ours whose value is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError<'a> {
    /// The word as it stands on the command line.
    pub word: &'a str,
    /// What is expected.
    pub expected: &'static str,
}

impl fmt::Display for SettingsError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} expected", self.word, self.expected)
    }
}

impl Settings {
    /// Reads a command line.
    ///
    /// # Errors
    /// [`SettingsError`] where a value has another form, or no address is given.
    pub fn parse(line: &str) -> Result<Self, SettingsError<'_>> {
        let mut settings = Self { v4: None, gateway4: None, v6: None, gateway6: None, content: None, port: 80 };
        for word in line.split_ascii_whitespace() {
            let Some((name, value)) = word.split_once('=') else { continue };
            match name.trim_start_matches('-') {
                "ip" => settings.v4 = Some(read(word, value, "an IPv4 address with its prefix")?),
                "gw" => settings.gateway4 = Some(read(word, value, "an IPv4 address")?),
                "ip6" => settings.v6 = Some(read(word, value, "an IPv6 address with its prefix")?),
                "gw6" => settings.gateway6 = Some(read(word, value, "an IPv6 address")?),
                "content" => settings.content = Some(read(word, value, "a number of bytes")?),
                "port" => settings.port = read(word, value, "a TCP port")?,
                _ => {}
            }
        }
        if settings.v4.is_none() && settings.v6.is_none() {
            return Err(SettingsError { word: line, expected: "ip=ADDRESS/PREFIX or ip6=ADDRESS/PREFIX" });
        }
        Ok(settings)
    }
}

fn read<'a, T: FromStr>(word: &'a str, value: &str, expected: &'static str) -> Result<T, SettingsError<'a>> {
    value.parse().map_err(|_| SettingsError { word, expected })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn ours_is_read_and_others_are_left() {
        let line = "ip=10.1.2.3/24 gw=10.1.2.1 ip6=fd00::3/64 content=5 virtio_mmio.device=512@0xfeb00e00:12";
        let settings = Settings::parse(line).unwrap();
        assert_eq!(settings.v4, Some(Ipv4Cidr::new(Ipv4Addr::new(10, 1, 2, 3), 24)));
        assert_eq!(settings.gateway4, Some(Ipv4Addr::new(10, 1, 2, 1)));
        assert_eq!(settings.v6.map(|v6| v6.prefix_len()), Some(64));
        assert_eq!((settings.gateway6, settings.content, settings.port), (None, Some(5), 80));
    }

    #[test]
    fn wrong_values_are_named() {
        for line in ["ip=10.1.2.3", "ip=10.1.2.3/33", "ip=10.1.2.3/24 gw=x", "ip=10.1.2.3/24 port=70000", ""] {
            let error = Settings::parse(line).unwrap_err();
            assert!(line.ends_with(error.word), "{error}");
        }
    }
}
