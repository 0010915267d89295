//! What can be said about figures that differ from round to round.
//!
//! Two builds are compared by *paired* rounds: in each both have run one after the other, so that a slow
//! minute of the machine hits both. The ratio of a round is that of its two figures; the logarithms of
//! ratios scatter evenly around that of the true one, so their mean and Student's t give an interval for it.
//! A bootstrap was the alternative: with the three to ten rounds that anybody waits for, it resamples so few
//! values that its intervals come out far too narrow.

/// How sure the interval of a [`Ratio`] is: it misses the true ratio in 1 of 100 comparisons.
pub const CONFIDENCE_PERCENT: u32 = 99;

/// The 99.5 % quantile of Student's t for 1, 2, ... degrees of freedom (two-sided: 99 %).
const T_995: [f64; 30] = [
    63.657, 9.925, 5.841, 4.604, 4.032, 3.707, 3.499, 3.355, 3.250, 3.169, 3.106, 3.055, 3.012,
    2.977, 2.947, 2.921, 2.898, 2.878, 2.861, 2.845, 2.831, 2.819, 2.807, 2.797, 2.787, 2.779,
    2.771, 2.763, 2.756, 2.750,
];
/// For more than that, a little too wide rather than too narrow.
const T_995_BEYOND: f64 = 2.750;

/// What is told about a set of rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Half of the rounds lie at or below this.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

/// Sums up the figures of several rounds; `None` where there are none.
#[must_use]
pub fn spread(mut figures: Vec<f64>) -> Option<Spread> {
    figures.sort_by(f64::total_cmp);
    let (&min, &max) = (figures.first()?, figures.last()?);
    let middle = figures.len() / 2;
    let median = if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        f64::midpoint(figures[middle - 1], figures[middle])
    };
    Some(Spread { median, min, max })
}

/// How many times one figure is the other, with an interval of [`CONFIDENCE_PERCENT`] %.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    /// The best guess: the geometric mean over the rounds.
    pub ratio: f64,
    /// The lower end of the interval; 0 with a single round.
    pub low: f64,
    /// The upper end; infinite with a single round.
    pub high: f64,
    /// Rounds it rests on.
    pub rounds: usize,
}

/// Compares the figures of paired rounds, first by second. Pairs with a figure that is not above zero say
/// nothing and are left out; `None` where none is left.
#[must_use]
pub fn paired_ratio(pairs: &[(f64, f64)]) -> Option<Ratio> {
    let sound = pairs.iter().filter(|pair| pair.0 > 0.0 && pair.1 > 0.0);
    let logs: Vec<f64> = sound.map(|pair| (pair.0 / pair.1).ln()).collect();
    let rounds = logs.len();
    if rounds == 0 {
        return None;
    }
    let mean = logs.iter().sum::<f64>() / rounds as f64;
    let half = match rounds - 1 {
        0 => f64::INFINITY,
        freedom => {
            let squares: f64 = logs.iter().map(|log| (log - mean).powi(2)).sum();
            let deviation = (squares / freedom as f64).sqrt();
            let t = T_995.get(freedom - 1).copied().unwrap_or(T_995_BEYOND);
            t * deviation / (rounds as f64).sqrt()
        }
    };
    let (ratio, low, high) = (mean.exp(), (mean - half).exp(), (mean + half).exp());
    Some(Ratio {
        ratio,
        low,
        high,
        rounds,
    })
}

/// What a comparison says about speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Certainly slower, by more than the margin.
    Slower,
    /// Certainly faster, by more than the margin.
    Faster,
    /// The interval reaches into the margin around 1.
    Undecided,
}

