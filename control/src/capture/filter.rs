//! Which queries are captured, in words: `name=video.edge.example client=192.0.2.0/24 verdict=limited sample=1000`. All
//! of it is looked at in the kernel.

use std::net::IpAddr;

use ipnet::IpNet;
use xdp_balancer_common::Verdict;

use crate::datapath::capture::{MAX_ONE_IN, Rules};
use crate::dns::present;

/// Bytes of a DNS header, and of a question's type and class.
const HEADER: usize = 12;
const TYPE_CLASS: usize = 4;

/// The words, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In wire form.
    name: Option<Vec<u8>>,
    client: Option<(IpAddr, u8)>,
    verdicts: Vec<Verdict>,
    one_in: Option<u32>,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No such word.
    #[error("{0:?} is none of name=NAME, client=ADDRESS[/LENGTH], verdict=VERDICT[,VERDICT], sample=N")]
    Word(String),
    /// Twice.
    #[error("{0}= is there twice")]
    Twice(&'static str),
    /// No name.
    #[error("{0:?} is no domain name")]
    Name(String),
    /// No network.
    #[error("{0:?} is neither an address nor a network such as 192.0.2.0/24")]
    Client(String),
    /// No verdict.
    #[error("{0:?} is no verdict; there are {all}", all = labels())]
    Verdict(String),
    /// No number.
    #[error("sample={0}: a number of 1 to {MAX_ONE_IN} is wanted, which one query stands for")]
    Sample(String),
}

fn labels() -> String {
    Verdict::ALL.iter().map(|verdict| verdict.label()).collect::<Vec<_>>().join(", ")
}

impl Filter {
    /// Reads the words.
    ///
    /// # Errors
    /// [`FilterError`] for the first that is wrong.
    pub fn parse(words: &[String]) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for word in words.iter().flat_map(|word| word.split_whitespace()) {
            match word.split_once('=') {
                Some(("name", text)) => once("name", &mut filter.name, wire(text)?)?,
                Some(("client", text)) => once("client", &mut filter.client, client(text)?)?,
                Some(("verdict", _)) if !filter.verdicts.is_empty() => return Err(FilterError::Twice("verdict")),
                Some(("verdict", text)) => {
                    filter.verdicts = text.split(',').map(verdict).collect::<Result<_, _>>()?;
                }
                Some(("sample", text)) => {
                    let one_in = text.parse().ok().filter(|n| (1..=MAX_ONE_IN).contains(n));
                    once("sample", &mut filter.one_in, one_in.ok_or_else(|| FilterError::Sample(text.to_owned()))?)?;
                }
                _ => return Err(FilterError::Word(word.to_owned())),
            }
        }
        Ok(filter)
    }

    /// For the kernel.
    pub(super) fn rules(&self, rate: u32) -> Rules {
        Rules {
            one_in: self.one_in.unwrap_or(1),
            rate,
            client: self.client,
            name: self.name.clone(),
            verdicts: self.verdicts.clone(),
        }
    }
}

fn once<T>(key: &'static str, place: &mut Option<T>, value: T) -> Result<(), FilterError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(FilterError::Twice(key)),
    }
}

/// A name as a question has it.
fn wire(text: &str) -> Result<Vec<u8>, FilterError> {
    let wrong = || FilterError::Name(text.to_owned());
    let query = present::query(0, text, 1, false).map_err(|_| wrong())?;
    let end = query.len().saturating_sub(TYPE_CLASS);
    query.get(HEADER..end).filter(|wire| !text.is_empty() && !wire.is_empty()).map(<[u8]>::to_vec).ok_or_else(wrong)
}

fn client(text: &str) -> Result<(IpAddr, u8), FilterError> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let net = net.map_err(|_| FilterError::Client(text.to_owned()))?;
    Ok((net.network(), net.prefix_len()))
}

fn verdict(text: &str) -> Result<Verdict, FilterError> {
    let found = Verdict::ALL.iter().find(|verdict| verdict.label() == text);
    found.copied().ok_or_else(|| FilterError::Verdict(text.to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    fn parse(text: &str) -> Result<Filter, FilterError> {
        Filter::parse(&[text.to_owned()])
    }

    #[test]
    fn words_in_any_order_and_number() {
        let all = Rules { one_in: 1, rate: 9, client: None, name: None, verdicts: Vec::new() };
        assert_eq!(Filter::parse(&[]).unwrap().rules(9), all);
        let rules =
            parse("sample=1000 verdict=limited,denied name=Video.example client=192.0.2.7/24").unwrap().rules(9);
        let wanted = Rules {
            one_in: 1000,
            rate: 9,
            client: Some(("192.0.2.0".parse().unwrap(), 24)),
            name: Some(b"\x05Video\x07example\0".to_vec()),
            verdicts: vec![Verdict::Limited, Verdict::Denied],
        };
        assert_eq!(rules, wanted);
        assert_eq!(parse("client=2001:db8::1").unwrap().client, Some(("2001:db8::1".parse().unwrap(), 128)));
        assert_eq!(parse("name=.").unwrap().name, Some(vec![0]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wrong) in [
            ("video.example", "none of name=NAME"),
            ("name=a..b", "\"a..b\" is no domain name"),
            ("name=", "is no domain name"),
            ("client=192.0.2.0/33", "neither an address nor a network"),
            ("verdict=limited,odd", "\"odd\" is no verdict; there are answered, nodata"),
            ("sample=0", "a number of 1 to 1048576"),
            ("sample=x", "sample=x"),
            ("sample=1 sample=2", "sample= is there twice"),
            ("verdict=stale verdict=stale", "verdict= is there twice"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }
}
