//! The small worlds that are explored to their end.

use crate::explore::World;
use crate::op::{Emptied, Op};
use crate::setup::Setup;

/// Nothing happens in it.
const EMPTY: World = World {
    name: "",
    setup: Setup::SMALL,
    commits: &[],
    transient: 0,
    permanent: 0,
    crashes: 0,
    drains: 0,
    demands: &[],
};

/// Two documents, each a unit of its own, two of them in flight.
const TWO_UNITS: Setup =
    Setup { max_documents: 1, builds: 2, flushes: 2, units: 2, resolves: 2, ..Setup::SMALL };

/// Two transactions of two changes over two documents, two builds and two flushes in flight; the run may die anywhere.
pub const TRANSACTIONS: World = World {
    name: "1: two transactions, a crash",
    setup: TWO_UNITS,
    commits: &[Op::Commit(0b11, 0), Op::Commit(0b11, 0b10)],
    crashes: 1,
    demands: &[
        "confirmed",
        "crashed between flush and ack",
        "crashed with documents in flight",
        "late write",
    ],
    ..EMPTY
};

/// The same with one failure that passes and one that does not, anywhere; what is skipped is recorded.
pub const FAILURES: World = World {
    name: "2: two transactions, a transient and a permanent failure",
    setup: Setup { quarantine: true, ..TWO_UNITS },
    transient: 1,
    permanent: 1,
    crashes: 0,
    demands: &[
        "a call failed",
        "a call failed for good",
        "a call was refused",
        "abandoned",
        "capture failed",
        "halted",
        "late write",
        "quarantined",
        "released",
        "run again",
        "throttled",
    ],
    ..TRANSACTIONS
};

/// A world with failures that is small enough to be walked at every change: one document in each transaction.
pub const FAILURES_SMALL: World = World {
    name: "2, small: two changes, a transient and a permanent failure",
    commits: &[Op::Commit(0b1, 0), Op::Commit(0b10, 0)],
    ..FAILURES
};

/// A backfill of three rows beside one transaction; a cursor is saved, and the run may die.
pub const BACKFILL: World = World {
    name: "3: a backfill of three rows beside a transaction, a crash",
    setup: Setup {
        scopes: true,
        rows: 0b111,
        max_changes: 1,
        max_documents: 1,
        builds: 2,
        units: 2,
        timeout_s: 1,
        cursor_ms: 200,
        ..Setup::SMALL
    },
    commits: &[Op::Commit(0b10, 0)],
    crashes: 1,
    demands: &["rebuilt", "crashed while seeding", "cursor saved", "scan began", "scan resumed", "seeded"],
    ..EMPTY
};

/// The same with a failure that passes.
pub const BACKFILL_FAILURE: World = World {
    name: "3, larger: a backfill of three rows beside a transaction, a transient failure",
    transient: 1,
    demands: &["abandoned", "cursor saved", "scan failed", "scan resumed", "seeded"],
    crashes: 0,
    ..BACKFILL
};

/// One document is dirtied again and again while it flies.
pub const HOT: World = World {
    name: "4: a document dirtied in flight, a transient failure",
    setup: Setup { builds: 2, flushes: 2, units: 2, resolves: 2, resolve_changes: 1, ..Setup::SMALL },
    commits: &[Op::Commit(1, 0), Op::Commit(1, 1), Op::Commit(1, 0)],
    transient: 1,
    demands: &["a call failed", "abandoned", "confirmed", "late write", "throttled"],
    ..EMPTY
};

/// The same, and the run may die anywhere.
pub const HOT_CRASH: World = World {
    name: "4, larger: a document dirtied in flight, a transient failure, a crash",
    crashes: 1,
    demands: &["a call failed", "abandoned", "crashed with documents in flight", "late write", "throttled"],
    ..HOT
};

/// A drain at any point, with any time left.
pub const DRAIN: World = World {
    name: "5: a drain at any point, a transient failure, a crash",
    setup: TWO_UNITS,
    commits: &[Op::Commit(0b11, 0)],
    transient: 1,
    crashes: 1,
    drains: 1,
    demands: &[
        "a call failed",
        "crashed with documents in flight",
        "drained",
        "drained at the start",
        "finished",
        "run again",
    ],
    ..EMPTY
};

/// A drain of a backfill.
pub const DRAIN_BACKFILL: World = World {
    name: "5, seeding: a drain of a backfill at any point",
    commits: &[Op::Commit(0b10, 0)],
    crashes: 0,
    drains: 1,
    demands: &["cursor saved", "drained", "finished", "scan resumed", "seeded"],
    ..BACKFILL
};

