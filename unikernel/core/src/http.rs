//! A request's head, read as RFC 9112 says.

/// What is needed of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// GET, or HEAD (no content is sent then).
    pub head_only: bool,
    /// Path without query.
    pub path: &'a str,
    /// The connection stays open behind the answer.
    pub keep_alive: bool,
    /// Bytes of the request's own content, which are read and forgotten.
    pub content: u64,
    /// The `Range` header, where it counts.
    pub range: Option<&'a str>,
    /// The `If-Range` header.
    pub if_range: Option<&'a str>,
}

/// Why a request is refused: the status line to answer with. The connection ends behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not HTTP.
    BadRequest,
    /// Neither GET nor HEAD.
    MethodNotAllowed,
    /// Another major version than 1.
    VersionNotSupported,
    /// A request with chunked content.
    LengthRequired,
    /// The head is longer than [`MOST_HEAD`].
    HeadTooLarge,
}

/// Longest head in bytes.
pub const MOST_HEAD: usize = 8192;

impl Refusal {
    /// Status code and phrase.
    pub const fn status(self) -> &'static str {
        match self {
            Self::BadRequest => "400 Bad Request",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
            Self::LengthRequired => "411 Length Required",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
        }
    }
}

/// Reads a whole head, its empty line included.
pub fn parse(head: &[u8]) -> Result<Request<'_>, Refusal> {
    let text = core::str::from_utf8(head).map_err(|_| Refusal::BadRequest)?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::BadRequest);
    };
    let minor = match version.strip_prefix("HTTP/") {
        Some("1.1") => 1,
        Some("1.0") => 0,
        Some(_) => return Err(Refusal::VersionNotSupported),
        None => return Err(Refusal::BadRequest),
    };
    if method.is_empty() || !method.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(&b)) {
        return Err(Refusal::BadRequest);
    }
    let mut request = Request {
        head_only: method == "HEAD",
        path: path(target)?,
        keep_alive: minor == 1,
        content: 0,
        range: None,
        if_range: None,
    };
    let (mut hosts, mut length) = (0, None);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or(Refusal::BadRequest)?;
        // A blank before the colon, or a continued line, is how requests are smuggled (RFC 9112, 5.1 and 5.2).
        if name.is_empty() || name.contains([' ', '\t']) {
            return Err(Refusal::BadRequest);
        }
        let value = value.trim_matches([' ', '\t']);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("host") {
            hosts += 1;
        } else if is("connection") {
            for option in value.split(',').map(str::trim) {
                if option.eq_ignore_ascii_case("close") {
                    request.keep_alive = false;
                } else if option.eq_ignore_ascii_case("keep-alive") && minor == 0 {
                    request.keep_alive = true;
                }
            }
        } else if is("content-length") {
            let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
            let value = value.parse().ok().filter(|_| digits).ok_or(Refusal::BadRequest)?;
            if length.is_some_and(|other| other != value) {
                return Err(Refusal::BadRequest);
            }
            length = Some(value);
        } else if is("transfer-encoding") {
            return Err(Refusal::LengthRequired);
        } else if is("range") {
            request.range = Some(value);
        } else if is("if-range") {
            request.if_range = Some(value);
        }
    }
    if hosts > 1 || (hosts == 0 && minor == 1) {
        return Err(Refusal::BadRequest);
    }
    if !matches!(method, "GET" | "HEAD") {
        return Err(Refusal::MethodNotAllowed);
    }
    request.content = length.unwrap_or(0);
    Ok(request)
}

/// The path of a target in origin or absolute form, without its query.
fn path(target: &str) -> Result<&str, Refusal> {
    let path = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    if !path.starts_with('/') {
        return Err(Refusal::BadRequest);
    }
    Ok(path.split(['?', '#']).next().unwrap_or(path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn what_clients_send_is_read() {
        let request = parse(b"GET /a?b HTTP/1.1\r\nHost: x\r\nrange:  bytes=0-1\t\r\n\r\n").unwrap();
        assert_eq!((request.path, request.range, request.keep_alive), ("/a", Some("bytes=0-1"), true));
        let request = parse(b"HEAD http://x/a HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n").unwrap();
        assert_eq!((request.path, request.head_only, request.keep_alive), ("/a", true, false));
        assert!(!parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
        assert!(parse(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").unwrap().keep_alive);
        assert_eq!(parse(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\n").unwrap().content, 12);
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for (head, refusal) in [
            ("GET /\r\n\r\n", Refusal::BadRequest),
            ("GET / HTTP/1.1\r\n\r\n", Refusal::BadRequest),
            ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", Refusal::BadRequest),
            ("GET x HTTP/1.1\r\nHost: x\r\n\r\n", Refusal::BadRequest),
            ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", Refusal::BadRequest),
            ("GET / HTTP/1.1\r\nHost: x\r\n a\r\n\r\n", Refusal::BadRequest),
            ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n", Refusal::BadRequest),
            ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Refusal::BadRequest),
            ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::LengthRequired),
            ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", Refusal::MethodNotAllowed),
            ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", Refusal::VersionNotSupported),
            ("\u{16}\u{3}\u{1}", Refusal::BadRequest),
        ] {
            assert_eq!(parse(head.as_bytes()), Err(refusal), "{head}");
        }
        assert_eq!(parse(b"GET /\xff HTTP/1.1\r\n\r\n"), Err(Refusal::BadRequest));
    }
}
