//! What is served: `/healthz`, `/`, `/content` of the size that the command line says or from the disk, `/content/N` of N
//! megabytes.

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

    /// The page at `path`.
    pub fn find(path: &str, pages: Pages) -> Option<Self> {
        match path {
            "/healthz" => Some(Self::text(b"ok\n")),
            "/" => Some(Self::text(b"Selvedge reference unikernel: /healthz, /content, /content/MEGABYTES\n")),
            "/content" if pages.from_disk => Some(Self { length: pages.length, kind: Kind::Disk }),
            "/content" => Some(Self::pattern(pages.length)),
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
            Kind::Pattern | Kind::Disk => "application/octet-stream",
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
        };
        let count = limit.min(rest.len());
        out[..count].copy_from_slice(&rest[..count]);
        count
    }
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
        for path in
            ["/content/", "/content/x", "/content/+1", "/content/1001", "/content/99999999999999999999", "/x", ""]
        {
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
