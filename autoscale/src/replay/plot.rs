//! A replay as a picture: load, forecast with headroom, and what the supply could serve.

use std::fmt::Write as _;

use super::{Options, Outlook, PolicyKind, Trace, supply, upper};

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 360.0;
const MARGIN: f64 = 50.0;
/// Most points of a line; more windows are drawn by the highest of each group.
const MOST: usize = 1000;

/// An SVG of the scored windows.
#[must_use]
pub fn plot(trace: &Trace, outlook: &Outlook, options: &Options, policy: PolicyKind) -> String {
    let start = options.start.min(trace.values.len());
    let served: Vec<Option<f64>> =
        supply(trace, outlook, options, policy).iter().map(|s| Some(f64::from(*s) * options.capacity)).collect();
    let upper = upper(outlook, options);
    let group = (trace.values.len() - start).div_ceil(MOST).max(1);
    let highest = |values: &[Option<f64>]| -> Vec<Option<f64>> {
        let of = |group: &[Option<f64>]| group.iter().flatten().copied().reduce(f64::max);
        values[start..].chunks(group).map(of).collect()
    };
    let lines = [
        ("served", "#7a5", highest(&served)),
        ("forecast with headroom", "#e90", highest(&upper)),
        ("forecast", "#06c", highest(&outlook.next)),
        ("load", "#222", highest(&trace.values)),
    ];
    let top = lines.iter().flat_map(|(_, _, line)| line.iter().flatten()).copied().fold(1.0, f64::max);
    let points = lines[0].2.len().max(2) - 1;
    let x = |i: usize| MARGIN + (WIDTH - 2.0 * MARGIN) * i as f64 / points as f64;
    let y = |v: f64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * v.max(0.0) / top;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    // Writing to a string does not fail.
    for share in [0.0, 0.5, 1.0] {
        let (value, at) = (share * top, y(share * top));
        let _ = writeln!(svg, "<path d=\"M{MARGIN} {at:.1}H{}\" stroke=\"#ddd\"/>", WIDTH - MARGIN);
        let _ = writeln!(svg, "<text x=\"4\" y=\"{:.1}\">{value:.0}</text>", at + 4.0);
    }
    for (i, (label, colour, line)) in lines.iter().enumerate() {
        let mut path = String::new();
        let mut pen = 'M';
        for (i, value) in line.iter().enumerate() {
            match value {
                Some(value) => {
                    let _ = write!(path, "{pen}{:.1} {:.1}", x(i), y(*value));
                    pen = 'L';
                }
                None => pen = 'M',
            }
        }
        let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\"/>");
        let at = MARGIN + 180.0 * i as f64;
        let _ = writeln!(svg, "<text x=\"{at}\" y=\"20\" fill=\"{colour}\">{label}</text>");
    }
    let hours = (trace.values.len() - start) as f64 * trace.window_s / 3600.0;
    let _ = writeln!(
        svg,
        "<text x=\"{MARGIN}\" y=\"{}\">{hours:.1} h, requests per window of {} s</text>\n</svg>",
        HEIGHT - 14.0,
        trace.window_s
    );
    svg
}
