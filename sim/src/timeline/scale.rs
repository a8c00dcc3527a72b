//! Time along the page. Where nothing happens for long, most of it is left out.

/// A stretch without anything is drawn no wider than this.
const GAP_MAX: f64 = 45.0;
/// How wide a millisecond is at most, and at least.
const MS_MAX: f64 = 9.0;
const MS_MIN: f64 = 0.25;
/// As wide as a picture gets, where a millisecond does not become too narrow for it.
const WIDTH: f64 = 2600.0;
/// Where time begins, to the right of the names of the lanes.
pub(super) const LEFT: f64 = 90.0;

/// Where each moment stands.
pub(super) struct Scale {
    /// The moments at which something happens, with their places, both ascending.
    places: Vec<(u64, f64)>,
    /// Stretches of which most is left out.
    pub(super) gaps: Vec<(u64, u64)>,
}

impl Scale {
    /// For these moments, ascending.
    pub(super) fn new(times: Vec<u64>) -> Self {
        let pairs = || times.windows(2).map(|pair| pair[1] - pair[0]);
        let span_ms = |ms: f64| pairs().map(|us| (us as f64 / 1000.0 * ms).min(GAP_MAX)).sum::<f64>();
        let mut ms = MS_MAX;
        while ms > MS_MIN && span_ms(ms) > WIDTH {
            ms *= 0.9;
        }
        let mut places = vec![(0, LEFT)];
        let mut gaps = Vec::new();
        for pair in times.windows(2) {
            let width = (pair[1] - pair[0]) as f64 / 1000.0 * ms;
            if width > GAP_MAX {
                gaps.push((pair[0], pair[1]));
            }
            let last = places.last().map_or(LEFT, |(_, x)| *x);
            places.push((pair[1], last + width.min(GAP_MAX)));
        }
        Self { places, gaps }
    }

    /// The place of a moment.
    pub(super) fn x(&self, at_us: u64) -> f64 {
        let after = self.places.partition_point(|(time, _)| *time < at_us);
        match (after.checked_sub(1).and_then(|before| self.places.get(before)), self.places.get(after)) {
            (_, Some((time, x))) if *time == at_us => *x,
            (Some((from, left)), Some((to, right))) => {
                left + (right - left) * (at_us - from) as f64 / (to - from) as f64
            }
            (Some((_, x)), None) | (None, Some((_, x))) => *x,
            (None, None) => LEFT,
        }
    }

    /// Where the last moment stands.
    pub(super) fn end(&self) -> f64 {
        self.places.last().map_or(LEFT, |(_, x)| *x)
    }

    /// Round moments, far enough from each other for their labels.
    pub(super) fn ticks(&self) -> Vec<u64> {
        let mut ticks = Vec::new();
        let mut free = 0.0;
        let last = self.places.last().map_or(0, |(time, _)| *time);
        let mut at_us = 0;
        while at_us <= last {
            let x = self.x(at_us);
            let left_out = self.gaps.iter().any(|(from, to)| *from < at_us && at_us < *to);
            if x >= free && !left_out {
                ticks.push(at_us);
                free = x + 60.0;
            }
            at_us += 10_000;
        }
        ticks
    }
}
