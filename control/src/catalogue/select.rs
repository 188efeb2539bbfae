//! The selector: of the entries that meet every requirement and that this node can run, the one that takes least.
//!
//! Least memory first, for that bounds how many instances a node holds; then the quickest start, then the stronger
//! isolation. Times are held against the 95th percentile: a requirement is a promise, not an average.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::model::{CatalogueEntry, Feature, Isolation};

/// What a service asks for; what is `None` or empty is not asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Requirements {
    /// Longest time from the order to the first answer, in milliseconds.
    pub start_within_ms: Option<f64>,
    /// Most memory of an instance, in MiB.
    pub memory_mib: Option<f64>,
    /// Least throughput of an instance, in Mbit/s.
    pub throughput_mbit: Option<f64>,
    /// Weakest isolation.
    pub isolation: Option<Isolation>,
    /// What it has to be able to.
    pub features: BTreeSet<Feature>,
}

/// What was chosen, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice<'a> {
    /// The entry.
    pub entry: &'a CatalogueEntry,
    /// Why this one, in a sentence.
    pub reason: String,
    /// Why not the others, in the order of the catalogue; those that would do as well are not among them.
    pub rejected: Vec<Rejected>,
}

/// An entry that does not do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// The technology's label.
    pub technology: String,
    /// The image's name.
    pub image: String,
    /// Why, the first that was met.
    pub why: String,
}

/// Nothing does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("no technology of this node meets these requirements:{}", listed(.rejected))]
pub struct NoChoice {
    /// Why not, one by one.
    pub rejected: Vec<Rejected>,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.technology, self.image, self.why)
    }
}

fn listed(rejected: &[Rejected]) -> String {
    if rejected.is_empty() {
        return " the catalogue is empty".to_owned();
    }
    rejected.iter().map(|rejected| format!("\n  {rejected}")).collect()
}

/// The choice for `requirements` among `catalogue` on a node that has the technologies `on_node`, by label.
///
/// # Errors
/// [`NoChoice`] with the reason against each entry.
pub fn select<'a>(
    requirements: &Requirements,
    catalogue: &'a [CatalogueEntry],
    on_node: &BTreeSet<String>,
) -> Result<Choice<'a>, NoChoice> {
    let mut rejected = Vec::new();
    let mut fitting = Vec::new();
    let mut elsewhere = Vec::new();
    for entry in catalogue {
        let why = match unmet(requirements, entry) {
            Some(why) => why,
            None if on_node.contains(&entry.technology) => {
                fitting.push(entry);
                continue;
            }
            None => {
                elsewhere.push(entry);
                "not on this node".to_owned()
            }
        };
        rejected.push(Rejected { technology: entry.technology.clone(), image: entry.image.clone(), why });
    }
    fitting.sort_by(|a, b| order(a, b));
    elsewhere.sort_by(|a, b| order(a, b));
    let Some(entry) = fitting.first().copied() else { return Err(NoChoice { rejected }) };
    let better = elsewhere.first().filter(|other| order(other, entry) == Ordering::Less);
    let reason = reason(requirements, entry, fitting.get(1).copied(), better.copied());
    Ok(Choice { entry, reason, rejected })
}

/// The first requirement that an entry does not meet.
fn unmet(requirements: &Requirements, entry: &CatalogueEntry) -> Option<String> {
    let figures = &entry.figures;
    if let Some(least) = requirements.isolation.filter(|least| entry.isolation < *least) {
        return Some(format!("isolation is {}, {} or stronger is asked for", entry.isolation.label(), least.label()));
    }
    if let Some(feature) = requirements.features.iter().find(|feature| !entry.features.contains(feature)) {
        return Some(format!("has no {}", feature.label()));
    }
    if let Some(within) = requirements.start_within_ms.filter(|within| figures.allocation_ms.p95 > *within) {
        return Some(format!("starts in {} ms (p95), {} ms are allowed", figures.allocation_ms.p95, within));
    }
    if let Some(most) = requirements.memory_mib.filter(|most| figures.memory_mib > *most) {
        return Some(format!("takes {} MiB, {} MiB are allowed", figures.memory_mib, most));
    }
    match (requirements.throughput_mbit, figures.throughput_mbit) {
        (Some(least), Some(found)) if found < least => {
            Some(format!("sends {found} Mbit/s, {least} Mbit/s are asked for"))
        }
        (Some(_), None) => Some("nobody has measured its throughput".to_owned()),
        _ => None,
    }
}

/// The better one first.
fn order(a: &CatalogueEntry, b: &CatalogueEntry) -> Ordering {
    let (x, y) = (&a.figures, &b.figures);
    x.memory_mib
        .total_cmp(&y.memory_mib)
        .then(x.allocation_ms.p95.total_cmp(&y.allocation_ms.p95))
        .then(b.isolation.cmp(&a.isolation))
        .then(a.technology.cmp(&b.technology))
        .then(a.image.cmp(&b.image))
}

fn reason(
    requirements: &Requirements,
    entry: &CatalogueEntry,
    second: Option<&CatalogueEntry>,
    elsewhere: Option<&CatalogueEntry>,
) -> String {
    let figures = &entry.figures;
    let mut met = Vec::new();
    if let Some(within) = requirements.start_within_ms {
        met.push(format!("starts in {} of {} ms (p95)", figures.allocation_ms.p95, within));
    }
    if let Some(most) = requirements.memory_mib {
        met.push(format!("takes {} of {} MiB", figures.memory_mib, most));
    }
    if let (Some(least), Some(found)) = (requirements.throughput_mbit, figures.throughput_mbit) {
        met.push(format!("sends {found} Mbit/s where {least} are asked for"));
    }
    if requirements.isolation.is_some() {
        met.push(format!("isolation is {}", entry.isolation.label()));
    }
    met.extend(requirements.features.iter().map(|feature| format!("has {}", feature.label())));
    let mut text = if met.is_empty() { "nothing is asked for".to_owned() } else { met.join(", ") };
    text.push_str(&match second {
        None => "; the only one of this node that does".to_owned(),
        Some(second) if second.figures.memory_mib > figures.memory_mib => {
            let memory = second.figures.memory_mib;
            format!("; the least memory, {} MiB where {} takes {memory}", figures.memory_mib, second.technology)
        }
        Some(second) => format!("; as little memory as {}, and it starts sooner", second.technology),
    });
    if let Some(better) = elsewhere {
        let memory = better.figures.memory_mib;
        text.push_str(&format!("; {} would take {memory} MiB, but is not on this node", better.technology));
    }
    if entry.measured.is_none() {
        text.push_str("; not measured here");
    }
    text
}
