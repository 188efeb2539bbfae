//! What is offered, and the bounds of it.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// Most requests in one window.
const MAX_PER_WINDOW: u32 = 10_000;
/// Most windows in one pattern and in one run.
const MAX_WINDOWS: usize = 10_000;
/// Most requests in one run; each is kept in memory until the report is made.
const MAX_REQUESTS: u64 = 1_000_000;
/// Most requests under way at a time; each needs two sockets.
const MAX_CONCURRENCY: u32 = 20_000;

/// An option that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Not a pattern.
    #[error("{text:?}: a pattern is a list of REQUESTSxWINDOWS, like 100x8,20x2 or 50")]
    Pattern {
        /// What was given.
        text: String,
    },
    /// Not a length of time.
    #[error("{text:?}: a time is a number with ms, s, m or h, like 500ms or 3s")]
    Time {
        /// What was given.
        text: String,
    },
    /// Not a DNS server.
    #[error("{text:?}: a DNS server is an address with or without port, like 10.53.0.1 or [::1]:5353")]
    Server {
        /// What was given.
        text: String,
    },
    /// More than is sane.
    #[error("{what}: {given} is more than {most}, the most that this command offers")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// What was given.
        given: u64,
        /// The bound.
        most: u64,
    },
    /// Outside a range.
    #[error("{what}: must be {range}")]
    Range {
        /// Of what.
        what: &'static str,
        /// What is allowed.
        range: &'static str,
    },
}

impl OptionError {
    /// Short fixed name: metric label.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Pattern { .. } => "pattern",
            Self::Time { .. } => "time",
            Self::Server { .. } => "server",
            Self::TooMuch { .. } => "too_much",
            Self::Range { .. } => "range",
        }
    }
}

/// Requests per window, window by window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub Vec<u32>);

impl FromStr for Pattern {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let bad = || OptionError::Pattern { text: text.to_owned() };
        let mut windows = Vec::new();
        for part in text.split(',') {
            let (requests, times) = part.trim().split_once('x').unwrap_or((part.trim(), "1"));
            let requests: u32 = requests.parse().map_err(|_| bad())?;
            let times: usize = times.parse().map_err(|_| bad())?;
            at_most("requests per window", requests.into(), MAX_PER_WINDOW.into())?;
            at_most("windows in the pattern", (windows.len() + times) as u64, MAX_WINDOWS as u64)?;
            windows.extend(std::iter::repeat_n(requests, times));
        }
        if windows.is_empty() { Err(bad()) } else { Ok(Self(windows)) }
    }
}

/// A DNS server; port 53 where none is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsServer(pub SocketAddr);

impl FromStr for DnsServer {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let address = |_| text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
        text.parse()
            .or_else(address)
            .map(Self)
            .map_err(|_: std::net::AddrParseError| OptionError::Server { text: text.to_owned() })
    }
}

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// IPv4.
    #[default]
    A,
    /// IPv6.
    Aaaa,
    /// One request IPv4, the next IPv6: still one DNS query per request.
    Both,
}

/// Offers requests to a service by its name and measures what comes back.
#[derive(Debug, Clone, Args)]
#[command(
    long_about = "Offers requests to a service by its name and measures what comes back.\n\n\
        For each request the name is looked up (one DNS query over UDP, three tries, TCP where the \
        answer is truncated), the first address is taken, and the path is downloaded over a new \
        connection. Requests leave at fixed moments, spread evenly over each window, however slow the \
        servers are. Ends with a summary; the exit code is not 0 where a request failed.",
    after_help = "Examples:\n  \
        selvedge load --dns 10.53.0.1 --name video.edge.test --pattern 100x8,20x2 --window 3s --cycles 2 --json\n  \
        selvedge load --dns [fd53::1]:53 --name video.edge.test --type aaaa --pattern 5 --window 1s"
)]
pub struct LoadArgs {
    /// DNS server to ask; more than one are used in turn.
    #[arg(long = "dns", value_name = "ADDRESS[:PORT]", required = true, value_delimiter = ',')]
    pub servers: Vec<DnsServer>,
    /// The service's domain name.
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// TCP port of the service.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Path to download.
    #[arg(long, default_value = "/")]
    pub path: String,
    /// Requests per window: REQUESTSxWINDOWS, separated by commas. The default is the paper's cycle.
    #[arg(long, default_value = "100x8,20x2")]
    pub pattern: Pattern,
    /// Length of a window: a number with ms, s, m or h.
    #[arg(long, default_value = "30s", value_parser = parse_time)]
    pub window: Duration,
    /// How often the pattern is repeated.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub cycles: u32,
    /// Longest time for one request, lookup included.
    #[arg(long, default_value = "10s", value_parser = parse_time)]
    pub timeout: Duration,
    /// Most requests under way; what comes while there are as many counts as failed.
    #[arg(long, default_value_t = 1024, value_name = "REQUESTS")]
    pub concurrency: u32,
    /// Addresses to ask for.
    #[arg(long = "type", value_enum, default_value_t, ignore_case = true)]
    pub family: Family,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Print each event (window, request) as a line of JSON while it runs.
    #[arg(long)]
    pub events: bool,
}

/// A run, checked.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// DNS servers, used in turn; at least one.
    pub servers: Vec<SocketAddr>,
    /// The service's domain name; a final dot may be left out.
    pub name: String,
    /// TCP port of the service.
    pub port: u16,
    /// Path to download, from `/`.
    pub path: String,
    /// Requests per window.
    pub pattern: Vec<u32>,
    /// Length of a window.
    pub window: Duration,
    /// How often the pattern is repeated.
    pub cycles: u32,
    /// Longest time for one request, lookup included.
    pub timeout: Duration,
    /// Longest wait for one reply of DNS; there are three tries.
    pub dns_timeout: Duration,
    /// Most requests under way.
    pub concurrency: u32,
    /// Addresses to ask for.
    pub family: Family,
}

