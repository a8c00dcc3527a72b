//! The triggers that write the change log.
//!
//! They use nothing but plain SQL, because it is the writer's SQLite that runs them, whatever its version and whatever
//! language it is called from. Values go into columns of the log that have no type, as they are: nothing is encoded, so
//! that nothing is lost (integers past 2^53, infinities, text with a NUL, BLOBs), and the writer pays for no functions.
//!
//! Besides what was inserted, updated and deleted, they log which rows *may have been replaced*. `INSERT OR REPLACE`,
//! `UPDATE OR REPLACE` and `UNIQUE ... ON CONFLICT REPLACE` remove rows without firing a delete trigger, unless the writer
//! sets `recursive_triggers`. So before a row is written, those that hold the same key or the same value of a UNIQUE
//! constraint are logged as they are. Where nothing is replaced (an upsert, an ignored insert), that is one more record
//! of a row that is still there, and costs a rebuild, which is harmless; a missed removal would not be.

use super::database::quoted;
use super::schema::{OWN, Table};

/// What a log record says of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Insert,
    Update,
    Delete,
    /// It stood in the way of a row that was written, and may be gone.
    Replace,
}

impl Op {
    pub(super) fn letter(self) -> &'static str {
        match self {
            Self::Insert => "i",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Replace => "r",
        }
    }

    pub(super) fn read(letter: &[u8]) -> Option<Self> {
        Some(match letter {
            b"i" => Self::Insert,
            b"u" => Self::Update,
            b"d" => Self::Delete,
            b"r" => Self::Replace,
            _ => return None,
        })
    }

    pub(super) fn has_before(self) -> bool {
        self != Self::Insert
    }

    pub(super) fn has_after(self) -> bool {
        matches!(self, Self::Insert | Self::Update)
    }
}

/// The triggers of a table that log its first `width` columns under this shape: their names, and their SQL exactly as the
/// database will keep it.
pub(super) fn triggers(table: &Table, width: usize, shape: i64) -> Vec<(String, String)> {
    let columns: Vec<String> = table.columns[..width].iter().map(|column| quoted(&column.name)).collect();
    let log = |op: Op, images: &[&str]| -> String {
        let values: Vec<String> = images
            .iter()
            .flat_map(|image| columns.iter().map(move |column| format!("{image}{column}")))
            .collect();
        let places: Vec<String> = (0..values.len()).map(|at| format!("v{at}")).collect();
        let (op, values, places) = (op.letter(), values.join(", "), places.join(", "));
        format!("INSERT INTO {OWN}changes(shape, op, {places}) SELECT {shape}, '{op}', {values}")
    };
    let on = quoted(&table.name);
    let in_the_way = in_the_way(table);
    let itself = all_of(table.key_columns().map(|column| {
        let name = quoted(&column.name);
        format!("{name} IS OLD.{name}")
    }));
    let moved = table
        .uniques
        .iter()
        .flatten()
        .map(|(column, _)| {
            let name = quoted(column);
            format!("NEW.{name} IS NOT OLD.{name} COLLATE BINARY")
        })
        .collect::<Vec<_>>()
        .join(" OR ");
    // By another name: where the table is called `old` or `new`, those words would mean it, and not the rows.
    let replaced = format!("{} FROM {on} AS {OWN}held", log(Op::Replace, &[""]));
    [
        ("before_insert", format!("BEFORE INSERT ON {on} BEGIN {replaced} WHERE {in_the_way}; END")),
        ("inserted", format!("AFTER INSERT ON {on} BEGIN {}; END", log(Op::Insert, &["NEW."]))),
        (
            "before_update",
            format!(
                "BEFORE UPDATE ON {on} WHEN {moved} \
                 BEGIN {replaced} WHERE ({in_the_way}) AND NOT ({itself}); END"
            ),
        ),
        ("updated", format!("AFTER UPDATE ON {on} BEGIN {}; END", log(Op::Update, &["OLD.", "NEW."]))),
        ("deleted", format!("AFTER DELETE ON {on} BEGIN {}; END", log(Op::Delete, &["OLD."]))),
    ]
    .into_iter()
    .map(|(event, body)| {
        let name = format!("{OWN}{event}_{}", table.name);
        let sql = format!("CREATE TRIGGER {} {body}", quoted(&name));
        (name, sql)
    })
    .collect()
}

/// Which rows a new one would collide with, by the key or by any other unique constraint.
fn in_the_way(table: &Table) -> String {
    let each = table.uniques.iter().map(|unique| {
        let same = all_of(unique.iter().map(|(column, collation)| {
            let name = quoted(column);
            format!("{name} = NEW.{name} COLLATE {}", quoted(collation))
        }));
        format!("({same})")
    });
    each.collect::<Vec<_>>().join(" OR ")
}

fn all_of(conditions: impl Iterator<Item = String>) -> String {
    conditions.collect::<Vec<_>>().join(" AND ")
}