/// The same with a row less.
pub const BACKFILL_TWO: World = World {
    name: "3, small: a backfill of two rows beside a transaction, a crash",
    setup: Setup { rows: 0b11, ..BACKFILL.setup },
    ..BACKFILL
};

/// A backfill in which a view is proved: nobody dies either.
pub const BACKFILL_SMALL: World = World {
    name: "3, small: a backfill of two rows beside a transaction",
    setup: Setup { rows: 0b11, ..BACKFILL.setup },
    crashes: 0,
    demands: &["cursor saved", "seeded"],
    ..BACKFILL
};

/// The root table is emptied beside a backfill of it, and a row inserted again; the run may die anywhere.
pub const TRUNCATION: World = World {
    name: "6: a truncated table beside a backfill of two rows, a crash",
    setup: Setup { rows: 0b11, ..BACKFILL.setup },
    commits: &[Op::Truncate(Emptied::Rows, 0b10)],
    crashes: 1,
    demands: &[
        "cleared",
        "crashed while seeding",
        "cursor saved",
        "seeded",
        "truncated",
        "truncated while seeding",
    ],
    ..EMPTY
};

/// A table that documents are built from is emptied; a call may fail for the moment.
pub const TRUNCATION_RELATED: World = World {
    name: "6, related: a truncated related table beside one row, a transient failure",
    setup: Setup { rows: 0b1, ..TRUNCATION.setup },
    commits: &[Op::Truncate(Emptied::Related, 0)],
    transient: 1,
    crashes: 0,
    demands: &["abandoned", "rebuilt", "seeded", "truncated", "truncated while seeding"],
    ..TRUNCATION
};

/// The same beside two rows.
pub const TRUNCATION_RELATED_TWO: World = World {
    name: "6, related, larger: a truncated related table beside two rows, a transient failure",
    setup: TRUNCATION.setup,
    ..TRUNCATION_RELATED
};

/// A truncation in which a view is proved: one row, and nothing fails.
pub const TRUNCATION_SMALL: World = World {
    name: "6, small: a truncated table of one row",
    setup: Setup { rows: 0b1, ..TRUNCATION.setup },
    crashes: 0,
    demands: &["cleared", "seeded", "truncated", "truncated while seeding"],
    ..TRUNCATION
};

/// A document fails, its index stops alone, and is seeded anew.
pub const PARKING: World = World {
    name: "7: an index that stops alone, and is seeded anew",
    setup: Setup { rows: 0b1, park: true, max_documents: 2, builds: 1, units: 1, ..BACKFILL.setup },
    commits: &[Op::Commit(0b1, 0)],
    permanent: 1,
    demands: &["a parked index reindexed", "parked", "rebuilt", "seeded"],
    ..EMPTY
};

/// The same beside another index.
pub const PARKING_TWO: World = World {
    name: "7, larger: an index that stops alone beside another, and is seeded anew",
    setup: Setup { indexes: 2, ..PARKING.setup },
    ..PARKING
};

/// An index that is seeded is compared with its source at any point beside a transaction. In the sink a document is
/// missing, and there is one that has no row; the run may die anywhere.
pub const VERIFICATION: World = World {
    name: "8: a verification beside a transaction, a crash",
    setup: Setup {
        scopes: true,
        rows: 0b11,
        tampered: 0b101,
        max_changes: 1,
        max_documents: 1,
        ..Setup::SMALL
    },
    commits: &[Op::Commit(0b1, 0)],
    crashes: 1,
    demands: &[
        "a change came between two pages of a listing",
        "a difference was found",
        "a difference was told",
        "crashed while verifying",
        "held as it should be",
        "no difference was told",
    ],
    ..EMPTY
};

/// The same with a call that fails for the moment in place of the crash.
pub const VERIFICATION_FAILURE: World = World {
    name: "8, failure: a verification beside a transaction, a transient failure",
    transient: 1,
    crashes: 0,
    demands: &["a call failed", "a difference was told", "abandoned", "late write", "scan failed"],
    ..VERIFICATION
};

/// Both.
pub const VERIFICATION_BOTH: World = World {
    name: "8, larger: a verification beside a transaction, a transient failure, a crash",
    crashes: 1,
    demands: &["a call failed", "a difference was told", "crashed while verifying"],
    ..VERIFICATION_FAILURE
};
