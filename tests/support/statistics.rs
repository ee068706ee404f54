//! As much statistics as it takes to say whether two sets of times are alike.

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The probability that two samples of one distribution differ at least as much as these do: the two-sample test of
/// Kolmogorov and Smirnov, with Stephens' approximation (1970) of its asymptotic distribution.
pub fn kolmogorov_smirnov(a: &[f64], b: &[f64]) -> f64 {
    let (mut a, mut b) = (a.to_vec(), b.to_vec());
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let (n, m) = (a.len() as f64, b.len() as f64);
    // The largest distance between the shares of each that are at most so large.
    let share = |values: &[f64], most: f64| values.partition_point(|value| *value <= most) as f64 / values.len() as f64;
    let distance = a.iter().chain(&b).map(|at| (share(&a, *at) - share(&b, *at)).abs()).fold(0.0, f64::max);
    let root = (n * m / (n + m)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * distance;
    if lambda < 0.3 {
        return 1.0; // the series converges slowly there; the value is 1 to four digits
    }
    let term = |k: i32| f64::from(if k % 2 == 0 { -1 } else { 1 }) * (-2.0 * (f64::from(k) * lambda).powi(2)).exp();
    (2.0 * (1..=100).map(term).sum::<f64>()).clamp(0.0, 1.0)
}

/// Of the critical values in any table (large samples): 1.358 is 5 %, 1.628 is 1 %.
pub fn check_itself() {
    let rising = |from: usize| (from..from + 1000).map(|value| value as f64).collect::<Vec<_>>();
    for (shift, expected) in [(0, 1.0), (60, 0.0525), (73, 0.0091), (500, 0.0)] {
        let p = kolmogorov_smirnov(&rising(0), &rising(shift));
        assert!((p - expected).abs() < 0.0005, "shifted by {shift}: p {p}");
    }
}
