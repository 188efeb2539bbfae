//! Checks of single values: from what the file holds to what the model takes.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::errors::{Complaint, nearest};
use super::reader::kind;

pub(super) type Checked<T> = Result<T, Complaint>;

/// A text that fits on a line.
pub(super) fn text(value: &DeValue<'_>) -> Checked<String> {
    let Some(text) = value.as_str() else {
        return Err(Complaint::new(format!("expects a text, has {}", kind(value)), "put it in double quotes"));
    };
    if text.contains(char::is_control) {
        return Err(Complaint::new("holds a control character", "write it without tabs, line breaks and the like"));
    }
    Ok(text.to_owned())
}

/// True or false.
pub(super) fn boolean(value: &DeValue<'_>) -> Checked<bool> {
    let what = || Complaint::new(format!("expects true or false, has {}", kind(value)), "write true or false");
    value.as_bool().ok_or_else(what)
}

/// One of a few words.
pub(super) fn word<T: Copy>(value: &DeValue<'_>, words: &[(&str, T)]) -> Checked<T> {
    let given = text(value)?;
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == given) {
        return Ok(*meaning);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let fix = match nearest(&given, &known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("use one of {}", known.join(", ")),
    };
    Err(Complaint::new(format!("{given:?} is not known"), fix))
}

/// A whole number in `min..=max`.
pub(super) fn whole(value: &DeValue<'_>, min: u64, max: u64) -> Checked<u64> {
    let range = || format!("use {min} to {max}");
    let Some(integer) = value.as_integer() else {
        return Err(Complaint::new(format!("expects a whole number, has {}", kind(value)), range()));
    };
    match u64::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        // Negative, or too large for any integer: not allowed either way.
        _ => Err(Complaint::new(format!("{integer} is not allowed"), range())),
    }
}

/// A whole number in `min..=max` that fits 32 bits.
pub(super) fn whole32(value: &DeValue<'_>, min: u32, max: u32) -> Checked<u32> {
    whole(value, min.into(), max.into()).map(|n| u32::try_from(n).unwrap_or(max))
}

/// A finite number in `min..=max`, whole or not.
pub(super) fn number(value: &DeValue<'_>, min: f64, max: f64) -> Checked<f64> {
    let written = match value {
        DeValue::Integer(i) if i.radix() == 10 => i.as_str(),
        DeValue::Float(f) => f.as_str(),
        other => {
            let what = format!("expects a decimal number, has {}", kind(other));
            return Err(Complaint::new(what, format!("use {min} to {max}")));
        }
    };
    match written.parse::<f64>() {
        Ok(number) if number.is_finite() && (min..=max).contains(&number) => Ok(number),
        _ => Err(Complaint::new(format!("{written} is not allowed"), format!("use {min} to {max}"))),
    }
}

/// A time such as `"30s"`: a whole number and one of the units `ms`, `s`, `m`, `h`.
pub(super) fn duration(value: &DeValue<'_>, min: Duration, max: Duration) -> Checked<Duration> {
    let range = || format!("use {} to {}, as in \"30s\"", show_duration(min), show_duration(max));
    let Some(given) = value.as_str() else {
        return Err(Complaint::new(format!("expects a time in quotes, has {}", kind(value)), range()));
    };
    match parse_duration(given) {
        Some(time) if (min..=max).contains(&time) => Ok(time),
        Some(_) => Err(Complaint::new(format!("{given:?} is not allowed"), range())),
        None => Err(Complaint::new(format!("{given:?} is not a time (whole number and ms, s, m or h)"), range())),
    }
}

/// Reads a whole number with the unit `ms`, `s`, `m` or `h`; `None` where it is not one or does not fit.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// Writes a time with the largest unit that keeps it whole: the reverse of [`parse_duration`].
#[must_use]
pub fn show_duration(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0 => "0s".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

/// A rate such as `"200mbit"`, in bits per second: a whole number and one of `kbit`, `mbit`, `gbit` (powers of 1000, as
/// `tc` has them).
pub(super) fn rate(value: &DeValue<'_>) -> Checked<u64> {
    const UNITS: [(&str, u64); 3] = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000)];
    let range = || "use 100kbit to 400gbit, as in \"200mbit\"".to_owned();
    let given = with_unit(value, &UNITS, "a rate in quotes", "a rate (whole number and kbit, mbit or gbit)", range)?;
    if (100_000..=400_000_000_000).contains(&given) {
        return Ok(given);
    }
    Err(Complaint::new(format!("{} is not allowed", value.as_str().unwrap_or_default()), range()))
}

