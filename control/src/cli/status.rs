//! `selvedge status`.

use std::fmt::Write as _;
use std::path::Path;

use super::Done;
use super::paint::{Paint, Tone, age, table};
use crate::api::{InstanceStatus, LeftStatus, Origin, ServiceStatus, Stage, Status, client};
use crate::model::{InstanceState, LateClients, ServiceName, Transition};

pub(super) async fn run(socket: &Path, json: bool) -> Done {
    let status = client::status(socket).await.map_err(|e| e.to_string())?;
    let text = if json {
        serde_json::to_string_pretty(&status).map_err(|e| format!("status: {e}"))?
    } else {
        text(&status, Paint::detect())
    };
    println!("{}", text.trim_end());
    Ok(())
}

/// The status for people.
pub(super) fn text(status: &Status, paint: Paint) -> String {
    let mut out = String::new();
    // Writing into a String does not fail.
    let _ = writeln!(
        out,
        "node {}  version {}  up {}  window {} s  table generation {}\n",
        status.node,
        status.version,
        age(status.uptime_s * 1000),
        status.window_ms as f64 / 1e3,
        status.generation
    );
    if let Some(hold) = &status.held {
        let ago = age(status.at.millis_since(hold.since));
        let text = format!("tables held: rolled back to generation {} by {}, {ago} ago", hold.of, hold.by);
        let _ = writeln!(out, "{} (selvedge table release ends that)\n", paint.text(Tone::Bad, &text));
    }
    if status.config_origin == Origin::LastAccepted {
        let text = "the file was wrong at the start; the configuration that was accepted last is in force";
        let _ = writeln!(out, "configuration: {}", paint.text(Tone::Bad, text));
    }
    for problem in &status.config_problems {
        let _ = writeln!(out, "configuration refused: {}", paint.text(Tone::Bad, problem));
    }
    if let Some(problem) = &status.store.problem {
        let _ = writeln!(out, "store: {}", paint.text(Tone::Bad, &format!("decisions are frozen: {problem}")));
    }
    out.push_str(&interfaces(status, paint));
    for (name, technology) in &status.technologies {
        let tone = if technology.available { Tone::Good } else { Tone::Bad };
        let word = paint.text(tone, if technology.available { "available" } else { "off" });
        let _ = writeln!(out, "technology {name}: {word} ({})", technology.detail);
    }
    for text in status.network.problem.iter().chain(&status.network.hazards) {
        let _ = writeln!(out, "network: {}", paint.text(Tone::Bad, text));
    }
    out.push('\n');
    out.push_str(&services(status, paint));
    out.push('\n');
    out.push_str(&instances(status, paint));
    out.push_str(&left(status, paint));
    for (name, service) in &status.services {
        if !service.decision.is_empty() {
            let decision = &service.decision;
            let braked = service.fitness.braked.then(|| paint.text(Tone::Bad, decision));
            let _ = writeln!(out, "\n{name}: {}", braked.as_deref().unwrap_or(decision));
        }
        if service.basis != "serving" {
            let tone = if service.basis == "cold" { Tone::Quiet } else { Tone::Bad };
            let _ = writeln!(out, "{name}: {}", paint.text(tone, &service.basis_reason));
        }
        if let Some(text) = summons(status, name, service) {
            let _ = writeln!(out, "{name}: {text}");
        }
        if let Some(failure) = last_failure(status, name) {
            let ago = age(status.at.millis_since(failure.at));
            let text = format!("instance {} failed {ago} ago: {}", failure.instance, failure.reason);
            let _ = writeln!(out, "{name}: {}", paint.text(Tone::Bad, &text));
        }
    }
    out
}

