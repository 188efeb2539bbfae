//! Entries → records: directives, and what an entry leaves out.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::lexer::{Entry, Lexer, Token};
use super::rdata::rdata;
use super::types::{GENERIC_EXAMPLE, by_number, number, type_text};
use super::words::period;
use super::{Fault, Place, SOA};
use crate::model::parse_domain;

/// All files of a zone together; keeps a wrong path from filling the memory.
const LARGEST: u64 = 256 << 20;
/// Files that include each other would never end.
const DEEPEST: usize = 10;
/// TTLs are numbers of 31 bits (RFC 2181, 8).
const LONGEST_TTL_S: u32 = i32::MAX as u32;

/// A record of the file. The owner is in wire form and lower case.
#[derive(Debug)]
pub(super) struct Loaded {
    pub place: Place,
    pub owner: Vec<u8>,
    pub ttl_s: u32,
    pub rtype: u16,
    pub rdata: Vec<u8>,
}

/// What holds from one entry to the next (RFC 1035, 5.1; RFC 2308, 4).
struct Standing {
    origin: Vec<u8>,
    owner: Option<Vec<u8>>,
    /// `$TTL`.
    default_ttl_s: Option<u32>,
    /// The last one that was written.
    last_ttl_s: Option<u32>,
}

/// An entry's fault: what, and what to do.
type Wrong = (String, String);

struct Loader<'f> {
    records: Vec<Loaded>,
    bytes_left: u64,
    depth: usize,
    faults: &'f mut Vec<Fault>,
}

/// Reads a zone's file and those that it includes: all records, in the order of the files.
pub(super) fn load(path: &Path, apex: &[u8], faults: &mut Vec<Fault>) -> Vec<Loaded> {
    let origin = apex.to_vec();
    let mut standing = Standing { origin, owner: None, default_ttl_s: None, last_ttl_s: None };
    let mut loader = Loader { records: Vec::new(), bytes_left: LARGEST, depth: 0, faults };
    let path: Arc<Path> = path.into();
    if let Err(wrong) = loader.file(&path, &mut standing) {
        loader.complain(Place { file: path, line: 1 }, wrong);
    }
    loader.records
}

impl Loader<'_> {
    fn complain(&mut self, place: Place, (what, fix): Wrong) {
        self.faults.push(Fault { place, what, fix });
    }

    fn file(&mut self, path: &Arc<Path>, standing: &mut Standing) -> Result<(), Wrong> {
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(self.bytes_left + 1).read_to_end(&mut bytes));
        if let Err(error) = read {
            let fix = "check that the path is right and that the daemon may read it".to_owned();
            return Err((format!("cannot be read: {error}"), fix));
        }
        let left = self.bytes_left.checked_sub(bytes.len() as u64);
        self.bytes_left = left.ok_or_else(|| {
            (format!("is larger than {} MiB", LARGEST >> 20), "check that this is a master file".to_owned())
        })?;
        let place = |line| Place { file: Arc::clone(path), line };
        for entry in Lexer::new(&bytes) {
            let (line, done) = match entry {
                Ok(entry) => (entry.line, self.entry(place(entry.line), &entry, standing)),
                Err(broken) => (broken.line, Err((broken.what.to_owned(), broken.fix.to_owned()))),
            };
            if let Err(wrong) = done {
                self.complain(place(line), wrong);
            }
        }
        Ok(())
    }

    fn entry(&mut self, place: Place, entry: &Entry, standing: &mut Standing) -> Result<(), Wrong> {
        match entry.tokens.split_first() {
            Some((first, rest)) if !entry.continued && !first.quoted && first.text.starts_with(b"$") => {
                self.directive(&place.file, first, rest, standing)
            }
            _ => {
                let record = record(place, entry, standing)?;
                self.records.push(record);
                Ok(())
            }
        }
    }

    fn directive(&mut self, path: &Path, first: &Token, rest: &[Token], standing: &mut Standing) -> Result<(), Wrong> {
        match rest {
            [name] if first.is("$ORIGIN") => standing.origin = origin(name, &standing.origin)?,
            [ttl] if first.is("$TTL") => standing.default_ttl_s = Some(time_to_live(ttl)?),
            [file] if first.is("$INCLUDE") => return self.include(path, file, standing.origin.clone(), standing),
            [file, name] if first.is("$INCLUDE") => {
                let origin = origin(name, &standing.origin)?;
                return self.include(path, file, origin, standing);
            }
            _ => {
                let fix = "use $ORIGIN NAME, $TTL SECONDS or $INCLUDE FILE [NAME]".to_owned();
                return Err((format!("{} is not understood", shown(first)), fix));
            }
        }
        Ok(())
    }

    /// Whatever the file sets, origin and owner are what they were behind it.
    fn include(&mut self, path: &Path, file: &Token, origin: Vec<u8>, standing: &mut Standing) -> Result<(), Wrong> {
        if self.depth == DEEPEST {
            let fix = "see whether a file includes itself".to_owned();
            return Err((format!("files are included {DEEPEST} deep"), fix));
        }
        let below = path.parent().unwrap_or(Path::new("")).join(file.shown());
        let mut inner = Standing {
            origin,
            owner: standing.owner.clone(),
            default_ttl_s: standing.default_ttl_s,
            last_ttl_s: standing.last_ttl_s,
        };
        self.depth += 1;
        let done = self.file(&below.as_path().into(), &mut inner);
        self.depth -= 1;
        standing.default_ttl_s = inner.default_ttl_s;
        standing.last_ttl_s = inner.last_ttl_s;
        done.map_err(|(what, fix)| (format!("{} {what}", below.display()), fix))
    }
}

