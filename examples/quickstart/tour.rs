//! The tour: a bookshop, from its first row to the proof.

use std::path::{Path, PathBuf};

use serde_json::Value;
use syncline::{Fault, NoopObserver};
use tokio::time::Instant;

use crate::bookshop::{self, Rows};
use crate::cli::{Tour, input};
use crate::page::{Page, count, rate, shortened, time};
use crate::sync::{Setup, Sync};
use crate::{Failure, crash, live, proof};

/// The two sides of the tour.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) database: PathBuf,
    pub(crate) index: PathBuf,
}

impl Place {
    pub(crate) fn below(directory: &Path) -> Self {
        Self { database: directory.join("bookshop.db"), index: directory.join("search") }
    }

    pub(crate) fn setup(&self) -> Result<Setup, Fault> {
        Ok(Setup {
            database: self.database.clone(),
            index: self.index.clone(),
            definitions: vec![bookshop::definition()?],
            consumer: "search".into(),
            own: false,
        })
    }
}

pub(crate) async fn run(page: Page, options: Tour) -> Result<(), Failure> {
    let begun = Instant::now();
    let kept = options.keep || options.dir.is_some();
    let mut temporary = None;
    let directory = match options.dir {
        Some(directory) => directory,
        None => {
            let made =
                tempfile::Builder::new().prefix("syncline-quickstart-").disable_cleanup(kept).tempdir();
            temporary.insert(made.map_err(Fault::from)?).path().to_owned()
        }
    };
    let place = Place::below(&directory);
    if place.database.exists() || place.index.exists() {
        let directory = directory.display();
        return Err(input(format!("{directory} holds an earlier run; name another --dir, or delete it")));
    }
    std::fs::create_dir_all(&directory)
        .map_err(|error| input(format!("--dir {}: {error}", directory.display())))?;

    page.line(page.bold("Syncline: a search index that stays equal to its database"));
    page.note(format!("files in {}{}", directory.display(), if kept { "" } else { " (removed at the end)" }));
    generate(page, &place, Rows::of_total(options.rows))?;
    let sync = seed(page, &place, Rows::of_total(options.rows)).await?;
    search(page, &sync)?;
    live::show(page, &place.database, &sync).await?;
    sync.drain().await?;
    crash::show(page, &directory, &place)?;
    restart(page, &place).await?;

    page.line(format!("\nDone in {}.", time(begun.elapsed())));
    if kept {
        page.note(format!("kept: {}", directory.display()));
    }
    page.note("on a database of your own: cargo run --release --example quickstart -- --help");
    Ok(())
}

fn generate(page: Page, place: &Place, rows: Rows) -> Result<(), Fault> {
    page.chapter("1  A database");
    let begun = Instant::now();
    bookshop::create(&place.database, rows)?;
    let [authors, books, reviews] = [rows.authors, rows.books, rows.reviews].map(count);
    let took = time(begun.elapsed());
    page.done(format!("{authors} authors, {books} books and {reviews} reviews in {took}"));
    Ok(())
}

async fn seed(page: Page, place: &Place, rows: Rows) -> Result<Sync, Fault> {
    page.chapter("2  A search index, seeded from it");
    let begun = Instant::now();
    let sync = place.setup()?.start(NoopObserver)?;
    sync.seeded(page, rows.books).await?;
    let took = begun.elapsed();
    let documents = sync.sink.count(&bookshop::index()?)?;
    page.done(format!(
        "{} documents, made of {} rows, in {}{}",
        count(documents),
        count(rows.total()),
        time(took),
        rate(documents, "documents", took)
    ));
    page.note(
        "the database was not locked: from the first moment on, changes are captured beside the seeding",
    );
    Ok(sync)
}

fn search(page: Page, sync: &Sync) -> Result<(), Fault> {
    let query = "+title:lighthouse +reviews:bees";
    page.chapter(&format!("3  A search for {query}"));
    let begun = Instant::now();
    let hits = sync.sink.search(&bookshop::index()?, query, 3)?;
    let took = begun.elapsed();
    for hit in &hits {
        let book: Value = serde_json::from_str(&hit.source)?;
        let [title, author] =
            [&book["title"], &book["author"]].map(|value| value.as_str().unwrap_or_default());
        let (title, year, stars) = (page.bold(title), &book["year"], &book["stars"]);
        let reviews = book["reviews"].as_array().map(Vec::as_slice).unwrap_or_default();
        page.line(format!("  {title}, {author}, {year}, {stars} stars from {} readers", reviews.len()));
        let about_bees = reviews.iter().filter_map(Value::as_str).find(|text| text.contains("bees"));
        page.note(shortened(&format!("“{}”", about_bees.unwrap_or_default()), 100));
    }
    page.note(format!("{:.1} ms", took.as_secs_f64() * 1e3));
    Ok(())
}

async fn restart(page: Page, place: &Place) -> Result<(), Fault> {
    page.chapter("6  Started again: nothing lost, nothing stale");
    let dead = proof::compare(&place.database, &place.index)?;
    page.note(format!("as the last death left the index: {}", dead.counts()));
    let begun = Instant::now();
    let sync = place.setup()?.start(NoopObserver)?;
    let captured = sync.caught_up().await?.captured;
    let took = begun.elapsed();
    page.done(format!(
        "{} changes were replayed, and are in the index after {}",
        count(captured),
        time(took)
    ));
    let begun = Instant::now();
    let comparison = proof::compare(&place.database, &place.index)?;
    comparison.demand_equality(page)?;
    page.note(format!("compared in {}, by a query of its own", time(begun.elapsed())));
    let report = sync.drain().await?;
    page.done(format!("drained: {} changes left for a next run", count(report.unacknowledged)));
    Ok(())
}
