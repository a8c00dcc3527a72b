//! The resume point: a replication slot, and the publication that says what goes through it.
//!
//! A slot's name ends in a number of its own, drawn when it was made, so that no slot of a consumer is ever made again
//! under the same name: the name is the incarnation. A slot is made *after* the publication holds every table, since
//! the stream is decoded with the catalog as it was at each change.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::error::PostgresError;
use super::schema::{Table, spelled};
use super::server::{Server, quoted};
use crate::name::StreamId;

/// Everything of the connector's own at a server begins with this.
const OWN: &str = "syncline_";

/// The longest name that a slot may have.
const MAX_SLOT_BYTES: usize = 63;

/// How many hexadecimal digits an incarnation has.
const INCARNATION_DIGITS: usize = 16;

/// How long to wait, when a slot is made, for the transactions that began before: less than an attempt may take.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(45);

/// A healthy slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) stream: StreamId,
    /// The server, whichever copy of it answers.
    pub(super) system: u64,
    /// The position from which it streams.
    pub(super) confirmed: u64,
}

/// Checks the name of a consumer. Errors say what it may be.
pub(super) fn check_consumer(server: &Server, consumer: &str) -> Result<(), PostgresError> {
    let longest = MAX_SLOT_BYTES - OWN.len() - 1 - INCARNATION_DIGITS;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    match consumer.bytes().all(plain) && (1..=longest).contains(&consumer.len()) {
        true => Ok(()),
        false => Err(server.place.definition(format!(
            "the consumer name {consumer:?} must be of lower-case letters, digits and `_`, {longest} at the most: it is a \
             part of the slot's name"
        ))),
    }
}

/// The publication of a consumer, where it was given no other.
pub(super) fn publication_of(consumer: &str) -> String {
    format!("{OWN}{consumer}")
}

/// Checks that the server can stream changes at all. Errors say what to run.
pub(super) async fn check_server(server: &Server, client: &Object) -> Result<(), PostgresError> {
    let failed = || server.place.failed("reading the settings of the server");
    let row = client
        .query_typed_one(
            "SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('wal_level'),
                 pg_catalog.pg_is_in_recovery(), r.rolreplication OR r.rolsuper
             FROM pg_catalog.pg_roles r WHERE r.rolname = current_user",
            &[],
        )
        .await
        .map_err(failed())?;
    let version: i32 = row.get(0);
    if version < 130_000 {
        return Err(server
            .place
            .definition(format!("its version is {version}; 13 is the oldest that will do")));
    }
    if row.get(2) {
        let what = "it is a standby, from which changes cannot be captured; name its primary";
        return Err(server.place.definition(what));
    }
    if row.get::<_, &str>(1) != "logical" {
        let what = format!("its `wal_level` is `{}` instead of `logical`", row.get::<_, &str>(1));
        return Err(server
            .place
            .setup(what, "ALTER SYSTEM SET wal_level = logical; -- and restart the server"));
    }
    if !row.get::<_, bool>(3) {
        let role = server.role();
        let what = format!("the role {role} may not replicate");
        return Err(server.place.setup(what, format!("ALTER ROLE {role} REPLICATION;")));
    }
    Ok(())
}

/// Checks that the role may read these tables. Errors say what to grant.
pub(super) async fn check_grants(
    server: &Server,
    client: &Object,
    tables: &[Table],
) -> Result<(), PostgresError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let rows = client
        .query_typed(
            "SELECT oid FROM pg_catalog.unnest($1::oid[]) AS oid
             WHERE NOT pg_catalog.has_table_privilege(oid, 'SELECT')",
            &[(&oids, Type::OID_ARRAY)],
        )
        .await
        .map_err(server.place.failed("reading the grants"))?;
    let denied: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let denied = tables.iter().filter(|table| denied.contains(&table.oid));
    let denied: Vec<String> = denied.map(|table| spelled(&table.name)).collect();
    let (names, role) = (denied.join(", "), server.role());
    match denied.is_empty() {
        true => Ok(()),
        false => Err(server.place.setup(
            format!("the role {role} may not read its tables"),
            format!("GRANT SELECT ON {names} TO {role};"),
        )),
    }
}

