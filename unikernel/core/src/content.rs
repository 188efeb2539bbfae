//! What is served: `/healthz`, `/`, `/content` of the size that the command line says, `/content/N` of N megabytes.

/// One page's content: how long it is, and what is at each place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Bytes.
    pub length: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text(&'static [u8]),
    Pattern,
}

/// 1 MB, as the paper counts its contents.
const MEGABYTE: u64 = 1_000_000;
/// Largest `/content/N`.
const MOST_MEGABYTES: u64 = 1000;
/// The pattern's period: a prime, so that a part that stands at a wrong place is seen whatever its size.
const PERIOD: usize = 251;
/// The pattern laid out, so that it is copied by the kilobyte.
static PATTERN: [u8; PERIOD * 17] = {
    let mut bytes = [0; PERIOD * 17];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = (at % PERIOD) as u8;
        at += 1;
    }
    bytes
};

impl Content {
    /// Text that does not change.
    pub const fn text(text: &'static [u8]) -> Self {
        Self { length: text.len() as u64, kind: Kind::Text(text) }
    }

    /// Bytes 0, 1, … 250, 0, 1 and so on.
    pub const fn pattern(length: u64) -> Self {
        Self { length, kind: Kind::Pattern }
    }

    /// The page at `path`; `default` is the length of `/content`.
    pub fn find(path: &str, default: u64) -> Option<Self> {
        match path {
            "/healthz" => Some(Self::text(b"ok\n")),
            "/" => Some(Self::text(b"Selvedge reference unikernel: /healthz, /content, /content/MEGABYTES\n")),
            "/content" => Some(Self::pattern(default)),
            _ => {
                let digits = path.strip_prefix("/content/")?;
                // A sign is no part of a path of ours.
                if !digits.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                let megabytes: u64 = digits.parse().ok()?;
                (megabytes <= MOST_MEGABYTES).then(|| Self::pattern(megabytes * MEGABYTE))
            }
        }
    }

    /// MIME type.
    pub const fn media_type(&self) -> &'static str {
        match self.kind {
            Kind::Text(_) => "text/plain",
            Kind::Pattern => "application/octet-stream",
        }
    }

    /// Copies what is at `offset` into `out`, as much as is at hand; how many bytes that were.
    pub fn copy(&self, offset: u64, out: &mut [u8]) -> usize {
        let rest = match self.kind {
            Kind::Text(text) => text.get(offset as usize..).unwrap_or_default(),
            Kind::Pattern => PATTERN.get(offset as usize % PERIOD..).unwrap_or_default(),
        };
        let left = self.length.saturating_sub(offset);
        let count = out.len().min(rest.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
        out[..count].copy_from_slice(&rest[..count]);
        count
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn pages_are_found() {
        assert_eq!(Content::find("/content/20", 7).unwrap().length, 20_000_000);
        assert_eq!(Content::find("/content", 7).unwrap().length, 7);
        assert_eq!(Content::find("/healthz", 7).unwrap().length, 3);
        for path in
            ["/content/", "/content/x", "/content/+1", "/content/1001", "/content/99999999999999999999", "/x", ""]
        {
            assert_eq!(Content::find(path, 7), None, "{path}");
        }
    }

    #[test]
    fn any_part_is_what_it_is_in_the_whole() {
        let content = Content::pattern(100_000);
        let mut out = [0; 9000];
        for offset in [0, 1, 250, 251, 4266, 65_536, 99_999, 100_000, 200_000] {
            let count = content.copy(offset, &mut out);
            assert_eq!(count > 0, offset < 100_000);
            for (place, byte) in out[..count].iter().enumerate() {
                assert_eq!(u64::from(*byte), (offset + place as u64) % 251);
            }
        }
        assert_eq!(content.copy(0, &mut []), 0);
        assert_eq!(Content::text(b"ok\n").copy(1, &mut out), 2);
    }
}