fn shown(token: &Token) -> String {
    format!("{:?}", token.shown())
}

fn origin(token: &Token, before: &[u8]) -> Result<Vec<u8>, Wrong> {
    name(token, before).map(|name| name.to_ascii_lowercase())
}

fn name(token: &Token, origin: &[u8]) -> Result<Vec<u8>, Wrong> {
    if token.is("@") {
        return Ok(origin.to_vec());
    }
    parse_domain(&token.text, Some(origin)).map_err(|fault| {
        let fix = "correct the name; a dot inside a label is written \\.".to_owned();
        (format!("the name {} {fault}", shown(token)), fix)
    })
}

fn time_to_live(token: &Token) -> Result<u32, Wrong> {
    let fix = || format!("use seconds of at most {LONGEST_TTL_S}, or units as in 1h30m");
    let ttl_s = period(&token.text).filter(|ttl_s| *ttl_s <= LONGEST_TTL_S);
    ttl_s.ok_or_else(|| (format!("{} is no TTL", shown(token)), fix()))
}

/// `[OWNER] [TTL] [CLASS] TYPE DATA`, TTL and class in either order.
fn record(place: Place, entry: &Entry, standing: &mut Standing) -> Result<Loaded, Wrong> {
    let mut rest = entry.tokens.as_slice();
    if !entry.continued
        && let Some((first, after)) = rest.split_first()
    {
        standing.owner = Some(origin(first, &standing.origin)?);
        rest = after;
    }
    let Some(owner) = standing.owner.clone() else {
        let fix = "begin the line with a name, or with @ for the zone's own".to_owned();
        return Err(("the first record has no name".to_owned(), fix));
    };
    let (mut ttl, mut class) = (None, false);
    let rtype = loop {
        let Some((first, after)) = rest.split_first() else {
            return Err(("a record has no type".to_owned(), "write NAME TTL TYPE DATA".to_owned()));
        };
        rest = after;
        if ttl.is_none() && first.text.first().is_some_and(u8::is_ascii_digit) {
            ttl = Some(time_to_live(first)?);
        } else if !class && (first.is("IN") || first.is("CLASS1")) {
            class = true;
        } else if ["CH", "HS", "CS", "ANY"].iter().any(|class| first.is(class)) {
            let fix = "only class IN is served: remove the record".to_owned();
            return Err((format!("class {} is not served", shown(first)), fix));
        } else {
            break number(&first.text).ok_or_else(|| {
                let fix = "name a type as in A, TXT or TYPE65280; a record reads NAME TTL TYPE DATA".to_owned();
                (format!("{} is no type", shown(first)), fix)
            })?;
        }
    };
    if rtype == 0 || rtype == 41 || (128..=255).contains(&rtype) {
        let fix = "use a type of data".to_owned();
        return Err((format!("{} is no type of data", type_text(rtype)), fix));
    }
    let rdata = rdata(rtype, rest, &standing.origin).map_err(|what| {
        let example = by_number(rtype).map_or(GENERIC_EXAMPLE, |kind| kind.example);
        (format!("this is no data of type {}: {what}", type_text(rtype)), format!("write it as in {example}"))
    })?;
    standing.last_ttl_s = ttl.or(standing.last_ttl_s);
    let minimum = || rdata.last_chunk::<4>().filter(|_| rtype == SOA).map(|bytes| u32::from_be_bytes(*bytes));
    let ttl_s = ttl.or(standing.default_ttl_s).or(standing.last_ttl_s).or_else(minimum).ok_or_else(|| {
        let fix = "put $TTL 3600 before it, or a TTL behind its name".to_owned();
        ("there is no TTL yet".to_owned(), fix)
    })?;
    if rtype == SOA {
        // Without $TTL, records that follow have the last TTL there was, and be it this one.
        standing.last_ttl_s = standing.last_ttl_s.or(Some(ttl_s));
    }
    Ok(Loaded { place, owner, ttl_s, rtype, rdata })
}
