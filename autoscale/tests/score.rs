//! Scores against values computed by hand, and what is no trace.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use autoscale::replay::{Trace, TraceError};
use autoscale::score::{elasticity, forecasts, quantiles};

fn near(what: &str, got: f64, wanted: f64) {
    assert!((got - wanted).abs() < 1e-9, "{what}: {got} instead of {wanted}");
}

#[test]
fn errors_of_forecasts() {
    let values = [Some(10.0), Some(14.0), Some(12.0), Some(20.0), None, Some(16.0)];
    let forecast = [None, None, None, Some(17.0), Some(99.0), Some(20.0)];
    let score = forecasts(&values, &forecast, 3);
    // Errors 3 and −4; the window that was not counted is left out. Steps before: 4 and 2.
    near("rmse", score.rmse, (25.0f64 / 2.0).sqrt());
    near("mae", score.mae, 3.5);
    near("mase", score.mase.unwrap(), 3.5 / 3.0);
    assert_eq!(forecasts(&[Some(1.0); 4], &[Some(1.0); 4], 2).mase, None);
}

#[test]
fn losses_of_quantiles() {
    let values = [Some(0.0), Some(10.0), Some(20.0), None];
    let upper = [None, Some(15.0), Some(18.0), Some(1.0)];
    // 0.1 · 5 and 0.9 · 2; one of two is covered.
    let (loss, covered) = quantiles(&values, &upper, 1, 0.9).unwrap();
    near("pinball", loss, (0.5 + 1.8) / 2.0);
    near("coverage", covered, 0.5);
    assert_eq!(quantiles(&values, &upper, 3, 0.9), None);
}

#[test]
fn elasticity_of_a_supply() {
    // Demand at 10 each: 1 (never less), 2, 4, 1. The first window is not scored.
    let values = [500.0, 0.0, 20.0, 31.0, 10.0].map(Some);
    let supply = [9, 1, 1, 3, 2];
    let e = elasticity(&values, &supply, 1, 10.0, 1800.0);
    near("theta_u", e.theta_u, 100.0 / 4.0 * (1.0 / 2.0 + 1.0 / 4.0));
    near("theta_o", e.theta_o, 100.0 / 4.0 * (1.0 / 1.0));
    near("tau_u", e.tau_u, 50.0);
    near("tau_o", e.tau_o, 25.0);
    // Moves of the supply: 0 + −; of the demand: + + −.
    near("upsilon", e.upsilon, 100.0 / 3.0);
    near("adaptations", e.adaptations_per_h, 2.0 / 2.0);
    near("instance-seconds", e.instance_seconds_ratio, 7.0 / 8.0);
    near("excess", e.excess_load_pct, 100.0 * (10.0 + 1.0) / 61.0);
    // Rounding buys no instance.
    near("rounding", elasticity(&[Some(100.000_000_01)], &[5], 0, 20.0, 1.0).tau_u, 0.0);
}

#[test]
fn traces_are_read_and_wrong_ones_told_by_line() {
    let read = |rows: &str| Trace::parse("t", &format!("time_unix_s,requests\n{rows}"));
    let trace = read("0,5\n30,\n60,NaN\n150,7\n180,0\n").unwrap();
    assert_eq!(trace.window_s, 30.0);
    assert_eq!(trace.values, [Some(5.0), None, None, None, None, Some(7.0), Some(0.0)]);
    assert!(matches!(Trace::parse("t", "time,count\n"), Err(TraceError::Header { .. })));
    for row in ["60", "x,1", "60,many", "60,-1", "60,inf", "NaN,1"] {
        let error = read(&format!("0,1\n30,2\n{row}\n90,1\n120,1")).unwrap_err();
        assert!(matches!(error, TraceError::Row { line: 4, .. }), "{row}: {error}");
    }
    for time in [30, 20] {
        let error = read(&format!("0,1\n30,2\n{time},3\n120,4")).unwrap_err();
        assert!(matches!(error, TraceError::Order { line: 4, .. }), "{time}: {error}");
    }
    for second in [0, -30] {
        let error = read(&format!("0,1\n{second},2\n30,3\n60,4")).unwrap_err();
        assert!(matches!(error, TraceError::Order { line: 3, .. }), "{second}: {error}");
    }
    let error = read("0,1\n30,2\n75,3\n105,4\n135,5").unwrap_err();
    assert!(matches!(error, TraceError::Step { line: 4, .. }), "{error}");
    let error = read("0,1\n30,2\n60,1e18\n90,4").unwrap_err();
    assert!(matches!(error, TraceError::TooMany { line: 4, .. }), "{error}");
    // The second row may be missing like any other.
    let holed = read("0,1\n60,3\n90,4\n120,5").unwrap();
    assert_eq!((holed.window_s, holed.values[1]), (30.0, None));
    assert_eq!(read("0,1\n1,1\n2,1").unwrap_err(), TraceError::Short { rows: 3, least: 4 });
}
