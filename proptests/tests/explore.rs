//! Every interleaving of small worlds.

#![allow(clippy::print_stdout, reason = "the figures of an exploration are its result")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "and how long it took is one of them"
)]

use std::time::Instant;

use proptests::explore::{Explored, Search, World};
use proptests::worlds;

fn explore(search: impl Fn(World) -> Search, world: World) {
    let began = Instant::now();
    let Explored { states, steps, depth, ends, .. } = search(world).run();
    let seconds = began.elapsed().as_secs_f64();
    println!("{}: {states} states, {steps} steps, depth {depth}, {ends} ends, {seconds:.1} s", world.name);
}

#[test]
fn world_1_two_transactions() {
    explore(Search::new, worlds::TRANSACTIONS);
}

#[test]
fn world_2_failures() {
    explore(Search::new, worlds::FAILURES_SMALL);
}

#[test]
fn world_3_a_backfill_beside_live_changes() {
    explore(Search::new, worlds::BACKFILL_TWO);
}

#[test]
fn world_4_a_document_dirtied_in_flight() {
    explore(Search::new, worlds::HOT);
}

#[test]
fn world_5_a_drain_at_any_point() {
    explore(Search::new, worlds::DRAIN);
}

#[test]
fn world_6_a_truncated_table() {
    explore(Search::new, worlds::TRUNCATION);
}

#[test]
fn world_6_a_truncated_related_table() {
    explore(Search::new, worlds::TRUNCATION_RELATED);
}

#[test]
fn world_7_an_index_that_stops_alone() {
    explore(Search::new, worlds::PARKING);
}

#[test]
fn world_8_a_verification() {
    explore(Search::new, worlds::VERIFICATION);
}

#[test]
fn world_8_a_verification_with_a_failure() {
    explore(Search::new, worlds::VERIFICATION_FAILURE);
}

/// What is explored is views of states. That equal views behave alike is proved where they meet, in a world of each kind.
#[test]
fn equal_views_behave_alike() {
    let proving = |world| Search::new(world).proving();
    explore(proving, worlds::TRANSACTIONS);
    explore(proving, worlds::DRAIN);
    explore(proving, worlds::TRUNCATION_SMALL);
    explore(proving, worlds::PARKING);
    explore(proving, worlds::VERIFICATION);
}

/// Larger bounds, for minutes each: `cargo test -p proptests --test explore -- --ignored --nocapture`.
mod larger {
    use super::*;

    #[test]
    #[ignore = "takes minutes"]
    fn world_2_failures_of_two_transactions() {
        explore(Search::new, worlds::FAILURES);
    }

    #[test]
    #[ignore = "takes minutes"]
    fn equal_views_behave_alike_in_larger_worlds() {
        let proving = |world| Search::new(world).proving();
        explore(proving, worlds::FAILURES_SMALL);
        explore(proving, worlds::BACKFILL_SMALL);
    }

    #[test]
    #[ignore = "takes minutes"]
    fn world_3_a_backfill_of_three_rows() {
        explore(Search::new, worlds::BACKFILL);
    }

    #[test]
    #[ignore = "takes minutes"]
    fn world_3_a_backfill_with_a_failure() {
        explore(Search::new, worlds::BACKFILL_FAILURE);
    }

    #[test]
    #[ignore = "takes minutes"]
    fn world_4_a_document_dirtied_in_flight_and_a_crash() {
        explore(Search::new, worlds::HOT_CRASH);
    }

    #[test]
    #[ignore = "takes minutes"]
    fn world_5_a_drain_of_a_backfill() {
        explore(Search::new, worlds::DRAIN_BACKFILL);
    }

    #[test]
    #[ignore = "takes minutes"]
    fn world_6_a_truncated_related_table_of_two_rows() {
        explore(Search::new, worlds::TRUNCATION_RELATED_TWO);
    }

    #[test]
    #[ignore = "takes minutes"]
    fn world_7_an_index_that_stops_alone_beside_another() {
        explore(Search::new, worlds::PARKING_TWO);
    }

    #[test]
    #[ignore = "takes minutes"]
    fn world_8_a_verification_with_a_failure_and_a_crash() {
        explore(Search::new, worlds::VERIFICATION_BOTH);
    }
}
