//! `[scaling]` and `[service.scaling]`: how a service's replicas follow its load.

use std::time::Duration;

use autoscale::plan::{Brake, Policy, Rate};
use autoscale::predict::{PredictorKind, WrongKind};
use toml::de::DeValue;

use super::errors::Complaint;
use super::reader::{Field, Section};
use super::shared::MOST_INSTANCES;
use super::values::{Checked, duration, number, text, whole, whole32, word};
use crate::model::{Demand, ServiceSpec};

const LONGEST_SEASON: u64 = 4096;
const LONGEST: Duration = Duration::from_secs(86_400);
/// Share of windows that shall have instances enough, where nothing is said.
const HEADROOM: f64 = 0.9;
/// As upstream's autoscaler has it.
const STABILISATION: Duration = Duration::from_secs(300);

/// Less is no time that the daemon could tell from its own.
const LEAST_LATENCY: Duration = Duration::from_millis(1);

/// What decisions are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are carried out.
    #[default]
    Act,
    /// They are computed, recorded and told, and nothing is started or stopped for them.
    Observe,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::Act, Self::Observe];

    /// Short fixed name: configuration value and JSON value.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Act => "act",
            Self::Observe => "observe",
        }
    }
}

/// How a service's replicas follow its load.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// What decisions are for.
    pub mode: Mode,
    /// What its load is counted by.
    pub demand: Demand,
    /// What predicts its load.
    pub predictor: PredictorKind,
    /// Windows per season; found where none is given.
    pub season: Option<usize>,
    /// Share of windows that shall have instances enough; `None` plans on the mean.
    pub headroom: Option<f64>,
    /// Time for which fewer must have been enough before instances are removed.
    pub stabilisation: Duration,
    /// Longest wait for a probe's answer at which an instance's latency holds: what it serves within that is its capacity,
    /// rather than what the service says. `None` where its capacity is not measured.
    pub latency: Option<Duration>,
    /// Processors that all its instances may use together, by `vcpus`.
    pub most_vcpus: Option<f64>,
    /// Memory that all its instances may use together, in MiB, by `memory_mib`.
    pub most_memory_mib: Option<u64>,
    /// The other rules; bounds, capacity and stabilisation are put in by [`Scaling::policy`].
    rules: Policy,
}

impl Scaling {
    /// The rules of a service's plan in counting periods of `window`.
    #[must_use]
    pub fn policy(&self, service: &ServiceSpec, window: Duration) -> Policy {
        let stabilisation = Policy::stabilisation_within(self.stabilisation.as_secs_f64(), window.as_secs_f64());
        Policy { min: service.min, max: service.max, capacity: service.capacity, stabilisation, ..self.rules.clone() }
    }
}

const KEYS: [&str; 18] = [
    "mode",
    "demand",
    "predictor",
    "season",
    "headroom",
    "up_instances",
    "up_share",
    "down_instances",
    "down_share",
    "stabilisation",
    "tolerance",
    "panic",
    "churn",
    "churn_windows",
    "brake_after",
    "latency",
    "most_vcpus",
    "most_memory_mib",
];

/// The keys of one section, as far as they are written.
#[derive(Clone)]
pub(super) struct Written {
    mode: Option<Field<Mode>>,
    demand: Option<Field<Demand>>,
    predictor: Option<Field<PredictorKind>>,
    season: Option<Field<u64>>,
    headroom: Option<Field<f64>>,
    up: (Option<Field<u32>>, Option<Field<f64>>),
    down: (Option<Field<u32>>, Option<Field<f64>>),
    stabilisation: Option<Field<Duration>>,
    tolerance: Option<Field<f64>>,
    panic: Option<Field<f64>>,
    churn: Option<Field<u32>>,
    churn_windows: Option<Field<u32>>,
    brake_after: Option<Field<u32>>,
    latency: Option<Field<Duration>>,
    most_vcpus: Option<Field<f64>>,
    most_memory_mib: Option<Field<u64>>,
}

