//! The engine's side of the network: one client for each run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use madsim::net::Endpoint;
use syncline::Fault;

use crate::marks::Mark;
use crate::message::{Answer, Call, Reply, Request};
use crate::outcome::Check;
use crate::plan::{Kind, Node, Point};
use crate::serve::{REQUESTS, address, describe};
use crate::world::World;

/// What a run knows, and asks with.
pub(crate) struct Client {
    pub(crate) world: Arc<World>,
    endpoint: Endpoint,
    pub(crate) run: u64,
    next: AtomicU64,
    /// The run's epoch.
    pub(crate) epoch: AtomicU64,
    /// The slot that was opened last; 0: none was.
    pub(crate) incarnation: AtomicU64,
    /// The physical index of each index, as far as the run knows.
    generations: Mutex<Vec<u64>>,
    /// How each index is defined, in this run.
    pub(crate) definitions: Vec<u32>,
}

impl Client {
    pub(crate) async fn connect(world: Arc<World>, run: u64) -> Arc<Self> {
        let endpoint =
            Endpoint::bind("0.0.0.0:0").await.expect("a node has enough ports for one endpoint a run");
        let definitions = world.with(|state| {
            state.definitions_of_run.clone_from(&state.definitions);
            state.definitions.clone()
        });
        Arc::new(Self {
            endpoint,
            run,
            next: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            incarnation: AtomicU64::new(0),
            generations: Mutex::new(vec![0; definitions.len()]),
            definitions,
            world,
        })
    }

    /// Asks a node, and waits for its answer, however long: the engine has its own time limit.
    pub(crate) async fn ask(&self, node: Node, call: Call) -> Result<Answer, Fault> {
        let point = call.point();
        let now_us = self.world.now_us();
        let until_us = now_us + self.world.plan.engine.attempt_ms * 1000;
        let number = self.world.with(|state| {
            state.requests += 1;
            state.requests
        });
        let guard = UnderWay::new(self, point, now_us, until_us);
        let named = format!("{point:?} {}", describe(&self.world, &call));
        let engine = &self.world.plan.engine;
        let verdict = self.world.with(|state| state.conduct.on_call(&named, now_us, engine));
        self.world.judge(verdict);
        // A tag is never used twice, by no run either: what answers the dead is not taken for an answer to the living.
        let tag = (self.run << 32) + self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let request = Request { tag, number, run: self.run, until_us, call };
        self.endpoint.send_to_raw(address(node), REQUESTS, Box::new(request)).await?;
        let (payload, _) = self.endpoint.recv_from_raw(tag).await?;
        drop(guard);
        let reply = payload.downcast::<Reply>().map_err(|_| Fault::fatal("this is no answer"))?;
        let failed = reply.as_ref().as_ref().is_err_and(|failed| failed.kind == Kind::Transient);
        let failed_us = failed.then(|| self.world.now_us());
        self.world.with(|state| state.conduct.on_answer(named, failed_us));
        Ok((*reply)?)
    }

    pub(crate) fn generation(&self, index: usize) -> u64 {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)[index]
    }

    pub(crate) fn set_generation(&self, index: usize, generation: u64) {
        self.generations.lock().unwrap_or_else(PoisonError::into_inner)[index] = generation;
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }
}

/// A call that is under way, for as long as its future lives.
struct UnderWay<'a> {
    client: &'a Client,
    call: u64,
}

impl<'a> UnderWay<'a> {
    fn new(client: &'a Client, point: Point, now_us: u64, until_us: u64) -> Self {
        let world = &client.world;
        let (call, now) = world.with(|state| state.gauges.begin(point, now_us, until_us));
        let limits = &world.plan.engine;
        let (most, mark) = match point {
            Point::Build => (limits.builds, Some(Mark::BuildsAtOnce)),
            Point::Flush => {
                (limits.flushes.min(world.plan.sink.concurrency.max(1)), Some(Mark::FlushesAtOnce))
            }
            Point::Resolve => (limits.resolves, None),
            Point::Confirm => (1, None),
            _ => (usize::MAX, None),
        };
        if let Some(mark) = mark.filter(|_| now > 1) {
            world.mark(mark);
        }
        if now > most {
            world.fail(Check::Bounded, format!("{now} {point:?} calls at once; the limit is {most}"));
        }
        Self { client, call }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        // A node that is killed drops its tasks late, mixed with the next run.
        self.client.world.with(|state| state.gauges.end(self.call));
    }
}
