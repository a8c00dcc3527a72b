//! The shop: its tables, and what its three indexes hold. What a document should be is said twice, here as the engine is told,
//! and in [`truth`](crate::truth) as a plain query says it.

use syncline::connectors::postgres::{IndexDefinition, Related};
use syncline::name::NameError;
use syncline::ports::{Field, FieldKind};

pub(crate) const INDEXES: [&str; 3] = ["authors", "books", "notes"];

/// The role of the engine, which owns nothing.
pub(crate) const ROLE: &str = "CREATE DATABASE shop; CREATE ROLE search LOGIN REPLICATION";

/// Keys of one and of two columns, of numbers, texts and UUIDs; a partitioned root whose name needs quoting; values
/// that are stored out of line; a key that cascades. `rev` only grows, whatever happens to a row of that key.
pub(crate) const TABLES: &str = r#"
CREATE SEQUENCE clock;
CREATE TABLE authors(id bigint PRIMARY KEY, name text NOT NULL, rev bigint NOT NULL);
CREATE TABLE books(region text, sku int, title text NOT NULL, price numeric(10, 2) NOT NULL, author_id bigint,
    published bool NOT NULL, rev bigint NOT NULL, PRIMARY KEY (region, sku));
CREATE INDEX ON books(author_id);
ALTER TABLE books REPLICA IDENTITY FULL;
CREATE TABLE reviews(id uuid PRIMARY KEY DEFAULT gen_random_uuid(), region text, sku int, stars int NOT NULL);
CREATE INDEX ON reviews(region, sku);
ALTER TABLE reviews REPLICA IDENTITY FULL;
CREATE TABLE tags(id int PRIMARY KEY, label text NOT NULL);
CREATE TABLE books_tags(region text, sku int, tag_id int REFERENCES tags ON DELETE CASCADE, PRIMARY KEY (region, sku, tag_id));
CREATE INDEX ON books_tags(tag_id);
CREATE TABLE "Notes"(id text PRIMARY KEY, n bigint NOT NULL, payload text NOT NULL, rev bigint NOT NULL) PARTITION BY HASH (id);
ALTER TABLE "Notes" ALTER payload SET STORAGE EXTERNAL;
CREATE TABLE notes_0 PARTITION OF "Notes" FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE notes_1 PARTITION OF "Notes" FOR VALUES WITH (MODULUS 3, REMAINDER 1);
CREATE TABLE notes_2 PARTITION OF "Notes" FOR VALUES WITH (MODULUS 3, REMAINDER 2);
GRANT SELECT ON ALL TABLES IN SCHEMA public TO search;
CREATE PUBLICATION syncline_search FOR TABLE authors, books, reviews, tags, books_tags, "Notes"
    WITH (publish_via_partition_root = true);
"#;

const BOOKS: &str = "
SELECT b.region, b.sku, jsonb_build_object(
    'rev', b.rev, 'title', b.title, 'price', b.price,
    'author', (SELECT a.name FROM authors a WHERE a.id = b.author_id),
    'reviews', (SELECT count(*) FROM reviews r WHERE r.region = b.region AND r.sku = b.sku),
    'stars', (SELECT sum(r.stars) FROM reviews r WHERE r.region = b.region AND r.sku = b.sku),
    'tags', (SELECT jsonb_agg(t.label ORDER BY t.id) FROM books_tags bt JOIN tags t ON t.id = bt.tag_id
             WHERE bt.region = b.region AND bt.sku = b.sku))
FROM unnest($1, $2) AS k(region, sku) JOIN books b USING (region, sku) WHERE b.published";

const AUTHORS: &str = "
SELECT a.id, jsonb_build_object(
    'rev', a.rev, 'name', a.name,
    'books', (SELECT count(*) FROM books b WHERE b.author_id = a.id),
    'value', (SELECT sum(b.price) FROM books b WHERE b.author_id = a.id),
    'stars', (SELECT sum(r.stars) FROM books b JOIN reviews r ON r.region = b.region AND r.sku = b.sku
              WHERE b.author_id = a.id))
FROM authors a WHERE a.id = ANY($1)";

const NOTES: &str = r#"
SELECT n.id, jsonb_build_object('rev', n.rev, 'n', n.n, 'payload', n.payload) FROM "Notes" n WHERE n.id = ANY($1)"#;

const AUTHOR_OF_REVIEW: &str = "
SELECT b.region, b.sku, b.author_id FROM unnest($1, $2) AS k(region, sku) JOIN books b USING (region, sku)
WHERE b.author_id IS NOT NULL";

pub(crate) fn definitions() -> Result<Vec<IndexDefinition>, NameError> {
    let books = IndexDefinition::new("books", "books", BOOKS)?
        .field(Field::new("rev", FieldKind::Integer))
        .field(Field::new("title", FieldKind::Text))
        .field(Field::new("price", FieldKind::Float))
        .field(Field::new("author", FieldKind::Text))
        .field(Field::new("reviews", FieldKind::Integer))
        .field(Field::new("stars", FieldKind::Integer))
        .field(Field::new("tags", FieldKind::Keyword))
        .related(Related::columns("reviews", ["region", "sku"])?)
        .related(Related::columns("books_tags", ["region", "sku"])?)
        .related(Related::query(
            "tags",
            ["id"],
            "SELECT tag_id, region, sku FROM books_tags WHERE tag_id = ANY($1)",
        )?)
        .related(Related::query(
            "authors",
            ["id"],
            "SELECT author_id, region, sku FROM books WHERE author_id = ANY($1)",
        )?);
    let authors = IndexDefinition::new("authors", "authors", AUTHORS)?
        .field(Field::new("rev", FieldKind::Integer))
        .field(Field::new("name", FieldKind::Text))
        .field(Field::new("books", FieldKind::Integer))
        .field(Field::new("value", FieldKind::Float))
        .field(Field::new("stars", FieldKind::Integer))
        .related(Related::columns("books", ["author_id"])?)
        .related(Related::query("reviews", ["region", "sku"], AUTHOR_OF_REVIEW)?);
    let notes = IndexDefinition::new("notes", "\"Notes\"", NOTES)?
        .field(Field::new("rev", FieldKind::Integer))
        .field(Field::new("n", FieldKind::Integer))
        .field(Field::new("payload", FieldKind::Keyword));
    Ok(vec![authors, books, notes])
}
