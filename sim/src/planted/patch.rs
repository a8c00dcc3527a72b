//! Patches: what they say, and how they are applied.
//!
//! A patch is a unified diff without line numbers, after a head: a line `breaks: ...` with the behaviours it breaks, and
//! what it is in a sentence. Its hunks are found by their text, which must stand in the file exactly once, so that a patch
//! whose ground has moved fails instead of vanishing.

use std::collections::BTreeMap;

/// A patch with its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Its name: that of its file.
    pub name: String,
    /// The behaviours that it breaks.
    pub breaks: String,
    /// What it is, in a sentence.
    pub sentence: String,
    hunks: Vec<Hunk>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hunk {
    file: String,
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Same(String),
    Removed(String),
    Added(String),
}

/// What becomes of a line of a file.
#[derive(Debug, Default)]
struct Place<'a> {
    /// The hunks that add something before it, and what.
    added: Vec<(&'a str, Vec<&'a str>)>,
    /// The patch that removes it.
    removed: Option<&'a str>,
}

impl Patch {
    /// Errors: why it is no patch.
    pub fn parse(name: String, text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        let first = lines.next().and_then(|line| line.strip_prefix("breaks: "));
        let breaks = first.ok_or("it does not begin with `breaks: ` and behaviours")?.to_owned();
        let mut sentence = String::new();
        let mut hunks: Vec<Hunk> = Vec::new();
        let mut file: Option<&str> = None;
        for line in lines {
            if let Some(path) = line.strip_prefix("--- ") {
                file = Some(path);
            } else if let Some(file) = file.filter(|_| line == "@@") {
                hunks.push(Hunk { file: file.to_owned(), lines: Vec::new() });
            } else if let (Some(hunk), Some(_)) = (hunks.last_mut(), file) {
                let rest = line.get(1..).unwrap_or_default().to_owned();
                hunk.lines.push(match line.as_bytes().first() {
                    None | Some(b' ') => Line::Same(rest),
                    Some(b'-') => Line::Removed(rest),
                    Some(b'+') => Line::Added(rest),
                    Some(_) => return Err(format!("`{line}` is no line of a patch")),
                });
            } else if !line.is_empty() && file.is_none() {
                sentence = format!("{sentence} {line}").trim_start().to_owned();
            }
        }
        match hunks.is_empty() || sentence.is_empty() {
            true => Err("it has no sentence, or changes nothing".to_owned()),
            false => Ok(Self { name, breaks, sentence, hunks }),
        }
    }

    /// Whether this text stands in something that it adds.
    #[must_use]
    pub fn asks_for(&self, text: &str) -> bool {
        let mut lines = self.hunks.iter().flat_map(|hunk| &hunk.lines);
        lines.any(|line| matches!(line, Line::Added(line) if line.contains(text)))
    }
}

/// Files by their paths.
pub type Files = BTreeMap<String, String>;

/// Applies patches together: each is found in the files as they are without the others. Errors: a hunk that does not stand
/// in its file exactly once, or two patches that change the same line.
pub fn apply(files: &mut Files, patches: &[Patch]) -> Result<(), String> {
    let mut hunks: BTreeMap<&str, Vec<(&str, &Hunk)>> = BTreeMap::new();
    for patch in patches {
        for hunk in &patch.hunks {
            hunks.entry(&hunk.file).or_default().push((&patch.name, hunk));
        }
    }
    for (path, hunks) in hunks {
        let name = hunks.first().map(|(name, _)| *name).unwrap_or_default();
        let text = files.get_mut(path).ok_or_else(|| format!("{name}: there is no file {path}"))?;
        *text = applied(path, text, &hunks)?;
    }
    Ok(())
}

fn applied<'a>(path: &str, text: &'a str, hunks: &[(&'a str, &'a Hunk)]) -> Result<String, String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut places: Vec<Place<'a>> = (0..=lines.len()).map(|_| Place::default()).collect();
    for (name, hunk) in hunks {
        let mut at = find(path, name, hunk, &lines)?;
        for line in &hunk.lines {
            match line {
                Line::Same(_) => at += 1,
                Line::Removed(_) => {
                    if let Some(other) = places[at].removed.replace(name) {
                        return Err(format!("{name} and {other} both change line {} of {path}", at + 1));
                    }
                    at += 1;
                }
                Line::Added(line) => match places[at].added.last_mut().filter(|(last, _)| last == name) {
                    Some((_, added)) => added.push(line),
                    None => places[at].added.push((name, vec![line])),
                },
            }
        }
    }
    let mut text = String::new();
    for (at, place) in places.iter().enumerate() {
        let kept = lines.get(at).filter(|_| place.removed.is_none());
        for line in place.added.iter().flat_map(|(_, added)| added).chain(kept) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

/// The first line of where a hunk stands.
fn find(path: &str, name: &str, hunk: &Hunk, lines: &[&str]) -> Result<usize, String> {
    let old: Vec<&str> = hunk
        .lines
        .iter()
        .filter_map(|line| match line {
            Line::Same(line) | Line::Removed(line) => Some(line.as_str()),
            Line::Added(_) => None,
        })
        .collect();
    let mut found = lines.windows(old.len().max(1)).enumerate().filter(|(_, window)| *window == old);
    match (found.next(), found.count()) {
        (Some((at, _)), 0) => Ok(at),
        (first, more) => Err(format!(
            "{name}: what it changes stands {} times in {path}, and must stand there once:\n{}",
            more + usize::from(first.is_some()),
            old.join("\n")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "one\ntwo\nthree\ntwo\nfour\n";

    fn patch(name: &str, hunk: &str) -> Patch {
        Patch::parse(name.to_owned(), &format!("breaks: A1\nIt breaks.\n\n--- a\n@@\n{hunk}")).unwrap()
    }

    fn applied(patches: &[Patch]) -> Result<String, String> {
        let mut files = Files::from([("a".to_owned(), TEXT.to_owned())]);
        apply(&mut files, patches)?;
        Ok(files.remove("a").unwrap())
    }

    #[test]
    fn patches_are_applied_together() {
        let patches = [patch("x", " one\n-two\n+2\n three\n"), patch("y", " three\n two\n+2.5\n")];
        assert_eq!(applied(&patches).unwrap(), "one\n2\nthree\ntwo\n2.5\nfour\n");
    }

    #[test]
    fn a_patch_whose_ground_has_moved_is_an_error_that_names_it() {
        let error = applied(&[patch("x", "-five\n+5\n")]).unwrap_err();
        assert!(error.starts_with("x: what it changes stands 0 times in a"), "{error}");
        let error = applied(&[patch("x", "-two\n+2\n")]).unwrap_err();
        assert!(error.starts_with("x: what it changes stands 2 times in a"), "{error}");
    }

    #[test]
    fn two_patches_of_one_line_are_an_error_that_names_both() {
        let error = applied(&[patch("x", "-one\n+1\n"), patch("y", "-one\n+I\n")]).unwrap_err();
        assert_eq!(error, "y and x both change line 1 of a");
    }

    #[test]
    fn a_patch_says_what_it_breaks() {
        let error = Patch::parse("x".to_owned(), "--- a\n@@\n-one\n").unwrap_err();
        assert_eq!(error, "it does not begin with `breaks: ` and behaviours");
    }
}
