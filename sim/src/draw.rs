//! A seed draws a plan: first every rate, size and delay, zero included, then the plan from those. Schema, settings,
//! workload and faults draw from generators of their own.

mod parking;
mod situations;

use serde::Serialize;

use crate::plan::{
    Act, At, Engine, Fault, Index, Kind, Moment, Network, Node, Plan, Point, Poison, Ref, Schema, Sink,
    Source, Span, Statement, Table, Transaction,
};
use crate::random::Random;

/// What is drawn before the plan itself: how much of everything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Options {
    /// Rows that are there at the start.
    pub rows: u64,
    /// Keys of each table; fewer keys meet more often.
    pub keys: u64,
    /// Transactions.
    pub transactions: u64,
    /// The most statements of a common transaction, and of a large one.
    pub statements: u64,
    /// The most statements of a large transaction.
    pub statements_large: u64,
    /// Large ones in 1,000.
    pub large_permille: u64,
    /// The longest pause between transactions.
    pub pause_max_ms: u64,
    /// Statements in 1,000 that delete.
    pub remove_permille: u64,
    /// Statements in 1,000 that change a key.
    pub rekey_permille: u64,
    /// Rows in 1,000 that someone will not have.
    pub poison_permille: u64,
    /// Requests in 1,000 that are answered with a failure.
    pub fail_permille: u64,
    /// Those of them in 1,000 that say the content is at fault, or that nothing helps.
    pub fatal_permille: u64,
    /// Messages in 1,000 that are lost on their way, or whose answers are.
    pub lose_permille: u64,
    /// Messages in 1,000 that are held.
    pub hold_permille: u64,
    /// How long at most.
    pub hold_max_ms: u64,
    /// Flushes in 1,000 that throttle some documents.
    pub throttle_permille: u64,
    /// Builds in 1,000 whose answer lacks a document.
    pub silence_permille: u64,
    /// Portions of the stream in 1,000 that are given again, or break off.
    pub stream_permille: u64,
    /// How often nodes die, stop or are cut off.
    pub node_faults: u64,
    /// How often someone does something by hand: drops the position or an index, redefines one, drains.
    pub hand_faults: u64,
    /// How many situations are set up that chance alone seldom brings about: several faults that belong together.
    pub situations: u64,
}

impl Options {
    /// The same without anything that goes wrong.
    fn calm(self) -> Self {
        Self {
            poison_permille: 0,
            fail_permille: 0,
            lose_permille: 0,
            hold_permille: 0,
            throttle_permille: 0,
            stream_permille: 0,
            node_faults: 0,
            hand_faults: 0,
            situations: 0,
            ..self
        }
    }
}

/// The plan of a seed, and how much of everything it has.
#[must_use]
pub fn draw(seed: u64) -> (Plan, Options) {
    let mut options = options(&mut Random::new(seed, "options"));
    let contract = &mut Random::new(seed, "contract");
    options.silence_permille = if contract.permille(850) { 0 } else { contract.between(1, 60) };
    let churns = contract.permille(200);
    if churns {
        // Few documents, that come and go.
        options.keys = 2;
        options.remove_permille = contract.between(200, 500);
        options.pause_max_ms = contract.pick(&[20, 100, 200]);
    }
    let before_images = !Random::new(seed, "images").permille(250);
    let mut schema = schema(&mut Random::new(seed, "schema"), before_images);
    let parks = &mut Random::new(seed, "parking");
    parking::parks(parks, &mut schema);
    let random = &mut Random::new(seed, "workload");
    let rows = (0..options.rows).map(|_| put(random, &schema, &options)).collect();
    let mut workload: Vec<_> =
        (0..options.transactions).map(|_| transaction(random, &schema, &options)).collect();
    let settings = &mut Random::new(seed, "settings");
    let sink = sink(settings);
    let mut source = source(settings, before_images);
    source.restarts_positions = contract.permille(400);
    source.refuses_builds = contract.permille(400);
    source.says_more = contract.permille(300);
    source.scan_lag_us =
        if contract.permille(450) { 0 } else { contract.pick(&[20_000, 500_000, 1_500_000]) };
    let mut faults = faults(&mut Random::new(seed, "faults"), &options, &schema);
    // Where nothing goes wrong, nothing does.
    if !faults.is_empty() {
        faults.extend(situations::more(contract, seed, &options, &schema, churns));
        faults.extend(parking::situations(parks, &schema, &mut source, &mut workload));
    }
    truncations(&mut Random::new(seed, "truncations"), &mut workload, &schema);
    if !faults.is_empty() && source.scan_lag_us > 0 {
        faults.extend(situations::reopenings(&mut Random::new(seed, "reopenings")));
    }
    faults.retain(|fault| fault.at.point.only_side().is_none_or(|side| side == fault.at.moment));
    let plan = Plan {
        title: format!("seed {seed}"),
        seed,
        rows,
        workload,
        source,
        network: network(settings),
        engine: engine(settings),
        faults,
        sink,
        schema,
    };
    (plan, options)
}

