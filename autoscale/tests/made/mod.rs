//! What made loads are made of.

// The numbers by chance of the library's own tests.
#[path = "../../src/predict/noise.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod noise;

pub use noise::Noise;

/// One wave per `season`, between −1 and 1.
pub fn wave(t: usize, season: usize) -> f64 {
    (std::f64::consts::TAU * t as f64 / season as f64).sin()
}
