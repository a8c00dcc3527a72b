//! Counts the heap allocations of one contestant in one scenario, for `compare`, which counting would slow down.

use alloc_tracker::{Allocator, Session};
use peers::contests;

#[global_allocator]
static ALLOCATOR: Allocator<std::alloc::System> = Allocator::system();

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    speed::process::counted(&contests(), &arguments, |work| {
        let session = Session::new().no_stdout().no_file();
        // Whatever is counted runs on this thread alone.
        let span = session.operation("work").measure_thread().iterations(1);
        work();
        drop(span);
        session.to_report().operations().map(|(_, counted)| counted.total_allocations_count()).sum()
    });
}
