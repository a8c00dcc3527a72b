//! What the catalog says of a table: its columns, its key, and what its old rows are told by.

use std::collections::BTreeMap;

use deadpool_postgres::Object;
use tokio_postgres::types::Type;

use super::error::PostgresError;
use super::server::{Server, quoted};
use super::value::Kind;
use crate::name::{ColumnName, TableName};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: ColumnName,
    pub(super) kind: Kind,
    /// The type, and the type of its arrays; of a domain, that which it is over.
    pub(super) type_oid: u32,
    pub(super) array_oid: u32,
    /// Computed by the server; the change stream leaves it out.
    generated: bool,
    /// Whether equal values have equal texts.
    pub(super) exact: bool,
    /// Whether its own order, in which an index finds it, is that of its texts' bytes.
    pub(super) in_byte_order: bool,
}

#[cfg(feature = "__fuzz")]
impl Column {
    /// A column of a key, of which nothing but the name matters.
    pub(super) fn of_key(name: ColumnName) -> Self {
        let (type_oid, array_oid) = (25, 1009);
        Self {
            name,
            kind: Kind::Text,
            type_oid,
            array_oid,
            generated: false,
            exact: true,
            in_byte_order: true,
        }
    }
}

/// How the stream tells old rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Identity {
    PrimaryKey,
    Index,
    Full,
    Nothing,
}

/// A table as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) oid: u32,
    /// Its name, with its schema.
    pub(super) name: TableName,
    pub(super) columns: Vec<Column>,
    /// The places of the key's columns among them, in the order of the key: the columns of the index that is the
    /// replica identity, else those of the primary key.
    pub(super) key: Vec<usize>,
    pub(super) identity: Identity,
}

/// How SQL spells a table.
pub(super) fn spelled(table: &TableName) -> String {
    match table.schema() {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(table.table())),
        None => quoted(table.table()),
    }
}

/// The error for a table in a schema that the role may not look into.
fn hidden(server: &Server, spelling: &str) -> PostgresError {
    let unquoted = |at: &usize| spelling[*at..].matches('"').count().is_multiple_of(2);
    let dot = spelling.match_indices('.').map(|(at, _)| at).rfind(unquoted);
    let (schema, role) = (dot.map_or("...", |at| &spelling[..at]), server.role());
    let sql = format!("GRANT USAGE ON SCHEMA {schema} TO {role};\nGRANT SELECT ON {spelling} TO {role};");
    server.place.setup(format!("the role {role} may not look into the schema of {spelling}"), sql)
}

impl Table {
    /// Reads a table by its name as SQL spells it, found as SQL finds it. Errors name a table that is missing, is no table
    /// whose changes are streamed, or has no key.
    pub(super) async fn read(
        server: &Server,
        client: &Object,
        spelling: &str,
    ) -> Result<Self, PostgresError> {
        let doing = format!("reading the schema of `{spelling}`");
        let failed = || server.place.failed(&*doing);
        let found = client
            .query_typed_opt(
                "SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, c.relreplident::text
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.oid = pg_catalog.to_regclass($1)",
                &[(&spelling, Type::TEXT)],
            )
            .await
            .map_err(|error| match failed()(error) {
                error if error.is_denied() => hidden(server, spelling),
                error => error,
            })?;
        let wrong = |what: &str| server.place.definition(format!("`{spelling}` {what}"));
        let Some(row) = found else {
            return Err(server.place.definition(format!("there is no table `{spelling}`")));
        };
        let oid: u32 = row.get(0);
        match (row.get::<_, &str>(3), row.get::<_, &str>(4)) {
            ("r" | "p", "p") => {}
            ("r" | "p", _) => {
                return Err(wrong("is unlogged or temporary, so that its changes are in no log"));
            }
            ("v" | "m", _) => {
                return Err(wrong("is a view, not a table; name the tables it reads from instead"));
            }
            _ => return Err(wrong("is not a table")),
        }
        let name = TableName::in_schema(row.get::<_, &str>(1), row.get::<_, &str>(2))
            .map_err(|error| wrong(&error.to_string()))?;
        let identity = match row.get::<_, &str>(5) {
            "d" => Identity::PrimaryKey,
            "i" => Identity::Index,
            "f" => Identity::Full,
            _ => Identity::Nothing,
        };
        let columns = columns(server, client, oid, &wrong).await.map_err(|error| match error {
            Failed::Query(error) => failed()(error),
            Failed::Wrong(error) => error,
        })?;
        let key = key(client, oid, identity, &columns).await.map_err(failed())?;
        let table = Self { oid, name, columns, key, identity };
        table.check(server)?;
        Ok(table)
    }

