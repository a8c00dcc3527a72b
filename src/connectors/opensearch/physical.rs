//! The indexes at the server: created, put behind their alias, fenced off from earlier runs, and removed.
//!
//! Every step is one request, and each of them may arrive after its sender has given it up. So no step harms when it is
//! late: a creation makes an index that nobody names; moving the alias and removing the index that it leaves is one
//! request, which the server refuses as a whole once that index is gone; and what is removed is named by a name that is
//! never given again.
//!
//! The state comes first, and the aliases follow it. The state goes one way: a physical index is written, then perhaps
//! searched while another is written, then dropped, and nothing takes it back. So a request about aliases that lands late
//! does what the state has said for longer than it was under way, or asks for the removal of what is gone.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::http::{Answer, Body, Http, segment};
use super::layout::{Layout, created_by, write_alias, writer_of};
use super::state::{Entry, Generation, Store};
use crate::document::Epoch;
use crate::error::{Fault, FaultKind};

/// How often the alias is moved again after something came in between.
const ATTEMPTS: usize = 3;

#[derive(Deserialize)]
struct Settings {
    settings: IndexSettings,
}

#[derive(Deserialize)]
struct IndexSettings {
    index: Uuid,
}

#[derive(Deserialize)]
struct Uuid {
    uuid: String,
}

#[derive(Deserialize)]
struct Acknowledged {
    acknowledged: bool,
}

#[derive(Deserialize)]
struct Aliases {
    aliases: BTreeMap<String, Json>,
}

#[derive(Deserialize)]
struct Mappings {
    #[serde(default)]
    mappings: Json,
}

impl Mappings {
    /// Whose index it is, where a sink has created it: the prefix of that sink's own indexes.
    fn owner(&self) -> Option<&str> {
        self.mappings.get("_meta")?.get("syncline")?.get("owner")?.as_str()
    }
}

/// Creates an index of this layout.
pub(super) async fn create(http: &Http, layout: &Layout, epoch: Epoch) -> Result<Generation, Fault> {
    let physical = layout.physical(epoch);
    let creation = layout.creation(&write_alias(&physical, epoch));
    let answer = http.ask(Method::PUT, &segment(&physical), Body::Json(creation)).await?;
    acknowledged(&answer, &format!("creating index `{}`", layout.alias))?;
    match uuid(http, &physical).await? {
        Some(uuid) => Ok(Generation { physical, uuid, layout: layout.hash.clone() }),
        None => Err(Fault::transient(format!("index `{physical}` was removed just after it was created"))),
    }
}

/// The UUID of an index; `None` where there is no index of that name.
pub(super) async fn uuid(http: &Http, physical: &str) -> Result<Option<String>, Fault> {
    let doing = format!("reading the settings of index `{physical}`");
    let answer = http.ask(Method::GET, &format!("{}/_settings", segment(physical)), Body::None).await?;
    if answer.status == 404 && answer.refusal().kind == "index_not_found_exception" {
        return Ok(None);
    }
    let mut found: BTreeMap<String, Settings> = answer.done(&doing)?.json(&doing)?;
    Ok(found.remove(physical).map(|found| found.settings.index.uuid))
}

/// Whether this very index is there.
pub(super) async fn stands(http: &Http, generation: &Generation) -> Result<bool, Fault> {
    Ok(uuid(http, &generation.physical).await?.as_ref() == Some(&generation.uuid))
}

/// Whether an index holds any document.
pub(super) async fn holds_any(http: &Http, physical: &str) -> Result<bool, Fault> {
    #[derive(Deserialize)]
    struct Found {
        hits: Hits,
    }
    #[derive(Deserialize)]
    struct Hits {
        hits: Vec<Json>,
    }
    let doing = format!("looking into index `{physical}`");
    // A search sees nothing of what was written since the last refresh.
    http.ask(Method::POST, &format!("{}/_refresh", segment(physical)), Body::None).await?.done(&doing)?;
    let path = format!("{}/_search?allow_partial_search_results=false", segment(physical));
    let query = json!({ "size": 1, "query": { "match_all": {} }, "_source": false });
    let found: Found = http.ask(Method::POST, &path, Body::Json(query)).await?.done(&doing)?.json(&doing)?;
    Ok(!found.hits.hits.is_empty())
}

