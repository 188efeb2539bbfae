//! Colour on terminals only, and plain aligned tables.

use std::io::IsTerminal;

use crate::model::Timestamp;

/// What a text means; the colour follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Under,
    Bad,
    Quiet,
}

/// Colours texts if standard output is a terminal and `NO_COLOR` is not set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    pub fn detect() -> Self {
        Self { on: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    /// No colour.
    #[cfg(test)]
    pub fn plain() -> Self {
        Self { on: false }
    }

    pub fn text(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => 32,
            Tone::Under => 33,
            Tone::Bad => 31,
            Tone::Quiet => 90,
        };
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Lines of cells, columns as wide as their widest cell. `tones` colours a cell after it was measured.
pub(super) fn table(head: &[&str], rows: &[Vec<(String, Option<Tone>)>], paint: Paint) -> String {
    let mut widths: Vec<usize> = head.iter().map(|h| h.len()).collect();
    for row in rows {
        for (width, (cell, _)) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let line = |cells: Vec<String>, out: &mut String| {
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    };
    let head_cells = head.iter().zip(&widths).map(|(h, w)| paint.text(Tone::Quiet, &format!("{h:w$}"))).collect();
    line(head_cells, &mut out);
    for row in rows {
        let cells = row.iter().zip(&widths).map(|((cell, tone), w)| {
            let padded = format!("{cell:w$}");
            tone.map_or(padded.clone(), |tone| paint.text(tone, &padded))
        });
        line(cells.collect(), &mut out);
    }
    out
}

/// "3s", "12m", "5h", "2d": how long ago.
pub(super) fn age(millis: u64) -> String {
    match millis / 1000 {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7199 => format!("{}m", s / 60),
        s @ 7200..=172_799 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// "812 B", "12.3 MB": a size, in powers of ten.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if count < 1000 {
        return format!("{count} B");
    }
    // In tenths of a unit, so that no float is needed.
    let (mut tenths, mut unit) = (count / 100, 0);
    while tenths >= 10_000 && unit + 1 < UNITS.len() {
        (tenths, unit) = (tenths / 1000, unit + 1);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// "2026-11-25 02:28:29Z": when, in UTC, as logs and other nodes have it too.
pub(super) fn utc(at: Timestamp) -> String {
    let seconds = at.0 / 1000;
    let (mut days, clock) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (day, hour, minute, second) = (days + 1, clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_plain_output_has_no_escapes() {
        let rows = vec![vec![("a".to_owned(), Some(Tone::Bad)), ("long cell".to_owned(), None)]];
        let text = table(&["NAME", "X"], &rows, Paint { on: false });
        assert_eq!(text, "NAME  X\na     long cell\n");
    }

    #[test]
    fn moments_are_as_date_says() {
        // date -u -d @…
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (1_735_689_599, "2024-12-31 23:59:59Z"),
            (1_772_323_200, "2026-03-01 00:00:00Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(utc(Timestamp(seconds * 1000 + 999)), text);
        }
    }

    #[test]
    fn sizes_read_at_a_glance() {
        let shown: Vec<_> = [0, 999, 1000, 12_345_678, 999_999, 5_000_000_000_000_000].map(bytes).into();
        assert_eq!(shown, ["0 B", "999 B", "1.0 kB", "12.3 MB", "999.9 kB", "5000.0 TB"]);
    }

    #[test]
    fn ages_read_at_a_glance() {
        let shown: Vec<_> = [900, 119_000, 120_000, 7_200_000, 172_800_000].map(age).into();
        assert_eq!(shown, ["0s", "119s", "2m", "2h", "2d"]);
    }
}
