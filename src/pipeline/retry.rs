//! How long to wait before trying again.

use core::time::Duration;

use crate::config::RetryPolicy;
use crate::error::Fault;

/// A seeded generator: the delays of a run follow from its configuration and its events alone. SplitMix64 (Steele, Lea and
/// Flood, 2014).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number up to `most`, and it included.
    fn up_to(&mut self, most: u64) -> u64 {
        let wide = u128::from(self.next()) * (u128::from(most) + 1);
        (wide >> 64) as u64
    }
}

/// The delay after the `attempt`th attempt failed: drawn from the upper half of an exponentially growing one, so that
/// clients that failed together do not come back together; not less than the other side asked for.
pub(super) fn delay(policy: &RetryPolicy, random: &mut Random, attempt: u32, fault: &Fault) -> Duration {
    let doublings = attempt.saturating_sub(1).min(31);
    let whole = policy.delay_min.saturating_mul(1 << doublings).min(policy.delay_max);
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    let jittered = Duration::from_nanos(nanos - random.up_to(nanos / 2));
    fault.retry_after().map_or(jittered, |least| least.max(jittered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The first numbers of the reference implementation for this seed.
    #[test]
    fn the_generator_is_the_one_that_it_says_it_is() {
        let mut random = Random::new(1_234_567);
        let drawn = [random.next(), random.next(), random.next()];
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn both_ends_are_drawn() {
        let mut random = Random::new(7);
        let ones = (0..1000).filter(|_| random.up_to(1) == 1).count();
        assert!((400..600).contains(&ones), "{ones} of 1000");
    }

    proptest! {
        #[test]
        fn a_delay_stays_in_the_upper_half_of_its_step(seed: u64, attempt in 1_u32..100, min in 1_u64..1000, factor in 1_u64..1000) {
            let policy = RetryPolicy {
                delay_min: Duration::from_millis(min),
                delay_max: Duration::from_millis(min * factor),
                ..RetryPolicy::default()
            };
            let whole = policy.delay_min.saturating_mul(1 << (attempt - 1).min(20)).min(policy.delay_max);
            let fault = Fault::transient("x");
            let drawn = delay(&policy, &mut Random::new(seed), attempt, &fault);
            prop_assert!(drawn >= whole / 2 && drawn <= whole, "{drawn:?} of {whole:?}");
            let asked = fault.with_retry_after(Duration::from_secs(10_000));
            prop_assert_eq!(delay(&policy, &mut Random::new(seed), attempt, &asked), Duration::from_secs(10_000));
            let hurried = asked.with_retry_after(Duration::ZERO);
            prop_assert_eq!(delay(&policy, &mut Random::new(seed), attempt, &hurried), drawn);
        }
    }
}