/// A burst such as `"16KiB"`, in bytes: at least two full frames.
pub(super) fn burst(value: &DeValue<'_>) -> Checked<u32> {
    const UNITS: [(&str, u64); 3] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20)];
    let range = || "use 3028B to 64MiB, as in \"16KiB\"".to_owned();
    let given = with_unit(value, &UNITS, "a size in quotes", "a size (whole number and B, KiB or MiB)", range)?;
    match u32::try_from(given) {
        Ok(bytes) if (3028..=64 << 20).contains(&bytes) => Ok(bytes),
        _ => Err(Complaint::new(format!("{} is not allowed", value.as_str().unwrap_or_default()), range())),
    }
}

/// A whole number with one of `units`, multiplied out.
fn with_unit(
    value: &DeValue<'_>,
    units: &[(&str, u64)],
    expects: &str,
    what: &str,
    range: impl Fn() -> String,
) -> Checked<u64> {
    let Some(given) = value.as_str() else {
        return Err(Complaint::new(format!("expects {expects}, has {}", kind(value)), range()));
    };
    let digits = given.find(|c: char| !c.is_ascii_digit()).unwrap_or(given.len());
    let (number, unit) = given.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    let product = number.parse::<u64>().ok().zip(factor).map(|(number, factor)| number.saturating_mul(factor));
    product.ok_or_else(|| Complaint::new(format!("{given:?} is not {what}"), range()))
}

/// An address with the length of its prefix, as an interface has it.
pub(super) fn host_in_prefix(value: &DeValue<'_>) -> Checked<IpNet> {
    let net: IpNet = parsed(value, "an address with a prefix length", "10.99.0.1/24")?;
    let edge = match net {
        IpNet::V4(v4) => v4.prefix_len() < 31 && (v4.addr() == v4.network() || v4.addr() == v4.broadcast()),
        IpNet::V6(v6) => v6.prefix_len() < 127 && v6.addr() == v6.network(),
    };
    let address = net.addr();
    if edge || address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        let what = format!("{net} is no address of a host");
        return Err(Complaint::new(what, "write the interface's own address, as in \"10.99.0.1/24\""));
    }
    Ok(net)
}

/// A path from the root, without `..`.
pub(super) fn absolute_path(value: &DeValue<'_>) -> Checked<PathBuf> {
    let given = text(value)?;
    let path = PathBuf::from(&given);
    let upwards = path.components().any(|c| c == std::path::Component::ParentDir);
    if !path.is_absolute() || upwards {
        return Err(Complaint::new(
            format!("{given:?} is not an absolute path without \"..\""),
            "write the whole path, from /",
        ));
    }
    Ok(path)
}

/// A path that a Unix socket can have.
pub(super) fn socket_path(value: &DeValue<'_>) -> Checked<PathBuf> {
    const LONGEST: usize = 107;
    let path = absolute_path(value)?;
    let len = path.as_os_str().len();
    if len > LONGEST || path.file_name().is_none() {
        let what = format!("is no path for a socket ({len} bytes)");
        return Err(Complaint::new(what, format!("use the path of a file, at most {LONGEST} bytes")));
    }
    Ok(path)
}

/// What the standard library parses from a text.
pub(super) fn parsed<T: std::str::FromStr>(value: &DeValue<'_>, what: &str, example: &str) -> Checked<T> {
    let given = text(value)?;
    given.parse().map_err(|_| Complaint::new(format!("{given:?} is not {what}"), format!("write it as in {example:?}")))
}

/// `IP:PORT` with a port.
pub(super) fn socket_address(value: &DeValue<'_>) -> Checked<SocketAddr> {
    let address: SocketAddr = parsed(value, "an address with a port", "127.0.0.1:9553")?;
    if address.port() == 0 {
        return Err(Complaint::new("port 0 is not allowed", "use a port of 1 to 65535"));
    }
    Ok(address)
}

/// A prefix of either family, without bits behind it.
pub(super) fn prefix(value: &DeValue<'_>) -> Checked<IpNet> {
    let net: IpNet = parsed(value, "a prefix", "192.0.2.0/24")?;
    if net != net.trunc() {
        return Err(Complaint::new(format!("{net} has bits behind its prefix"), format!("write {}", net.trunc())));
    }
    Ok(net)
}

