//! Names: one is refused, or it is kept as it was given; a table's schema is no part of its name; and the directories of
//! two indexes never meet, nor does one lie inside the other, also where a file system ignores case.

use std::path::{Component, Path};

use arbitrary::{Arbitrary, Unstructured};
use syncline::connectors::tantivy::fuzz::{is_own_file, place};
use syncline::{ColumnName, IndexName, StreamId, TableName};

#[derive(Debug, Arbitrary)]
struct Case<'a> {
    one: &'a str,
    other: &'a str,
}

/// See the [module](self).
pub fn run(bytes: &[u8]) {
    let Ok(case) = Case::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    for name in [case.one, case.other] {
        check(name);
        let _ = is_own_file(name);
    }
    if let Ok(table) = TableName::in_schema(case.one, case.other) {
        assert_eq!((table.schema(), table.table()), (Some(case.one), case.other));
        assert!(
            TableName::new(table.to_string()).is_ok_and(|plain| plain != table)
                || table.to_string().len() > 255
        );
    } else {
        assert!(!is_good(case.one) || !is_good(case.other));
    }
    if let (Ok(one), Ok(other)) = (IndexName::new(case.one), IndexName::new(case.other)) {
        check_places(&one, &other);
    }
}

fn is_good(name: &str) -> bool {
    (1..=255).contains(&name.len()) && !name.chars().any(char::is_control)
}

fn check(name: &str) {
    let taken = [
        IndexName::new(name).ok().map(|taken| taken.as_str().to_owned()),
        ColumnName::new(name).ok().map(|taken| taken.as_str().to_owned()),
        StreamId::new(name).ok().map(|taken| taken.as_str().to_owned()),
        TableName::new(name).ok().map(|taken| taken.table().to_owned()),
    ];
    let expected = is_good(name).then(|| name.to_owned());
    assert!(taken.iter().all(|taken| *taken == expected), "{name:?} is taken as {taken:?}");
}

fn check_places(one: &IndexName, other: &IndexName) {
    let root = Path::new("root");
    let places = [one, other].map(|name| place(root, name));
    for place in &places {
        let inside = place.strip_prefix(root).unwrap();
        for component in inside.components() {
            let Component::Normal(name) = component else { panic!("{place:?} leaves the root") };
            let name = name.to_str().unwrap();
            let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-%".contains(&b);
            assert!(
                name.len() <= 255 && name.bytes().all(is_plain),
                "{name} is no name for every file system"
            );
        }
    }
    let [first, second] = &places;
    if one != other {
        assert!(
            !first.starts_with(second) && !second.starts_with(first),
            "{one:?} and {other:?} meet in {places:?}"
        );
    }
}
