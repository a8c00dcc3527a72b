//! Rows that are always there, and whose documents searches must therefore always find.
//!
//! The sessions change them as they change all rows, and neither remove nor rename them. A truncation puts them back in the same
//! statement. No document of theirs is ever rejected: what is in quarantine is not found, and nobody is to blame.

/// The documents, by index: the first and the last of a table, as far as that goes.
const ANCHORS: [(&str, [&str; 2]); 3] =
    [("authors", ["-1", "9001"]), ("books", ["anchor:1", "zz:9001"]), ("notes", ["anchor", "zz"])];

/// Has their rows be there, table by table.
const ROWS: [(&str, &str); 3] = [
    ("authors", "INSERT INTO authors SELECT i, 'anchor', nextval('clock') FROM unnest(ARRAY[-1, 9001]) i ON CONFLICT DO NOTHING"),
    (
        "books",
        "INSERT INTO books SELECT r, i, 'anchor', 1, -1, true, nextval('clock') FROM (VALUES ('anchor', 1), ('zz', 9001)) v(r, i)
         ON CONFLICT DO NOTHING",
    ),
    (
        "notes",
        "INSERT INTO \"Notes\" SELECT i, 0, 'anchor', nextval('clock') FROM unnest(ARRAY['anchor', 'zz']) i ON CONFLICT DO NOTHING",
    ),
];

/// The documents of an index.
pub(crate) fn of(index: &str) -> [&'static str; 2] {
    ANCHORS.iter().find(|(of, _)| *of == index).map_or([""; 2], |(_, anchors)| *anchors)
}

/// Whether this document, which goes to this physical index, is one of them.
pub(crate) fn is_one(physical: &str, id: &str) -> bool {
    of(physical.split('-').next().unwrap_or_default()).contains(&id)
}

/// What puts the rows of an index there, as SQL; all of them, where none is named.
pub(crate) fn rows(index: Option<&str>) -> String {
    let wanted = ROWS.iter().filter(|(of, _)| index.is_none_or(|index| index == *of));
    wanted.map(|(_, sql)| format!("{sql};")).collect()
}
