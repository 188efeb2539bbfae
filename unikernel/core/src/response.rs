//! An answer: its head, and which part of a content follows.

use alloc::format;
use alloc::vec::Vec;

use crate::content::{Content, Pages, ReadDisk};
use crate::http::{Refusal, Request};

/// An answer on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    head: Vec<u8>,
    /// Bytes of the head that have been written.
    written: usize,
    content: Content,
    /// The next byte of the content, and the one behind the last.
    next: u64,
    end: u64,
    broken: bool,
}

impl Response {
    /// The answer to a request.
    pub fn to(request: &Request<'_>, pages: Pages) -> Self {
        let Some(content) = Content::find(request.path, pages) else {
            return Self::plain("404 Not Found", b"not found\n", request.keep_alive, request.head_only);
        };
        let etag = format!("\"{}\"", content.length);
        let range = request.range.filter(|_| request.if_range.is_none_or(|tag| tag == etag));
        let connection = connection(request.keep_alive);
        let (kind, length) = (content.media_type(), content.length);
        let common = format!("Content-Type: {kind}\r\nETag: {etag}\r\nAccept-Ranges: bytes\r\n{connection}\r\n\r\n");
        let (head, next, end) = match Range::of(range, length) {
            Range::Whole => (format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{common}"), 0, length),
            Range::Part { first, end } => {
                let (count, last) = (end - first, end - 1);
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Length: {count}\r\n\
                     Content-Range: bytes {first}-{last}/{length}\r\n{common}"
                );
                (head, first, end)
            }
            Range::Outside => {
                let head = format!(
                    "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\
                     Content-Range: bytes */{length}\r\n{connection}\r\n\r\n"
                );
                (head, 0, 0)
            }
        };
        let end = if request.head_only { next } else { end };
        Self { head: head.into_bytes(), written: 0, content, next, end, broken: false }
    }

    /// The answer to what is no request that we take; the connection ends behind it.
    pub fn refuse(refusal: Refusal) -> Self {
        let mut response = Self::plain(refusal.status(), b"", false, false);
        if refusal == Refusal::MethodNotAllowed {
            let end = response.head.len().saturating_sub(2);
            response.head.splice(end.., *b"Allow: GET, HEAD\r\n\r\n");
        }
        response
    }

    fn plain(status: &str, text: &'static [u8], keep_alive: bool, head_only: bool) -> Self {
        let (length, connection) = (text.len(), connection(keep_alive));
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Type: text/plain\r\n{connection}\r\n\r\n"
        );
        let content = Content::text(text);
        let end = if head_only { 0 } else { content.length };
        Self { head: head.into_bytes(), written: 0, content, next: 0, end, broken: false }
    }

    /// Writes what comes next into `out`; how many bytes that were, 0 where all has been written.
    pub fn write(&mut self, out: &mut [u8], disk: ReadDisk<'_>) -> usize {
        let rest = self.head.get(self.written..).unwrap_or_default();
        if !rest.is_empty() {
            let count = rest.len().min(out.len());
            out[..count].copy_from_slice(&rest[..count]);
            self.written += count;
            return count;
        }
        let left = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
        let limit = out.len().min(left);
        let count = self.content.copy(self.next, &mut out[..limit], disk);
        self.broken = count == 0 && limit > 0;
        self.next += count as u64;
        count
    }

    /// The rest cannot be had.
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// All has been written.
    pub fn is_written(&self) -> bool {
        self.written == self.head.len() && self.next == self.end
    }
}

const fn connection(keep_alive: bool) -> &'static str {
    if keep_alive { "Connection: keep-alive" } else { "Connection: close" }
}

/// What a `Range` header asks for (RFC 9110, 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    /// Everything: none was asked for, or it is in a form that a server may ignore (several parts, other units).
    Whole,
    Part {
        first: u64,
        end: u64,
    },
    Outside,
}

impl Range {
    fn of(header: Option<&str>, length: u64) -> Self {
        let parts = header.and_then(|h| h.strip_prefix("bytes=")).and_then(|set| set.split_once('-'));
        let Some((first, last)) = parts else { return Self::Whole };
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
        match (first, last) {
            ("", last) => match number(last) {
                Some(0) => Self::Outside,
                Some(_) if length == 0 => Self::Outside,
                Some(count) => Self::Part { first: length.saturating_sub(count), end: length },
                None => Self::Whole,
            },
            (first, last) => match (number(first), number(last)) {
                (Some(first), _) if first >= length && (last.is_empty() || number(last).is_some()) => Self::Outside,
                (Some(first), None) if last.is_empty() => Self::Part { first, end: length },
                (Some(first), Some(last)) if last >= first => {
                    Self::Part { first, end: last.saturating_add(1).min(length) }
                }
                _ => Self::Whole,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (header, range) in [
            ("bytes=0-0", Range::Part { first: 0, end: 1 }),
            ("bytes=5-", Range::Part { first: 5, end: 10 }),
            ("bytes=5-99", Range::Part { first: 5, end: 10 }),
            ("bytes=-3", Range::Part { first: 7, end: 10 }),
            ("bytes=-30", Range::Part { first: 0, end: 10 }),
            ("bytes=10-", Range::Outside),
            ("bytes=10-11", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=3-2", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=a-4", Range::Whole),
            ("bytes=-", Range::Whole),
            ("lines=0-1", Range::Whole),
            ("bytes=0-18446744073709551615", Range::Part { first: 0, end: 10 }),
        ] {
            assert_eq!(Range::of(Some(header), 10), range, "{header}");
        }
        assert_eq!(Range::of(None, 10), Range::Whole);
    }

    fn text(response: &mut Response) -> alloc::string::String {
        let (mut all, mut out) = (Vec::new(), [0; 7]);
        loop {
            let count = response.write(&mut out, &mut |_, _| 0);
            if count == 0 {
                assert!(response.is_written());
                return alloc::string::String::from_utf8(all).unwrap();
            }
            all.extend_from_slice(&out[..count]);
        }
    }

    #[test]
    fn answers_are_what_was_asked_for() {
        let get = |head: &str| {
            text(&mut Response::to(
                &crate::http::parse(head.as_bytes()).unwrap(),
                Pages { length: 10, from_disk: false },
            ))
        };
        let whole = get("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n") && whole.ends_with("\r\n\r\nok\n"));
        let head = get("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(head, whole.strip_suffix("ok\n").unwrap());
        let part = get("GET /healthz HTTP/1.1\r\nHost: x\r\nRange: bytes=1-1\r\n\r\n");
        assert!(part.contains("206") && part.contains("Content-Range: bytes 1-1/3\r\n") && part.ends_with("\r\n\r\nk"));
        let stale = get("GET /healthz HTTP/1.1\r\nHost: x\r\nRange: bytes=1-1\r\nIf-Range: \"9\"\r\n\r\n");
        assert_eq!(stale, whole);
        let outside = get("GET /healthz HTTP/1.1\r\nHost: x\r\nRange: bytes=3-\r\n\r\n");
        assert!(outside.contains("416") && outside.contains("bytes */3\r\n") && outside.ends_with("\r\n\r\n"));
        assert!(get("GET /no HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 404 "));
        let refused = text(&mut Response::refuse(Refusal::MethodNotAllowed));
        assert!(refused.ends_with("Allow: GET, HEAD\r\n\r\n") && refused.matches("\r\n\r\n").count() == 1, "{refused}");
    }
}
