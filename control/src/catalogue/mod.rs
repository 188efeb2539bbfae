//! The catalogue: what each technology costs and gives, and the selector, which takes the cheapest that a service's
//! requirements allow. Pure: what is measured, what the node has and what is required come as arguments.

mod built_in;
mod node;
mod select;

#[cfg(test)]
mod select_tests;

pub use built_in::built_in;
pub use node::Probe;
pub use select::{Choice, NoChoice, Rejected, Requirements, select};

use crate::model::{CatalogueEntry, Measured, Measurement};

/// The built-in entries with what was measured here in their places, and what else was measured after them. A
/// measurement of a technology that nobody knows is left out: its class is not known.
#[must_use]
pub fn catalogue(measurements: &[Measurement]) -> Vec<CatalogueEntry> {
    let mut entries = built_in();
    for measurement in measurements {
        let measured = Some(Measured { at: measurement.at, runs: measurement.runs });
        let same = |e: &&mut CatalogueEntry| e.technology == measurement.technology && e.image == measurement.image;
        if let Some(entry) = entries.iter_mut().find(same) {
            (entry.figures, entry.measured) = (measurement.figures, measured);
            continue;
        }
        let Some(kin) = entries.iter().find(|entry| entry.technology == measurement.technology) else { continue };
        // What belongs to the technology; what belongs to an image nobody has told.
        let (isolation, features) = (kin.isolation, built_in::of_technology(&kin.technology));
        entries.push(CatalogueEntry {
            technology: measurement.technology.clone(),
            image: measurement.image.clone(),
            figures: measurement.figures,
            isolation,
            features,
            measured,
        });
    }
    entries
}
