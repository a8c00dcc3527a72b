//! Decodes `pgoutput`, the format in which PostgreSQL streams row changes: a pure function from bytes to messages.
//!
//! The format is that of "Logical Replication Message Formats" in PostgreSQL's manual, protocol version 1: whole
//! transactions, in the order of their commits, each from its Begin to its Commit. Whatever the bytes are, the answer is
//! a message or an error, no allocation is larger than the bytes pay for, and a message must end where its bytes do.

/// A message of the stream, borrowed from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A transaction begins.
    Begin {
        /// Where its commit stands in the log.
        commit: u64,
        /// Its 32-bit transaction id.
        xid: u32,
    },
    /// It ends.
    Commit {
        /// The position behind the commit.
        end: u64,
    },
    /// The shape of a table, told before its first change and whenever it is another.
    Relation(Relation<'a>),
    /// A row came.
    Insert { relation: u32, new: Tuple<'a> },
    /// A row is another.
    Update { relation: u32, old: Option<Old<'a>>, new: Tuple<'a> },
    /// A row went.
    Delete { relation: u32, old: Old<'a> },
    /// Tables were emptied.
    Truncate { relations: Vec<u32> },
    /// Something that says nothing of rows: an origin, the name of a type, a message of an application.
    Other,
}

/// The shape of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation<'a> {
    pub(crate) id: u32,
    /// Empty for `pg_catalog`.
    pub(crate) schema: &'a str,
    pub(crate) table: &'a str,
    /// `d`, `n`, `f` or `i`, as in `pg_class.relreplident`.
    pub(crate) identity: u8,
    pub(crate) columns: Vec<Column<'a>>,
}

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column<'a> {
    pub(crate) name: &'a str,
    /// Whether it is part of the replica identity: under `FULL` each column is.
    pub(crate) in_identity: bool,
    /// The object id of its type, a domain where it is one.
    pub(crate) type_oid: u32,
}

