//! What a sink tells of what it holds, asked for in the same way of every sink that can tell.

use syncline::document::{Document, DocumentId, Epoch, Version, Write, Writes};
use syncline::name::IndexName;
use syncline::ports::{FlushReport, Sink};
use syncline::row::Key;

/// Which of these documents it holds otherwise.
pub(crate) async fn differing(
    sink: &impl Sink<Body = String>,
    writes: impl IntoIterator<Item = Write<String>>,
) -> Vec<DocumentId> {
    sink.compare(&writes.into_iter().collect()).await.unwrap()
}

/// The names of all documents, asked for in pages.
pub(crate) async fn listed(sink: &impl Sink<Body = String>, index: &IndexName, limit: usize) -> Vec<String> {
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = sink.list(index, after.as_ref(), limit).await.unwrap();
        assert!(page.len() <= limit && page.iter().all(|id| id.index == *index));
        let Some(last) = page.last() else { return names };
        after = Some(last.clone());
        names.extend(page.iter().map(DocumentId::sink_id));
        assert!(names.is_sorted_by(|one, next| one < next), "{names:?}");
    }
}

/// Documents are listed in the order of their names, in pages of any size; what was deleted is not. Leaves all but one of the
/// documents, and returns their names.
pub(crate) async fn lists_in_order(
    sink: &impl Sink<Body = String>,
    index: &IndexName,
    epoch: Epoch,
) -> Vec<String> {
    let keys: [Key; 9] = [
        2.into(),
        10.into(),
        (-3).into(),
        "10".into(),
        "é".into(),
        "Z".into(),
        "a".into(),
        Key::new(["a".into(), 7.into()]).unwrap(),
        Key::new(["a:b".into(), "🦀\"".into()]).unwrap(),
    ];
    let id = |key: Key| DocumentId::new(index.clone(), key);
    let write = async |document: Document<String>, build: u64| {
        let writes: Writes<String> =
            [Write { document, version: Version { epoch, build } }].into_iter().collect();
        assert_eq!(sink.flush(&writes, false).await.unwrap(), FlushReport::clean());
    };
    assert_eq!(listed(sink, index, 2).await, [""; 0]);
    // One after the other, so that they lie in several segments, none of which has them in order.
    for (build, key) in (1..).zip(&keys) {
        write(Document::upsert(id(key.clone()), "{}".to_owned()), build).await;
    }
    let mut names: Vec<String> = keys.iter().map(|key| id(key.clone()).sink_id()).collect();
    names.sort();
    for limit in [1, 2, 3, 9, 10, usize::MAX] {
        assert_eq!(listed(sink, index, limit).await, names, "{limit}");
    }
    assert_eq!(sink.list(index, None, 0).await.unwrap(), []);
    let first = sink.list(index, None, 1).await.unwrap();
    assert_eq!(first, [id("10".into())], "the name is read back as its key");
    // Written again, and deleted; and what stands after one that is gone.
    write(Document::upsert(id(2.into()), "{\"v\":2}".to_owned()), 20).await;
    write(Document::delete(id("Z".into())), 21).await;
    names.retain(|name| name != "Z");
    for limit in [1, 2, 100] {
        assert_eq!(listed(sink, index, limit).await, names, "{limit}");
    }
    let at = names.iter().position(|name| name.as_str() > "Z").unwrap();
    let after = sink.list(index, Some(&id("Z".into())), 2).await.unwrap();
    assert_eq!(after.iter().map(DocumentId::sink_id).collect::<Vec<_>>(), names[at..at + 2]);
    assert_eq!(sink.list(index, Some(&id("🦀".into())), 9).await.unwrap(), []);
    names
}
