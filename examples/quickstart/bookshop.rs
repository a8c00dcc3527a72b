//! The database of the tour: authors, their books, and what readers say about them.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};
use syncline::connectors::sqlite::{IndexDefinition, Related};
use syncline::name::NameError;
use syncline::ports::{Field, FieldKind};
use syncline::{Fault, IndexName};

use crate::random::Random;

const SCHEMA: &str = "
    CREATE TABLE authors(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE books(
        id INTEGER PRIMARY KEY,
        author_id INTEGER NOT NULL REFERENCES authors(id),
        title TEXT NOT NULL,
        year INTEGER NOT NULL);
    CREATE TABLE reviews(
        id INTEGER PRIMARY KEY,
        book_id INTEGER NOT NULL REFERENCES books(id) ON UPDATE CASCADE ON DELETE CASCADE,
        stars INTEGER NOT NULL,
        text TEXT NOT NULL);
    CREATE INDEX books_of_author ON books(author_id);
    CREATE INDEX reviews_of_book ON reviews(book_id);";

const GIVEN: &[&str] = &[
    "Ada", "Boris", "Chidi", "Dolores", "Edith", "Farah", "Goran", "Hana", "Ines", "Jorge", "Kaito", "Leila",
    "Mateo", "Nadia", "Olga", "Pavel", "Quentin", "Rosa", "Sanna", "Tomas", "Uma", "Vera", "Wanda", "Yusuf",
];
const FAMILY: &[&str] = &[
    "Abara",
    "Bergström",
    "Castellanos",
    "Dumont",
    "Eriksen",
    "Fontaine",
    "Grigoryan",
    "Haddad",
    "Ito",
    "Jansen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Nakamura",
    "Okafor",
    "Petrov",
    "Quiroga",
    "Rossi",
    "Szabo",
    "Tanaka",
    "Ueda",
    "Virtanen",
    "Weiss",
    "Yamamoto",
];
const MOODS: &[&str] = &[
    "Silent",
    "Crooked",
    "Last",
    "Burning",
    "Hidden",
    "Golden",
    "Borrowed",
    "Drowned",
    "Patient",
    "Electric",
    "Forgotten",
    "Invisible",
    "Northern",
    "Paper",
    "Restless",
    "Salt",
    "Second",
    "Winter",
    "Wandering",
    "Velvet",
];
const THINGS: &[&str] = &[
    "Lighthouse",
    "Orchard",
    "Clockmaker",
    "Harbour",
    "Garden",
    "Cartographer",
    "River",
    "Library",
    "Machine",
    "Bridge",
    "Beekeeper",
    "Mountain",
    "Telescope",
    "Violin",
    "Train",
    "Archive",
    "Forest",
    "Island",
    "Letter",
    "Astronomer",
];
const PLACES: &[&str] = &[
    "Lisbon",
    "Tromsø",
    "Kyoto",
    "Samarkand",
    "Valparaíso",
    "Ghent",
    "Zagreb",
    "Odessa",
    "Marrakesh",
    "Reykjavik",
    "Trieste",
    "Cork",
    "Bergen",
    "Havana",
    "Tbilisi",
    "Dakar",
];
const OPENINGS: &[&str] = &[
    "I could not put it down",
    "A slow start",
    "Read it twice",
    "Bought it for my sister",
    "Finished it on a train",
    "Not what I expected",
    "The best I have read this year",
    "My book club argued about it all evening",
];
const PRAISES: &[&str] = &[
    "the ending is worth every page",
    "the characters feel like neighbours",
    "too many footnotes for my taste",
    "the prose sings",
    "the middle drags a little",
    "I learned more about bees than I wanted to",
    "the twist is visible from far away",
    "it made me miss my stop",
    "I laughed out loud in the library",
];

pub(crate) fn index() -> Result<IndexName, NameError> {
    IndexName::new("books")
}

/// A document for each book: with its author's name, and with what all of its readers say.
///
/// The SQL builds many books at once: the keys that are wanted stand in `syncline_keys`. What is `related` tells which
/// books a change to another table touches. A review holds the key of its book; the books of an author are asked for.
pub(crate) fn definition() -> Result<IndexDefinition, NameError> {
    let sql = "
        SELECT b.id, json_object(
            'title', b.title,
            'author', a.name,
            'year', b.year,
            'stars', (SELECT round(avg(r.stars), 1) FROM reviews r WHERE r.book_id = b.id),
            'reviews', json((SELECT json_group_array(r.text ORDER BY r.id) FROM reviews r WHERE r.book_id = b.id)))
        FROM syncline_keys k JOIN books b ON b.id = k.k1 JOIN authors a ON a.id = b.author_id";
    Ok(IndexDefinition::new(index()?, "books", sql)?
        .field(Field::new("title", FieldKind::Text))
        .field(Field::new("author", FieldKind::Text))
        .field(Field::new("year", FieldKind::Integer))
        .field(Field::new("stars", FieldKind::Float))
        .field(Field::new("reviews", FieldKind::Text))
        .related(Related::columns("reviews", ["book_id"])?)
        .related(Related::query("authors", ["id"], "SELECT id FROM books WHERE author_id = ?1")?))
}

/// How many rows each table gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) authors: u64,
    pub(crate) books: u64,
    pub(crate) reviews: u64,
}

impl Rows {
    /// Four reviews to a book, ten books to an author.
    pub(crate) fn of_total(total: u64) -> Self {
        let authors = total / 51;
        let books = authors * 10;
        Self { authors, books, reviews: total - authors - books }
    }

    pub(crate) fn total(self) -> u64 {
        self.authors + self.books + self.reviews
    }
}

/// A connection such as any program has one: it knows nothing of the engine.
pub(crate) fn connect(path: &Path) -> Result<Connection, Fault> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.execute_batch("PRAGMA foreign_keys = ON")?;
    Ok(connection)
}

pub(crate) fn create(path: &Path, rows: Rows) -> Result<(), Fault> {
    let mut connection = connect(path)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    let mut random = Random::new(1);
    for _ in 0..rows.authors {
        insert_author(&transaction, &mut random)?;
    }
    for id in 0..rows.books as i64 {
        insert_book(&transaction, &mut random, 1 + id / 10)?;
    }
    for _ in 0..rows.reviews {
        let book = 1 + random.below(rows.books);
        insert_review(&transaction, &mut random, book)?;
    }
    Ok(transaction.commit()?)
}

fn insert_author(connection: &Connection, random: &mut Random) -> rusqlite::Result<usize> {
    let name = author_name(random);
    connection.prepare_cached("INSERT INTO authors(name) VALUES (?1)")?.execute([name])
}

fn insert_book(connection: &Connection, random: &mut Random, author: i64) -> rusqlite::Result<usize> {
    let title = format!("The {} {} of {}", random.pick(MOODS), random.pick(THINGS), random.pick(PLACES));
    connection
        .prepare_cached("INSERT INTO books(author_id, title, year) VALUES (?1, ?2, ?3)")?
        .execute(params![author, title, 1950 + random.below(75)])
}

fn insert_review(connection: &Connection, random: &mut Random, book: i64) -> rusqlite::Result<usize> {
    connection
        .prepare_cached("INSERT INTO reviews(book_id, stars, text) VALUES (?1, ?2, ?3)")?
        .execute(params![book, 1 + random.below(5), review_text(random)])
}

pub(crate) fn author_name(random: &mut Random) -> String {
    format!("{} {}", random.pick(GIVEN), random.pick(FAMILY))
}

pub(crate) fn review_text(random: &mut Random) -> String {
    format!("{}; {}.", random.pick(OPENINGS), random.pick(PRAISES))
}
