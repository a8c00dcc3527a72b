//! The alphabet of `proptests` against the pipeline, with its model and all of its checks; at the end the failures stop,
//! and the world must converge.

use arbitrary::{Arbitrary, Unstructured};
use proptests::op::Op;
use proptests::random::run as drive;
use proptests::setup::Setup;

/// A longer run meets nothing that a shorter one does not, and takes longer.
const MOST_OPS: usize = 400;

/// Reads a world and what happens in it.
pub fn case(bytes: &[u8]) -> Option<(Setup, Vec<Op>)> {
    let mut bytes = Unstructured::new(bytes);
    let setup = Setup::arbitrary(&mut bytes).ok()?;
    let ops = bytes.arbitrary_iter().ok()?.take(MOST_OPS).collect::<Result<_, _>>().ok()?;
    Some((setup, ops))
}

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    if let Some((setup, ops)) = case(bytes) {
        drive(setup, &ops).heal();
    }
}
