//! A run as a picture: a lane for each stage, time from left to right.
//!
//! The trace is gathered into items (`items`), time is laid out along the page (`scale`), items that would cover each
//! other go into rows of their lane, and all of it is written as SVG (`svg`), which any browser shows.

mod items;
mod scale;
mod svg;
#[cfg(test)]
mod tests;

use crate::outcome::{Failure, Outcome};
use crate::plan::Plan;
use crate::timeline::items::{Item, Picture, Shape};
use crate::timeline::scale::Scale;
use crate::trace::Lane;

/// How many rows a lane may have for the sake of labels; beyond it, they are left to the tooltips.
const LABELLED_ROWS: usize = 5;

/// A lane, laid out.
struct Band {
    lane: Lane,
    /// Its items by rows, each with whether its label is shown.
    rows: Vec<Vec<(Item, bool)>>,
}

/// The picture of a run, as SVG.
#[must_use]
pub fn timeline(plan: &Plan, result: &Result<Outcome, Failure>) -> String {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(failure) => &failure.outcome,
    };
    let picture = Picture::new(&outcome.trace);
    let scale = Scale::new(picture.times());
    let bands: Vec<Band> = Lane::ALL
        .into_iter()
        .map(|lane| Band { lane, rows: rows(picture.of(lane), &scale) })
        .filter(|band| !band.rows.is_empty())
        .collect();
    svg::write(plan, result, &picture, &scale, &bands)
}

/// Items into rows, so that none covers another; with their labels where those take few rows.
fn rows(items: Vec<Item>, scale: &Scale) -> Vec<Vec<(Item, bool)>> {
    let labelled = pack(&items, scale, true);
    if labelled.len() <= LABELLED_ROWS {
        return labelled;
    }
    pack(&items, scale, false)
}

/// Each item in the first row that has room for it. A label that is not made room for is shown where there is some.
fn pack(items: &[Item], scale: &Scale, labels: bool) -> Vec<Vec<(Item, bool)>> {
    let mut rows: Vec<Vec<(Item, bool)>> = Vec::new();
    let mut ends: Vec<f64> = Vec::new();
    for item in items {
        let from = scale.x(item.from_us);
        let bar = (scale.x(item.to_us) - from).max(svg::BAR_MIN) + 3.0;
        let to = from + if labels { bar.max(item.label_width()) } else { bar };
        let row = ends.iter().position(|end| *end <= from);
        let row = row.unwrap_or_else(|| {
            rows.push(Vec::new());
            ends.push(0.0);
            rows.len() - 1
        });
        ends[row] = to;
        rows[row].push((item.clone(), labels));
    }
    if !labels {
        for row in &mut rows {
            for at in 0..row.len() {
                let next = row.get(at + 1).map_or(f64::MAX, |(next, _)| scale.x(next.from_us));
                let item = &row[at].0;
                row[at].1 = scale.x(item.from_us) + item.label_width() <= next;
            }
        }
    }
    rows
}

impl Item {
    /// How much room it takes with its label.
    fn label_width(&self) -> f64 {
        let before = if self.shape == Shape::Bar { 4.0 } else { 12.0 };
        before + self.label.chars().count() as f64 * svg::CHARACTER + 6.0
    }
}
