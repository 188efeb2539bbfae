//! Prometheus text from the status document. The only module that names `prometheus`.
//!
//! A registry per scrape: every value has its one home elsewhere and is copied here, so metrics and
//! status cannot disagree.

mod costs;
mod forecasts;
mod stages;

use prometheus::{Encoder, Gauge, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};
use tracing::error;

use crate::api::{Origin, ServiceStatus, Status};

/// Content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The status as Prometheus text.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut out = Vec::new();
    let encoded = fill(status).and_then(|registry| {
        let mut families = registry.gather();
        families.extend(stages::family(status));
        families.extend(costs::family(status));
        TextEncoder::new().encode(&families, &mut out)
    });
    if let Err(error) = encoded {
        error!(%error, "metrics cannot be rendered");
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn fill(status: &Status) -> prometheus::Result<Registry> {
    let registry = Registry::new();
    let counter = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntCounterVec> {
        let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(vec.clone()))?;
        Ok(vec)
    };
    let gauge = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<IntGaugeVec> {
        let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(vec.clone()))?;
        Ok(vec)
    };
    let single = |name: &str, help: &str, value: f64| -> prometheus::Result<()> {
        let one = Gauge::new(name, help)?;
        one.set(value);
        registry.register(Box::new(one))
    };

    let info = gauge("selvedge_build_info", "Version of the daemon; always 1.", &["version", "node"])?;
    info.with_label_values(&[&status.version, &status.node]).set(1);
    single("selvedge_uptime_seconds", "Seconds since the daemon started.", status.uptime_s as f64)?;
    single("selvedge_table_generation", "Generation of the published tables.", status.generation as f64)?;
    let held = f64::from(u8::from(status.held.is_some()));
    single(
        "selvedge_tables_held",
        "1 while an operator's order keeps the tables as they are, after a rollback.",
        held,
    )?;

    let attached = gauge(
        "selvedge_xdp_attached",
        "1 where the XDP program is attached to the interface in this mode (native, generic), 0 with mode none.",
        &["interface", "mode"],
    )?;
    for interface in &status.interfaces {
        let is = i64::from(interface.program_id.is_some());
        attached.with_label_values(&[&interface.interface, &interface.mode]).set(is);
    }
    let drifts = counter(
        "selvedge_dataplane_drifts_total",
        "Things in the kernel that others changed, by kind (pin, link, program, table, settings, counter, rules, filter).",
        &["kind"],
    )?;
    for (kind, count) in &status.audit.drifts {
        drifts.with_label_values(&[kind]).inc_by(*count);
    }
    let open = status.audit.open.len() as f64;
    single("selvedge_dataplane_drifts_open", "Such changes that could not be put right and stand.", open)?;
    let verdicts = counter("selvedge_xdp_packets_total", "Packets seen by the XDP program, by verdict.", &["verdict"])?;
    for (verdict, count) in &status.verdicts {
        verdicts.with_label_values(&[verdict]).inc_by(*count);
    }
    let on = gauge(
        "selvedge_transit_rewriting",
        "1 where replies in transit are rewritten on the interface in this direction, 0 where they shall be and are not.",
        &["interface", "direction"],
    )?;
    for place in &status.transit {
        on.with_label_values(&[&place.interface, &place.direction]).set(i64::from(place.problem.is_none()));
    }
    let about = "Packets where replies in transit are rewritten, by what became of them.";
    let transit = counter("selvedge_transit_packets_total", about, &["verdict"])?;
    for (verdict, count) in &status.transit_verdicts {
        transit.with_label_values(&[verdict]).inc_by(*count);
    }
    if let Some(age) = status.heartbeat_age_ms {
        let help = "Seconds since the XDP program was last told that the daemon is there.";
        single("selvedge_xdp_heartbeat_age_seconds", help, age as f64 / 1e3)?;
    }
    let used = gauge("selvedge_map_entries", "Entries in use of a kernel map.", &["map"])?;
    let capacity = gauge("selvedge_map_capacity_entries", "Entries that a kernel map can hold.", &["map"])?;
    for map in &status.maps {
        used.with_label_values(&[&map.map]).set(map.used.try_into().unwrap_or(i64::MAX));
        capacity.with_label_values(&[&map.map]).set(map.capacity.try_into().unwrap_or(i64::MAX));
    }
    let dns = counter("selvedge_dns_queries_total", "Queries to the daemon's own DNS.", &["transport", "outcome"])?;
    for (transport, outcomes) in [("udp", &status.dns.udp), ("tcp", &status.dns.tcp)] {
        for (outcome, count) in outcomes {
            dns.with_label_values(&[transport, outcome]).inc_by(*count);
        }
    }
    let repairs = counter(
        "selvedge_net_repairs_total",
        "Changes that others made to our networks and that were undone, by kind of thing.",
        &["object"],
    )?;
    for (object, count) in &status.network.repairs {
        repairs.with_label_values(&[object]).inc_by(*count);
    }
    let looks = counter("selvedge_net_failures_total", "Looks after which not all was as it shall be.", &[])?;
    looks.with_label_values::<&str>(&[]).inc_by(status.network.failures);
    let hazards = status.network.hazards.len() as f64;
    single("selvedge_net_hazards", "Things that hurt our networks and are not ours to change.", hazards)?;
    let about = "Connections of late clients that went to another instance.";
    let forwarded = counter("selvedge_late_forwarded_total", about, &[])?;
    forwarded.with_label_values::<&str>(&[]).inc_by(status.network.forwarded);
    let about = "Instances that have left the answers and whose late clients shall go to another: 1 where they do.";
    let forwards = gauge("selvedge_late_forwards", about, &["service", "instance"])?;
    let about = "Open connections that were opened to a draining instance when no answer named it any more.";
    let late = gauge("selvedge_late_connections_open", about, &["service"])?;
    for (name, service) in &status.services {
        for left in &service.left {
            let instance = &left.report.left.instance;
            forwards.with_label_values(&[name.as_str(), instance.as_str()]).set(i64::from(left.in_force));
        }
        let drains = service.instances.iter().filter_map(|i| i.report.drain.as_ref());
        let open: u64 = drains.filter_map(|drain| drain.late_open).sum();
        late.with_label_values(&[name.as_str()]).set(i64::try_from(open).unwrap_or(i64::MAX));
    }
    let technologies = gauge("selvedge_technology_available", "1 where the technology can be used.", &["technology"])?;
    for (name, technology) in &status.technologies {
        technologies.with_label_values(&[name]).set(i64::from(technology.available));
    }
    let refused = counter(
        "selvedge_refusals_total",
        "Changes that were refused because they would have made answers worse, by kind.",
        &["kind"],
    )?;
    refused.with_label_values(&["empty_service"]).inc_by(status.refused_empty);
    refused.with_label_values(&["publish_failed"]).inc_by(status.publish_failures);
    refused.with_label_values(&["config"]).inc_by(status.config_rejected);
    let what = "Times that a service's TTL was shortened ahead of a removal.";
    let shortened = counter("selvedge_shortened_ttls_total", what, &[])?;
    shortened.with_label_values::<&str>(&[]).inc_by(status.shortened_ttls);
    let last = f64::from(u8::from(status.config_origin == Origin::LastAccepted));
    single(
        "selvedge_config_last_accepted",
        "1 while the daemon runs on the configuration that it accepted last, for the file was wrong at its start.",
        last,
    )?;
    let writes = counter("selvedge_store_writes_total", "Writes to the store, by outcome.", &["outcome"])?;
    writes.with_label_values(&["done"]).inc_by(status.store.writes);
    writes.with_label_values(&["failed"]).inc_by(status.store.failures);
    let frozen = f64::from(u8::from(status.store.problem.is_some()));
    single("selvedge_store_frozen", "1 while the store cannot be written and decisions are frozen.", frozen)?;

    let queries = counter(
        "selvedge_service_queries_total",
        "Queries for the service's names, by who saw them first. The kernel's count outlives the daemon.",
        &["service", "seen_by"],
    )?;
    let answers =
        counter("selvedge_service_answers_total", "Answers with records, by who answered.", &["service", "by"])?;
    let said = counter(
        "selvedge_service_kernel_answers_total",
        "Answers that the kernel gave for the service, by what they said.",
        &["service", "verdict"],
    )?;
    let limited = counter(
        "selvedge_service_kernel_limited_total",
        "Queries that the kernel left without an answer because of a limit.",
        &["service"],
    )?;
    let families = counter(
        "selvedge_service_kernel_queries_total",
        "Queries for the service's names that the kernel saw, by IP version.",
        &["service", "family"],
    )?;
    let replicas =
        gauge("selvedge_service_replicas", "Instances, wanted, serving and prepared ahead.", &["service", "kind"])?;
    let ordered = gauge(
        "selvedge_service_ordered",
        "1 while an operator's order keeps the number of instances, whatever the plan says.",
        &["service"],
    )?;
    let states = gauge("selvedge_service_instances", "Instances by state.", &["service", "state"])?;
    let last_good =
        gauge("selvedge_service_last_good", "1 while nothing serves and old answers are kept.", &["service"])?;
    let basis = gauge(
        "selvedge_service_answer_basis",
        "1 for what the service is answered from (serving, fallback, last-good and so on), 0 for the others.",
        &["service", "basis"],
    )?;
    let summons = counter(
        "selvedge_summon_queries_total",
        "Queries for services at zero, by what was done with them.",
        &["service", "what"],
    )?;
    let load = GaugeVec::new(
        Opts::new("selvedge_service_window_requests", "Requests of the last window, and the forecast of the next."),
        &["service", "kind"],
    )?;
    registry.register(Box::new(load.clone()))?;
    for (name, service) in &status.services {
        let name = name.as_str();
        queries.with_label_values(&[name, "kernel"]).inc_by(service.queries_in_kernel);
        let rest = service.queries.saturating_sub(service.queries_in_kernel);
        queries.with_label_values(&[name, "daemon"]).inc_by(rest);
        answers.with_label_values(&[name, "kernel"]).inc_by(service.answered_in_kernel);
        answers.with_label_values(&[name, "daemon"]).inc_by(service.answered_by_daemon);
        for (verdict, count) in &service.answers_in_kernel {
            said.with_label_values(&[name, verdict]).inc_by(*count);
        }
        limited.with_label_values(&[name]).inc_by(service.limited_in_kernel);
        let v4 = service.queries_in_kernel.saturating_sub(service.queries_v6_in_kernel);
        families.with_label_values(&[name, "ipv4"]).inc_by(v4);
        families.with_label_values(&[name, "ipv6"]).inc_by(service.queries_v6_in_kernel);
        replicas.with_label_values(&[name, "wanted"]).set(service.wanted.into());
        replicas.with_label_values(&[name, "serving"]).set(service.serving.into());
        if let Some(prepared) = service.prepared {
            replicas.with_label_values(&[name, "prepared"]).set(prepared.into());
        }
        ordered.with_label_values(&[name]).set(service.ordered.is_some().into());
        last_good.with_label_values(&[name]).set(service.last_good.into());
        for (what, count) in &service.summon.queries {
            summons.with_label_values(&[name, what]).inc_by(*count);
        }
        for label in crate::model::Basis::LABELS {
            basis.with_label_values(&[name, label]).set((service.basis == label).into());
        }
        for state in crate::model::InstanceState::ALL {
            states.with_label_values(&[name, state.label()]).set(count(service, state));
        }
        if let Some(observed) = service.history.last().and_then(|w| w.observed) {
            load.with_label_values(&[name, "observed"]).set(observed);
        }
        if let Some(forecast) = &service.forecast {
            load.with_label_values(&[name, "forecast"]).set(forecast.mean);
        }
    }
    forecasts::register(&registry, status)?;
    single("selvedge_allocation_last_seconds", "Last time from trigger to ready.", last_s(&status.allocation_ms))?;
    single("selvedge_removal_last_seconds", "Last time from stop to gone.", last_s(&status.removal_ms))?;
    Ok(registry)
}

fn count(service: &ServiceStatus, state: crate::model::InstanceState) -> i64 {
    let in_state = service.instances.iter().filter(|i| i.report.instance.state == state);
    i64::try_from(in_state.count()).unwrap_or(i64::MAX)
}

/// The newest sample in seconds; NaN, Prometheus' word for "none yet", before there is one.
fn last_s(samples_ms: &[f64]) -> f64 {
    samples_ms.last().map_or(f64::NAN, |ms| ms / 1e3)
}