/// An address that a node can have and clients can send to.
pub(super) fn unicast(value: &DeValue<'_>) -> Checked<IpAddr> {
    let address: IpAddr = parsed(value, "an IP address", "192.0.2.1")?;
    let wrong = match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("the broadcast address"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4-mapped address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
        _ if address.is_unspecified() => Some("the unspecified address"),
        _ if address.is_multicast() => Some("a multicast address"),
        _ => None,
    };
    match wrong {
        Some(wrong) => Err(Complaint::new(format!("{address} is {wrong}"), "name a unicast address, without a zone")),
        None => Ok(address),
    }
}

/// A name that the kernel takes for a network interface.
pub(super) fn interface(value: &DeValue<'_>) -> Checked<String> {
    const LONGEST: usize = 15;
    let name = text(value)?;
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || !c.is_ascii();
    if name.is_empty() || name.len() > LONGEST || name == "." || name == ".." || name.contains(bad) {
        return Err(Complaint::new(
            format!("{name:?} is not an interface name"),
            format!("use 1 to {LONGEST} characters without spaces, '/', ':' and '%', as `ip link` shows them"),
        ));
    }
    Ok(name)
}

/// A user's name as the system takes it.
pub(super) fn user_name(value: &DeValue<'_>) -> Checked<String> {
    const LONGEST: usize = 32;
    let name = text(value)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > LONGEST || !name.chars().all(plain) {
        return Err(Complaint::new(
            format!("{name:?} is not a user's name"),
            "name a user of this system, as in \"nobody\"",
        ));
    }
    Ok(name)
}

/// An argument of a unikernel's application: one word of a command line.
pub(super) fn argument(value: &DeValue<'_>) -> Checked<String> {
    const LONGEST: usize = 1024;
    let word = text(value)?;
    if word.is_empty() || word.len() > LONGEST {
        return Err(Complaint::new("is empty or too long", format!("use 1 to {LONGEST} bytes for each argument")));
    }
    Ok(word)
}

/// An image: a name with tag or digest, or a file's absolute path.
pub(super) fn image(value: &DeValue<'_>) -> Checked<String> {
    const LONGEST: usize = 512;
    let image = text(value)?;
    if image.is_empty() || image.len() > LONGEST || image.contains(|c: char| c.is_whitespace() || !c.is_ascii()) {
        return Err(Complaint::new(
            format!("{image:?} is not an image name"),
            "name an image that the engine holds, as in \"nginx:1.28\"",
        ));
    }
    Ok(image)
}

/// The path of an HTTP request: nothing in it may end the request line.
pub(super) fn request_path(value: &DeValue<'_>) -> Checked<String> {
    const LONGEST: usize = 1024;
    let path = text(value)?;
    if !path.starts_with('/') || path.len() > LONGEST || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Complaint::new(
            format!("{path:?} is not the path of a request"),
            format!("begin with '/' and use at most {LONGEST} visible ASCII characters, as in \"/\" or \"/ready\""),
        ));
    }
    Ok(path)
}

/// A checked identifier of the model.
pub(super) fn identifier<T, E: Display>(value: &DeValue<'_>, new: impl FnOnce(String) -> Result<T, E>) -> Checked<T> {
    let given = text(value)?;
    let shown = format!("{given:?}");
    new(given).map_err(|e| Complaint::new(format!("{shown} is no name: {e}"), "choose a short name such as \"edge-1\""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use proptest::prelude::*;

    use super::*;

    fn value(text: &str) -> DeValue<'_> {
        DeValue::parse(text).unwrap().into_inner()
    }

    #[test]
    fn numbers_are_finite_and_in_range() {
        for bad in ["nan", "inf", "-inf", "-1", "1e999", "0", "\"5\"", "0x10"] {
            assert!(number(&value(bad), 0.5, 100.0).is_err(), "{bad}");
        }
        assert_eq!(number(&value("20"), 0.5, 100.0), Ok(20.0));
        assert_eq!(number(&value("1_0.5"), 0.5, 100.0), Ok(10.5));
        for bad in ["-1", "99999999999999999999999", "1.0", "0"] {
            assert!(whole(&value(bad), 1, 100).is_err(), "{bad}");
        }
        assert_eq!(whole(&value("0x10"), 1, 100), Ok(16));
    }

    #[test]
    fn times_need_a_unit() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)));
        }
        for bad in ["", "30", "s", "-1s", "1.5s", "1 s", "+1s", "1d", "99999999999999999999s", "9999999999999999999h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn times_survive_writing_and_reading(ms in 0u64..1 << 50) {
            let time = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(time)), Some(time));
        }
    }
}
