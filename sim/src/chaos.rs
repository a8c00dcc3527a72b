//! What goes wrong with nodes, done from a node of its own.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use madsim::net::NetSim;
use madsim::runtime::Handle;
use madsim::task::NodeId;
use syncline::SeedState;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::engine::on_killed;
use crate::marks::Mark;
use crate::plan::{Act, Node};
use crate::random::mix;
use crate::trace::Lane;
use crate::world::{State, World, incarnation_of, seeded_since};

/// The nodes of the world.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nodes {
    pub(crate) database: NodeId,
    pub(crate) index: NodeId,
    pub(crate) engine: NodeId,
}

impl Nodes {
    pub(crate) fn id(self, node: Node) -> NodeId {
        match node {
            Node::Database => self.database,
            Node::Index => self.index,
            Node::Engine => self.engine,
        }
    }
}

pub(crate) struct Chaos {
    pub(crate) world: Arc<World>,
    pub(crate) nodes: Nodes,
    /// Nodes that are down or paused: nothing more is done to them until they are back.
    busy: Mutex<BTreeSet<Node>>,
    cut: Mutex<BTreeSet<Node>>,
}

impl Chaos {
    pub(crate) fn new(world: Arc<World>, nodes: Nodes) -> Arc<Self> {
        Arc::new(Self { world, nodes, busy: Mutex::default(), cut: Mutex::default() })
    }

    /// Does what it is told, each on its own.
    pub(crate) async fn reign(self: Arc<Self>, mut acts: mpsc::UnboundedReceiver<Act>) {
        while let Some(act) = acts.recv().await {
            let chaos = self.clone();
            tokio::spawn(async move {
                chaos.perform(act).await;
                chaos.world.with(|state| state.outstanding -= 1);
            });
        }
    }

    async fn perform(&self, act: Act) {
        let world = &self.world;
        match act {
            Act::Kill { node, restart_ms } => {
                if take(&self.busy, node) {
                    self.kill(node);
                    sleep(Duration::from_millis(restart_ms)).await;
                    self.restart(node);
                    give_back(&self.busy, node);
                }
            }
            Act::Pause { node, ms } => {
                if take(&self.busy, node) {
                    if node == Node::Engine {
                        world.with(|state| state.conduct.was_paused = true);
                    }
                    Handle::current().pause(self.nodes.id(node));
                    sleep(Duration::from_millis(ms)).await;
                    Handle::current().resume(self.nodes.id(node));
                    give_back(&self.busy, node);
                }
            }
            Act::Cut { node, ms } => {
                if take(&self.cut, node) {
                    NetSim::current().clog_node(self.nodes.id(node));
                    sleep(Duration::from_millis(ms)).await;
                    NetSim::current().unclog_node(self.nodes.id(node));
                    give_back(&self.cut, node);
                }
            }
            Act::StallReplica { ms } => {
                let now_us = world.now_us();
                world.with(|state| state.database.freeze(now_us, now_us + ms * 1000));
            }
            Act::RefuseCredentials { node, ms } => world.refuse_credentials(node, world.now_us() + ms * 1000),
            Act::Redeliver { items } => {
                if world.with(|state| state.database.go_back(items)) {
                    world.with(|state| state.conduct.on_repeat());
                    world.mark(Mark::Redelivered);
                    world.streamed.notify_waiters();
                }
            }
            Act::BreakStream => {
                world.with(|state| state.database.break_stream());
                world.streamed.notify_waiters();
            }
            Act::LosePosition => self.lose_position(),
            Act::DeleteIndex { index } => {
                if world.with(|state| state.index.delete(index)) {
                    world.mark(Mark::DeletedByHand);
                }
            }
            Act::Redefine { index } => {
                world.with(|state| state.definitions[index] += 1);
                world.mark(Mark::Redefined);
            }
            Act::Reindex { index } => {
                world.with(|state| state.reindex.push(index));
                world.asked.notify_one();
            }
            Act::Tamper { index, nth } => {
                if let Some(doc) = world.with(|state| state.index.tamper(index, nth)) {
                    world.say(Lane::Fault, format_args!("{doc:?} was tampered with"));
                    world.mark(Mark::Tampered);
                }
            }
            Act::Verify { index } => {
                world.with(|state| state.verify.push(index));
                world.asked.notify_one();
            }
            Act::Drain { within_ms } => self.drain(within_ms),
            Act::Fail { .. } | Act::Lose | Act::Hold { .. } | Act::Throttle { .. } | Act::LeaveOut => {}
        }
    }

    pub(crate) fn kill(&self, node: Node) {
        let world = &self.world;
        match node {
            Node::Database => {
                if world.with(|state| state.database.crash()) {
                    world.mark(Mark::ConfirmForgotten);
                }
            }
            Node::Index => {
                let salt = mix(world.plan.seed ^ world.now_us());
                let (settled, lost) = world.with(|state| {
                    let State { index, judge, database, .. } = state;
                    index.crash(salt, judge, |seed| seeded_since(database, seed))
                });
                if settled.writes > 0 && lost > 0 {
                    world.mark(Mark::TornFlush);
                }
                world.book(settled);
            }
            Node::Engine => on_killed(world),
        }
        world.say(Lane::Fault, format_args!("{node:?} is down"));
        Handle::current().kill(self.nodes.id(node));
    }

    pub(crate) fn restart(&self, node: Node) {
        self.world.say(Lane::Fault, format_args!("{node:?} is back"));
        Handle::current().restart(self.nodes.id(node));
    }

    fn lose_position(&self) {
        let world = &self.world;
        world.with(|state| {
            let slot = state.database.slot.as_ref().map(|slot| slot.incarnation);
            let is_seeded = |index: usize| {
                let marker = state.index.generation(index).and_then(|generation| generation.marker.as_ref());
                marker.is_some_and(|(seed, at)| {
                    incarnation_of(seed.stream.as_str()) == slot && *at == SeedState::Seeded
                })
            };
            if slot.is_some() && !(0..world.names.len()).all(is_seeded) {
                state.mark(Mark::PositionLostWhileSeeding);
            }
            state.database.lose_position();
        });
        world.streamed.notify_waiters();
    }

    fn drain(&self, within_ms: u64) {
        let world = &self.world;
        let now_us = world.now_us();
        let asked = world.with(|state| {
            if !state.is_running {
                return false;
            }
            state.drain_within_ms = Some(within_ms);
            if state.gauges.is_anything_on_its_way() {
                state.mark(Mark::DrainWithWork);
            }
            if state.gauges.retry_until_us > now_us {
                state.mark(Mark::DrainOvertakesRetry);
            }
            true
        });
        if asked {
            world.asked.notify_one();
        }
    }
}

fn take(set: &Mutex<BTreeSet<Node>>, node: Node) -> bool {
    set.lock().unwrap_or_else(PoisonError::into_inner).insert(node)
}

fn give_back(set: &Mutex<BTreeSet<Node>>, node: Node) {
    set.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
}
