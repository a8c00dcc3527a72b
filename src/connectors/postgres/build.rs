//! Builds documents: one snapshot, and one query for each index.

use deadpool_postgres::{Object, Transaction};
use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;
use tokio_postgres::IsolationLevel;
use tokio_postgres::types::ToSql;

use super::super::routes::{Bodies, Indexed as _, is_object};
use super::error::{Place, PostgresError};
use super::index::Index;
use super::value::Parameter;
use super::visible::{self, Reads};
use crate::change::Visibility;
use crate::document::DocumentId;
use crate::error::Fault;
use crate::ports::Built;
use crate::row::Key;

/// A transaction that reads one snapshot, of which is still to be asked what it shows.
struct Begun<'c> {
    transaction: Transaction<'c>,
    /// The server has replayed what is needed: it was asked before.
    replayed: bool,
}

/// Begins to read a snapshot; none where a standby has not come so far.
async fn begin<'c>(
    place: &Place,
    client: &'c mut Object,
    reads: &Reads,
    token: Option<u64>,
) -> Result<Option<Begun<'c>>, PostgresError> {
    let streamed = &reads.streamed;
    // There a position means nothing, and everything would look as if it was visible.
    if token.is_some() && !streamed.is_known() {
        let what = "the changes are captured from another server, of which it is no standby: documents can be read from the \
                    captured server, or from a physical standby of it";
        return Err(place.definition(what));
    }
    let replayed = reads.is_standby();
    if replayed && !visible::replayed(place, client, streamed, token).await? {
        return Ok(None);
    }
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(place.failed("reading a snapshot"))?;
    Ok(Some(Begun { transaction, replayed }))
}

/// A snapshot in which everything is visible that no stream tells, and everything up to the token; none where it is not yet.
pub(super) async fn snapshot<'c>(
    place: &Place,
    client: &'c mut Object,
    reads: &Reads,
    token: Option<Visibility>,
) -> Result<Option<Transaction<'c>>, PostgresError> {
    let token = token.map(|Visibility(commit)| commit);
    let Some(Begun { transaction, replayed }) = begin(place, client, reads, token).await? else {
        return Ok(None);
    };
    let shows = reads.shows(place, &transaction, token, replayed).await?;
    Ok(shows.then_some(transaction))
}

/// Builds these documents of these indexes, all in one snapshot; none where it does not show the token yet.
pub(super) async fn documents(
    place: &Place,
    client: &mut Object,
    reads: &Reads,
    wanted: &[(&Index, Vec<DocumentId>)],
    token: Option<Visibility>,
) -> Result<Option<Vec<Built<String>>>, PostgresError> {
    match all_at_once(place, client, reads, wanted, token).await {
        Err(error) if error.lies_in_the_row() => one_by_one(place, client, reads, wanted, token).await,
        result => result,
    }
}

/// What the snapshot shows is asked together with the bodies, so that nothing waits for the answer: nearly always it shows what is
/// needed, and else the bodies are for nothing.
async fn all_at_once(
    place: &Place,
    client: &mut Object,
    reads: &Reads,
    wanted: &[(&Index, Vec<DocumentId>)],
    token: Option<Visibility>,
) -> Result<Option<Vec<Built<String>>>, PostgresError> {
    let token = token.map(|Visibility(commit)| commit);
    let Some(Begun { transaction, replayed }) = begin(place, client, reads, token).await? else {
        return Ok(None);
    };
    let built = async {
        let mut built = Vec::new();
        for (index, ids) in wanted {
            let keys: Vec<&Key> = ids.iter().map(|id| &id.key).collect();
            let bodies = bodies(place, &transaction, index, &keys).await?;
            built.extend(bodies.answers(ids.iter().cloned()));
        }
        Ok(built)
    };
    let built = match futures::join!(reads.shows(place, &transaction, token, replayed), built) {
        (Ok(false), _) => return Ok(None),
        // Where SQL is refused the transaction answers nothing more, and the question may come after that.
        (_, Err(error)) | (Err(error), Ok(_)) => return Err(error),
        (Ok(true), Ok(built)) => built,
    };
    transaction.rollback().await.map_err(place.failed("ending a snapshot"))?;
    Ok(Some(built))
}