/// Reads a section; what the other one says is not known here.
pub(super) fn written(section: &Section<'_, '_>) -> Written {
    section.allow(&KEYS);
    let modes = Mode::ALL.map(|m| (m.label(), m));
    let demands = Demand::ALL.map(|d| (d.label(), d));
    let instances = |key| section.optional(key, 1, |v| whole32(v, 1, MOST_INSTANCES));
    let share = |key| section.optional(key, 0.0, |v| number(v, 0.0, 100.0));
    Written {
        mode: section.optional("mode", Mode::Act, |v| word(v, &modes)),
        demand: section.optional("demand", Demand::Dns, |v| word(v, &demands)),
        predictor: section.optional("predictor", PredictorKind::Select, predictor_kind),
        season: section.optional("season", 2, |v| whole(v, 2, LONGEST_SEASON)),
        headroom: section.optional("headroom", HEADROOM, |v| number(v, 0.0, 0.999)),
        up: (instances("up_instances"), share("up_share")),
        down: (instances("down_instances"), share("down_share")),
        stabilisation: section.optional("stabilisation", STABILISATION, |v| duration(v, Duration::ZERO, LONGEST)),
        tolerance: section.optional("tolerance", 0.0, |v| number(v, 0.0, 0.9)),
        panic: section.optional("panic", 1.0, |v| number(v, 0.5, 100.0)),
        churn: section.optional("churn", 1, |v| whole32(v, 1, 1_000_000)),
        churn_windows: section.optional("churn_windows", 1, |v| whole32(v, 1, 10_000)),
        latency: section.optional("latency", LEAST_LATENCY, |v| duration(v, LEAST_LATENCY, LONGEST)),
        brake_after: section.optional("brake_after", 1, |v| whole32(v, 1, 1000)),
        most_vcpus: section.optional("most_vcpus", 1.0, |v| number(v, 0.01, 65_536.0)),
        most_memory_mib: section.optional("most_memory_mib", 1, |v| whole(v, 1, 1 << 30)),
    }
}

impl Written {
    /// What is written here, else there.
    fn over(self, there: &Self) -> Self {
        Self {
            mode: self.mode.or_else(|| there.mode.clone()),
            demand: self.demand.or_else(|| there.demand.clone()),
            predictor: self.predictor.or_else(|| there.predictor.clone()),
            season: self.season.or_else(|| there.season.clone()),
            headroom: self.headroom.or_else(|| there.headroom.clone()),
            up: if self.up.0.is_some() || self.up.1.is_some() { self.up } else { there.up.clone() },
            down: if self.down.0.is_some() || self.down.1.is_some() { self.down } else { there.down.clone() },
            stabilisation: self.stabilisation.or_else(|| there.stabilisation.clone()),
            tolerance: self.tolerance.or_else(|| there.tolerance.clone()),
            panic: self.panic.or_else(|| there.panic.clone()),
            churn: self.churn.or_else(|| there.churn.clone()),
            churn_windows: self.churn_windows.or_else(|| there.churn_windows.clone()),
            brake_after: self.brake_after.or_else(|| there.brake_after.clone()),
            latency: self.latency.or_else(|| there.latency.clone()),
            most_vcpus: self.most_vcpus.or_else(|| there.most_vcpus.clone()),
            most_memory_mib: self.most_memory_mib.or_else(|| there.most_memory_mib.clone()),
        }
    }
}

