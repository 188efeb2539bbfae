//! How forecasts fare and what is decided from them.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use crate::api::Status;

/// Puts the families into the registry.
pub(super) fn register(registry: &Registry, status: &Status) -> prometheus::Result<()> {
    let gauge = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<GaugeVec> {
        let vec = GaugeVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(vec.clone()))?;
        Ok(vec)
    };
    let error = gauge(
        "selvedge_forecast_error_requests",
        "Error of the next window's forecast over the windows kept, by kind: mae, rmse, and naive_rmse to compare with.",
        &["service", "kind"],
    )?;
    let coverage = gauge(
        "selvedge_forecast_coverage_ratio",
        "Share of windows with no more requests than the upper quantile said: claimed, and measured lately.",
        &["service", "kind"],
    )?;
    let capacity = gauge(
        "selvedge_capacity_requests",
        "Requests that an instance is taken to serve per window: configured, and measured where that counts instead.",
        &["service", "kind"],
    )?;
    let windows = gauge(
        "selvedge_capacity_windows",
        "Windows at load that an instance's capacity is measured by: latency held, or late.",
        &["service", "kind"],
    )?;
    let trusted = IntGaugeVec::new(
        Opts::new("selvedge_forecast_trusted", "1 where the forecast may lower what runs, by why or why not."),
        &["service", "trust"],
    )?;
    registry.register(Box::new(trusted.clone()))?;
    let braked = IntGaugeVec::new(
        Opts::new("selvedge_service_braked", "1 while so many instances never became ready that no more are added."),
        &["service"],
    )?;
    registry.register(Box::new(braked.clone()))?;
    let observed = IntGaugeVec::new(
        Opts::new("selvedge_service_observed_only", "1 where decisions are recorded and not carried out."),
        &["service"],
    )?;
    registry.register(Box::new(observed.clone()))?;
    let decisions = IntCounterVec::new(
        Opts::new("selvedge_decisions_total", "Decisions, by what they rest on and by the bounds that changed them."),
        &["service", "reason"],
    )?;
    registry.register(Box::new(decisions.clone()))?;
    for (name, service) in &status.services {
        let (name, fitness) = (name.as_str(), &service.fitness);
        for (kind, value) in [("mae", fitness.mae), ("rmse", fitness.rmse), ("naive_rmse", fitness.naive_rmse)] {
            if let Some(value) = value {
                error.with_label_values(&[name, kind]).set(value);
            }
        }
        for (kind, value) in [("claimed", fitness.claimed), ("measured", fitness.coverage)] {
            if let Some(value) = value {
                coverage.with_label_values(&[name, kind]).set(value);
            }
        }
        let of = &fitness.capacity;
        for (kind, value) in [("configured", Some(of.configured)), ("measured", of.measured)] {
            if let Some(value) = value {
                capacity.with_label_values(&[name, kind]).set(value);
            }
        }
        for (kind, count) in [("held", of.held_windows), ("late", of.late_windows)] {
            windows.with_label_values(&[name, kind]).set(count as f64);
        }
        if !fitness.trust.is_empty() {
            trusted.with_label_values(&[name, &fitness.trust]).set((fitness.trust == "earned").into());
        }
        braked.with_label_values(&[name]).set(fitness.braked.into());
        observed.with_label_values(&[name]).set((fitness.mode == "observe").into());
        for (reason, count) in &service.decisions {
            decisions.with_label_values(&[name, reason]).inc_by(*count);
        }
    }
    Ok(())
}