/// Some row cannot be made a document of, and the server does not say which. Each is asked for alone, so that the others
/// pass: in one snapshot again, whose queries may fail without ending it.
async fn one_by_one(
    place: &Place,
    client: &mut Object,
    reads: &Reads,
    wanted: &[(&Index, Vec<DocumentId>)],
    token: Option<Visibility>,
) -> Result<Option<Vec<Built<String>>>, PostgresError> {
    let Some(mut transaction) = snapshot(place, client, reads, token).await? else { return Ok(None) };
    let mut built = Vec::new();
    for (index, ids) in wanted {
        let mut all = Bodies::default();
        for id in ids {
            let failed = || place.failed("reading a snapshot");
            let point = transaction.savepoint("syncline").await.map_err(failed())?;
            match bodies(place, &point, index, &[&id.key]).await {
                Ok(bodies) => {
                    all.extend(bodies);
                    point.commit().await.map_err(failed())?;
                }
                Err(error) if error.lies_in_the_row() => {
                    all.failed(id.key.clone(), Fault::from(error).message().into());
                    point.rollback().await.map_err(failed())?;
                }
                Err(error) => return Err(error),
            }
        }
        built.extend(all.answers(ids.iter().cloned()));
    }
    transaction.rollback().await.map_err(place.failed("ending a snapshot"))?;
    Ok(Some(built))
}

/// The bodies of these keys by one query. A key that is not among them has no row.
async fn bodies(
    place: &Place,
    transaction: &Transaction<'_>,
    index: &Index,
    keys: &[&Key],
) -> Result<Bodies, PostgresError> {
    let failed = || place.failed(format!("building documents of index `{}`", index.described().name));
    // They are looked up in it alone: no order comes of it.
    let asked: HashSet<&Key, FxBuildHasher> = keys.iter().copied().collect();
    // Another key can be no row's.
    let possible: Vec<&Key> = keys.iter().copied().filter(|key| index.root.names(key)).collect();
    let width = index.described().key.len();
    let columns = (0..width).map(|at| possible.iter().map(move |key| &key.values()[at]));
    let given: Vec<Parameter> = columns.map(Parameter::array).collect();
    let given: Vec<&(dyn ToSql + Sync)> = given.iter().map(|given| given as _).collect();
    let statement =
        transaction.prepare_typed_cached(&index.query.sql, &index.query.parameters).await.map_err(failed())?;
    let given = &given[..statement.params().len().min(given.len())];
    let mut found = Bodies::default();
    for row in transaction.query(&statement, given).await.map_err(failed())? {
        let texts: Result<Vec<Option<&str>>, _> = (0..width).map(|at| row.try_get(at)).collect();
        let values = index.query.read(&texts.map_err(failed())?);
        let key = Key::new(values).map_err(|error| place.unexpected(error.to_string()))?;
        if !asked.contains(&key) {
            if !index.is_exact() {
                // The row goes by another spelling now, whose own change asks for it; by the one asked for it is gone.
                continue;
            }
            let name = &index.described().name;
            return Err(place.unexpected(format!(
                "the SQL of index `{name}` yields the key {key:?}, which it was not asked for"
            )));
        }
        let body = body(row.try_get(width).map_err(failed())?, index.body_is_json);
        found.yielded(key, body);
    }
    Ok(found)
}

/// The text of a JSON object, or what it is instead. What the server has made JSON need not be read again to know.
fn body(text: Option<&str>, is_json: bool) -> Result<String, String> {
    let no_object =
        |what: &str| Err(format!("its body is {what}; the SQL must yield a JSON object, or its text"));
    let Some(text) = text else { return no_object("NULL") };
    if is_json {
        return match text.trim_start().starts_with('{') {
            true => Ok(text.to_owned()),
            false => no_object("another kind of JSON than an object"),
        };
    }
    match is_object(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(what) => no_object(&what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b15_a_body_is_the_text_of_an_object_or_it_says_what_it_is() {
        assert_eq!(body(Some("{\"a\":1}"), false), Ok("{\"a\":1}".into()));
        assert_eq!(body(Some(" {\"a\":1}"), true), Ok(" {\"a\":1}".into()));
        for (text, is_json, reason) in [
            (None, true, "its body is NULL"),
            (Some("[1]"), true, "its body is another kind of JSON"),
            (Some("[1]"), false, "its body is no JSON object"),
            (Some("{\"a\":"), false, "its body is no JSON object (EOF"),
        ] {
            let error = body(text, is_json).unwrap_err();
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