/// Makes the aliases what the entry of an index says: behind its name stands what searches find, alone, and this run is the
/// one that may write to its physical indexes. The others that stood behind the name are removed in the same step, and so is
/// what was `dropped` from the entry; what others have put there is not.
///
/// The state is looked at before every move, and after what is to be moved was read: a run that has stood still while
/// another one began finds that one's epoch there, or else asks for the removal of what is gone, and is refused.
pub(super) async fn expose(
    http: &Http,
    store: &Store,
    alias: &str,
    owner: &str,
    entry: &Entry,
    dropped: &[String],
    epoch: Epoch,
) -> Result<(), Fault> {
    let found = entry.found().physical;
    let doing = format!("putting index `{found}` behind `{alias}`");
    let mut last = None;
    'attempts: for _ in 0..ATTEMPTS {
        let held = behind(http, alias).await?;
        let mut actions = Vec::new();
        for held in held.iter().filter(|held| **held != found) {
            if *held == entry.physical {
                actions.push(json!({ "remove": { "index": held, "alias": alias } }));
            } else {
                if !is_own(http, alias, held, owner).await? {
                    continue 'attempts;
                }
                actions.push(json!({ "remove_index": { "index": held } }));
            }
        }
        for dropped in dropped {
            let is_kept = entry.names().any(|name| name == dropped) || held.contains(dropped);
            if !is_kept && owner_of(http, dropped).await?.as_deref() == Some(owner) {
                actions.push(json!({ "remove_index": { "index": dropped } }));
            }
        }
        for name in entry.names() {
            actions.extend(fencing(name, &writers(http, name).await?, epoch));
        }
        if !held.contains(&found) {
            actions.push(json!({ "add": { "index": found, "alias": alias } }));
        }
        if actions.is_empty() {
            return Ok(());
        }
        let state = store.read(http, epoch).await?;
        let own = state.indexes.get(alias).map(|own| (&own.physical, &own.searched));
        if own != Some((&entry.physical, &entry.searched)) {
            return Err(Fault::transient(format!("index `{alias}` was replaced meanwhile")));
        }
        match move_aliases(http, actions, &doing).await {
            Ok(()) => return Ok(()),
            // As where an index is gone that was behind the alias a moment ago, a request of an attempt that was given up
            // has come in between. It is looked at again.
            Err((404, fault)) => last = Some(fault),
            Err((_, fault)) => return Err(fault),
        }
    }
    let fault = last.unwrap_or_else(|| Fault::transient("the aliases are being changed by others"));
    Err(fault.with_kind(FaultKind::Transient))
}

/// Whether there is such an index still. Errors: fatal, where it was not created by this sink.
async fn is_own(http: &Http, alias: &str, index: &str, owner: &str) -> Result<bool, Fault> {
    let Some(found) = mappings(http, index).await?.remove(index) else { return Ok(false) };
    let whose = match found.owner() {
        Some(found) if found == owner => return Ok(true),
        Some(other) => format!("the sink with the prefix `{other}` has created"),
        None => "this sink has not created".to_owned(),
    };
    Err(Fault::fatal(format!(
        "`{alias}` is an alias of `{index}`, which {whose}; remove the alias, or give the index another name"
    )))
}

/// Takes the right to write to an index from every earlier run. Nothing, where there is no such index.
pub(super) async fn fence(http: &Http, physical: &str, epoch: Epoch) -> Result<(), Fault> {
    let writers = writers(http, physical).await?;
    let actions: Vec<Json> = fencing(physical, &writers, epoch).collect();
    if actions.is_empty() {
        return Ok(());
    }
    match move_aliases(http, actions, &format!("taking index `{physical}` over")).await {
        Ok(()) | Err((404, _)) => Ok(()),
        Err((_, fault)) => Err(fault),
    }
}

/// What gives this run alone the right to write to an index, where it has it not. A server that skips the removal of what is
/// gone, as some do, may give it back to a run that was followed by another where the request lands late: versions still hold
/// back what that run would write.
fn fencing(physical: &str, writers: &[Epoch], epoch: Epoch) -> impl Iterator<Item = Json> {
    let of = move |run: Epoch| json!({ "index": physical, "alias": write_alias(physical, run) });
    let earlier = writers.iter().filter(move |writer| **writer < epoch);
    let own = (!writers.contains(&epoch)).then(|| json!({ "add": of(epoch) }));
    earlier.map(move |writer| json!({ "remove": of(*writer) })).chain(own)
}

