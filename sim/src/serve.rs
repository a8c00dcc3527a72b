//! The database and the index as nodes: requests come in, faults happen to them, answers go out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use madsim::net::Endpoint;
use tokio::time::sleep;

use crate::marks::Mark;
use crate::message::{Answer, Call, Failed, Reply, Request};
use crate::plan::{Act, Kind, Moment, Node, Point, Span};
use crate::trace::{Lane, Phase};
use crate::world::World;
use crate::{serve_database, serve_index};

/// Where requests are sent to. Answers go to the tags that they name.
pub(crate) const REQUESTS: u64 = 0;

pub(crate) fn address(node: Node) -> SocketAddr {
    let last = match node {
        Node::Database => 1,
        Node::Index => 2,
        Node::Engine => 3,
    };
    SocketAddr::from(([10, 0, 0, last], 1))
}

/// Serves until the node dies.
pub(crate) async fn serve(world: Arc<World>, node: Node) {
    let endpoint =
        Endpoint::bind(address(node)).await.expect("a node that has died has given its address back");
    loop {
        let Ok((payload, from)) = endpoint.recv_from_raw(REQUESTS).await else { return };
        let Ok(request) = payload.downcast::<Request>() else { continue };
        tokio::spawn(handle(world.clone(), node, endpoint.clone(), from, *request));
    }
}

async fn handle(world: Arc<World>, node: Node, endpoint: Endpoint, from: SocketAddr, request: Request) {
    let point = request.call.point();
    let _served = (node == Node::Index).then(|| Served::new(&world));
    let lane = lane(point);
    world.enter(lane, Phase::Begin, request.number, format_args!("{}", describe(&world, &request.call)));
    let (nth, acts) = world.pass(point, Moment::Before).await;
    let mut refusal = None;
    let mut throttle = 0;
    for act in acts {
        say(&world, &act, point, Moment::Before, nth);
        match act {
            Act::Fail { kind } => refusal = Some(refused(kind)),
            Act::Lose => return,
            Act::Hold { ms } => sleep(Duration::from_millis(ms)).await,
            Act::Throttle { one_in } => throttle = one_in,
            _ => {}
        }
    }
    if world.refuses_credentials(node) {
        world.mark(Mark::CredentialsRefused);
        refusal = Some(Failed::fatal("the credentials are refused"));
    }
    let mut reply: Reply = match (refusal, node) {
        (Some(failed), _) => Err(failed),
        (None, Node::Database) => serve_database::perform(&world, &request, nth).await,
        (None, _) => serve_index::perform(&world, &request, nth, throttle).await,
    };
    let (nth, acts) = world.pass(point, Moment::After).await;
    for act in acts {
        say(&world, &act, point, Moment::After, nth);
        match act {
            Act::Fail { kind } => reply = Err(refused(kind)),
            Act::Lose => {
                match point {
                    Point::Flush => world.mark(Mark::AnswerLost),
                    Point::Confirm => world.mark(Mark::ConfirmLost),
                    _ => {}
                }
                return;
            }
            Act::Hold { ms } => sleep(Duration::from_millis(ms)).await,
            Act::LeaveOut => {
                if let Ok(Answer::Built(built)) = &mut reply {
                    built.pop();
                }
            }
            _ => {}
        }
    }
    blame(&world, &request.call, &reply);
    if let Err(failed) = &reply {
        world.enter(lane, Phase::End, request.number, format_args!("{point:?} failed: {}", failed.text));
    } else {
        world.enter(lane, Phase::End, request.number, format_args!("{point:?} done"));
    }
    // A node that is cut off sends into the void, which is not its error.
    let _ = endpoint.send_to_raw(from, request.tag, Box::new(reply)).await;
}

/// Notes which documents a node has said to be at fault: those that it rejected, and one that stood alone in a request
/// that was refused for its content.
fn blame(world: &World, call: &Call, reply: &Reply) {
    let alone = match call {
        Call::Flush { writes } if writes.len() == 1 => writes.first().map(|written| &written.doc),
        Call::Build { docs, .. } if docs.len() == 1 => docs.first(),
        _ => None,
    };
    world.with(|state| match reply {
        Err(failed) if failed.kind == Kind::Content => {
            alone.into_iter().for_each(|doc| state.judge.on_refused(doc))
        }
        Ok(Answer::Flushed { rejected, .. }) => rejected.iter().for_each(|doc| state.judge.on_refused(doc)),
        _ => {}
    });
}