/// How the starts of a service by queries went; `None` where there was none, and no query for one.
fn summons(status: &Status, name: &ServiceName, service: &ServiceStatus) -> Option<String> {
    let of_service = &service.summon.queries;
    if of_service.is_empty() {
        return None;
    }
    let counts: Vec<String> = of_service.iter().map(|(what, count)| format!("{what} {count}")).collect();
    let mut text = format!("queries at zero: {}", counts.join(", "));
    if let Some(last) = status.summons.iter().rev().find(|record| record.service == *name) {
        let stages = Stage::ALL.iter().map(|stage| stage.label());
        let stages = stages.filter_map(|label| last.stages_ms.get(label).map(|ms| format!("{label} {ms:.1}")));
        let stages: Vec<String> = stages.collect();
        let ago = age(status.at.millis_since(last.at));
        let _ = write!(text, "; last answered {ago} ago in {:.1} ms ({})", last.total_ms, stages.join(", "));
    }
    Some(text)
}

/// Why a service has fewer instances than wanted: its newest failure, for those that failed are gone from the list.
fn last_failure<'a>(status: &'a Status, name: &ServiceName) -> Option<&'a Transition> {
    status.services.get(name).filter(|service| service.serving < service.wanted || service.last_good)?;
    status.transitions.iter().rev().find(|t| t.service == *name && t.to == InstanceState::Failed)
}

fn interfaces(status: &Status, paint: Paint) -> String {
    if status.interfaces.is_empty() {
        let problem = status.dataplane_problem.as_deref().unwrap_or("no interface is configured");
        return format!("XDP: {} ({problem})\n", paint.text(Tone::Under, "none"));
    }
    let mut out = String::new();
    for interface in &status.interfaces {
        let tone = match interface.mode.as_str() {
            "native" => Tone::Good,
            "generic" => Tone::Under,
            _ => Tone::Bad,
        };
        let mode = paint.text(tone, &interface.mode);
        let problem = interface.problem.as_ref().map(|p| format!(" ({p})")).unwrap_or_default();
        let _ = writeln!(out, "XDP on {}: {mode}{problem}", interface.interface);
    }
    let answered = crate::datapath::answered(&status.verdicts);
    let total: u64 = status.verdicts.values().sum();
    for drift in &status.audit.open {
        let problem = drift.problem.as_deref().unwrap_or_default();
        let _ = writeln!(
            out,
            "{}: {} {}: {} ({problem})",
            paint.text(Tone::Bad, "drift"),
            drift.kind,
            drift.object,
            drift.what
        );
    }
    let drifts: u64 = status.audit.drifts.values().sum();
    if let Some(last) = status.audit.recent.back().filter(|_| drifts > 0) {
        let _ = writeln!(out, "changed by others: {drifts} times, last {} {}: {}", last.kind, last.object, last.what);
    }
    let dropped = crate::datapath::dropped(&status.verdicts);
    let dropped = if dropped == 0 { String::new() } else { format!(", {dropped} dropped by limits and lists") };
    let _ = writeln!(out, "packets: {total} seen, {answered} answered in the kernel{dropped}");
    out
}

fn services(status: &Status, paint: Paint) -> String {
    let head = ["SERVICE", "TECHNOLOGY", "SERVING", "WANTED", "MIN-MAX", "QUERIES", "KERNEL", "DAEMON", "FORECAST", ""];
    let row = |(name, service): (&ServiceName, &ServiceStatus)| {
        // At zero as it shall be.
        let cold = service.basis == "cold";
        let serving_tone = match service.serving {
            0 if cold => Tone::Quiet,
            0 => Tone::Bad,
            n if n < service.wanted => Tone::Under,
            _ => Tone::Good,
        };
        let forecast = service.forecast.as_ref().map_or("-".to_owned(), |f| format!("{:.1}", f.mean));
        let note = match (service.basis.as_str(), service.fallback_group) {
            ("serving", _) => String::new(),
            (basis, Some(group)) => format!("answers: {basis} {group}"),
            (basis, None) => format!("answers: {basis}"),
        };
        vec![
            (name.to_string(), None),
            (service.technology.clone(), None),
            (service.serving.to_string(), Some(serving_tone)),
            (service.wanted.to_string(), None),
            (format!("{}-{}", service.min, service.max), None),
            (service.queries.to_string(), None),
            (service.answered_in_kernel.to_string(), None),
            (service.answered_by_daemon.to_string(), None),
            (forecast, None),
            (note, Some(if cold { Tone::Quiet } else { Tone::Bad })),
        ]
    };
    let rows: Vec<_> = status.services.iter().map(row).collect();
    if rows.is_empty() { "no service is configured\n".to_owned() } else { table(&head, &rows, paint) }
}

