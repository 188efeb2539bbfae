//! The table of `xl list -v`, which has in one what no other form of it has together: number, UUID, state, reason of the
//! end, memory and processor time (`tools/xl/xl_list.c`). Its columns are fixed; a name may hold blanks, so it is read
//! from the right.

use std::time::Duration;

use crate::domain::{DomainId, DomainState, End};
use crate::identity::Uuid;

/// One domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name as the store has it; `(null)` of one that is not or no longer there.
    pub name: String,
    /// Its number.
    pub id: DomainId,
    /// Its UUID.
    pub uuid: Uuid,
    /// Memory that it has now, in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs that are on.
    pub vcpus: u32,
    /// What it is doing.
    pub state: DomainState,
    /// Why it has ended, if it has.
    pub end: Option<End>,
    /// Processor time of all its CPUs since it was made, in steps of 0.1 s.
    pub cpu: Duration,
}

/// A line that is none of the table's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of xl's list has no {column}: {text:?}")]
pub struct TableError {
    /// Which, from 1.
    pub line: usize,
    /// What is missing in it.
    pub column: &'static str,
    /// The line.
    pub text: String,
}

/// All rows of the table.
pub(super) fn rows(text: &str) -> Result<Vec<Row>, TableError> {
    // The first line is the heading.
    let lines = text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim_ascii().is_empty());
    lines
        .map(|(at, line)| row(line).map_err(|column| TableError { line: at + 1, column, text: line.to_owned() }))
        .collect()
}

/// One row, or the column that cannot be read.
fn row(line: &str) -> Result<Row, &'static str> {
    let (line, _label) = last(line).ok_or("security label")?;
    let (line, reason) = last(line).ok_or("reason")?;
    let (line, uuid) = last(line).ok_or("uuid")?;
    let (line, seconds) = last(line).ok_or("time")?;
    let (line, flags) = last(line).ok_or("state")?;
    let (line, vcpus) = last(line).ok_or("vcpus")?;
    let (line, memory) = last(line).ok_or("memory")?;
    let (name, id) = last(line).ok_or("id")?;
    let end = match reason {
        "-" => None,
        code => Some(u32::from_str_radix(code, 16).ok().and_then(End::of).ok_or("reason")?),
    };
    Ok(Row {
        name: name.to_owned(),
        id: id.parse().ok().and_then(DomainId::new).ok_or("id")?,
        uuid: uuid.parse().map_err(|_| "uuid")?,
        memory_mib: memory.parse().map_err(|_| "memory")?,
        vcpus: vcpus.parse().map_err(|_| "vcpus")?,
        state: state(flags, end).ok_or("state")?,
        end,
        cpu: seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()).ok_or("time")?,
    })
}

/// A line without its last word, and that word.
fn last(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_ascii_end();
    let at = line.rfind(|c: char| c.is_ascii_whitespace()).map_or(0, |at| at + 1);
    let (before, word) = line.split_at(at);
    (!word.is_empty()).then_some((before.trim_ascii_end(), word))
}

/// The state from its letters: running, blocked, paused, shut down, (why), dying. More than one may stand.
fn state(flags: &str, end: Option<End>) -> Option<DomainState> {
    let [running, blocked, paused, shutdown, _, dying] = <[u8; 6]>::try_from(flags.as_bytes()).ok()?;
    let set = |flag: u8, letter: u8| match flag {
        b'-' => Some(false),
        flag if flag == letter => Some(true),
        _ => None,
    };
    let (_, _) = (set(running, b'r')?, set(blocked, b'b')?);
    Some(if set(dying, b'd')? {
        DomainState::Dying
    } else if set(shutdown, b's')? {
        if matches!(end, Some(End::Crash | End::Watchdog)) { DomainState::Crashed } else { DomainState::Shutdown }
    } else if set(paused, b'p')? {
        DomainState::Paused
    } else {
        DomainState::Running
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    /// As xl 4.17 prints it, with domains in every state.
    const TEXT: &str = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label
Domain-0                                     0   768     1     r-----      32.4 00000000-0000-0000-0000-000000000000        -                -
a name with 3 blanks                        12    96     2     -b----       0.0 6bd1c0b9-77ea-4b8e-8a2b-0a1f7f4f2a11        -                -
web                                         13    16     1     --p---       1.5 000000c0-ffee-8fff-bfff-ffffffffffff        -                -
off                                         14    16     1     ---s--       0.2 000000c0-ffee-8fff-bfff-fffffffffffe        0                -
again                                       15    16     1     ---sr-       0.2 000000c0-ffee-8fff-bfff-fffffffffffd        1                -
broken                                      16    16     1     ---sc-       0.2 000000c0-ffee-8fff-bfff-fffffffffffc        3                -
(null)                                      17     0     0     --ps-d       0.2 000000c0-ffee-8fff-bfff-fffffffffffb        0                -
";

    #[test]
    fn every_state_is_read() {
        let rows = rows(TEXT).unwrap();
        let states: Vec<_> =
            rows.iter().map(|row| (row.id.get(), row.state.label(), row.end.map(End::label))).collect();
        assert_eq!(
            states,
            [
                (0, "running", None),
                (12, "running", None),
                (13, "paused", None),
                (14, "shutdown", Some("poweroff")),
                (15, "shutdown", Some("reboot")),
                (16, "crashed", Some("crash")),
                (17, "dying", Some("poweroff")),
            ]
        );
        assert_eq!((rows[1].name.as_str(), rows[1].vcpus, rows[1].memory_mib), ("a name with 3 blanks", 2, 96));
        assert_eq!(rows[2].cpu, Duration::from_millis(1500));
        assert!(rows[2].uuid.owner().is_some() && rows[1].uuid.owner().is_none());
    }

    #[test]
    fn a_line_that_is_none_is_told_with_its_column() {
        let wrong = |line: &str| rows(&format!("heading\n{line}\n")).unwrap_err();
        assert_eq!(wrong("Domain-0 0 768 1 r----- 32.4").column, "memory", "a table without -v");
        let line = "web 13 16 1 --p--- 1.5 000000c0-ffee-8fff-bfff-ffffffffffff - -";
        assert_eq!(rows(&format!("heading\n{line}")).unwrap().len(), 1);
        for (from, to, column) in [
            ("--p---", "--x---", "state"),
            ("--p---", "--p--", "state"),
            ("13", "70000", "id"),
            (" 16 ", " -1 ", "memory"),
            ("1.5", "-1.5", "time"),
            ("1.5", "nan", "time"),
            (" - -", " 9 -", "reason"),
            ("web 13 ", "", "id"),
        ] {
            let error = wrong(&line.replacen(from, to, 1));
            assert_eq!((error.column, error.line), (column, 2), "{to}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).{0,300}", at in 0usize..TEXT.len()) {
            let _ = rows(&text);
            if TEXT.is_char_boundary(at) {
                let _ = rows(&TEXT[..at]);
                let _ = rows(&format!("{}{text}{}", &TEXT[..at], &TEXT[at..]));
            }
        }
    }
}
