//! The hard situations by name. A swarm that never met one of them has not looked hard enough.

macro_rules! marks {
    ($($(#[doc = $doc:literal])* $mark:ident => $name:literal,)*) => {
        /// A hard situation that a run can meet.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mark {
            $($(#[doc = $doc])* $mark,)*
        }

        impl Mark {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$mark),*];

            /// Its name, as the tables give it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$mark => $name,)*
                }
            }
        }
    };
}

marks! {
    /// The engine died after a flush was durable, and before it could confirm anything of it.
    CrashBetweenFlushAndAck => "crash between flush and ack",
    /// The engine died while a build was under way.
    CrashDuringBuild => "crash during a build",
    /// The index died with writes that were staged and not durable, and kept some of them.
    TornFlush => "flush torn by a crash of the index",
    /// The database died and forgot confirms.
    ConfirmForgotten => "confirms forgotten by a crash of the database",
    /// A confirmed transaction was given again.
    AcknowledgedAgain => "a confirmed transaction captured again",
    /// A document was changed between the start of its build and the end of its flush.
    DirtiedInFlight => "a document dirtied in flight",
    /// A transaction was written by more than three flushes.
    OverThreeUnits => "a transaction over more than three flushes",
    /// A transaction was larger than the window.
    LargerThanWindow => "a transaction larger than the window",
    /// A change touched more documents than may be dirty.
    FanOut => "a change that fans out beyond the dirty limit",
    /// A seeding went on from a saved cursor.
    CursorResumed => "a cursor resumed",
    /// Rows changed while their table was scanned.
    ChangedUnderScan => "a row changed under a scan",
    /// The position was lost while an index was being seeded.
    PositionLostWhileSeeding => "the position lost during a seeding",
    /// The engine died between the loss of its position and the next opening.
    PositionLostAndCrash => "the position lost, then a crash",
    /// A position was confirmed of a stream whose positions had begun again.
    PositionsRestarted => "positions that began again",
    /// A row vanished while no resume point existed.
    VanishedUnseen => "a row vanished unseen",
    /// An index was seeded again over old contents.
    SeededAgain => "an index seeded again",
    /// A write landed after its sender had died.
    LateWrite => "a write that landed after its run had died",
    /// A clear, a cursor or a marker arrived after its sender had given it up or died.
    LateSeeding => "a clear, cursor or marker that came late",
    /// A write was refused because a newer one stood there.
    StaleRefused => "an older version refused",
    /// A request of an earlier run was refused.
    DeadEpochRefused => "a dead epoch refused",
    /// The answer to a flush was lost after the write was durable.
    AnswerLost => "a flush durable, its answer lost",
    /// The answer to a confirm was lost.
    ConfirmLost => "a confirm taken, its answer lost",
    /// Some documents of a flush were throttled.
    Throttled => "documents throttled",
    /// A document was rejected and recorded.
    Quarantined => "a document quarantined",
    /// A document left the quarantine.
    Released => "a document released",
    /// A builder left out a document that it was asked for.
    LeftOut => "a document left out by the builder",
    /// A call was refused for its content and came again as a part.
    Halved => "a call halved",
    /// A build was refused as a whole and came again as a part.
    BuildHalved => "a build halved",
    /// A missing document was deleted.
    DeletedMissing => "a missing document deleted",
    /// A drain found something to work off.
    DrainWithWork => "a drain with work to do",
    /// A retry was outstanding when a drain began.
    DrainOvertakesRetry => "a retry overtaken by a drain",
    /// A read could not show the change yet.
    NotYet => "a change not visible yet",
    /// A child row was deleted or moved and its document rebuilt.
    ChildLeft => "a child deleted or moved",
    /// A row was given another key.
    Rekeyed => "a key changed",
    /// An index stopped alone.
    Parked => "an index that stopped alone",
    /// An index was seeded anew because someone asked for it.
    Reindexed => "an index seeded anew on request",
    /// A change was not acknowledged for so long that someone was warned.
    Stalled => "a warning of an old change",
    /// Someone tampered with what an index holds.
    Tampered => "an index tampered with",
    /// An index was compared with its source to the end.
    Verified => "an index compared with its source",
    /// A comparison found documents that were held as they should be.
    HeldRight => "a document held as it should be",
    /// A comparison found one that was not.
    HeldWrong => "a document held otherwise",
    /// A table was truncated of which rows were a part of documents.
    Truncated => "a table truncated",
    /// The same while a table was being scanned.
    TruncatedUnderScan => "a table truncated under a scan",
    /// The stream gave changes twice in one opening.
    Redelivered => "changes given twice in one opening",
    /// An idle stream gave a checkpoint that was confirmed.
    IdleCheckpoint => "an idle checkpoint confirmed",
    /// A run ended because the limit of attempts was reached.
    GaveUp => "a run halted at the limit of attempts",
    /// A run ended on refused credentials.
    CredentialsRefused => "credentials refused",
    /// An index was deleted by hand while a run wrote to it.
    DeletedByHand => "an index deleted by hand",
    /// An index was defined otherwise.
    Redefined => "an index defined otherwise",
    /// Two flushes were under way at once.
    FlushesAtOnce => "two flushes at once",
    /// Two builds were under way at once.
    BuildsAtOnce => "two builds at once",
    /// The index checks no versions.
    WithoutVersions => "an index without version checks",
    /// The index checks no epochs.
    WithoutEpochs => "an index without epoch checks",
    /// The source gives no images of rows as they were before.
    WithoutBefore => "a source without before images",
    /// Reads go to a replica that lags.
    LaggingReplica => "a lagging replica",
    /// The network loses messages of its own.
    LossyNetwork => "a network that loses messages",
    /// Nothing goes wrong at all.
    NoFaults => "no fault drawn at all",
    /// A live change was flushed while a backfill was under way.
    LiveDuringBackfill => "live changes written during a backfill",
}