    fn check(&self, server: &Server) -> Result<(), PostgresError> {
        let name = spelled(&self.name);
        if self.identity == Identity::Nothing {
            let what = format!(
                "{name} has no replica identity, so that its updates and deletions fail once it is published"
            );
            return Err(server.place.setup(what, format!("ALTER TABLE {name} REPLICA IDENTITY DEFAULT;")));
        }
        if self.key.is_empty() {
            let what = format!(
                "{name} has no primary key, and no unique index of columns that are NOT NULL as its replica identity, so \
                 that nothing names its rows"
            );
            let sql = format!(
                "ALTER TABLE {name} ADD PRIMARY KEY (...);\n-- or\nALTER TABLE {name} REPLICA IDENTITY USING INDEX ...;"
            );
            return Err(server.place.setup(what, sql));
        }
        match self.key_columns().find(|column| column.generated) {
            Some(column) => Err(server.place.definition(format!(
                "{name} has the generated column `{}` in its key, which the change stream leaves out",
                column.name
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|at| &self.columns[*at])
    }

    pub(super) fn key_names(&self) -> Vec<ColumnName> {
        self.key_columns().map(|column| column.name.clone()).collect()
    }

    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.as_str() == name)
    }

    pub(super) fn column_names(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        names.join("`, `")
    }

    /// Whether an old row tells this column.
    fn tells(&self, column: &Column) -> bool {
        !column.generated && (self.identity == Identity::Full || self.key_columns().any(|key| key == column))
    }

    /// Checks that old rows tell these columns, those of its partitions too. Errors say what to run.
    pub(super) async fn supplies(
        &self,
        server: &Server,
        client: &Object,
        before: &[ColumnName],
    ) -> Result<(), PostgresError> {
        let name = spelled(&self.name);
        for wanted in before {
            let Some(column) = self.column(wanted.as_str()) else {
                return Err(server.place.definition(format!(
                    "{name} has no column `{wanted}`, which the documents need; it has `{}`",
                    self.column_names()
                )));
            };
            if column.generated {
                return Err(server.place.definition(format!(
                    "the change stream leaves out the generated column `{wanted}` of {name}, which the documents need"
                )));
            }
            if !self.tells(column) {
                let what = format!(
                    "{name} does not tell the column `{wanted}` of rows that were updated or deleted, which the documents \
                     need to find what such a row has left"
                );
                return Err(server.place.setup(what, format!("ALTER TABLE {name} REPLICA IDENTITY FULL;")));
            }
        }
        self.check_partitions(server, client).await
    }

    /// Each partition has a replica identity of its own, and it is that which its changes are logged by.
    async fn check_partitions(&self, server: &Server, client: &Object) -> Result<(), PostgresError> {
        let rows = client
            .query_typed(
                "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), (SELECT pg_catalog.format('%I', i.relname)
                     FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
                     JOIN pg_catalog.pg_inherits h ON h.inhrelid = i.oid
                     JOIN pg_catalog.pg_index p ON p.indexrelid = h.inhparent AND p.indisreplident
                     WHERE x.indrelid = c.oid LIMIT 1)
                 FROM pg_catalog.pg_partition_tree($1::oid::regclass) t
                 JOIN pg_catalog.pg_class c ON c.oid = t.relid
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_catalog.pg_class root ON root.oid = $1
                 WHERE root.relkind = 'p' AND t.isleaf AND c.relreplident <> root.relreplident ORDER BY 1",
                &[(&self.oid, Type::OID)],
            )
            .await
            .map_err(server.place.failed("reading the partitions"))?;
        if rows.is_empty() {
            return Ok(());
        }
        let statements: Vec<String> = rows
            .iter()
            .map(|row| {
                let identity = match (self.identity, row.get::<_, Option<String>>(1)) {
                    (Identity::Full, _) => "FULL".to_owned(),
                    (Identity::Index, Some(index)) => format!("USING INDEX {index}"),
                    _ => "DEFAULT".to_owned(),
                };
                format!("ALTER TABLE {} REPLICA IDENTITY {identity};", row.get::<_, &str>(0))
            })
            .collect();
        let what = format!("partitions of {} have another replica identity than itself", spelled(&self.name));
        Err(server.place.setup(what, statements.join("\n")))
    }
}