/// A row as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Old<'a> {
    /// Its replica identity alone: the other columns are unknown, though they are sent as NULLs.
    Identity(Tuple<'a>),
    /// All of it.
    Whole(Tuple<'a>),
}

/// The values of a row, in the order of the relation's columns.
pub(crate) type Tuple<'a> = Vec<Datum<'a>>;

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datum<'a> {
    Null,
    /// Stored out of line and not changed, so that it was not sent.
    Unchanged,
    /// As text, in the form of its type.
    Text(&'a [u8]),
    /// In the binary form of its type, which is never asked for.
    Binary(&'a [u8]),
}

/// Why some bytes are no message, and where in them that shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("at byte {at}: {what}")]
pub(crate) struct DecodeError {
    at: usize,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
enum What {
    #[error("the message ends too early")]
    Short,
    #[error("{0} byte(s) follow the end of the message")]
    Long(usize),
    #[error("a name is not valid UTF-8")]
    Name,
    #[error("a length is negative")]
    Length,
    #[error("`{}` begins no known message", .0.escape_ascii())]
    Message(u8),
    #[error("`{}` begins no tuple that may stand here", .0.escape_ascii())]
    Tuple(u8),
    #[error("`{}` begins no value", .0.escape_ascii())]
    Datum(u8),
}

/// The message that these bytes are.
pub(crate) fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut input = Input { bytes, at: 0 };
    let message = input.message()?;
    match bytes.len() - input.at {
        0 => Ok(message),
        // Their contents are nobody's concern here, and they may grow.
        _ if message == Message::Other => Ok(message),
        left => Err(input.wrong(What::Long(left))),
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn message(&mut self) -> Result<Message<'a>, DecodeError> {
        Ok(match self.u8()? {
            b'B' => {
                let commit = self.u64()?;
                self.u64()?; // when it was committed
                Message::Begin { commit, xid: self.u32()? }
            }
            b'C' => {
                self.u8()?; // flags, unused
                self.u64()?; // where the commit stands, as its Begin said
                let end = self.u64()?;
                self.u64()?; // when it was committed
                Message::Commit { end }
            }
            b'R' => Message::Relation(self.relation()?),
            b'I' => {
                let relation = self.u32()?;
                self.new_tuple().map(|new| Message::Insert { relation, new })?
            }
            b'U' => {
                let relation = self.u32()?;
                let old = match self.bytes.get(self.at) {
                    Some(b'K' | b'O') => Some(self.old()?),
                    _ => None,
                };
                Message::Update { relation, old, new: self.new_tuple()? }
            }
            b'D' => Message::Delete { relation: self.u32()?, old: self.old()? },
            b'T' => {
                let count = self.count(4)?;
                self.u8()?; // whether it cascaded, or restarted identities
                self.holds(count.saturating_mul(4))?;
                let relations = (0..count).map(|_| self.u32()).collect::<Result<_, _>>()?;
                Message::Truncate { relations }
            }
            b'O' | b'Y' | b'M' => Message::Other,
            other => return Err(self.before(What::Message(other))),
        })
    }

    fn relation(&mut self) -> Result<Relation<'a>, DecodeError> {
        let id = self.u32()?;
        let (schema, table, identity) = (self.name()?, self.name()?, self.u8()?);
        let count = usize::from(self.u16()?);
        // A column takes ten bytes at the least: a flag, the end of its name, its type and modifier.
        self.holds(count * 10)?;
        let mut columns = Vec::with_capacity(count);
        for _ in 0..count {
            let in_identity = self.u8()? & 1 == 1;
            let (name, type_oid) = (self.name()?, self.u32()?);
            self.u32()?; // the type's modifier
            columns.push(Column { name, in_identity, type_oid });
        }
        Ok(Relation { id, schema, table, identity, columns })
    }

    fn old(&mut self) -> Result<Old<'a>, DecodeError> {
        match self.u8()? {
            b'K' => self.tuple().map(Old::Identity),
            b'O' => self.tuple().map(Old::Whole),
            other => Err(self.before(What::Tuple(other))),
        }
    }

    fn new_tuple(&mut self) -> Result<Tuple<'a>, DecodeError> {
        match self.u8()? {
            b'N' => self.tuple(),
            other => Err(self.before(What::Tuple(other))),
        }
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, DecodeError> {
        let count = usize::from(self.u16()?);
        self.holds(count)?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(match self.u8()? {
                b'n' => Datum::Null,
                b'u' => Datum::Unchanged,
                b't' => Datum::Text(self.counted()?),
                b'b' => Datum::Binary(self.counted()?),
                other => return Err(self.before(What::Datum(other))),
            });
        }
        Ok(values)
    }

    fn counted(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.count(1)?;
        self.take(length)
    }

    /// A signed 32-bit count of things that take `each` bytes.
    fn count(&mut self, each: usize) -> Result<usize, DecodeError> {
        let count = self.u32()?;
        if i32::try_from(count).is_err() {
            return Err(DecodeError { at: self.at - 4, what: What::Length });
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.holds(count.saturating_mul(each))?;
        Ok(count)
    }

    /// Text up to a zero byte.
    fn name(&mut self) -> Result<&'a str, DecodeError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == 0).ok_or(self.wrong(What::Short))?;
        let name = core::str::from_utf8(&rest[..length]).map_err(|_| self.wrong(What::Name))?;
        self.at += length + 1;
        Ok(name)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let at = self.at;
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| DecodeError { at, what: What::Short })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        self.holds(length)?;
        let taken = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    fn holds(&self, length: usize) -> Result<(), DecodeError> {
        match self.bytes.len() - self.at >= length {
            true => Ok(()),
            false => Err(self.wrong(What::Short)),
        }
    }

    fn wrong(&self, what: What) -> DecodeError {
        DecodeError { at: self.at, what }
    }

    /// An error about the byte that was just read.
    fn before(&self, what: What) -> DecodeError {
        DecodeError { at: self.at.saturating_sub(1), what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes messages as the server does.
    #[derive(Default, Clone)]
    struct Output(Vec<u8>);

    impl Output {
        fn of(tag: u8) -> Self {
            Self(vec![tag])
        }

        fn u8(mut self, value: u8) -> Self {
            self.0.push(value);
            self
        }

        fn u16(mut self, value: u16) -> Self {
            self.0.extend(value.to_be_bytes());
            self
        }

        fn u32(mut self, value: u32) -> Self {
            self.0.extend(value.to_be_bytes());
            self
        }

        fn u64(mut self, value: u64) -> Self {
            self.0.extend(value.to_be_bytes());
            self
        }

        fn name(mut self, name: &str) -> Self {
            self.0.extend(name.as_bytes());
            self.u8(0)
        }

        fn tuple(self, values: &[Datum<'_>]) -> Self {
            values.iter().fold(self.u16(values.len() as u16), |output, value| match value {
                Datum::Null => output.u8(b'n'),
                Datum::Unchanged => output.u8(b'u'),
                Datum::Text(bytes) | Datum::Binary(bytes) => {
                    let tag = if matches!(value, Datum::Text(_)) { b't' } else { b'b' };
                    let mut output = output.u8(tag).u32(bytes.len() as u32);
                    output.0.extend(*bytes);
                    output
                }
            })
        }
    }

    fn relation() -> Output {
        let head = Output::of(b'R').u32(16_384).name("shop").name("books").u8(b'd').u16(2);
        head.u8(1).name("id").u32(20).u32(u32::MAX).u8(0).name("title").u32(25).u32(u32::MAX)
    }

    const ROW: [Datum<'static>; 4] =
        [Datum::Text(b"7"), Datum::Null, Datum::Unchanged, Datum::Binary(&[0, 255])];

    fn all() -> Vec<Output> {
        vec![
            Output::of(b'B').u64(100).u64(5).u32(700),
            Output::of(b'C').u8(0).u64(100).u64(108).u64(5),
            relation(),
            Output::of(b'I').u32(1).u8(b'N').tuple(&ROW),
            Output::of(b'U').u32(1).u8(b'N').tuple(&ROW),
            Output::of(b'U').u32(1).u8(b'K').tuple(&ROW[..1]).u8(b'N').tuple(&ROW),
            Output::of(b'U').u32(1).u8(b'O').tuple(&ROW).u8(b'N').tuple(&[]),
            Output::of(b'D').u32(1).u8(b'K').tuple(&ROW),
            Output::of(b'D').u32(1).u8(b'O').tuple(&ROW),
            Output::of(b'T').u32(2).u8(3).u32(1).u32(2),
        ]
    }

    #[test]
    fn every_message_of_the_manual_is_decoded() {
        let all = all();
        let decoded: Vec<Message<'_>> = all.iter().map(|output| decode(&output.0).unwrap()).collect();
        let row = ROW.to_vec();
        let columns = vec![
            Column { name: "id", in_identity: true, type_oid: 20 },
            Column { name: "title", in_identity: false, type_oid: 25 },
        ];
        let relation = Relation { id: 16_384, schema: "shop", table: "books", identity: b'd', columns };
        assert_eq!(
            decoded,
            [
                Message::Begin { commit: 100, xid: 700 },
                Message::Commit { end: 108 },
                Message::Relation(relation),
                Message::Insert { relation: 1, new: row.clone() },
                Message::Update { relation: 1, old: None, new: row.clone() },
                Message::Update {
                    relation: 1,
                    old: Some(Old::Identity(row[..1].to_vec())),
                    new: row.clone()
                },
                Message::Update { relation: 1, old: Some(Old::Whole(row.clone())), new: vec![] },
                Message::Delete { relation: 1, old: Old::Identity(row.clone()) },
                Message::Delete { relation: 1, old: Old::Whole(row) },
                Message::Truncate { relations: vec![1, 2] },
            ]
        );
        for other in [b"O\0\0".as_slice(), b"Ytype", b"Mmessage"] {
            assert_eq!(decode(other), Ok(Message::Other));
        }
    }

    #[test]
    fn b15_a_message_that_is_cut_short_or_too_long_is_an_error() {
        for output in all() {
            for length in 0..output.0.len() {
                let error = decode(&output.0[..length]).unwrap_err();
                assert_eq!(error.what, What::Short, "{:?}", &output.0[..length]);
            }
            let longer = output.clone().u8(0);
            let error = decode(&longer.0).unwrap_err();
            assert_eq!((error.at, error.what), (output.0.len(), What::Long(1)), "{:?}", longer.0);
        }
    }

    #[test]
    fn b15_errors_say_what_is_wrong_and_where() {
        for (bytes, message) in [
            (&b"Z"[..], "at byte 0: `Z` begins no known message"),
            (b"I\0\0\0\x01K", "at byte 5: `K` begins no tuple that may stand here"),
            (b"D\0\0\0\x01N", "at byte 5: `N` begins no tuple that may stand here"),
            (b"I\0\0\0\x01N\0\x01x", "at byte 8: `x` begins no value"),
            (b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff", "at byte 9: a length is negative"),
            (b"R\0\0\0\x01\xff\0", "at byte 5: a name is not valid UTF-8"),
            (b"T\x7f\xff\xff\xff\0", "at byte 5: the message ends too early"),
        ] {
            assert_eq!(decode(bytes).unwrap_err().to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn b15_no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn b15_no_harm_to_a_message_makes_it_panic(
            which in 0..10_usize, at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = all().swap_remove(which).0;
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode(&bytes);
        }
    }
}
