//! The proof: every document is compared with what SQL says it should be.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use syncline::connectors::tantivy::TantivyReader;
use syncline::{Fault, Value as KeyValue};

use crate::bookshop;
use crate::page::{Page, count, shortened};

/// How many differences are shown.
const SHOWN: usize = 5;

#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Documents that are as they should be.
    equal: u64,
    /// Books without a document.
    missing: u64,
    /// Documents that say something else than the database.
    stale: u64,
    /// Documents without a book.
    ghosts: u64,
    /// The first differences.
    examples: Vec<String>,
}

/// Compares the index with the database as both are now; nothing must write meanwhile.
pub(crate) fn compare(database: &Path, index: &Path) -> Result<Comparison, Fault> {
    let mut expected = expected(database)?;
    let mut comparison = Comparison::default();
    for document in TantivyReader::open(index)?.documents(&bookshop::index()?)? {
        let document = document?;
        let found: Value = serde_json::from_str(&document.source)?;
        let id = document.key().and_then(|key| match key.values() {
            [KeyValue::Int(id)] => Some(*id),
            _ => None,
        });
        match id.and_then(|id| expected.remove(&id)) {
            None => {
                comparison.ghosts += 1;
                comparison.show(|| format!("book {} is gone, its document is not: {found}", document.id));
            }
            Some(wanted) if wanted == found => comparison.equal += 1,
            Some(wanted) => {
                comparison.stale += 1;
                comparison.show(|| format!("book {} is {wanted}, its document says {found}", document.id));
            }
        }
    }
    for (id, wanted) in expected {
        comparison.missing += 1;
        comparison.show(|| format!("book {id} has no document: {wanted}"));
    }
    Ok(comparison)
}

/// Every book's document, made with none of the engine's means: another query, put together by other code.
fn expected(database: &Path) -> Result<BTreeMap<i64, Value>, Fault> {
    let connection = bookshop::connect(database)?;
    let mut statement = connection.prepare(
        "SELECT b.id, b.title, a.name, b.year, round(avg(r.stars) OVER (PARTITION BY b.id), 1), r.text
         FROM authors a JOIN books b ON b.author_id = a.id LEFT JOIN reviews r ON r.book_id = b.id
         ORDER BY b.id, r.id",
    )?;
    let mut books = BTreeMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (title, author, year): (String, String, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let (stars, review): (Option<f64>, Option<String>) = (row.get(4)?, row.get(5)?);
        let book = books.entry(row.get(0)?).or_insert_with(
            || json!({ "title": title, "author": author, "year": year, "stars": stars, "reviews": [] }),
        );
        if let (Some(review), Some(reviews)) = (review, book["reviews"].as_array_mut()) {
            reviews.push(review.into());
        }
    }
    Ok(books)
}

impl Comparison {
    fn show(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < SHOWN {
            self.examples.push(example());
        }
    }

    pub(crate) fn differences(&self) -> u64 {
        self.missing + self.stale + self.ghosts
    }

    pub(crate) fn counts(&self) -> String {
        let Self { equal, missing, stale, ghosts, .. } = self;
        let [equal, missing, stale, ghosts] = [equal, missing, stale, ghosts].map(|number| count(*number));
        format!("{equal} equal, {missing} missing, {stale} stale, {ghosts} ghosts")
    }

    /// Tells the outcome. Errors: where anything differs.
    pub(crate) fn demand_equality(&self, page: Page) -> Result<(), Fault> {
        if self.differences() == 0 {
            page.done(format!("every document compared with the database: {}", self.counts()));
            return Ok(());
        }
        page.failed(format!("the index differs from the database: {}", self.counts()));
        for example in &self.examples {
            page.note(shortened(example, 300));
        }
        Err(Fault::fatal(format!("{} documents differ from the database", count(self.differences()))))
    }
}