enum Failed {
    Query(tokio_postgres::Error),
    Wrong(PostgresError),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Query(error)
    }
}

async fn columns(
    server: &Server,
    client: &Object,
    table: u32,
    wrong: &(dyn Fn(&str) -> PostgresError + Sync),
) -> Result<Vec<Column>, Failed> {
    let rows = client
        .query_typed(
            "SELECT a.attname, a.atttypid, a.attgenerated::text <> '', coalesce(l.collisdeterministic, true),
                 CASE WHEN l.collname IS NULL OR l.collname IN ('C', 'POSIX') THEN true
                      WHEN l.collname = 'default' THEN d.datcollate IN ('C', 'POSIX')
                           AND coalesce(pg_catalog.to_jsonb(d)->>'datlocprovider', 'c') = 'c'
                      ELSE false END
             FROM pg_catalog.pg_attribute a
             JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
             LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            &[(&table, Type::OID)],
        )
        .await?;
    let oids: Vec<u32> = rows.iter().map(|row| row.get(1)).collect();
    let bases = bases(client, &oids).await?;
    let mut columns = Vec::with_capacity(rows.len());
    for row in rows {
        let name = ColumnName::new(row.get::<_, &str>(0))
            .map_err(|error| Failed::Wrong(wrong(&format!("cannot be captured: {error}"))))?;
        let declared: u32 = row.get(1);
        let Some(base) = bases.get(&declared) else {
            return Err(Failed::Wrong(
                server.place.stale(format!("the type of column `{name}` was dropped")),
            ));
        };
        let kind = Kind::of(base.oid);
        let texts_are_ordered = match kind {
            Kind::Bool | Kind::Int | Kind::Float | Kind::Bytes => true,
            Kind::Numeric | Kind::Padded => false,
            Kind::Text => matches!(base.name.as_str(), "text" | "varchar" | "name" | "uuid"),
        };
        columns.push(Column {
            name,
            kind,
            type_oid: base.oid,
            array_oid: base.array,
            generated: row.get(2),
            exact: row.get(3) && base.name != "citext",
            in_byte_order: texts_are_ordered && row.get(4),
        });
    }
    Ok(columns)
}

/// A type that is no domain.
#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) oid: u32,
    array: u32,
    name: String,
}

/// What each of these types is; of a domain, the type that it is over.
pub(super) async fn bases(
    client: &Object,
    types: &[u32],
) -> Result<BTreeMap<u32, Base>, tokio_postgres::Error> {
    let rows = client
        .query_typed(
            "WITH RECURSIVE t(asked, oid) AS (
                 SELECT DISTINCT asked, asked FROM pg_catalog.unnest($1::oid[]) AS asked
                 UNION ALL
                 SELECT t.asked, p.typbasetype FROM t JOIN pg_catalog.pg_type p ON p.oid = t.oid WHERE p.typtype = 'd')
             SELECT t.asked, p.oid, p.typarray, p.typname FROM t JOIN pg_catalog.pg_type p ON p.oid = t.oid
             WHERE p.typtype <> 'd'",
            &[(&types, Type::OID_ARRAY)],
        )
        .await?;
    let base = |row: tokio_postgres::Row| {
        (row.get(0), Base { oid: row.get(1), array: row.get(2), name: row.get(3) })
    };
    Ok(rows.into_iter().map(base).collect())
}

async fn key(
    client: &Object,
    table: u32,
    identity: Identity,
    columns: &[Column],
) -> Result<Vec<usize>, tokio_postgres::Error> {
    let rows = client
        .query_typed(
            "SELECT i.indisprimary, i.indisreplident, ARRAY(
                 SELECT a.attname::text FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k(attnum, at)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                 WHERE k.at <= i.indnkeyatts ORDER BY k.at)
             FROM pg_catalog.pg_index i
             WHERE i.indrelid = $1 AND (i.indisprimary OR i.indisreplident)",
            &[(&table, Type::OID)],
        )
        .await?;
    let index = rows.iter().find(|row| match identity {
        Identity::Index => row.get(1),
        _ => row.get(0),
    });
    let names: Vec<String> = index.map(|row| row.get(2)).unwrap_or_default();
    let place = |name: &String| columns.iter().position(|column| column.name.as_str() == name);
    let key: Option<Vec<usize>> = names.iter().map(place).collect();
    Ok(key.unwrap_or_default())
}
