//! Whether an image could be started, seen from its file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What is wrong with an image that is there.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not a regular file.
    #[error("it is no file")]
    NoFile,
    /// The monitor starts ELF files only.
    #[error("it is no ELF file for 64 bits")]
    NotElf,
    /// Some segment lies behind the end of the file.
    #[error("it is cut off: {needed} bytes are needed, {length} are there")]
    Truncated {
        /// End of the last segment.
        needed: u64,
        /// Bytes that are there.
        length: u64,
    },
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
}

const HEADER: usize = 64;
const PROGRAM_HEADER: u64 = 56;

/// Checks the image at `path`. An ELF file must hold all of its segments.
pub(super) fn check(path: &Path, wants_elf: bool) -> Result<(), ImageError> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(ImageError::NoFile);
    }
    let length = metadata.len();
    let mut header = Vec::new();
    file.by_ref().take(HEADER as u64).read_to_end(&mut header)?;
    // Magic, and 2 for 64 bits.
    if !header.starts_with(b"\x7fELF\x02") {
        return if wants_elf { Err(ImageError::NotElf) } else { Ok(()) };
    }
    if header.len() < HEADER {
        return Err(ImageError::Truncated { needed: HEADER as u64, length });
    }
    let (table, count) = (word(&header, 32, 8), word(&header, 56, 2));
    let mut needed = table.saturating_add(count * PROGRAM_HEADER);
    for number in 0..count {
        let mut entry = [0; PROGRAM_HEADER as usize];
        match file.read_exact_at(&mut entry, table.saturating_add(number * PROGRAM_HEADER)) {
            Ok(()) => needed = needed.max(word(&entry, 8, 8).saturating_add(word(&entry, 32, 8))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
        }
    }
    if needed > length { Err(ImageError::Truncated { needed, length }) } else { Ok(()) }
}

/// A little-endian number of `size` bytes; bytes that are not there count as zero.
fn word(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes.iter().skip(at).take(size).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use super::*;

    #[test]
    fn a_whole_program_passes_and_its_halves_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, &bytes).unwrap();
        check(&path, true).unwrap();
        for part in [5, 63, 64, 100, 4096] {
            std::fs::write(&path, &bytes[..part]).unwrap();
            assert!(matches!(check(&path, false), Err(ImageError::Truncated { .. })), "{part}");
        }
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        check(&path, false).unwrap();
        assert!(matches!(check(&path, true), Err(ImageError::NotElf)));
        assert!(matches!(check(dir.path(), true), Err(ImageError::NoFile)));
    }
}