/// Zero in some of the cases, else up to the most, small ones more often.
fn some(random: &mut Random, most: u64) -> u64 {
    if random.permille(300) {
        return 0;
    }
    let limit = random.between(1, most);
    random.between(1, limit)
}

fn options(random: &mut Random) -> Options {
    let calm = random.permille(60);
    let options = Options {
        rows: some(random, 30),
        keys: random.pick(&[2, 4, 8, 20]),
        transactions: random.between(1, 60),
        statements: random.between(1, 4),
        statements_large: random.between(8, 30),
        large_permille: some(random, 200),
        pause_max_ms: random.pick(&[0, 5, 50, 200]),
        remove_permille: some(random, 500),
        rekey_permille: some(random, 200),
        poison_permille: if random.permille(500) { 0 } else { some(random, 150) },
        fail_permille: some(random, 100),
        fatal_permille: some(random, 200),
        lose_permille: some(random, 60),
        hold_permille: some(random, 60),
        hold_max_ms: random.pick(&[20, 200, 3000]),
        throttle_permille: some(random, 200),
        silence_permille: 0,
        stream_permille: some(random, 100),
        node_faults: some(random, 16),
        hand_faults: if random.permille(400) { 0 } else { some(random, 6) },
        situations: some(random, 4),
    };
    if calm { options.calm() } else { options }
}

/// Authors with books with reviews, and settings that stand in every document of an index.
fn schema(random: &mut Random, before_images: bool) -> Schema {
    let table = |name: &str, key_columns: usize, refs: &[(&str, Option<usize>)]| Table {
        name: name.to_owned(),
        key_columns,
        refs: refs
            .iter()
            .map(|(table, part)| Ref { table: (*table).to_owned(), key_column: *part })
            .collect(),
    };
    // Without images of rows as they were, a child tells its parent by its key alone.
    let in_key = !before_images || random.permille(500);
    let reviews = match in_key {
        true => table("reviews", 2, &[("books", Some(0))]),
        false => table("reviews", 1, &[("books", None)]),
    };
    let tables = vec![
        table("authors", 1, &[]),
        table("books", 1, &[("authors", None)]),
        reviews,
        table("settings", 1, &[]),
    ];
    let index = |name: &str, root: &str, children: &[&str], parents: &[&str]| Index {
        name: name.to_owned(),
        root: root.to_owned(),
        children: children.iter().map(|child| (*child).to_owned()).collect(),
        parents: parents.iter().map(|parent| (*parent).to_owned()).collect(),
        everywhere: None,
        skips: false,
        parks: false,
    };
    let authors = index("authors", "authors", if before_images { &["books"] } else { &[] }, &[]);
    let choices = [
        index("books", "books", &["reviews"], &["authors"]),
        authors,
        index("catalog", "books", &[], &[]),
        index("reviews", "reviews", &[], &["books"]),
    ];
    let count = random.between(1, choices.len() as u64) as usize;
    let skips = random.permille(650);
    let mut indexes: Vec<Index> = choices.into_iter().take(count).collect();
    for index in &mut indexes {
        index.skips = if random.permille(150) { !skips } else { skips };
        index.everywhere = random.permille(150).then(|| "settings".to_owned());
    }
    Schema { tables, indexes }
}

