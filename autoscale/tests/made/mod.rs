//! Numbers by chance for made loads, the same in every run.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), uniform in [0, 1).
pub struct Noise(pub u64);

impl Noise {
    pub fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

/// One wave per `season`, between −1 and 1.
pub fn wave(t: usize, season: usize) -> f64 {
    (std::f64::consts::TAU * t as f64 / season as f64).sin()
}
