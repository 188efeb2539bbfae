//! Colour on terminals only, and plain aligned tables.

use std::io::IsTerminal;

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
    fn ages_read_at_a_glance() {
        let shown: Vec<_> = [900, 119_000, 120_000, 7_200_000, 172_800_000].map(age).into();
        assert_eq!(shown, ["0s", "119s", "2m", "2h", "2d"]);
    }
}
