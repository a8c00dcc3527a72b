//! A hash that is the same in every build of the program and on every machine.

use crate::name::{ColumnName, IndexName};
use crate::ports::Field;

/// What a definition says of an index: all that makes its documents others when it is changed.
pub(super) struct Definition<'a> {
    /// Whose definition it is, and in which version.
    pub(super) kind: &'a str,
    pub(super) index: &'a IndexName,
    pub(super) root: &'a str,
    pub(super) sql: &'a str,
    pub(super) key: &'a [ColumnName],
    pub(super) fields: &'a [Field],
}

/// A related table: its name, its columns, and its query.
pub(super) type Related<'a> = (&'a str, &'a [ColumnName], Option<&'a str>);

impl Definition<'_> {
    /// The fingerprint of all this, and of these related tables in their order.
    pub(super) fn fingerprint<'a>(&self, related: impl ExactSizeIterator<Item = Related<'a>>) -> String {
        let mut hash = Fingerprint::default();
        hash.texts([self.kind, self.index.as_str(), self.root, self.sql]);
        hash.texts(self.key.iter().map(ColumnName::as_str));
        hash.number(self.fields.len());
        for field in self.fields {
            hash.texts([field.name.as_str(), &format!("{:?}", field.kind)]);
        }
        hash.number(related.len());
        for (table, columns, sql) in related {
            hash.texts([table]);
            hash.texts(columns.iter().map(ColumnName::as_str));
            hash.texts(sql);
        }
        hash.digits()
    }
}

/// FNV-1a of 64 bits. The standard library's hasher promises no stable result, and nobody attacks this one.
struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn number(&mut self, number: usize) {
        self.bytes(&(number as u64).to_le_bytes());
    }

    /// Each with its length before it, and the end of the list marked, so that no two lists run into the same bytes.
    fn texts<'a>(&mut self, texts: impl IntoIterator<Item = &'a str>) {
        for text in texts {
            self.number(text.len());
            self.bytes(text.as_bytes());
        }
        self.number(usize::MAX);
    }

    /// Its hexadecimal digits.
    fn digits(&self) -> String {
        format!("{:016x}", self.0)
    }
}
