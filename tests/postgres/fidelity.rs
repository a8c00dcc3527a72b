//! A key is the same out of the stream, out of a snapshot, and into a query, whatever its type.

use syncline::connectors::postgres::{IndexDefinition, PostgresDocuments};
use syncline::document::{Content, DocumentId};
use syncline::ports::DocumentBuilder;
use syncline::row::Key;

use super::world::{World, keys, opened, table, transaction};

/// A type, and values of it as SQL.
const TYPES: &[(&str, &[&str])] = &[
    ("int2", &["-32768", "0", "7", "32767"]),
    ("int4", &["-2147483648", "-1", "2147483647"]),
    ("int8", &["-9223372036854775808", "7", "9223372036854775807"]),
    ("oid", &["0", "4294967295"]),
    ("bool", &["true", "false"]),
    ("float4", &["0.1", "-0", "'NaN'", "'Infinity'", "'-Infinity'", "1e-40", "16777217"]),
    ("float8", &["0.1", "'-0'", "'NaN'", "'Infinity'", "'-Infinity'", "5e-324", "1e300", "-3.25"]),
    (
        "numeric",
        &[
            "0",
            "1.50",
            "-10.00",
            "100",
            "'NaN'",
            "0.000000000000000000001",
            "12345678901234567890.123",
            "'Infinity'",
            "9",
            "10",
        ],
    ),
    ("numeric(10,2)", &["1", "1.5", "-7.25"]),
    (
        "text",
        &[
            "''",
            "'a'",
            "'B'",
            "'ä'",
            "'b'",
            "'a:b'",
            "'a\"\\b{},'",
            "'NULL'",
            "' x '",
            "'~'",
            "'007'",
            "E'line\\nbreak'",
            "'日本'",
        ],
    ),
    ("varchar(20)", &["'a'", "'A'", "'a  '", "'Z'"]),
    ("char(5)", &["'ab'", "'ab c'", "'a'", "'Z'"]),
    ("name", &["'x'", "'Y'"]),
    ("\"char\"", &["'a'", "'Z'"]),
    ("bytea", &["'\\x'", "'\\x00'", "'\\xff00'", "'\\xdeadbeef'", "'\\x5c22'"]),
    (
        "uuid",
        &[
            "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'",
            "'00000000-0000-0000-0000-000000000000'",
            "'{ffffffffffffffffffffffffffffffff}'",
        ],
    ),
    ("date", &["'2030-01-31'", "'0044-03-15 BC'", "'infinity'", "'-infinity'", "'12030-01-01'"]),
    ("time", &["'10:00'", "'10:00:00.25'", "'24:00'"]),
    ("timetz", &["'10:00+02'", "'10:00-07:30'"]),
    (
        "timestamp",
        &[
            "'2030-01-31 10:00'",
            "'2030-01-31 10:00:00.5'",
            "'0044-03-15 12:00 BC'",
            "'infinity'",
            "'12030-01-01'",
        ],
    ),
    (
        "timestamptz",
        &[
            "'2030-01-31 10:00+02'",
            "'2030-07-31 10:00:00.123456 America/New_York'",
            "'-infinity'",
            "'1883-11-18 12:00 America/New_York'",
        ],
    ),
    ("interval", &["'1 day'", "'25 hours'", "'1 year 2 months -3 days 04:05:06.7'", "'-1 second'"]),
    ("inet", &["'10.0.0.1'", "'10.0.0.0/8'", "'::1'"]),
    ("cidr", &["'10.0.0.0/8'", "'192.168.1.0/24'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("bit(3)", &["B'101'", "B'000'"]),
    ("varbit", &["B'1'", "B'10'"]),
    ("int4range", &["'[1,5)'", "'empty'", "'(,3]'"]),
    ("jsonb", &["'{\"b\": 1, \"a\": [true]}'", "'\"x\"'"]),
    ("money", &["'12.50'", "'-3'"]),
    ("mood", &["'sad'", "'ok'", "'with space'"]),
    ("posint", &["1", "77"]),
    ("label", &["'a'", "'B'"]),
    ("pair", &["ROW(1, 'x')", "ROW(2, 'a,b \"c\"')"]),
    ("pg_lsn", &["'0/0'", "'16/B374D848'"]),
];

const OWN_TYPES: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'with space');
    CREATE DOMAIN posint AS int8 CHECK (VALUE > 0);
    CREATE DOMAIN short AS text; CREATE DOMAIN label AS short;
    CREATE TYPE pair AS (a int, b text);
    CREATE COLLATION german (provider = icu, locale = 'de-DE');";

async fn round_trip(world: &World, name: &str, width: usize, rows: usize, insert: &str) {
    let columns: Vec<String> = (1..=width).map(|at| format!("k{at}")).collect();
    let columns = columns.join(", ");
    let arrays: Vec<String> = (1..=width).map(|at| format!("${at}")).collect();
    let from = match width {
        1 => format!("{name} WHERE k1 = ANY($1)"),
        _ => format!("{name} JOIN unnest({}) AS k({columns}) USING ({columns})", arrays.join(", ")),
    };
    let sql = format!("SELECT {columns}, jsonb_build_object('n', n) FROM {from}");
    let documents = PostgresDocuments::open(&world.server(), [IndexDefinition::new("t", name, sql).unwrap()])
        .await
        .unwrap();
    let capture = syncline::connectors::postgres::PostgresCapture::new(
        &world.server(),
        world.consumer(),
        documents.tables(),
    )
    .page_rows(2);
    let mut stream = opened(&capture).await;
    world.run(insert);
    let (changes, _) = transaction(&mut stream.changes).await;
    assert_eq!(changes.len(), rows, "{name}");
    let streamed: Vec<Key> = changes.iter().map(|change| change.key.clone()).collect();

    let mut sorted = streamed.clone();
    sorted.sort();
    assert_eq!(
        keys(&capture, &table(name), None).await,
        sorted,
        "{name}: the snapshot, in the order of keys"
    );
    for (at, key) in sorted.iter().enumerate() {
        assert_eq!(keys(&capture, &table(name), Some(key)).await, sorted[at + 1..], "{name}: after {key:?}");
    }

    let ids: Vec<DocumentId> =
        streamed.iter().map(|key| DocumentId::new("t".parse().unwrap(), key.clone())).collect();
    let token = changes.last().unwrap().visibility;
    let built = loop {
        match documents.build_many(&ids, token).await {
            Ok(built) => break built,
            Err(fault) => assert_eq!(fault, syncline::Fault::not_yet(), "{name}"),
        }
    };
    for document in built {
        let document = document.unwrap();
        let n = streamed.iter().position(|key| *key == document.id.key).unwrap() + 1;
        assert_eq!(document.content, Content::Upsert(format!("{{\"n\": {n}}}")), "{name}: {:?}", document.id);
    }
    drop((stream, documents));
    while capture.forget_consumer().await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn f14_keys_of_every_type_are_equal_in_stream_snapshot_and_query() {
    let Some(world) = World::new(OWN_TYPES) else { return };
    for (at, (kind, values)) in TYPES.iter().enumerate() {
        let name = format!("t{at}");
        world.run(&format!("CREATE TABLE {name}(n serial, k1 {kind} PRIMARY KEY)"));
        let rows: Vec<String> = values.iter().map(|value| format!("({value})")).collect();
        let insert = format!("INSERT INTO {name}(k1) VALUES {}", rows.join(", "));
        round_trip(&world, &name, 1, values.len(), &insert).await;
    }
}

#[tokio::test]
async fn f14_composite_keys_of_mixed_types_and_collations_are_equal_too() {
    let Some(world) = World::new(OWN_TYPES) else { return };
    for (name, columns, key, rows) in [
        ("c1", "k1 text, k2 int", "k1, k2", "('b', 2), ('b', 10), ('B', 1), ('a:b', 1), ('a', -1)"),
        (
            "c2",
            "k1 int, k2 text COLLATE german",
            "k1, k2",
            "(1, 'ä'), (1, 'z'), (1, 'Z'), (2, 'a'), (0, 'b')",
        ),
        (
            "c3",
            "k1 numeric, k2 mood, k3 uuid",
            "k1, k2, k3",
            "(1.0, 'sad', gen_random_uuid()), (1.5, 'ok', gen_random_uuid()), (1.5, 'sad', gen_random_uuid()), (10, 'ok', gen_random_uuid())",
        ),
        (
            "c4",
            "k1 bytea, k2 bool, k3 timestamptz",
            "k1, k2, k3",
            "('\\x00', true, '2030-01-01'), ('\\x00', false, '2030-01-01'), ('\\x', true, 'infinity')",
        ),
    ] {
        world.run(&format!("CREATE TABLE {name}(n serial, {columns}, PRIMARY KEY ({key}))"));
        let width = key.split(", ").count();
        let insert = format!("INSERT INTO {name}({key}) VALUES {rows}");
        round_trip(&world, name, width, rows.matches("), (").count() + 1, &insert).await;
    }
}
