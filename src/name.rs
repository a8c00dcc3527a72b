//! The names of indexes, tables, columns and streams: never empty, at most [`MAX_NAME_BYTES`] long.
//!
//! Names of up to 23 bytes are stored inline, longer ones shared, so that a clone never allocates.

use core::fmt;

use smol_str::SmolStr;

/// The longest name that is accepted, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 255;

/// Why a name was refused. It says what kind of name it was, and shows the beginning of one that is too long.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no characters.
    #[error("the {kind} name is empty")]
    Empty {
        /// What was to be named.
        kind: &'static str,
    },
    /// The name is longer than [`MAX_NAME_BYTES`].
    #[error("the {kind} name `{start}…` is {bytes} bytes long; at most {MAX_NAME_BYTES} are allowed")]
    TooLong {
        /// What was to be named.
        kind: &'static str,
        /// Its first characters.
        start: SmolStr,
        /// Its length.
        bytes: usize,
    },
    /// The name holds a control character, which no log or path would show.
    #[error("the {kind} name {name:?} holds a control character")]
    Control {
        /// What was to be named.
        kind: &'static str,
        /// The name.
        name: SmolStr,
    },
}

fn checked(kind: &'static str, name: &str) -> Result<SmolStr, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { kind });
    }
    if name.len() > MAX_NAME_BYTES {
        let start = name.chars().take(16).collect();
        return Err(NameError::TooLong { kind, start, bytes: name.len() });
    }
    if name.chars().any(char::is_control) {
        return Err(NameError::Control { kind, name: name.into() });
    }
    Ok(name.into())
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(SmolStr);

        impl $type {
            /// Checks and takes the name. Errors: [`NameError`] where it is empty, too long or unprintable.
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                checked($kind, name.as_ref()).map(Self)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl core::str::FromStr for $type {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

name! {
    /// A destination index, by the name the embedder knows it under (not the sink's physical one).
    IndexName, "index"
}
name! {
    /// A column of a table.
    ColumnName, "column"
}
name! {
    /// What a capture resumes from, in a name that no new resume point ever repeats.
    ///
    /// A capture opened under the same id continues where the acknowledged position left it. Another id means that
    /// changes may have been missed: every index is seeded again.
    StreamId, "stream"
}

/// A table, with the schema of the database it stands in where there is one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(
    /// The table alone, or the schema, [`SCHEMA_END`] and the table: `"a.b"` is not `"b"` in schema `"a"`.
    SmolStr,
);

/// Stands in no name, because control characters are refused.
const SCHEMA_END: char = '\u{1f}';

impl TableName {
    /// A table without a schema. Errors: [`NameError`].
    pub fn new(table: impl AsRef<str>) -> Result<Self, NameError> {
        checked("table", table.as_ref()).map(Self)
    }

    /// A table in a schema. Errors: [`NameError`], for either name.
    pub fn in_schema(schema: impl AsRef<str>, table: impl AsRef<str>) -> Result<Self, NameError> {
        let schema = checked("schema", schema.as_ref())?;
        let table = checked("table", table.as_ref())?;
        Ok(Self(smol_str::format_smolstr!("{schema}{SCHEMA_END}{table}")))
    }

    /// The schema, where there is one.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.0.split_once(SCHEMA_END).map(|(schema, _)| schema)
    }

    /// The table's own name, without the schema.
    #[must_use]
    pub fn table(&self) -> &str {
        self.0.split_once(SCHEMA_END).map_or(&self.0, |(_, table)| table)
    }
}

impl core::str::FromStr for TableName {
    type Err = NameError;

    /// The whole text as a table without a schema; a dot in it is part of the name.
    fn from_str(name: &str) -> Result<Self, NameError> {
        Self::new(name)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once(SCHEMA_END) {
            Some((schema, table)) => write!(f, "{schema}.{table}"),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.schema() {
            Some(schema) => write!(f, "{:?}", smol_str::format_smolstr!("{schema}.{}", self.table())),
            None => fmt::Debug::fmt(self.table(), f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b15_names_that_are_empty_too_long_or_unprintable_say_what_is_wrong() {
        assert_eq!(IndexName::new("").unwrap_err().to_string(), "the index name is empty");
        let long = "x".repeat(256);
        let message = TableName::new(&long).unwrap_err().to_string();
        assert!(message.contains("table name `xxxxxxxxxxxxxxxx…` is 256 bytes long"), "{message}");
        assert!(IndexName::new("x".repeat(255)).is_ok());
        assert_eq!(TableName::in_schema("", "t").unwrap_err().to_string(), "the schema name is empty");
        assert!(StreamId::new("a\nb").unwrap_err().to_string().contains("control character"));
    }

    #[test]
    fn a_schema_is_not_a_part_of_the_name() {
        let schema = TableName::in_schema("a", "b").unwrap();
        let dotted = TableName::new("a.b").unwrap();
        assert_eq!((schema.schema(), schema.table()), (Some("a"), "b"));
        assert_eq!((dotted.schema(), dotted.table()), (None, "a.b"));
        assert_ne!(schema, dotted);
        assert_eq!(
            (format!("{schema} {schema:?}"), format!("{dotted} {dotted:?}")),
            ("a.b \"a.b\"".into(), "a.b \"a.b\"".into())
        );
    }
}
