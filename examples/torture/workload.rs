//! What an application does to the shop: small transactions and very large ones, by several sessions at once.
//!
//! Rows of a root table are created, removed and renamed by one session alone, which owns their keys; anyone changes them.
//! So `rev`, which every such change takes from one sequence, only grows for a key, and a document that holds a smaller one
//! than before went back in time.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::RwLock;
use tokio_postgres::{Client, NoTls};

use crate::anchors;
use crate::excuses::Excuses;
use crate::random::Random;
use crate::tally::{Group, Result, Tally};

const SESSIONS: u64 = 3;

/// Texts that an id has to write in another way, and one that it does not.
const REGIONS: [&str; 6] = ["eu", "a:b", "50%", "7", "", "~x'y"];
const SKUS: u64 = 150;
const AUTHORS: u64 = 60;
const TAGS: u64 = 20;
const NOTES: u64 = 600;

/// What the sessions do for a while.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// The longest that one waits after a transaction.
    pub(crate) pause_ms: u64,
    /// How many transactions in a thousand are large.
    pub(crate) large_permille: u64,
    /// How many truncate a table.
    pub(crate) truncate_permille: u64,
}

impl Plan {
    pub(crate) fn draw(random: &mut Random) -> Self {
        Self {
            pause_ms: [20, 60, 200][random.below(3) as usize],
            large_permille: [0, 3, 10][random.below(3) as usize],
            truncate_permille: [0, 0, 1][random.below(3) as usize],
        }
    }
}

/// Whoever holds it for writing has the sessions wait, each between two transactions.
pub(crate) type Gate = Arc<RwLock<Plan>>;

/// Starts the sessions. They go on until the program ends.
pub(crate) fn start(database: &str, seed: u64, gate: &Gate, excuses: &Arc<Excuses>, tally: &Arc<Tally>) {
    for own in 0..SESSIONS {
        let session = Session {
            database: database.to_owned(),
            random: Random(seed ^ (own + 1).wrapping_mul(0x5851_f42d_4c95_7f2d)),
            own,
            gate: gate.clone(),
            excuses: excuses.clone(),
            tally: tally.clone(),
        };
        tokio::spawn(session.run());
    }
}

/// Rows to begin with, and again where few are left. Nobody else writes meanwhile.
pub(crate) async fn fill(database: &str) -> Result<()> {
    let client = connect(database).await?;
    let mut regions = String::new();
    for region in REGIONS {
        write!(regions, "({}),", text(region))?;
    }
    let regions = regions.trim_end_matches(',');
    client
        .batch_execute(&format!(
            "INSERT INTO authors SELECT i, 'author ' || i, nextval('clock') FROM generate_series(1, {AUTHORS}) i
                 ON CONFLICT DO NOTHING;
             INSERT INTO books SELECT r, i, 'book ' || i, i, 1 + i % {AUTHORS}, i % 7 <> 0, nextval('clock')
                 FROM (VALUES {regions}) v(r), generate_series(1, {SKUS}) i ON CONFLICT DO NOTHING;
             INSERT INTO reviews(region, sku, stars) SELECT region, sku, 1 + sku % 5 FROM books
                 WHERE (SELECT count(*) FROM reviews) < 5000;
             INSERT INTO tags SELECT i, 'tag ' || i FROM generate_series(1, {TAGS}) i ON CONFLICT DO NOTHING;
             INSERT INTO books_tags SELECT region, sku, 1 + sku % {TAGS} FROM books ON CONFLICT DO NOTHING;
             INSERT INTO \"Notes\" SELECT 'n:' || i, i, {}, nextval('clock') FROM generate_series(1, {NOTES}) i
                 ON CONFLICT DO NOTHING;
             {}",
            payload(1),
            anchors::rows(None)
        ))
        .await?;
    Ok(())
}