impl From<&LoadArgs> for LoadOptions {
    fn from(args: &LoadArgs) -> Self {
        Self {
            servers: args.servers.iter().map(|server| server.0).collect(),
            name: args.name.clone(),
            port: args.port,
            path: args.path.clone(),
            pattern: args.pattern.0.clone(),
            window: args.window,
            cycles: args.cycles,
            timeout: args.timeout,
            dns_timeout: Duration::from_secs(1),
            concurrency: args.concurrency,
            family: args.family,
        }
    }
}

impl LoadOptions {
    /// Holds the options against the bounds.
    ///
    /// # Errors
    /// The first [`OptionError`].
    pub fn check(&self) -> Result<(), OptionError> {
        let requests: u64 = self.pattern.iter().map(|n| u64::from(*n)).sum();
        for requests in &self.pattern {
            at_most("requests per window", (*requests).into(), MAX_PER_WINDOW.into())?;
        }
        at_most("windows", self.pattern.len() as u64 * u64::from(self.cycles), MAX_WINDOWS as u64)?;
        at_most("requests in all", requests * u64::from(self.cycles), MAX_REQUESTS)?;
        at_most("requests under way", self.concurrency.into(), MAX_CONCURRENCY.into())?;
        let within = |what, range, holds: bool| if holds { Ok(()) } else { Err(OptionError::Range { what, range }) };
        let hour = Duration::from_secs(3600);
        within("DNS servers", "one or more", !self.servers.is_empty())?;
        within("windows", "one or more", !self.pattern.is_empty() && self.cycles > 0)?;
        within("requests under way", "one or more", self.concurrency > 0)?;
        within("window", "100ms to 1h", self.window >= Duration::from_millis(100) && self.window <= hour)?;
        within("timeout", "1ms to 1h", !self.timeout.is_zero() && self.timeout <= hour)?;
        within("timeout of DNS", "1ms to 1h", !self.dns_timeout.is_zero() && self.dns_timeout <= hour)
    }
}

fn at_most(what: &'static str, given: u64, most: u64) -> Result<(), OptionError> {
    if given > most { Err(OptionError::TooMuch { what, given, most }) } else { Ok(()) }
}

/// A length of time: digits with `ms`, `s`, `m` or `h`.
fn parse_time(text: &str) -> Result<Duration, OptionError> {
    let bad = || OptionError::Time { text: text.to_owned() };
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(unit_at);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        load: LoadArgs,
    }

    #[test]
    fn patterns_are_read() {
        assert_eq!("100x2,20".parse(), Ok(Pattern(vec![100, 100, 20])));
        assert_eq!("0x1".parse(), Ok(Pattern(vec![0])));
        for text in ["", "x", "100x", "-1x2", "1x0", "1x2x3", "1,,2", "1.5"] {
            assert_eq!(text.parse::<Pattern>().unwrap_err().label(), "pattern", "{text}");
        }
        for text in ["10001x1", "1x10001", "1x9999,1x2"] {
            assert_eq!(text.parse::<Pattern>().unwrap_err().label(), "too_much", "{text}");
        }
    }

    #[test]
    fn times_and_servers_are_read() {
        assert_eq!(parse_time("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        for text in ["", "3", "s", "3 s", "-1s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        for (text, address) in
            [("10.53.0.1", "10.53.0.1:53"), ("127.0.0.1:5353", "127.0.0.1:5353"), ("::1", "[::1]:53")]
        {
            assert_eq!(text.parse::<DnsServer>().unwrap().0.to_string(), address);
        }
        assert!("dns.example".parse::<DnsServer>().is_err());
    }

    #[test]
    fn the_command_line_of_the_help_works() {
        let line = "load --dns 10.53.0.1 --name video.edge.test --pattern 100x8,20x2 --window 3s --cycles 2 --json";
        let options = LoadOptions::from(&Command::try_parse_from(line.split(' ')).unwrap().load);
        assert_eq!(options.check(), Ok(()));
        assert_eq!((options.pattern.len(), options.cycles, options.window), (10, 2, Duration::from_secs(3)));
        assert!(Command::try_parse_from(["load", "--name", "x"]).is_err());
        let absurd = "load --dns ::1 --name x --pattern 20000x1";
        let error = Command::try_parse_from(absurd.split(' ')).unwrap_err().to_string();
        assert!(error.contains("20000 is more than 10000"), "{error}");
    }

    #[test]
    fn runs_are_bounded() {
        let line = "load --dns ::1 --name x --pattern 10000x100 --cycles 2";
        let options = LoadOptions::from(&Command::try_parse_from(line.split(' ')).unwrap().load);
        assert_eq!(options.check().unwrap_err().label(), "too_much");
        let ok = LoadOptions { cycles: 1, ..options };
        assert_eq!(ok.check(), Ok(()));
        let label = |options: LoadOptions| options.check().unwrap_err().label();
        assert_eq!(label(LoadOptions { servers: vec![], ..ok.clone() }), "range");
        assert_eq!(label(LoadOptions { window: Duration::from_millis(1), ..ok.clone() }), "range");
        assert_eq!(label(LoadOptions { concurrency: 0, ..ok }), "range");
    }
}
