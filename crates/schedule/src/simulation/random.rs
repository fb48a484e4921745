//! Numbers by seed.

use fastrand::Rng;

/// A number whose logarithm is normally distributed around 0 with the deviation `sigma`: the median is 1.
pub(super) fn log_normal(random: &mut Rng, sigma: f64) -> f64 {
    // Box and Muller; 1 - x lies in (0, 1], so that the logarithm exists.
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    (sigma * radius * (std::f64::consts::TAU * random.f64()).cos()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_numbers_are_below_1_and_they_spread_as_told() {
        let mut random = Rng::with_seed(1);
        let mut drawn: Vec<f64> = (0..20_001).map(|_| log_normal(&mut random, 1.5)).collect();
        drawn.sort_by(f64::total_cmp);
        assert!((drawn[10_000] - 1.0).abs() < 0.05, "{}", drawn[10_000]);
        // One deviation above the median lie 84.13 %.
        assert!((drawn[16_827].ln() - 1.5).abs() < 0.05, "{}", drawn[16_827].ln());
        assert!(log_normal(&mut random, 0.0).eq(&1.0));
    }
}
