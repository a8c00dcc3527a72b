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
        let told = Told(setup, ops);
        drive(setup, &told.1).heal();
    }
}

/// A case that is told, as Rust, where it fails.
struct Told(Setup, Vec<Op>);

impl Drop for Told {
    #[allow(clippy::print_stderr, reason = "it is what one looks for in the output of a fuzzer")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("as Rust:\n({:?}, {:?})", self.0, self.1);
        }
    }
}
