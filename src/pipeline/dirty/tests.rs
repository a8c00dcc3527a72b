//! The dirty set by itself.

use super::*;
use proptest::prelude::*;

/// What is wrong with a dirty set that was broken on purpose.
impl Dirty {
    pub(in crate::pipeline) fn miscount_flights(&mut self) {
        self.flying += 1;
    }

    pub(in crate::pipeline) fn miscount_live(&mut self) {
        self.live_documents += 1;
    }

    pub(in crate::pipeline) fn miscount_unit(&mut self) {
        self.live.open.documents += 1;
    }

    /// The document that waits in a unit stands in none that there is.
    pub(in crate::pipeline) fn strand(&mut self, slot: Slot) {
        let Some((_, place)) = &mut self.entry(slot).waiting else { return };
        let Place::Unit(number) = core::mem::replace(place, Place::Unit(u64::MAX)) else { return };
        self.leave(Lane::Live, number, 0);
    }

    /// The document that waits for its flight is set aside as if there were none.
    pub(in crate::pipeline) fn set_aside(&mut self, slot: Slot) {
        let Some((_, place)) = &mut self.entry(slot).waiting else { return };
        *place = Place::Held;
    }

    /// Nothing is owed to the document that waits.
    pub(in crate::pipeline) fn forget(&mut self, slot: Slot) {
        self.entry(slot).waiting = None;
    }
}

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