/// A request that the index holds, for as long as its task lives.
struct Served(Arc<World>);

impl Served {
    fn new(world: &Arc<World>) -> Self {
        world.with(|state| state.served += 1);
        Self(world.clone())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.with(|state| state.served -= 1);
    }
}

fn say(world: &World, act: &Act, point: Point, moment: Moment, nth: u32) {
    world.say(Lane::Fault, format_args!("{} at {point:?} {moment:?} {nth}", act.name(moment)));
}

fn refused(kind: Kind) -> Failed {
    match kind {
        Kind::Transient => Failed::transient("out of order for the moment"),
        Kind::Content => Failed::content("the request is malformed"),
        Kind::Fatal => Failed::fatal("out of order for good"),
    }
}

/// A while within a span, once healed the least.
pub(crate) async fn pause(world: &World, span: Span, point: Point, nth: u32) {
    let us = if world.with(|state| state.healed) { span.min } else { world.draw(span, point, nth) };
    if us > 0 {
        sleep(Duration::from_micros(us)).await;
    }
}

fn lane(point: Point) -> Lane {
    match point {
        Point::Commit | Point::Lag | Point::End => Lane::Source,
        Point::Start | Point::Poll | Point::Retry | Point::Begin | Point::Ensure | Point::CaughtUp => {
            Lane::Engine
        }
        Point::Open | Point::Stream => Lane::Capture,
        Point::Resolve => Lane::Resolve,
        Point::Build => Lane::Build,
        Point::Flush
        | Point::Sync
        | Point::Load
        | Point::Refuse
        | Point::Compare
        | Point::List
        | Point::Record
        | Point::Release => Lane::Flush,
        Point::Confirm => Lane::Ack,
        Point::SeedState | Point::Clear | Point::Cursor | Point::Scan | Point::Mark => Lane::Seed,
    }
}

/// A request in words. What it is about comes first.
pub(crate) fn describe(world: &World, call: &Call) -> String {
    let name = |index: &usize| world.names[*index].to_string();
    let physical = |generation: &u64| format!("physical index {generation}");
    match call {
        Call::Open => "open".to_owned(),
        Call::Stream { session } => format!("more of session {session}"),
        Call::Confirm { incarnation, position } => format!("confirm @{position} of slot {incarnation}"),
        Call::Scan { table, after, .. } => {
            format!("scan {} {}", world.shape.table_name(*table), from_where(after))
        }
        Call::Resolve { lookups, visible } => format!("look up {} seen at @{visible}", lookups.len()),
        Call::Build { docs, visible } => format!("build {docs:?} seen at @{visible}"),
        Call::Lag => "lag".to_owned(),
        Call::Begin { least } => format!("begin at {least}"),
        Call::Ensure { index } => format!("ensure {}", name(index)),
        Call::Flush { writes } => {
            let mut text = "flush".to_owned();
            for written in writes {
                let sign = if written.body.is_some() { '+' } else { '-' };
                text.push_str(&format!(" {sign}{:?}", written.doc));
            }
            text
        }
        Call::Compare { writes } => {
            let docs: Vec<_> = writes.iter().map(|written| &written.doc).collect();
            format!("compare {docs:?}")
        }
        Call::List { index, .. } => format!("list {}", name(index)),
        Call::CaughtUp => "caught up".to_owned(),
        Call::SeedState { index, .. } => format!("how far is {}", name(index)),
        Call::Clear { index, keeps, .. } => {
            format!("{} {}", if *keeps { "rebuild" } else { "clear" }, name(index))
        }
        Call::Cursor { generation, after, .. } => {
            format!("cursor {} of {}", from_where(after), physical(generation))
        }
        Call::Mark { generation, .. } => format!("mark {} seeded", physical(generation)),
        Call::Park { generation, .. } => format!("mark {} parked", physical(generation)),
        Call::Load => "load the quarantine".to_owned(),
        Call::Record { docs } => format!("record {docs:?}"),
        Call::Release { docs } => format!("release {docs:?}"),
    }
}

/// Where a scan goes on.
fn from_where(after: &Option<Vec<i64>>) -> String {
    match after {
        None => "at the start".to_owned(),
        Some(key) => format!("after {key:?}"),
    }
}

/// Answers that nothing comes with.
pub(crate) fn done() -> Reply {
    Ok(Answer::Done)
}