/// Judges a ratio of speeds. `margin`: how much of a difference is nobody's business (0.03 for 3 %).
#[must_use]
pub fn judge(ratio: &Ratio, margin: f64) -> Verdict {
    if ratio.high < 1.0 - margin {
        Verdict::Slower
    } else if ratio.low > 1.0 / (1.0 - margin) {
        Verdict::Faster
    } else {
        Verdict::Undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::random_at;

    const MARGIN: f64 = 0.03;

    /// Pairs whose figures scatter by `deviation` around a common level that drifts from round to round.
    fn pairs(seed: u64, rounds: u64, truth: f64, deviation: f64) -> Vec<(f64, f64)> {
        let normal = |position: u64| {
            let uniform = |i| random_at(seed, position * 12 + i) as f64 / u64::MAX as f64;
            (0..12).map(uniform).sum::<f64>() - 6.0
        };
        let round = |i: u64| {
            // The drift is larger than any difference looked for, and must cancel out.
            let level = 1e5 * (0.3 * normal(3 * i)).exp();
            let each = |k| level * (deviation * normal(3 * i + k)).exp();
            (truth * each(1), each(2))
        };
        (0..rounds).map(round).collect()
    }

    /// Of how many experiments this holds.
    fn share(rounds: u64, truth: f64, deviation: f64, holds: impl Fn(&Ratio) -> bool) -> f64 {
        const EXPERIMENTS: u64 = 4000;
        let held = (0..EXPERIMENTS).filter(|&seed| {
            let pairs = pairs(seed + 1, rounds, truth, deviation);
            paired_ratio(&pairs).is_some_and(|ratio| holds(&ratio))
        });
        held.count() as f64 / EXPERIMENTS as f64
    }

    #[test]
    fn medians_of_odd_and_even_rounds() {
        let told = |figures: &[f64]| spread(figures.to_vec()).map(|s| (s.median, s.min, s.max));
        assert_eq!(told(&[3.0, 1.0, 2.0]), Some((2.0, 1.0, 3.0)));
        assert_eq!(told(&[4.0, 1.0, 2.0, 3.0]), Some((2.5, 1.0, 4.0)));
        assert_eq!(told(&[7.0]), Some((7.0, 7.0, 7.0)));
        assert_eq!(told(&[]), None);
    }

    #[test]
    fn a_known_interval() {
        // Logarithms 0.0, 0.1 and 0.2: mean 0.1, deviation 0.1, and t is 9.925 for two degrees of freedom.
        let pairs: Vec<_> = [0.0_f64, 0.1, 0.2].map(|log| (log.exp(), 1.0)).to_vec();
        let ratio = paired_ratio(&pairs).unwrap();
        let half = 9.925 * 0.1 / 3_f64.sqrt();
        assert!((ratio.ratio.ln() - 0.1).abs() < 1e-12);
        assert!((ratio.high.ln() - (0.1 + half)).abs() < 1e-12);
        assert!((ratio.low.ln() - (0.1 - half)).abs() < 1e-12);
    }

    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        for (rounds, truth, deviation) in [
            (3, 1.0, 0.1),
            (5, 0.7, 0.2),
            (10, 3.0, 0.05),
            (40, 1.0, 0.1),
        ] {
            let held = share(rounds, truth, deviation, |r| {
                r.low <= truth && truth <= r.high
            });
            assert!((0.983..0.997).contains(&held), "{rounds} rounds: {held}");
        }
    }

    #[test]
    fn equal_builds_are_hardly_ever_called_slower_and_slow_ones_nearly_always() {
        let slower = |r: &Ratio| judge(r, MARGIN) == Verdict::Slower;
        assert!(share(5, 1.0, 0.05, slower) < 0.004);
        assert!(
            share(5, 0.98, 0.01, slower) < 0.004,
            "the margin covers this"
        );
        assert!(share(5, 0.7, 0.05, slower) > 0.95);
        assert!(share(10, 0.9, 0.03, slower) > 0.95);
        assert!(share(5, 1.4, 0.05, |r| judge(r, MARGIN) == Verdict::Faster) > 0.95);
        assert!(share(5, 1.4, 0.05, slower) < 1e-9);
    }

    #[test]
    fn one_round_and_nothing_at_all_decide_nothing() {
        let one = paired_ratio(&[(1.0, 100.0)]).unwrap();
        assert_eq!(
            (one.low, one.high, judge(&one, MARGIN)),
            (0.0, f64::INFINITY, Verdict::Undecided)
        );
        assert_eq!(paired_ratio(&[]), None);
        assert_eq!(paired_ratio(&[(0.0, 1.0), (1.0, 0.0)]), None);
    }
}