/// The publication of this name: its identity, and whether it tells all changes, those of partitions as of their root.
async fn publication_found(
    server: &Server,
    client: &Object,
    publication: &str,
) -> Result<Option<(u32, bool)>, PostgresError> {
    let found = client
        .query_typed_opt(
            "SELECT oid, pubinsert AND pubupdate AND pubdelete AND pubtruncate AND pubviaroot
             FROM pg_catalog.pg_publication WHERE pubname = $1",
            &[(&publication, Type::TEXT)],
        )
        .await
        .map_err(server.place.failed(format!("reading the publication `{publication}`")))?;
    Ok(found.map(|row| (row.get(0), row.get(1))))
}

/// Makes sure that the publication holds these tables, with all their changes. Returns whether it had to be made or
/// changed: then changes may have been missed.
pub(super) async fn publish(
    server: &Server,
    client: &Object,
    publication: &str,
    tables: &[Table],
) -> Result<bool, PostgresError> {
    let name = quoted(publication);
    let options = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true";
    let found = publication_found(server, client, publication).await?;
    let statement = match found {
        None => {
            let all: Vec<String> = tables.iter().map(|table| spelled(&table.name)).collect();
            vec![format!("CREATE PUBLICATION {name} FOR TABLE {} WITH ({options})", all.join(", "))]
        }
        Some((oid, tells_all)) => {
            let missing = missing(server, client, publication, oid, tables).await?;
            let mut statements = Vec::new();
            if !tells_all {
                statements.push(format!("ALTER PUBLICATION {name} SET ({options})"));
            }
            if !missing.is_empty() {
                statements.push(format!("ALTER PUBLICATION {name} ADD TABLE {}", missing.join(", ")));
            }
            statements
        }
    };
    if statement.is_empty() {
        return Ok(false);
    }
    let sql = format!("{};", statement.join(";\n"));
    tracing::info!(publication, "publishing tables");
    match client.batch_execute(&sql).await {
        Ok(()) => Ok(true),
        Err(error) => {
            let error = server.place.failed(format!("publishing the tables by\n{sql}\n"))(error);
            match error.is_denied() {
                true => {
                    let what = format!(
                        "the role may not publish the tables, which their owner, or a superuser, may (`{publication}`)"
                    );
                    Err(server.place.setup(what, sql))
                }
                false => Err(error),
            }
        }
    }
}

/// Whether the publication still holds these very tables, with all their changes.
pub(super) async fn is_published(
    server: &Server,
    client: &Object,
    publication: &str,
    tables: &[Table],
) -> Result<bool, PostgresError> {
    let failed = || server.place.failed(format!("reading the publication `{publication}`"));
    let found = publication_found(server, client, publication).await?;
    let Some((oid, true)) = found else { return Ok(false) };
    if !missing(server, client, publication, oid, tables).await?.is_empty() {
        return Ok(false);
    }
    let names: Vec<String> = tables.iter().map(|table| spelled(&table.name)).collect();
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let row = client
        .query_typed_one(
            "SELECT coalesce(bool_and(pg_catalog.to_regclass(name) IS NOT DISTINCT FROM oid::regclass), true)
             FROM unnest($1::text[], $2::oid[]) AS t(name, oid)",
            &[(&names, Type::TEXT_ARRAY), (&oids, Type::OID_ARRAY)],
        )
        .await
        .map_err(failed())?;
    Ok(row.get(0))
}