fn key(random: &mut Random, table: &Table, keys: u64) -> Vec<i64> {
    (0..table.key_columns).map(|part| random.below(if part == 0 { keys } else { 3 }) as i64).collect()
}

fn put(random: &mut Random, schema: &Schema, options: &Options) -> Statement {
    // Settings change seldom: they touch everything.
    let table = random.pick(&[0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3]);
    let table = &schema.tables[table];
    let keys = if table.name == "settings" { 2 } else { options.keys };
    let key = key(random, table, keys);
    let own = table.refs.iter().filter(|by| by.key_column.is_none()).count();
    let refs = (0..own).map(|_| random.below(options.keys) as i64).collect();
    let poison = match random.permille(options.poison_permille) {
        true => random.pick(&[Poison::Rejected, Poison::Refused, Poison::Unbuildable]),
        false => Poison::None,
    };
    let bytes = random.pick(&[0, 0, 10, 200]);
    Statement::Put { table: table.name.clone(), key, refs, bytes, poison }
}

fn statement(random: &mut Random, schema: &Schema, options: &Options) -> Statement {
    let Statement::Put { table: name, key: at, refs, bytes, poison } = put(random, schema, options) else {
        unreachable!("a put is drawn");
    };
    if random.permille(options.remove_permille) {
        return Statement::Remove { table: name, key: at };
    }
    if random.permille(options.rekey_permille) {
        let table = schema.tables.iter().find(|table| table.name == name);
        let to = key(random, table.expect("it was drawn from these"), options.keys);
        return Statement::Rekey { table: name, from: at, to };
    }
    Statement::Put { table: name, key: at, refs, bytes, poison }
}

fn transaction(random: &mut Random, schema: &Schema, options: &Options) -> Transaction {
    let after_ms = random.below(options.pause_max_ms + 1);
    // Now and then nothing that a table of the schema shows.
    let count = match random.permille(100) {
        true => 0,
        false if random.permille(options.large_permille) => random.between(4, options.statements_large),
        false => random.between(1, options.statements),
    };
    Transaction { after_ms, statements: (0..count).map(|_| statement(random, schema, options)).collect() }
}

/// Some transactions empty tables, before whatever else they do, or do nothing else.
fn truncations(random: &mut Random, workload: &mut Vec<Transaction>, schema: &Schema) {
    if workload.is_empty() || random.permille(550) {
        return;
    }
    for _ in 0..random.between(1, 3) {
        let at = random.below(workload.len() as u64) as usize;
        let several = random.permille(250);
        let tables = schema.tables.iter().filter(|_| several && random.permille(400));
        let mut tables: Vec<String> = tables.map(|table| table.name.clone()).collect();
        if tables.is_empty() {
            tables.push(schema.tables[random.below(schema.tables.len() as u64) as usize].name.clone());
        }
        let truncate = Statement::Truncate { tables };
        match random.below(4) {
            0 => workload[at].statements = vec![truncate],
            // A row that was not there before is durable by then, and is a part of what is built anew.
            1 | 2 => {
                let index = &schema.indexes[random.below(schema.indexes.len() as u64) as usize];
                let related = index.children.iter().chain(&index.parents).chain(&index.everywhere);
                let Some(related) = related.last() else { continue };
                let truncate = Statement::Truncate { tables: vec![related.clone()] };
                let table = schema.tables.iter().find(|table| table.name == index.root);
                let table = table.expect("an index has a root table");
                let own = table.refs.iter().filter(|by| by.key_column.is_none()).count();
                let put = Statement::Put {
                    table: table.name.clone(),
                    key: vec![100 + at as i64; table.key_columns],
                    refs: vec![0; own],
                    bytes: 0,
                    poison: Poison::None,
                };
                workload[at].statements = vec![put];
                let after_ms = random.pick(&[50, 200, 800]);
                workload.insert(at + 1, Transaction { after_ms, statements: vec![truncate] });
            }
            _ => workload[at].statements.insert(0, truncate),
        }
    }
}

