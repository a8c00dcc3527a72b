//! The dirty set by itself.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn the_size_that_is_foreseen_lies_among_those_that_were_and_follows_them(
        means in proptest::collection::vec(1_usize..10_000, 1..30),
        last in 1_usize..10_000,
    ) {
        let mut dirty = Dirty::new(BatchPolicy::default());
        for &mean in &means {
            dirty.learn_body_bytes(3, 3 * mean);
        }
        let (least, most) = (means.iter().min(), means.iter().max());
        prop_assert!(least <= Some(&dirty.body_bytes) && Some(&dirty.body_bytes) <= most);
        (0..100).for_each(|_| dirty.learn_body_bytes(1, last));
        prop_assert!(dirty.body_bytes.abs_diff(last) < 8, "{} of {last}", dirty.body_bytes);
    }
}