/// Those of the tables that it does not hold. Errors: one of which it passes on a part only.
async fn missing(
    server: &Server,
    client: &Object,
    publication: &str,
    oid: u32,
    tables: &[Table],
) -> Result<Vec<String>, PostgresError> {
    let rows = client
        .query_typed(
            "SELECT t.schemaname::text, t.tablename::text, r.prqual, r.prattrs FROM pg_catalog.pg_publication_tables t
             LEFT JOIN LATERAL (
                 SELECT pg_catalog.to_jsonb(r)->>'prqual' IS NOT NULL AS prqual,
                     pg_catalog.to_jsonb(r)->>'prattrs' IS NOT NULL AS prattrs
                 FROM pg_catalog.pg_publication_rel r
                 WHERE r.prpubid = $2
                     AND r.prrelid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', t.schemaname, t.tablename))
             ) r ON true
             WHERE t.pubname = $1",
            &[(&publication, Type::TEXT), (&oid, Type::OID)],
        )
        .await
        .map_err(server.place.failed(format!("reading the tables of the publication `{publication}`")))?;
    let mut missing = Vec::new();
    for table in tables {
        let name = spelled(&table.name);
        let held = rows.iter().find(|row| {
            Some(row.get::<_, &str>(0)) == table.name.schema() && row.get::<_, &str>(1) == table.name.table()
        });
        let Some(row) = held else {
            missing.push(name);
            continue;
        };
        if row.get::<_, Option<bool>>(2) == Some(true) || row.get::<_, Option<bool>>(3) == Some(true) {
            let (what, publication) = (
                format!(
                    "the publication `{publication}` passes on a part of {name} only, by a row filter or a column list"
                ),
                quoted(publication),
            );
            let sql = format!(
                "ALTER PUBLICATION {publication} DROP TABLE {name};\nALTER PUBLICATION {publication} ADD TABLE {name};"
            );
            return Err(server.place.setup(what, sql));
        }
    }
    Ok(missing)
}

/// A regular expression for the names of a consumer's slots.
fn names_of(consumer: &str) -> String {
    format!("^{OWN}{consumer}_[0-9a-f]{{{INCARNATION_DIGITS}}}$")
}

/// Finds the slots of a consumer: the one to stream from, where there is one, and those that are of no use.
async fn find(
    server: &Server,
    client: &Object,
    consumer: &str,
) -> Result<(Option<Slot>, Vec<String>), PostgresError> {
    let rows = client
        .query_typed(
            "SELECT slot_name::text, (SELECT system_identifier FROM pg_catalog.pg_control_system()),
                 (confirmed_flush_lsn - '0/0')::int8, restart_lsn IS NULL OR coalesce(wal_status, '') = 'lost'
             FROM pg_catalog.pg_replication_slots
             WHERE database = pg_catalog.current_database() AND plugin = 'pgoutput' AND NOT temporary
                 AND slot_name ~ $1
             ORDER BY confirmed_flush_lsn NULLS LAST, slot_name",
            &[(&names_of(consumer), Type::TEXT)],
        )
        .await
        .map_err(server.place.failed("reading the replication slots"))?;
    let (mut healthy, mut useless) = (None, Vec::new());
    for row in rows {
        let name: String = row.get(0);
        match (row.get::<_, bool>(3), row.get::<_, Option<i64>>(2), &healthy) {
            (false, Some(confirmed), None) => {
                let system = row.get::<_, i64>(1).cast_unsigned();
                let stream = StreamId::new(format!("postgres/{system}/{name}"))
                    .map_err(|error| server.place.unexpected(error.to_string()))?;
                healthy = Some(Slot { name, stream, system, confirmed: confirmed.cast_unsigned() });
            }
            _ => useless.push(name),
        }
    }
    Ok((healthy, useless))
}

