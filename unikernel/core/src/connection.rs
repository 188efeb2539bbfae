//! One connection as a state machine between bytes in and bytes out; it knows nothing of TCP.
//!
//! Bytes are taken in only while no answer is on its way out, so that a client that sends much and reads little
//! fills its own window and nothing of ours.

use alloc::vec::Vec;

use crate::content::{Pages, ReadDisk};
use crate::http::{self, MOST_HEAD, Refusal};
use crate::response::Response;

/// State of one connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// The head of the request in hand, as far as it has come.
    head: Vec<u8>,
    /// Bytes of a request's content that are still to be forgotten.
    skip: u64,
    answer: Option<Response>,
    /// The connection ends behind the answer in hand.
    last: bool,
    /// Nothing more will be asked or answered.
    done: bool,
}

impl Connection {
    /// Takes bytes in; how many of them. 0 while an answer is on its way out.
    pub fn take(&mut self, bytes: &[u8], pages: Pages) -> usize {
        if self.answer.is_some() || self.done {
            return 0;
        }
        if self.skip > 0 {
            let count = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            self.skip -= count as u64;
            return count;
        }
        for (at, byte) in bytes.iter().enumerate() {
            // Empty lines before a request are allowed (RFC 9112, 2.2).
            if self.head.is_empty() && matches!(byte, b'\r' | b'\n') {
                continue;
            }
            self.head.push(*byte);
            if *byte == b'\n' && self.head.ends_with(b"\r\n\r\n") {
                self.answer(pages);
                return at + 1;
            }
            if self.head.len() >= MOST_HEAD {
                self.refuse(Refusal::HeadTooLarge);
                return at + 1;
            }
        }
        bytes.len()
    }

    /// Writes what goes out next; how many bytes.
    pub fn write(&mut self, out: &mut [u8], disk: ReadDisk<'_>) -> usize {
        let Some(answer) = &mut self.answer else { return 0 };
        let mut count = 0;
        while count < out.len() {
            let written = answer.write(&mut out[count..], disk);
            if written == 0 {
                break;
            }
            count += written;
        }
        // Its end shows the client that something is missing.
        self.last |= answer.is_broken();
        if answer.is_written() || answer.is_broken() {
            self.answer = None;
            self.done = self.last;
        }
        count
    }

    /// The client will send nothing more: what it asked for is still answered.
    pub fn end_of_input(&mut self) {
        self.last = true;
        self.done = self.done || self.answer.is_none();
    }

    /// An answer is on its way out.
    pub fn is_answering(&self) -> bool {
        self.answer.is_some()
    }

    /// To be closed.
    pub fn is_done(&self) -> bool {
        self.done
    }

    fn answer(&mut self, pages: Pages) {
        match http::parse(&self.head) {
            Ok(request) => {
                self.last = !request.keep_alive;
                self.skip = request.content;
                self.answer = Some(Response::to(&request, pages));
            }
            Err(refusal) => self.refuse(refusal),
        }
        self.head.clear();
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.last = true;
        self.answer = Some(Response::refuse(refusal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: Pages = Pages { length: 1, from_disk: false };

    fn drain(connection: &mut Connection) -> alloc::string::String {
        let (mut all, mut out) = (Vec::new(), [0; 100]);
        loop {
            let count = connection.write(&mut out, &mut |_, _| 0);
            if count == 0 {
                return alloc::string::String::from_utf8_lossy(&all).into_owned();
            }
            all.extend_from_slice(&out[..count]);
        }
    }

    #[test]
    fn requests_in_one_go_are_answered_one_after_the_other() {
        let mut connection = Connection::default();
        let both: &[u8] =
            b"\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nxxHEAD / HTTP/1.0\r\n\r\nrest";
        let first = connection.take(both, PAGES);
        assert!(both[..first].ends_with(b"\r\n\r\n") && connection.is_answering());
        assert_eq!(connection.take(&both[first..], PAGES), 0, "nothing is taken while an answer goes out");
        assert!(drain(&mut connection).ends_with("ok\n"));
        let skipped = connection.take(&both[first..], PAGES);
        assert_eq!(skipped, 2);
        let second = connection.take(&both[first + skipped..], PAGES);
        assert_eq!(&both[first + skipped + second..], b"rest");
        assert!(drain(&mut connection).starts_with("HTTP/1.1 200 "));
        assert!(connection.is_done(), "HTTP/1.0 ends the connection");
        assert_eq!(connection.take(b"GET", PAGES), 0);
    }

    #[test]
    fn a_head_may_come_byte_by_byte_and_not_without_end() {
        let mut connection = Connection::default();
        for byte in b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" {
            assert!(!connection.is_answering());
            assert_eq!(connection.take(&[*byte], PAGES), 1);
        }
        assert!(drain(&mut connection).starts_with("HTTP/1.1 200 ") && !connection.is_done());
        let taken = connection.take(&[b'a'; 10_000], PAGES);
        assert_eq!(taken, MOST_HEAD);
        assert!(drain(&mut connection).starts_with("HTTP/1.1 431 ") && connection.is_done());
    }

    #[test]
    fn a_half_closed_connection_gets_its_answer() {
        let mut connection = Connection::default();
        connection.take(b"GET /content HTTP/1.1\r\nHost: x\r\n\r\n", Pages { length: 1000, from_disk: false });
        connection.end_of_input();
        assert!(!connection.is_done());
        let answer = drain(&mut connection);
        assert!(answer.len() > 1000 && connection.is_done());
        let mut idle = Connection::default();
        idle.end_of_input();
        assert!(idle.is_done());
    }

    #[test]
    fn a_disk_that_fails_ends_the_connection() {
        let mut connection = Connection::default();
        connection.take(b"GET /content HTTP/1.1\r\nHost: x\r\n\r\n", Pages { length: 5000, from_disk: true });
        let mut out = [0; 4096];
        let mut reads = 0;
        let mut disk = |_: u64, out: &mut [u8]| {
            reads += 1;
            if reads < 3 { out.len().min(512) } else { 0 }
        };
        let count = connection.write(&mut out, &mut disk);
        assert!(count > 1024 && count < 2048 && connection.is_done(), "{count}");
    }
}