/// `[service.scaling]` over `[scaling]`; `older` is the key `predictor` of the service itself.
pub(super) fn of_service(
    service: &Section<'_, '_>,
    defaults: &Written,
    spec: &ServiceSpec,
    older: Option<Field<PredictorKind>>,
) -> Scaling {
    let section = service.section("scaling");
    let mut own = written(&section);
    if let (Some(newer), Some(_)) = (&own.predictor, &older) {
        let what = "is there, and so is the service's older key predictor";
        section.complain(newer.line, "predictor", what, "remove the older one, above [service.scaling]");
    }
    own.predictor = own.predictor.or(older);
    let all = own.over(defaults);
    check(service, &section, &all, spec);
    let value = |field: &Option<Field<f64>>, default| field.as_ref().map_or(default, |f| f.value);
    let whole = |field: &Option<Field<u32>>, default| field.as_ref().map_or(default, |f| f.value);
    let rate = |(instances, share): &(Option<Field<u32>>, Option<Field<f64>>)| match (instances, share) {
        (None, None) => Rate::UNBOUNDED,
        _ => Rate { instances: whole(instances, 1), share: value(share, 0.0) },
    };
    let usual = Policy::default();
    let headroom = value(&all.headroom, HEADROOM);
    Scaling {
        mode: all.mode.as_ref().map_or(Mode::Act, |f| f.value),
        demand: all.demand.as_ref().map_or(Demand::Dns, |f| f.value),
        predictor: all.predictor.as_ref().map_or(PredictorKind::Select, |f| f.value),
        season: all.season.as_ref().and_then(|f| usize::try_from(f.value).ok()),
        headroom: (headroom > 0.0).then_some(headroom),
        stabilisation: all.stabilisation.as_ref().map_or(STABILISATION, |f| f.value),
        latency: all.latency.as_ref().map(|f| f.value),
        most_vcpus: all.most_vcpus.as_ref().map(|f| f.value),
        most_memory_mib: all.most_memory_mib.as_ref().map(|f| f.value),
        rules: Policy {
            up: rate(&all.up),
            down: rate(&all.down),
            tolerance: value(&all.tolerance, usual.tolerance),
            panic: value(&all.panic, usual.panic),
            churn: whole(&all.churn, usual.churn),
            churn_windows: whole(&all.churn_windows, usual.churn_windows),
            brake: Brake { after: whole(&all.brake_after, usual.brake.after) },
            ..usual
        },
    }
}

/// What does not go together.
fn check(service: &Section<'_, '_>, section: &Section<'_, '_>, all: &Written, spec: &ServiceSpec) {
    if let Some(mode) = all.mode.as_ref().filter(|m| m.value == Mode::Observe && spec.min == 0) {
        let what = "is \"observe\", but with min = 0 queries start instances";
        let line = if section.line_of("mode").is_some() { mode.line } else { service.line };
        section.complain(line, "mode", what, "set min = 1, or mode = \"act\"");
    }
    let timeout = spec.probing.timeout;
    if let Some(latency) = all.latency.as_ref().filter(|f| !f.broken && f.value >= timeout) {
        let line = if section.line_of("latency").is_some() { latency.line } else { service.line };
        let what = format!(
            "is {:?}, and no answer to a probe is waited for longer than probe_timeout = {timeout:?}",
            latency.value
        );
        section.complain(line, "latency", what, "use a shorter one");
    }
    let least = f64::from(spec.min);
    let memory = all.most_memory_mib.clone().map(|f| f.map(|mib| mib as f64));
    let one = [
        ("most_vcpus", &all.most_vcpus, spec.vcpus, "vcpus"),
        ("most_memory_mib", &memory, spec.memory_mib as f64, "memory_mib"),
    ];
    for (key, most, one, per_instance) in one {
        let Some(most) = most.as_ref().filter(|f| !f.broken && f.value < one * least.max(1.0)) else { continue };
        let line = if section.line_of(key).is_some() { most.line } else { service.line };
        let what = format!("{} is too little for {} of {per_instance} = {one}", most.value, least.max(1.0));
        section.complain(line, key, what, format!("use at least {}", one * least.max(1.0)));
    }
}

/// A predictor by its name.
pub(super) fn predictor_kind(value: &DeValue<'_>) -> Checked<PredictorKind> {
    let given = text(value)?;
    given.parse().map_err(|error: WrongKind| {
        let told = error.to_string();
        let (what, names) = told.split_once("; there are ").unwrap_or((&told, ""));
        Complaint::new(what, format!("use one of {names}"))
    })
}
