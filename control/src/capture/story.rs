//! A captured query in words.

use std::fmt::{self, Write as _};
use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use xdp_balancer_common::Action;

use super::instances::{Instances, Named};
use super::pcapng::{Direction, Packet, Writer};
use crate::datapath::capture::{Capture, Captured};
use crate::dns::present;
use crate::explain::Datagram;

/// What is told of a query.
#[derive(Debug, Clone, Serialize)]
pub struct Story {
    /// When it was met, nanoseconds since 1970.
    pub at_ns: u64,
    /// How long the program took, capturing included.
    pub took_ns: Option<u64>,
    /// Who asked; absent where that cannot be read.
    pub client: Option<SocketAddr>,
    /// Whom.
    pub server: Option<SocketAddr>,
    /// For what: `NAME CLASS TYPE`.
    pub question: Option<String>,
    /// Why it was treated so.
    pub verdict: &'static str,
    /// `answered`, `passed` or `dropped`.
    pub action: &'static str,
    /// Records that were answered, one line each.
    pub answers: Vec<String>,
    /// The instance that has an address among them, if the daemon knows one.
    pub instance: Option<Named>,
    /// The interface.
    pub interface: String,
    /// The frames.
    #[serde(skip)]
    captured: Captured,
    #[serde(skip)]
    addresses: Vec<IpAddr>,
}

impl Story {
    /// Reads it.
    pub fn of(captured: Captured, instances: &mut Instances) -> Self {
        let query = Datagram::find(&captured.query.bytes);
        let question = query.as_ref().and_then(|datagram| present::decode(datagram.payload).ok());
        let answer = captured.answer.as_ref().and_then(|frame| Datagram::find(&frame.bytes));
        let answers = answer.and_then(|datagram| present::decode(datagram.payload).ok()).map(|decoded| decoded.answers);
        let answers = answers.unwrap_or_default();
        // Data stand last; what is no address is another type's.
        let addresses: Vec<IpAddr> =
            answers.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<IpAddr>().ok()).collect();
        Self {
            at_ns: captured.query.at,
            took_ns: captured.answer.as_ref().map(|answer| answer.at.saturating_sub(captured.query.at)),
            client: query.as_ref().map(|datagram| datagram.from),
            server: query.as_ref().map(|datagram| datagram.to),
            question: question.and_then(|decoded| decoded.questions.into_iter().next()),
            verdict: captured.verdict.label(),
            action: match captured.verdict.action() {
                Action::Answer => "answered",
                Action::Pass => "passed",
                Action::Drop => "dropped",
            },
            answers,
            instance: instances.of(&addresses),
            interface: Capture::interface_name(captured.interface),
            captured,
            addresses,
        }
    }

    /// Writes query and answer as packets, both with what is known of them.
    pub fn write<W: io::Write>(&self, writer: &mut Writer<W>) -> io::Result<()> {
        let comment = self.comment();
        let Captured { interface, query, answer, .. } = &self.captured;
        let frames = [(Some(query), Direction::In), (answer.as_ref(), Direction::Out)];
        for (frame, direction) in frames.into_iter().filter_map(|(frame, direction)| Some((frame?, direction))) {
            let packet = Packet {
                interface: *interface,
                at: frame.at,
                bytes: &frame.bytes,
                len: frame.len,
                direction,
                comment: &comment,
            };
            writer.packet(&packet, |_| self.interface.clone())?;
        }
        Ok(())
    }

    /// Words that a display filter can look for.
    fn comment(&self) -> String {
        let mut comment = format!("verdict={} action={}", self.verdict, self.action);
        // Writing into a String does not fail.
        if let Some(Named { service, id }) = &self.instance {
            let _ = write!(comment, " service={service} instance={id}");
        }
        for address in &self.addresses {
            let _ = write!(comment, " address={address}");
        }
        comment
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (second, rest) = (self.at_ns / 1_000_000_000, self.at_ns % 1_000_000_000 / 1000);
        let (hour, minute) = (second / 3600 % 24, second / 60 % 60);
        write!(f, "{hour:02}:{minute:02}:{:02}.{rest:06}Z {} ", second % 60, self.interface)?;
        match self.client {
            Some(client) => write!(f, "{client} ")?,
            None => f.write_str("? ")?,
        }
        write!(f, "{} {}", self.question.as_deref().unwrap_or("?"), self.verdict)?;
        if self.action != self.verdict {
            write!(f, " ({})", self.action)?;
        }
        for address in &self.addresses {
            write!(f, " {address}")?;
        }
        match &self.instance {
            Some(Named { service, id }) => write!(f, " {service}/{id}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use std::path::Path;

    use xdp_balancer_common::Verdict;

    use super::*;
    use crate::datapath::capture::Frame;
    use crate::datapath::explain::frame;

    #[test]
    fn of_a_query_that_is_not_answered_and_of_one_that_is_none() {
        let query = present::query(7, "www.example", 28, false).unwrap();
        let (client, server) = ("192.0.2.1:4000".parse().unwrap(), "192.0.2.53:53".parse().unwrap());
        let bytes = frame(client, server, &query).unwrap();
        let of = |bytes: Vec<u8>, verdict| {
            let query = Frame { at: 3_723_000_004_000, len: bytes.len() as u32, bytes };
            let captured = Captured { verdict, interface: 0, query, answer: None };
            Story::of(captured, &mut Instances::new(Path::new("/nonexistent")))
        };
        let story = of(bytes, Verdict::UnknownName);
        assert_eq!(story.to_string(), "01:02:03.000004Z if0 192.0.2.1:4000 www.example. IN AAAA unknown_name (passed)");
        assert_eq!(story.comment(), "verdict=unknown_name action=passed");
        let story = of(vec![0; 60], Verdict::ShortFrame);
        assert_eq!(story.to_string(), "01:02:03.000004Z if0 ? ? short_frame (passed)");
    }
}