/// Checks that nobody follows a slot of a consumer, were it one that is of no use. Errors: somebody does, which is transient.
pub(super) async fn check_free(
    server: &Server,
    client: &Object,
    consumer: &str,
) -> Result<(), PostgresError> {
    let followed = client
        .query_typed_opt(
            "SELECT slot_name::text, active_pid FROM pg_catalog.pg_replication_slots
             WHERE slot_name ~ $1 AND active_pid IS NOT NULL LIMIT 1",
            &[(&names_of(consumer), Type::TEXT)],
        )
        .await
        .map_err(server.place.failed("reading the replication slots"))?;
    match followed {
        Some(row) => {
            Err(PostgresError::Followed { server: server.place.0.clone(), slot: row.get(0), pid: row.get(1) })
        }
        None => Ok(()),
    }
}

/// The slot of a consumer: the one there is, or a new one where there is none, where it is `fresh` that is asked for, or
/// where the one there is stands ahead of `known`, the slot and position that this process has confirmed last: somebody
/// else has moved it, or made it again under its name.
pub(super) async fn ensure(
    server: &Server,
    consumer: &str,
    fresh: bool,
    known: Option<&(String, u64)>,
) -> Result<Slot, PostgresError> {
    let client = server.client().await?;
    let (mut found, useless) = find(server, &client, consumer).await?;
    for name in useless {
        tracing::warn!(
            slot = name,
            "dropping a replication slot that was lost, or that nothing streams from"
        );
        remove(server, &client, &name).await?;
    }
    let moved = |slot: &Slot| known.is_some_and(|(name, at)| *name == slot.name && slot.confirmed > *at);
    if let Some(slot) = found.take_if(|slot| fresh || moved(slot)) {
        tracing::warn!(slot = slot.name, "dropping a replication slot that may have missed changes");
        remove(server, &client, &slot.name).await?;
    }
    if let Some(slot) = found {
        return Ok(slot);
    }
    create(server, client, consumer).await?;
    let client = server.client().await?;
    let (found, _) = find(server, &client, consumer).await?;
    found.ok_or_else(|| server.place.stale("the replication slot that was made is gone"))
}