fn span(random: &mut Random, most: &[u64]) -> Span {
    let max = random.pick(most);
    Span { min: random.below(max + 1), max }
}

fn source(random: &mut Random, before_images: bool) -> Source {
    Source {
        before_images,
        stream_items: random.between(1, 20) as usize,
        keepalive_ms: random.pick(&[20, 100, 500]),
        visible_us: span(random, &[0, 0, 5_000, 100_000]),
        replica_lag_us: span(random, &[0, 0, 20_000, 500_000]),
        durable_confirms: random.below(6),
        page_rows: random.between(1, 10) as usize,
        query_us: span(random, &[0, 2_000, 20_000]),
        refuses_builds: false,
        restarts_positions: false,
        says_more: false,
        scan_lag_us: 0,
    }
}

fn sink(random: &mut Random) -> Sink {
    Sink {
        checks_versions: random.permille(700),
        checks_epochs: random.permille(500),
        concurrency: random.between(0, 4) as usize,
        stage_us: span(random, &[0, 1_000, 20_000]),
        sync_us: span(random, &[0, 2_000, 30_000]),
        request_documents: if random.permille(150) { random.between(1, 6) as usize } else { 0 },
    }
}

fn network(random: &mut Random) -> Network {
    Network {
        latency_us: span(random, &[100, 1_000, 10_000, 60_000]),
        lost_ppm: if random.permille(700) { 0 } else { random.between(1, 20_000) as u32 },
    }
}

fn engine(random: &mut Random) -> Engine {
    let builds = random.between(1, 4) as usize;
    let flushes = random.between(1, 4) as usize;
    let retry_min_ms = random.below(50);
    let wide = random.permille(300);
    let size = |random: &mut Random, small: u64, large: u64| -> usize {
        random.between(1, if wide { large } else { small }) as usize
    };
    Engine {
        max_changes: size(random, 6, 256),
        max_documents: size(random, 6, 256),
        max_bytes: size(random, 600, 100_000),
        max_delay_ms: random.pick(&[0, 0, 5, 50, 200]),
        changes: size(random, 20, 1000),
        documents: size(random, 10, 1000),
        resolves: random.between(1, 4) as usize,
        resolve_changes: size(random, 4, 100),
        builds,
        flushes,
        units: builds.max(flushes) + random.below(3) as usize,
        backfill_rows: size(random, 6, 100),
        backfill_share: random.between(1, 4) as u32,
        adaptive: builds.max(flushes) == 4 && !wide,
        retry_min_ms,
        retry_max_ms: retry_min_ms + random.below(500),
        attempts: random.between(2, 12) as u32,
        attempt_ms: random.between(300, 2000),
        cursor_interval_ms: random.between(5, 300),
        grace_ms: random.pick(&[0, 50, 1000]),
        restart_ms: random.pick(&[0, 1, 100, 500]),
        alarm_ms: random.pick(&[100, 500, 2000]),
    }
}

/// The places at which requests are served, with how often a run comes to them, about.
const REQUESTS: [(Point, u32); 20] = [
    (Point::Begin, 3),
    (Point::Ensure, 8),
    (Point::Load, 3),
    (Point::Open, 4),
    (Point::Stream, 60),
    (Point::Resolve, 30),
    (Point::Build, 60),
    (Point::Flush, 80),
    (Point::Compare, 8),
    (Point::List, 5),
    (Point::CaughtUp, 5),
    (Point::Record, 4),
    (Point::Release, 3),
    (Point::Confirm, 40),
    (Point::SeedState, 8),
    (Point::Clear, 5),
    (Point::Cursor, 12),
    (Point::Scan, 12),
    (Point::Mark, 5),
    (Point::Lag, 2),
];