/// Why an instance is as it is; of one that drains, who is there still.
fn reason(instance: &InstanceStatus) -> String {
    let mut reason = instance.report.instance.reason.clone();
    if let Some(why) = &instance.report.unwell {
        reason = format!("out of the answers: {why}");
    }
    if let Some(drain) = &instance.report.drain {
        if let Some(open) = drain.open {
            reason.push_str(&format!("; {open} connections open"));
        }
        if !drain.late_clients.is_empty() {
            let late: Vec<_> = drain.late_clients.iter().map(ToString::to_string).collect();
            let open = drain.late_open.map_or(String::new(), |open| format!(", {open} connections open"));
            let what = match drain.late {
                LateClients::Cut => "cut at the deadline",
                LateClients::Keep => "kept",
                LateClients::Forward => "new ones are forwarded",
            };
            reason.push_str(&format!("; came after the answers' end: {}{open}, {what}", late.join(", ")));
        }
    }
    reason
}

/// Instances that have left the answers, and where their late clients go.
fn left(status: &Status, paint: Paint) -> String {
    let head = ["LATE FOR", "SERVICE", "ADDRESS", "GOES TO", "FOR", "CONNECTIONS"];
    let row = |left: &LeftStatus| {
        let of = &left.report.left;
        let (to, tone) = match &left.report.to {
            Some(to) if left.in_force => (to.to_string(), Tone::Good),
            Some(to) => (format!("{to}, not in force"), Tone::Bad),
            None => ("nobody serves".to_owned(), Tone::Bad),
        };
        vec![
            (of.instance.to_string(), None),
            (of.service.to_string(), None),
            (of.addresses.iter().map(|a| a.to_string()).collect::<Vec<_>>().join(" "), None),
            (to, Some(tone)),
            (of.until.map_or("its drain".to_owned(), |until| age(until.millis_since(status.at))), None),
            (left.connections.to_string(), None),
        ]
    };
    let rows: Vec<_> = status.services.values().flat_map(|s| s.left.iter().map(row)).collect();
    if rows.is_empty() { String::new() } else { format!("\n{}", table(&head, &rows, paint)) }
}

fn instances(status: &Status, paint: Paint) -> String {
    let head = ["INSTANCE", "SERVICE", "STATE", "SINCE", "ADDRESS", "SHARE", "PROBE", "PACKETS", "REASON"];
    let row = |instance: &InstanceStatus| {
        let record = &instance.report.instance;
        let tone = match record.state {
            InstanceState::Serving => Tone::Good,
            InstanceState::Failed => Tone::Bad,
            _ => Tone::Under,
        };
        let v4 = record.addresses.v4.map(|a| a.to_string());
        let v6 = record.addresses.v6.map(|a| a.to_string());
        let probe = match &instance.report.last_probe {
            None => "-".to_owned(),
            Some(probe) => match (&probe.took_ms, &probe.error) {
                (Some(ms), _) => format!("{ms:.1} ms"),
                (None, Some(_)) => "failed".to_owned(),
                (None, None) => "-".to_owned(),
            },
        };
        let packets = instance.packets_to.map_or("-".to_owned(), |n| n.to_string());
        vec![
            (record.id.to_string(), None),
            (record.service.to_string(), None),
            (record.state.label().to_owned(), Some(tone)),
            (age(status.at.millis_since(record.since)), None),
            ([v4, v6].into_iter().flatten().collect::<Vec<_>>().join(" "), None),
            (format!("{:.0} %", instance.report.share * 100.0), None),
            (probe, None),
            (packets, None),
            (reason(instance), Some(Tone::Quiet)),
        ]
    };
    let rows: Vec<_> = status.services.values().flat_map(|s| s.instances.iter().map(row)).collect();
    if rows.is_empty() { String::new() } else { table(&head, &rows, paint) }
}
