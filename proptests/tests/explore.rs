//! Every interleaving of small worlds.

#![allow(clippy::print_stdout, reason = "the figures of an exploration are its result")]

use proptests::explore::{Explored, Search, World};
use proptests::worlds;

fn explore(search: impl Fn(World) -> Search, world: World) {
    let Explored { states, steps, depth, ends, .. } = search(world).run();
    println!("{}: {states} states, {steps} steps, depth {depth}, {ends} ends", world.name);
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
    explore(Search::new, worlds::BACKFILL);
}

#[test]
fn world_4_a_document_dirtied_in_flight() {
    explore(Search::new, worlds::HOT);
}

#[test]
fn world_5_a_drain_at_any_point() {
    explore(Search::new, worlds::DRAIN);
}

/// What is explored is views of states. That equal views behave alike is proved where they meet, in a world of each kind.
#[test]
fn equal_views_behave_alike() {
    let proving = |world| Search::new(world).proving();
    explore(proving, worlds::TRANSACTIONS);
    explore(proving, worlds::FAILURES_SMALL);
    explore(proving, worlds::DRAIN);
    explore(proving, worlds::BACKFILL_SMALL);
}

/// Larger bounds, for minutes: `cargo test -p proptests --test explore -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes"]
fn larger_worlds() {
    worlds::LARGE.into_iter().for_each(|world| explore(Search::new, world));
}