/// Steps at which nodes fail: those around which the promises are kept or broken more often than others.
const STEPS: [Point; 17] = [
    Point::Poll,
    Point::Poll,
    Point::Sync,
    Point::Flush,
    Point::Flush,
    Point::Confirm,
    Point::Confirm,
    Point::Build,
    Point::Commit,
    Point::Commit,
    Point::Stream,
    Point::Start,
    Point::Clear,
    Point::Cursor,
    Point::Scan,
    Point::Mark,
    Point::Open,
];

fn faults(random: &mut Random, options: &Options, schema: &Schema) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (point, times) in REQUESTS {
        for nth in 0..times {
            let moment = random.pick(&[Moment::Before, Moment::After]);
            let at = At { point, moment, nth };
            if random.permille(options.fail_permille) {
                let severe = random.permille(options.fatal_permille);
                let kind = if severe { random.pick(&[Kind::Content, Kind::Fatal]) } else { Kind::Transient };
                faults.push(Fault { at, act: Act::Fail { kind } });
            } else if random.permille(options.lose_permille) {
                faults.push(Fault { at, act: Act::Lose });
            } else if random.permille(options.hold_permille) {
                let ms = random.between(1, options.hold_max_ms);
                faults.push(Fault { at, act: Act::Hold { ms } });
            }
            if point == Point::Flush && random.permille(options.throttle_permille) {
                let one_in = random.between(1, 4) as u32;
                let at = At { moment: Moment::Before, ..at };
                faults.push(Fault { at, act: Act::Throttle { one_in } });
            }
            if point == Point::Stream && random.permille(options.stream_permille) {
                let items = random.between(1, 8) as usize;
                let act = random.pick(&[Act::Redeliver { items }, Act::BreakStream]);
                faults.push(Fault { at, act });
            }
        }
    }
    let nodes = [Node::Engine, Node::Engine, Node::Database, Node::Index];
    for _ in 0..options.node_faults {
        let (at, node) = (step(random), random.pick(&nodes));
        let ms = random.pick(&[0, 5, 100, 1000]);
        let act = match random.below(10) {
            0..6 => Act::Kill { node, restart_ms: ms + 1 },
            6 => Act::Pause { node, ms: ms + 1 },
            7 | 8 => Act::Cut { node, ms: ms * 2 + 1 },
            _ => Act::StallReplica { ms },
        };
        faults.push(Fault { at, act });
    }
    for _ in 0..options.hand_faults {
        let at = step(random);
        let index = random.below(schema.indexes.len() as u64) as usize;
        let act = match random.below(12) {
            0..3 => Act::LosePosition,
            3 => Act::DeleteIndex { index },
            4 => Act::Redefine { index },
            5 | 6 => Act::RefuseCredentials {
                node: random.pick(&[Node::Database, Node::Index]),
                ms: random.between(1, 500),
            },
            _ => Act::Drain { within_ms: random.pick(&[0, 20, 500]) },
        };
        faults.push(Fault { at, act });
        if random.permille(300) {
            // What happens by hand happens where something else goes wrong, too.
            let act = Act::Kill { node: random.pick(&nodes), restart_ms: random.between(1, 200) };
            faults.push(Fault { at, act });
        }
    }
    for _ in 0..options.situations {
        situations::situation(random, &mut faults);
    }
    faults
}

fn step(random: &mut Random) -> At {
    let point = random.pick(&STEPS);
    let most = match point {
        Point::Poll => 250,
        Point::Flush | Point::Confirm | Point::Build | Point::Stream | Point::Commit | Point::Sync => 25,
        _ => 5,
    };
    At { point, moment: random.pick(&[Moment::Before, Moment::After]), nth: random.below(most) as u32 }
}
