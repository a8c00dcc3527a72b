//! Whether a builder answered for every document that it was asked for, and for no other.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::document::DocumentId;
use crate::ports::Built;

fn id_of<B>(built: &Built<B>) -> &DocumentId {
    match built {
        Ok(document) => &document.id,
        Err(failed) => &failed.id,
    }
}

/// The answers, and the sizes of their bodies, in the order of `asked`. Those that come in this order, as most do, are not moved.
/// Errors: what is missing, foreign or there twice.
pub(super) fn in_order<B>(
    asked: &[DocumentId],
    answers: Vec<Built<B>>,
    mut bytes: Vec<usize>,
) -> Result<(Vec<Built<B>>, Vec<usize>), String> {
    bytes.resize(answers.len(), 0);
    let same = asked.len() == answers.len() && asked.iter().eq(answers.iter().map(id_of));
    if same {
        return Ok((answers, bytes));
    }
    let places: BTreeMap<&DocumentId, usize> = asked.iter().enumerate().map(|(at, id)| (id, at)).collect();
    let mut ordered: Vec<Option<(Built<B>, usize)>> = asked.iter().map(|_| None).collect();
    for (built, bytes) in answers.into_iter().zip(bytes) {
        let id = id_of(&built);
        let Some(&place) = places.get(id) else {
            return Err(format!("document {id} was answered, but not asked for"));
        };
        if ordered[place].is_some() {
            return Err(format!("document {id} was answered twice"));
        }
        ordered[place] = Some((built, bytes));
    }
    let missing = ordered.iter().filter(|answer| answer.is_none()).count();
    match ordered.iter().position(Option::is_none) {
        Some(first) => Err(format!(
            "{missing} of {} documents were not answered, among them {}",
            asked.len(),
            asked[first]
        )),
        None => Ok(ordered.into_iter().flatten().unzip()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{Content, Document};
    use crate::name::IndexName;
    use alloc::vec;

    fn id(key: i64) -> DocumentId {
        DocumentId::new(IndexName::new("users").unwrap(), key)
    }

    fn built(key: i64) -> Built<i64> {
        Ok(Document::upsert(id(key), key))
    }

    fn order(answers: Vec<Built<i64>>) -> Result<Vec<i64>, String> {
        let bytes: Vec<usize> = (0..answers.len()).collect();
        let (answers, bytes) = in_order(&[id(1), id(2), id(3)], answers, bytes)?;
        Ok(answers
            .into_iter()
            .zip(bytes)
            .map(|(built, bytes)| match built.map(|document| document.content) {
                Ok(Content::Upsert(body)) => body * 10 + bytes as i64,
                other => panic!("{other:?}"),
            })
            .collect())
    }

    #[test]
    fn answers_come_in_any_order() {
        assert_eq!(order(vec![built(1), built(2), built(3)]), Ok(vec![10, 21, 32]));
        assert_eq!(order(vec![built(3), built(1), built(2)]), Ok(vec![11, 22, 30]));
    }

    #[test]
    fn b15_a_silent_or_foreign_answer_is_an_error() {
        let wrong = |answers| order(answers).unwrap_err();
        assert_eq!(wrong(vec![built(1), built(3)]), "1 of 3 documents were not answered, among them users/2");
        assert_eq!(
            wrong(vec![built(1), built(2), built(3), built(4)]),
            "document users/4 was answered, but not asked for"
        );
        assert_eq!(wrong(vec![built(1), built(1), built(2)]), "document users/1 was answered twice");
    }
}