async fn move_aliases(http: &Http, actions: Vec<Json>, doing: &str) -> Result<(), (u16, Fault)> {
    let body = Body::Json(json!({ "actions": actions }));
    let answer = http.ask(Method::POST, "_aliases", body).await.map_err(|fault| (0, fault))?;
    acknowledged(&answer, doing).map_err(|fault| (answer.status, fault))
}

/// Errors: those of the answer; transient, where not every node of the cluster knows of the change yet. One that does not
/// would refuse to write through an alias that is new, or write through one that is gone.
fn acknowledged(answer: &Answer, doing: &str) -> Result<(), Fault> {
    if !answer.is_success() {
        return Err(answer.fault(doing));
    }
    let Acknowledged { acknowledged } = answer.json(doing)?;
    let unknown =
        || Fault::transient(format!("{doing}: not every node of the cluster has taken it up in time"));
    if acknowledged { Ok(()) } else { Err(unknown()) }
}

/// The indexes behind an alias.
async fn behind(http: &Http, alias: &str) -> Result<Vec<String>, Fault> {
    let doing = format!("reading the alias `{alias}`");
    let answer = http.ask(Method::GET, &format!("_alias/{}", segment(alias)), Body::None).await?;
    // An unknown alias is told in a form of its own.
    if answer.status == 404
        && (answer.refusal().reason.contains("missing")
            || answer.refusal().kind == "aliases_not_found_exception")
    {
        return Ok(Vec::new());
    }
    let found: BTreeMap<String, Json> = answer.done(&doing)?.json(&doing)?;
    Ok(found.into_keys().collect())
}

/// The runs that may write to an index.
async fn writers(http: &Http, physical: &str) -> Result<Vec<Epoch>, Fault> {
    let doing = format!("reading the aliases of index `{physical}`");
    let answer = http.ask(Method::GET, &format!("{}/_alias", segment(physical)), Body::None).await?;
    if answer.status == 404 {
        return Ok(Vec::new());
    }
    let mut found: BTreeMap<String, Aliases> = answer.done(&doing)?.json(&doing)?;
    let aliases = found.remove(physical).map(|found| found.aliases).unwrap_or_default();
    Ok(aliases.keys().filter_map(|alias| writer_of(alias, physical)).collect())
}

/// The sink that has created an index; `None` where it was none, or there is no such index.
async fn owner_of(http: &Http, index: &str) -> Result<Option<String>, Fault> {
    Ok(mappings(http, index).await?.remove(index).and_then(|found| found.owner().map(str::to_owned)))
}

async fn mappings(http: &Http, pattern: &str) -> Result<BTreeMap<String, Mappings>, Fault> {
    let doing = format!("reading the mapping of `{pattern}`");
    let answer = http.ask(Method::GET, &format!("{}/_mapping", segment(pattern)), Body::None).await?;
    if answer.status == 404 {
        return Ok(BTreeMap::new());
    }
    answer.done(&doing)?.json(&doing)
}

/// Removes what earlier runs have left: indexes that they created and nobody came to name, and those that a server has made
/// of a deletion through an alias that was gone.
pub(super) async fn sweep(
    http: &Http,
    alias: &str,
    owner: &str,
    current: &Entry,
    epoch: Epoch,
) -> Result<(), Fault> {
    for (index, found) in mappings(http, &format!("{alias}-*")).await? {
        let Some((created, writer)) = created_by(&index, alias) else { continue };
        let left = match writer {
            None => found.owner() == Some(owner) && !current.names().any(|name| name == index),
            Some(writer) => writer.strip_prefix('e').and_then(|run| run.parse().ok()) < Some(epoch.0),
        };
        if left && created < epoch {
            tracing::info!(%index, "removing an index that an earlier run has left");
            let answer = http.ask(Method::DELETE, &segment(&index), Body::None).await?;
            // Whatever hinders it now, the next start comes by again.
            if answer.status != 404
                && let Err(fault) = answer.done(&format!("removing index `{index}`"))
            {
                tracing::warn!(%index, %fault, "an index that an earlier run has left stays");
            }
        }
    }
    Ok(())
}