async fn connect(database: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(database, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A text as SQL.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// An expression for a text of this many times 32 characters that do not compress.
fn payload(times: u64) -> String {
    format!("(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, {times}))")
}

struct Session {
    database: String,
    random: Random,
    /// The keys that leave this remainder are its own.
    own: u64,
    gate: Gate,
    excuses: Arc<Excuses>,
    tally: Arc<Tally>,
}

impl Session {
    async fn run(mut self) {
        loop {
            let client = match connect(&self.database).await {
                Ok(client) => client,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            while !client.is_closed() {
                let pause_ms = self.transaction(&client).await;
                let pause = Duration::from_millis(self.random.below(pause_ms.max(1)));
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// One transaction. What becomes of one that loses its connection nobody needs to know: the tables tell.
    async fn transaction(&mut self, client: &Client) -> u64 {
        let gate = self.gate.clone();
        let plan = gate.read().await;
        let kind = self.random.below(1_000);
        let (name, sql, emptied) = if kind < plan.truncate_permille {
            let (sql, emptied) = self.truncation();
            ("truncations", sql, emptied)
        } else if kind < plan.truncate_permille + plan.large_permille {
            ("large transactions", self.large(), None)
        } else {
            ("transactions", self.small(), None)
        };
        let ends_well = !self.random.percent(5);
        let end = if ends_well { "COMMIT" } else { "ROLLBACK" };
        if let Some(index) = emptied {
            self.excuses.begin(index, true);
        }
        let done = self.statements(client, &sql, end).await;
        if let Some(index) = emptied {
            self.excuses.end(index);
        }
        match done {
            Ok(rows) if ends_well => {
                self.tally.add(Group::Work, name, 1);
                self.tally.add(Group::Work, "rows", rows);
            }
            Ok(_) => self.tally.add(Group::Work, "rolled back", 1),
            // A deadlock, or a connection that is gone.
            Err(_) => {
                self.tally.add(Group::Work, "failed", 1);
                let _ = client.batch_execute("ROLLBACK").await;
            }
        }
        plan.pause_ms
    }

    async fn statements(
        &mut self,
        client: &Client,
        sql: &[String],
        end: &str,
    ) -> std::result::Result<u64, tokio_postgres::Error> {
        client.batch_execute("BEGIN").await?;
        let mut rows = 0;
        for statement in sql {
            // Some of it is undone, and the rest is not.
            let undone = self.random.percent(4);
            if undone {
                client.batch_execute("SAVEPOINT half").await?;
            }
            rows += client.execute(statement, &[]).await?;
            if undone {
                client.batch_execute("ROLLBACK TO SAVEPOINT half").await?;
            }
        }
        client.batch_execute(end).await?;
        Ok(rows)
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.random.below(of.len() as u64) as usize]
    }

    fn any(&mut self, below: u64) -> u64 {
        1 + self.random.below(below)
    }

    /// A number that leaves this session's remainder.
    fn owned(&mut self, below: u64) -> u64 {
        self.random.below(below / SESSIONS) * SESSIONS + self.own
    }

    /// `region` and `sku` of any book, as SQL.
    fn book(&mut self) -> (String, u64) {
        (text(self.pick(&REGIONS)), self.any(SKUS))
    }

    fn note(number: u64) -> String {
        text(&match number % 5 {
            0 => format!("{number}"),
            1 => format!("n:{number}"),
            2 => format!("ñ/{number}?"),
            3 => format!("'{number}%"),
            _ => format!("note {number}"),
        })
    }

    fn small(&mut self) -> Vec<String> {
        let count = [1, 1, 1, 2, 5, 12][self.random.below(6) as usize];
        (0..count).flat_map(|_| self.statement()).collect()
    }

    fn statement(&mut self) -> Vec<String> {
        match self.random.below(20) {
            0..7 => self.about_a_book(),
            7..12 => vec![self.about_a_review()],
            12..14 => vec![self.about_an_author()],
            14..17 => vec![self.about_a_tag()],
            _ => vec![self.about_a_note()],
        }
    }

    fn about_a_book(&mut self) -> Vec<String> {
        let (region, sku) = self.book();
        let (author, number) = (self.any(AUTHORS + 5), self.any(100_000));
        let own = self.owned(SKUS);
        let this = format!("WHERE region = {region} AND sku = {sku}");
        let owned = format!("WHERE region = {region} AND sku = {own}");
        match self.random.below(9) {
            0 | 1 => vec![format!(
                "INSERT INTO books VALUES ({region}, {own}, 'book {number}', {number} / 100.0, {author}, {}, nextval('clock'))
                 ON CONFLICT (region, sku) DO UPDATE SET title = excluded.title, author_id = excluded.author_id,
                     published = excluded.published, rev = nextval('clock')",
                !number.is_multiple_of(5)
            )],
            2 => vec![format!("UPDATE books SET price = {number} / 100.0, rev = nextval('clock') {this}")],
            3 => vec![format!("UPDATE books SET author_id = {author}, rev = nextval('clock') {this}")],
            4 => vec![format!("UPDATE books SET author_id = NULL, rev = nextval('clock') {this}")],
            5 => vec![format!("UPDATE books SET published = NOT published, rev = nextval('clock') {this}")],
            6 => vec![format!("DELETE FROM books {owned}")],
            7 => {
                let tables = ["reviews", "books_tags", "books"];
                tables.iter().map(|table| format!("DELETE FROM {table} {owned}")).collect()
            }
            // Another key: what belongs to the book goes with it, or stays behind.
            _ => {
                let (to, to_sku) = (text(self.pick(&REGIONS)), self.owned(SKUS));
                let free = format!(
                    "NOT EXISTS (SELECT FROM books x WHERE x.region = {to} AND x.sku = {to_sku})"
                );
                let mut sql = vec![format!(
                    "UPDATE books SET region = {to}, sku = {to_sku}, rev = nextval('clock') {owned} AND {free}"
                )];
                if number.is_multiple_of(2) {
                    sql.push(format!("UPDATE reviews SET region = {to}, sku = {to_sku} {owned}"));
                }
                sql
            }
        }
    }

    fn about_a_review(&mut self) -> String {
        let ((region, sku), (to, to_sku)) = (self.book(), self.book());
        let (stars, count) = (self.any(5), self.any(3));
        let some = format!(
            "WHERE id IN (SELECT id FROM reviews WHERE region = {region} AND sku = {sku} LIMIT {count})"
        );
        match self.random.below(6) {
            0 | 1 => format!(
                "INSERT INTO reviews(region, sku, stars) SELECT {region}, {sku}, {stars} FROM generate_series(1, {count})"
            ),
            2 => format!("UPDATE reviews SET stars = {stars} {some}"),
            3 => format!("UPDATE reviews SET region = {to}, sku = {to_sku} {some}"),
            4 => format!("UPDATE reviews SET id = gen_random_uuid() {some}"),
            _ => format!("DELETE FROM reviews {some}"),
        }
    }

    fn about_an_author(&mut self) -> String {
        let (any, own, to, number) =
            (self.any(AUTHORS), self.owned(AUTHORS), self.owned(AUTHORS), self.any(1_000_000));
        match self.random.below(6) {
            0..3 => format!(
                "UPDATE authors SET name = 'author {number}', rev = nextval('clock') WHERE id = {any}"
            ),
            3 => format!(
                "INSERT INTO authors VALUES ({own}, 'author {number}', nextval('clock'))
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name, rev = nextval('clock')"
            ),
            4 => format!(
                "UPDATE authors SET id = {to}, rev = nextval('clock')
                 WHERE id = {own} AND NOT EXISTS (SELECT FROM authors WHERE id = {to})"
            ),
            _ => format!("DELETE FROM authors WHERE id = {own}"),
        }
    }

    fn about_a_tag(&mut self) -> String {
        let ((region, sku), tag, number) = (self.book(), self.any(TAGS), self.any(1_000_000));
        match self.random.below(12) {
            0..5 => format!(
                "INSERT INTO books_tags SELECT {region}, {sku}, id FROM tags WHERE id = {tag} ON CONFLICT DO NOTHING"
            ),
            5..8 => format!("DELETE FROM books_tags WHERE region = {region} AND sku = {sku} AND tag_id <= {tag}"),
            8 => format!(
                "UPDATE books_tags SET tag_id = {tag} WHERE region = {region} AND sku = {sku}
                     AND tag_id = (SELECT min(tag_id) FROM books_tags WHERE region = {region} AND sku = {sku})
                     AND EXISTS (SELECT FROM tags WHERE id = {tag})
                     AND NOT EXISTS (SELECT FROM books_tags WHERE region = {region} AND sku = {sku} AND tag_id = {tag})"
            ),
            9 | 10 => format!(
                "INSERT INTO tags VALUES ({tag}, 'tag {number}') ON CONFLICT (id) DO UPDATE SET label = excluded.label"
            ),
            _ => format!("DELETE FROM tags WHERE id = {tag}"),
        }
    }

    fn about_a_note(&mut self) -> String {
        let (any, own, to) =
            (Self::note(self.any(NOTES)), Self::note(self.owned(NOTES)), Self::note(self.owned(NOTES)));
        let (number, times) = (self.any(1_000_000), [1, 10, 100][self.random.below(3) as usize]);
        let payload = payload(times);
        match self.random.below(6) {
            0 => format!(
                "INSERT INTO \"Notes\" VALUES ({own}, {number}, {payload}, nextval('clock'))
                 ON CONFLICT (id) DO UPDATE SET payload = excluded.payload, rev = nextval('clock')"
            ),
            // The value that is stored out of line stays as it is.
            1..4 => format!("UPDATE \"Notes\" SET n = {number}, rev = nextval('clock') WHERE id = {any}"),
            4 => format!(
                "UPDATE \"Notes\" SET id = {to}, rev = nextval('clock')
                 WHERE id = {own} AND NOT EXISTS (SELECT FROM \"Notes\" WHERE id = {to})"
            ),
            _ => format!("DELETE FROM \"Notes\" WHERE id = {own}"),
        }
    }

    /// More than fits into a window, a unit, or a request.
    fn large(&mut self) -> Vec<String> {
        let count = [500, 2_000, 5_000][self.random.below(3) as usize];
        let statement = match self.random.below(7) {
            0 => "UPDATE books SET price = price % 900 + 1, rev = nextval('clock')".to_owned(),
            1 => "UPDATE reviews SET stars = 1 + stars % 5 WHERE random() < 0.5".to_owned(),
            2 => format!(
                "INSERT INTO reviews(region, sku, stars) SELECT region, sku, 1 + sku % 5
                 FROM books, generate_series(1, 6) ORDER BY random() LIMIT {count}"
            ),
            3 => format!("DELETE FROM reviews WHERE id IN (SELECT id FROM reviews ORDER BY random() LIMIT {count})"),
            4 => "UPDATE \"Notes\" SET n = n + 1, rev = nextval('clock')".to_owned(),
            5 => "UPDATE authors SET name = name || '!', rev = nextval('clock') WHERE length(name) < 200".to_owned(),
            _ => "DELETE FROM reviews a USING reviews b WHERE a.region = b.region AND a.sku = b.sku AND a.id > b.id
                  AND random() < 0.3"
                .to_owned(),
        };
        let mut sql = self.small();
        sql.push(statement);
        sql.extend(self.small());
        sql
    }

    /// With rows before and behind it in the same transaction. Returns too which index loses its root table, whose
    /// [anchors] are put back at once.
    fn truncation(&mut self) -> (Vec<String>, Option<&'static str>) {
        let (tables, emptied) = [
            ("reviews", None),
            ("books_tags", None),
            ("tags CASCADE", None),
            ("\"Notes\"", Some("notes")),
            ("authors", Some("authors")),
            ("books", Some("books")),
            ("books, reviews", Some("books")),
        ][self.random.below(7) as usize];
        let rows = emptied.map_or_else(String::new, |index| anchors::rows(Some(index)));
        let mut sql = self.small();
        sql.push(format!("DO $$ BEGIN TRUNCATE {tables}; {rows} END $$"));
        sql.extend((0..5).flat_map(|_| self.small()));
        (sql, emptied)
    }
}
