//! Every document of every index, and what it should be by queries that are written in another way than those that the engine
//! builds with.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value as Json, json};

use crate::cluster::Cluster;
use crate::tally::Result;
use crate::wire::exchange;

/// More documents than an index ever holds here, and the most that a server gives at once.
const MOST: usize = 10_000;

/// How many differences are shown.
pub(crate) const SHOWN: usize = 20;

/// And how much of each.
const SHOWN_CHARACTERS: usize = 1_000;

/// The text of a part of an id, written down again from its documentation.
const PART: &str = r#"
CREATE FUNCTION part(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN value = '' OR value ~ '^[''~]' OR value IN ('true', 'false') OR value ~ '^(0|-?[1-9][0-9]*)$'
                THEN '''' ELSE '' END || replace(replace(value, '%', '%25'), ':', '%3A')
$$"#;

/// Each yields `{"id": ..., "body": {...}}`.
const DOCUMENTS: [(&str, &str); 3] = [
    (
        "authors",
        "WITH stars AS (SELECT b.author_id, sum(r.stars) AS sum FROM reviews r JOIN books b USING (region, sku) GROUP BY 1)
         SELECT json_build_object('id', a.id::text, 'body', json_build_object('rev', a.rev, 'name', a.name,
             'books', count(b.sku), 'value', sum(b.price), 'stars', s.sum))
         FROM authors a LEFT JOIN books b ON b.author_id = a.id LEFT JOIN stars s ON s.author_id = a.id
         GROUP BY a.id, a.rev, a.name, s.sum",
    ),
    (
        "books",
        "WITH r AS (SELECT region, sku, count(*), sum(stars) FROM reviews GROUP BY 1, 2),
              t AS (SELECT x.region, x.sku, array_agg(tags.label ORDER BY tags.id) AS labels
                    FROM tags JOIN books_tags x ON x.tag_id = tags.id GROUP BY 1, 2)
         SELECT json_build_object('id', part(b.region) || ':' || b.sku, 'body', json_build_object('rev', b.rev,
             'title', b.title, 'price', b.price, 'author', a.name, 'reviews', coalesce(r.count, 0), 'stars', r.sum,
             'tags', t.labels))
         FROM books b LEFT JOIN authors a ON a.id = b.author_id LEFT JOIN r USING (region, sku) LEFT JOIN t USING (region, sku)
         WHERE b.published",
    ),
    (
        "notes",
        "SELECT json_build_object('id', part(id), 'body', json_build_object('rev', rev, 'n', n, 'payload', payload))
         FROM (SELECT * FROM notes_0 UNION ALL SELECT * FROM notes_1 UNION ALL SELECT * FROM notes_2) all_notes",
    ),
];

pub(crate) type Documents = BTreeMap<String, Json>;

/// What [`differences`] needs in the database.
pub(crate) fn prepare(cluster: &Cluster) -> Result<()> {
    cluster.psql("shop", PART).map(drop).map_err(Into::into)
}

/// How many documents there are, and everything that is wrong with them.
pub(crate) async fn differences(cluster: &Cluster, search: SocketAddr) -> Result<(usize, Vec<String>)> {
    let mut count = 0;
    let mut wrong = Vec::new();
    for (index, sql) in DOCUMENTS {
        let wanted = wanted(cluster, sql)?;
        count += wanted.len();
        let behind = behind(search, index).await?;
        if behind.len() != 1 {
            wrong.push(format!("{} indexes stand behind {index}: {behind:?}", behind.len()));
        }
        compare(index, &wanted, &found(search, index).await?, &mut wrong);
    }
    let quarantined = found(search, "syncline-quarantine").await?;
    wrong.extend(quarantined.into_iter().map(|(id, record)| format!("still in quarantine: {id}: {record}")));
    Ok((count, wrong))
}

fn wanted(cluster: &Cluster, sql: &str) -> Result<Documents> {
    let mut documents = Documents::new();
    for line in cluster.psql("shop", &format!("SET extra_float_digits = 1; {sql}"))?.lines() {
        let mut line: Json = serde_json::from_str(line)?;
        let id = line["id"].as_str().ok_or("a document without an id")?.to_owned();
        documents.insert(id, line["body"].take());
    }
    Ok(documents)
}

/// The physical indexes behind the name of an index.
pub(crate) async fn behind(search: SocketAddr, index: &str) -> Result<Vec<String>> {
    let answer = exchange(search, "GET", &format!("/_alias/{index}"), "").await?;
    let held = if answer.status == 200 { answer.json() } else { Json::Null };
    Ok(held.as_object().into_iter().flat_map(|held| held.keys().cloned()).collect())
}

/// All that an index holds; nothing where there is no such index.
pub(crate) async fn found(search: SocketAddr, index: &str) -> Result<Documents> {
    let query = json!({ "size": MOST, "track_total_hits": true, "query": { "match_all": {} } }).to_string();
    let answer = exchange(search, "POST", &format!("/{index}/_search"), &query).await?;
    if answer.status == 404 {
        return Ok(Documents::new());
    }
    let mut answer = answer.json();
    let total = answer["hits"]["total"]["value"].as_u64();
    let hits = match answer["hits"]["hits"].take() {
        Json::Array(hits) if Some(hits.len() as u64) == total => hits,
        _ => return Err(format!("{index} holds {total:?} documents, and did not give them all").into()),
    };
    let mut documents = Documents::new();
    for mut hit in hits {
        let id = hit["_id"].as_str().ok_or("a hit without an id")?.to_owned();
        let mut body = hit["_source"].take();
        // The sink's own field, by which it lists what it holds.
        let own = body.as_object_mut().and_then(|fields| fields.remove("syncline_id"));
        if own.as_ref().and_then(Json::as_str) != Some(&id) {
            return Err(format!("{index}/{id} says that it is {own:?}").into());
        }
        if documents.insert(id, body).is_some() {
            return Err(format!("{index} holds a document twice: {}", hit["_id"]).into());
        }
    }
    Ok(documents)
}

fn compare(index: &str, wanted: &Documents, found: &Documents, wrong: &mut Vec<String>) {
    let (mut lost, mut stale, mut double) = (Vec::new(), Vec::new(), Vec::new());
    for (id, body) in wanted {
        match found.get(id) {
            None => lost.push(format!("{index}/{id}: lost: {body}")),
            Some(held) if !equal(body, held) => {
                stale.push(format!(
                    "{index}/{id}: stale:\n    the tables say {body}\n    the index holds {held}"
                ));
            }
            Some(_) => {}
        }
    }
    for (id, held) in found {
        if !wanted.contains_key(id) {
            double.push(format!("{index}/{id}: should not be there: {held}"));
        }
    }
    for (kind, all) in [("lost", lost), ("stale", stale), ("too many", double)] {
        if !all.is_empty() {
            wrong.push(format!("{index}: {} {kind} of {}", all.len(), wanted.len()));
            let shown = all.iter().take(SHOWN).map(|line| line.chars().take(SHOWN_CHARACTERS).collect());
            wrong.extend(shown);
        }
    }
}

/// Numbers are equal that are worth the same: `1.50` and `1.5`.
fn equal(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => one.as_f64() == other.as_f64(),
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Json::Object(one), Json::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, one)| other.get(name).is_some_and(|other| equal(one, other)))
        }
        _ => one == other,
    }
}