/// Makes a slot. First a temporary one, which vanishes with its connection: the permanent copy of it appears only once
/// every transaction is over that may have committed before the slot's first position and yet be hidden from a query (a
/// commit that waits for a standby). Whoever finds the slot may scan.
async fn create(server: &Server, client: Object, consumer: &str) -> Result<(), PostgresError> {
    let digits = uuid::Uuid::new_v4().simple().to_string();
    let name = format!("{OWN}{consumer}_{}", &digits[..INCARNATION_DIGITS]);
    let draft = format!("{OWN}draft_{}", &digits[INCARNATION_DIGITS..]);
    // Not of the pool any more: the temporary slot goes when this connection does.
    let client = Object::take(client);
    let failed = || server.place.failed(format!("making the replication slot `{name}`"));
    let waits = || {
        server.place.stale(format!(
            "the replication slot `{name}` cannot be made before all transactions that are open have ended"
        ))
    };
    let limit = SETTLE_TIMEOUT.as_millis();
    client.batch_execute(&format!("SET statement_timeout = {limit}")).await.map_err(failed())?;
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let made = client
        .query_one(
            "SELECT pg_catalog.pg_create_logical_replication_slot($1::text::name, 'pgoutput', true)",
            &[&draft],
        )
        .await;
    if made.as_ref().is_err_and(|error| error.code() == Some(&SqlState::QUERY_CANCELED)) {
        return Err(waits());
    }
    made.map_err(failed())?;
    // A new id is above those of all transactions that may have committed by now. The end of a snapshot is not: it is above
    // those only that other sessions know to have ended.
    let row = client.query_one("SELECT pg_catalog.pg_current_xact_id()::text", &[]).await.map_err(failed())?;
    let settled: &str = row.get(0);
    loop {
        let row = client
            .query_one(
                "SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= $1::text::xid8",
                &[&settled],
            )
            .await
            .map_err(failed())?;
        if row.get(0) {
            break;
        }
        if Instant::now() >= deadline {
            return Err(waits());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client
        .query_one(
            "SELECT pg_catalog.pg_copy_logical_replication_slot($1::text::name, $2::text::name, false)",
            &[&draft, &name],
        )
        .await
        .map_err(failed())?;
    tracing::info!(slot = name, "made a replication slot");
    Ok(())
}

/// Drops a slot that nothing streams from. Errors: one that is in use is transient.
async fn remove(server: &Server, client: &Object, name: &str) -> Result<(), PostgresError> {
    let dropped = client.query("SELECT pg_catalog.pg_drop_replication_slot($1::text::name)", &[&name]).await;
    match dropped {
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => Ok(()),
        result => {
            result.map(drop).map_err(server.place.failed(format!("dropping the replication slot `{name}`")))
        }
    }
}

/// Drops all slots of a consumer, and the publication where it is given. Returns whether there was anything.
pub(super) async fn forget(
    server: &Server,
    client: &Object,
    consumer: &str,
    publication: Option<&str>,
) -> Result<bool, PostgresError> {
    let (healthy, useless) = find(server, client, consumer).await?;
    let slots: Vec<String> = healthy.map(|slot| slot.name).into_iter().chain(useless).collect();
    for name in &slots {
        remove(server, client, name).await?;
    }
    let mut any = !slots.is_empty();
    if let Some(publication) = publication {
        let failed = || server.place.failed(format!("dropping the publication `{publication}`"));
        let found = client
            .query_opt("SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = $1", &[&publication])
            .await
            .map_err(failed())?;
        if found.is_some() {
            client
                .batch_execute(&format!("DROP PUBLICATION {}", quoted(publication)))
                .await
                .map_err(failed())?;
            any = true;
        }
    }
    Ok(any)
}

/// Moves a slot that nothing streams from, unless it is there already.
pub(super) async fn advance(
    server: &Server,
    client: &Object,
    name: &str,
    position: u64,
) -> Result<(), PostgresError> {
    client
        .query(
            "SELECT pg_catalog.pg_replication_slot_advance(slot_name, $2::text::pg_lsn)
             FROM pg_catalog.pg_replication_slots
             WHERE slot_name = $1::text::name AND confirmed_flush_lsn < $2::text::pg_lsn",
            &[&name, &format!("{:X}/{:X}", position >> 32, position & 0xffff_ffff)],
        )
        .await
        .map(drop)
        .map_err(server.place.failed(format!("confirming a position of the replication slot `{name}`")))
}

/// A position that the stream will pass, behind everything that is in the log now: that of a mark which is written there,
/// and which nobody is told of. Wherever else the log ends, the stream might come to rest before it.
pub(super) async fn mark(server: &Server) -> Result<u64, PostgresError> {
    let client = server.client().await?;
    let written = client
        .query_typed_one(
            "SELECT (pg_catalog.pg_logical_emit_message(false, 'syncline', '') - '0/0')::int8",
            &[],
        )
        .await
        .map_err(server.place.failed("marking the end of the log"));
    match written {
        Ok(row) => Ok(row.get::<_, i64>(0).cast_unsigned()),
        // Somebody has taken the right away from everybody. What is lost is only that a backlog is not told from silence.
        Err(error) if error.is_denied() => Ok(0),
        Err(error) => Err(error),
    }
}

/// How many bytes of the log lie between the confirmed position and the end.
pub(super) async fn lag(
    server: &Server,
    client: &Object,
    consumer: &str,
) -> Result<Option<u64>, PostgresError> {
    let Some(slot) = find(server, client, consumer).await?.0 else { return Ok(None) };
    let row = client
        .query_typed_one("SELECT (pg_catalog.pg_current_wal_lsn() - '0/0')::int8", &[])
        .await
        .map_err(server.place.failed("reading the lag"))?;
    Ok(Some(row.get::<_, i64>(0).cast_unsigned().saturating_sub(slot.confirmed)))
}
