//! What is served: `/healthz`, `/`, `/content` of the size that the command line says or from the disk, `/content/N` of N
//! megabytes, `/work/N` of N bytes that take processor time.

/// Reads from the disk at an offset as much as is at hand; how many bytes, 0 where it cannot be read.
pub type ReadDisk<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> usize;

/// What `/content` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pages {
    /// Bytes.
    pub length: u64,
    /// They are the disk's, and not the pattern's.
    pub from_disk: bool,
}

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
    Disk,
    Work,
}

/// 1 MB, as the paper counts its contents.
const MEGABYTE: u64 = 1_000_000;
/// Largest `/content/N`.
const MOST_MEGABYTES: u64 = 1000;
/// Largest `/work/N`.
const MOST_WORK: u64 = 1000;
/// How often the pattern is gone through for a byte of work.
const ROUNDS: usize = 16;
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

    /// The page at `path`.
    pub fn find(path: &str, pages: Pages) -> Option<Self> {
        match path {
            "/healthz" => Some(Self::text(b"ok\n")),
            "/" => {
                Some(Self::text(b"Selvedge reference unikernel: /healthz, /content, /content/MEGABYTES, /work/BYTES\n"))
            }
            "/content" if pages.from_disk => Some(Self { length: pages.length, kind: Kind::Disk }),
            "/content" => Some(Self::pattern(pages.length)),
            _ => match path.strip_prefix("/work/") {
                Some(digits) => number(digits, MOST_WORK).map(|length| Self { length, kind: Kind::Work }),
                None => number(path.strip_prefix("/content/")?, MOST_MEGABYTES).map(|n| Self::pattern(n * MEGABYTE)),
            },
        }
    }

    /// MIME type.
    pub const fn media_type(&self) -> &'static str {
        match self.kind {
            Kind::Text(_) => "text/plain",
            Kind::Pattern | Kind::Disk | Kind::Work => "application/octet-stream",
        }
    }

    /// Copies what is at `offset` into `out`, as much as is at hand; how many bytes that were.
    pub fn copy(&self, offset: u64, out: &mut [u8], disk: ReadDisk<'_>) -> usize {
        let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let limit = out.len().min(left);
        let rest = match self.kind {
            Kind::Disk => return disk(offset, &mut out[..limit]).min(limit),
            Kind::Text(text) => text.get(offset as usize..).unwrap_or_default(),
            Kind::Pattern => PATTERN.get(offset as usize % PERIOD..).unwrap_or_default(),
            // One at a time, so that other connections go on meanwhile.
            Kind::Work => &[worked(offset)],
        };
        let count = limit.min(rest.len());
        out[..count].copy_from_slice(&rest[..count]);
        count
    }
}

/// The number that a path ends in, up to `most`. A sign is no part of a path of ours.
fn number(digits: &str, most: u64) -> Option<u64> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().filter(|number| *number <= most)
}

/// A byte that is worked for: of the pattern's hash, gone through again and again (FNV-1a).
fn worked(offset: u64) -> u8 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ offset;
    for _ in 0..ROUNDS {
        for byte in &PATTERN {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    (hash >> 56) as u8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    const PAGES: Pages = Pages { length: 7, from_disk: false };

    fn no_disk(_: u64, _: &mut [u8]) -> usize {
        0
    }

    #[test]
    fn pages_are_found() {
        assert_eq!(Content::find("/content/20", PAGES).unwrap().length, 20_000_000);
        assert_eq!(Content::find("/content", PAGES).unwrap().length, 7);
        assert_eq!(Content::find("/healthz", PAGES).unwrap().length, 3);
        for path in [
            "/content/",
            "/content/x",
            "/content/+1",
            "/content/1001",
            "/content/99999999999999999999",
            "/work/1001",
            "/work/-1",
            "/x",
            "",
        ] {
            assert_eq!(Content::find(path, PAGES), None, "{path}");
        }
    }

    #[test]
    fn any_part_is_what_it_is_in_the_whole() {
        let content = Content::pattern(100_000);
        let mut out = [0; 9000];
        for offset in [0, 1, 250, 251, 4266, 65_536, 99_999, 100_000, 200_000] {
            let count = content.copy(offset, &mut out, &mut no_disk);
            assert_eq!(count > 0, offset < 100_000);
            for (place, byte) in out[..count].iter().enumerate() {
                assert_eq!(u64::from(*byte), (offset + place as u64) % 251);
            }
        }
        assert_eq!(content.copy(0, &mut [], &mut no_disk), 0);
        assert_eq!(Content::text(b"ok\n").copy(1, &mut out, &mut no_disk), 2);
    }

    #[test]
    fn work_is_done_byte_by_byte_and_comes_to_the_same() {
        let work = Content::find("/work/3", PAGES).unwrap();
        let take = |offset| {
            let mut out = [0; 9];
            (work.copy(offset, &mut out, &mut no_disk), out[0])
        };
        assert_eq!((work.length, take(0).0, take(2).0, take(3).0), (3, 1, 1, 0));
        assert_eq!(take(1), take(1));
        assert_ne!((take(0).1, take(1).1), (take(1).1, take(2).1));
    }

    #[test]
    fn content_may_be_the_disks() {
        let content = Content::find("/content", Pages { length: 1000, from_disk: true }).unwrap();
        let mut asked = (0, 0);
        let mut disk = |offset, out: &mut [u8]| {
            asked = (offset, out.len());
            out.fill(9);
            out.len()
        };
        let mut out = [0; 100];
        assert_eq!(content.copy(950, &mut out, &mut disk), 50);
        assert_eq!((asked, out[49], out[50]), ((950, 50), 9, 0));
        assert_eq!(content.copy(950, &mut out, &mut no_disk), 0);
        let other = Content::find("/content/1", Pages { length: 1000, from_disk: true }).unwrap();
        assert_eq!(other.length, MEGABYTE, "what has a size of its own is the pattern's");
    }
}
