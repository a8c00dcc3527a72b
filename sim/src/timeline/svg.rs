//! The picture as SVG.

use std::fmt::Write as _;

use crate::outcome::{Failure, Outcome};
use crate::plan::Plan;
use crate::timeline::Band;
use crate::timeline::items::{End, Item, Picture, Shape};
use crate::timeline::scale::{LEFT, Scale};
use crate::trace::Lane;

/// How wide a character of a label is, about.
pub(super) const CHARACTER: f64 = 6.1;
/// How wide a bar is at least.
pub(super) const BAR_MIN: f64 = 4.0;
const ROW: f64 = 18.0;
const LINE: f64 = 18.0;
/// Characters in a line of the heading.
const COLUMNS: usize = 150;

const STYLE: &str = "
  text { font: 11px 'DejaVu Sans', Verdana, sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: bold } .lane { font-weight: bold } .small { font-size: 10px; fill: #57606a }
  .holds { fill: #1a7f37; font-weight: bold } .broken { fill: #cf222e; font-weight: bold }
  .failed { stroke: #bc4c00; stroke-width: 2 } .lost { stroke: #57606a; stroke-dasharray: 3 2; fill-opacity: .35 }
";

/// A picture of these lanes.
pub(super) fn write(
    plan: &Plan,
    result: &Result<Outcome, Failure>,
    picture: &Picture,
    scale: &Scale,
    bands: &[Band],
) -> String {
    let heading = heading(plan, result, picture);
    let top = 14.0 + heading.len() as f64 * LINE + 22.0;
    let height_of = |band: &Band| band.rows.len() as f64 * ROW + 8.0;
    let bottom = top + bands.iter().map(height_of).sum::<f64>();
    let (width, height) = ((scale.end() + 170.0).max(1240.0), bottom + 92.0);
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n<style>{STYLE}</style>\n{HATCH}\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    );
    for (line, (class, text)) in heading.iter().enumerate() {
        let y = 20.0 + line as f64 * LINE;
        let _ = writeln!(svg, "<text class=\"{class}\" x=\"10\" y=\"{y:.0}\">{}</text>", escape(text));
    }
    let mut y = top;
    for (number, band) in bands.iter().enumerate() {
        background(&mut svg, band, number, (y, height_of(band), width));
        y += height_of(band);
    }
    axis(&mut svg, scale, top, bottom);
    let mut y = top;
    for band in bands {
        across(&mut svg, band, scale, (top, bottom));
        for (lane, from, to) in picture.down.iter().filter(|(lane, ..)| *lane == band.lane) {
            down(&mut svg, *lane, scale, (*from, *to), (y, height_of(band)));
        }
        y += height_of(band);
    }
    if let Some(healed) = picture.healed_us {
        let x = scale.x(healed);
        upright(&mut svg, x, (top, bottom), "#1a7f37", 1.5);
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#1a7f37\">faults are over</text>",
            x + 3.0,
            bottom + 12.0
        );
    }
    let mut y = top;
    for band in bands {
        let _ = writeln!(svg, "<g id=\"{}\">", band.lane.name());
        for (row, items) in band.rows.iter().enumerate() {
            for (item, labelled) in items {
                draw(&mut svg, band.lane, item, *labelled, scale, y + 4.0 + row as f64 * ROW);
            }
        }
        svg.push_str("</g>\n");
        y += height_of(band);
    }
    legend(&mut svg, plan, bottom + 34.0);
    svg.push_str("</svg>\n");
    svg
}

const HATCH: &str = "<defs><pattern id=\"down\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
    patternTransform=\"rotate(45)\"><rect width=\"6\" height=\"6\" fill=\"#ffebe9\"/>\
    <line x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\" stroke=\"#cf222e\" stroke-width=\"1.5\"/></pattern></defs>";

/// The title and the verdict, in lines.
fn heading(plan: &Plan, result: &Result<Outcome, Failure>, picture: &Picture) -> Vec<(&'static str, String)> {
    let mut lines: Vec<(&str, String)> = wrap(&plan.title).into_iter().map(|line| ("title", line)).collect();
    match result {
        Ok(outcome) => {
            let seconds = outcome.simulated_us as f64 / 1e6;
            let text = format!(
                "Holds, after {seconds:.3} s of simulated time: {} starts of the engine, {} transactions.",
                outcome.starts, outcome.commits
            );
            lines.push(("holds", text));
        }
        Err(failure) => {
            let seconds = failure.at_us as f64 / 1e6;
            let text = format!("BROKEN at {seconds:.6} s, {failure}");
            lines.extend(wrap(&text).into_iter().map(|line| ("broken", line)));
        }
    }
    if picture.is_cut {
        lines.push((
            "small",
            "What only repeats itself, long after the faults were over, is left out.".to_owned(),
        ));
    }
    lines
}

fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + word.chars().count() < COLUMNS {
            let _ = write!(last, " {word}");
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn background(svg: &mut String, band: &Band, number: usize, (y, height, width): (f64, f64, f64)) {
    let fill = if number.is_multiple_of(2) { "#f6f8fa" } else { "#fff" };
    let _ = writeln!(svg, "<rect y=\"{y:.1}\" width=\"{width:.0}\" height=\"{height:.1}\" fill=\"{fill}\"/>");
    let _ = writeln!(svg, "<text class=\"lane\" x=\"10\" y=\"{:.1}\">{}</text>", y + 16.0, band.lane.name());
    if height > 36.0 {
        let _ =
            writeln!(svg, "<text class=\"small\" x=\"10\" y=\"{:.1}\">{}</text>", y + 29.0, about(band.lane));
    }
}

/// What stands in a lane, in two words.
fn about(lane: Lane) -> &'static str {
    match lane {
        Lane::Source => "commits",
        Lane::Engine => "runs, retries",
        Lane::Capture => "the stream",
        Lane::Resolve => "look-ups",
        Lane::Build => "reads",
        Lane::Flush => "writes",
        Lane::Index => "durable",
        Lane::Seed => "backfill",
        Lane::Ack => "confirms",
        Lane::Fault => "what fails",
        Lane::Check => "verdicts",
    }
}

fn axis(svg: &mut String, scale: &Scale, top: f64, bottom: f64) {
    for (from, to) in &scale.gaps {
        let (left, right) = (scale.x(*from), scale.x(*to));
        let (middle, seconds) = ((left + right) / 2.0, (to - from) as f64 / 1e6);
        upright(svg, middle - 2.0, (top - 6.0, bottom), "#afb8c1", 1.0);
        upright(svg, middle + 2.0, (top - 6.0, bottom), "#afb8c1", 1.0);
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">⟨{seconds:.2} s⟩</text>",
            top - 18.0
        );
    }
    for at_us in scale.ticks() {
        let (x, seconds) = (scale.x(at_us), at_us as f64 / 1e6);
        upright(svg, x, (top - 4.0, bottom), "#eaeef2", 1.0);
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{seconds:.2} s</text>",
            top - 7.0
        );
    }
}

fn upright(svg: &mut String, x: f64, (top, bottom): (f64, f64), color: &str, width: f64) {
    let _ = writeln!(
        svg,
        "<path d=\"M{x:.1} {top:.1}V{bottom:.1}\" stroke=\"{color}\" stroke-width=\"{width}\"/>"
    );
}

/// What goes wrong, and what breaks, concerns all lanes.
fn across(svg: &mut String, band: &Band, scale: &Scale, span: (f64, f64)) {
    for (item, _) in band.rows.iter().flatten() {
        match item.shape {
            Shape::Fault => upright(svg, scale.x(item.from_us), span, "#ffc1ba", 1.0),
            Shape::Broken => upright(svg, scale.x(item.from_us), span, "#cf222e", 2.5),
            Shape::Bar | Shape::Moment => {}
        }
    }
}

fn down(svg: &mut String, lane: Lane, scale: &Scale, (from, to): (u64, u64), (y, height): (f64, f64)) {
    let node = match lane {
        Lane::Source => "the database",
        Lane::Index => "the index",
        _ => "the engine",
    };
    let (left, width) = (scale.x(from), (scale.x(to) - scale.x(from)).max(2.0));
    let _ = writeln!(
        svg,
        "<rect x=\"{left:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"url(#down)\">\
         <title>{node} is down from {:.6} s to {:.6} s</title></rect>",
        from as f64 / 1e6,
        to as f64 / 1e6
    );
}

fn color(lane: Lane) -> &'static str {
    match lane {
        Lane::Source => "#8250df",
        Lane::Engine => "#6e7781",
        Lane::Capture => "#0969da",
        Lane::Resolve => "#1b7c83",
        Lane::Build => "#bf8700",
        Lane::Flush => "#0550ae",
        Lane::Index => "#116329",
        Lane::Seed => "#a475f9",
        Lane::Ack => "#2da44e",
        Lane::Check => "#1a7f37",
        Lane::Fault => "#cf222e",
    }
}

fn draw(svg: &mut String, lane: Lane, item: &Item, labelled: bool, scale: &Scale, y: f64) {
    let color = if item.shape == Shape::Broken { "#cf222e" } else { color(lane) };
    let x = scale.x(item.from_us);
    let class = match item.end {
        End::Done => "",
        End::Failed => " class=\"failed\"",
        End::Unanswered => " class=\"lost\"",
    };
    let at = item.from_us as f64 / 1e6;
    let (text, mut label_x) = (escape(&item.text), x + 12.0);
    let _ = match item.shape {
        Shape::Bar => {
            label_x = x + 4.0;
            let (width, until) = ((scale.x(item.to_us) - x).max(BAR_MIN), item.to_us as f64 / 1e6);
            writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"15\" rx=\"2\" fill=\"{color}\" \
                 fill-opacity=\".28\"{class}><title>{text}: {at:.6} s to {until:.6} s</title></rect>\
                 <path d=\"M{x:.1} {y:.1}v15\" stroke=\"{color}\" stroke-width=\"2\"/>"
            )
        }
        Shape::Moment => writeln!(
            svg,
            "<path d=\"M{x:.1} {:.1}l5 5.5l-5 5.5l-5 -5.5z\" fill=\"{color}\"><title>{text}: {at:.6} s</title></path>",
            y + 2.0
        ),
        Shape::Fault => writeln!(
            svg,
            "<path d=\"M{x:.1} {:.1}l6 11h-12z\" fill=\"{color}\"><title>{text}: {at:.6} s</title></path>",
            y + 2.0
        ),
        Shape::Broken => writeln!(
            svg,
            "<path d=\"M{:.1} {:.1}l10 10m0 -10l-10 10\" stroke=\"{color}\" stroke-width=\"3\">\
             <title>{text}: {at:.6} s</title></path>",
            x - 5.0,
            y + 3.0
        ),
    };
    if labelled {
        let class = if item.shape == Shape::Broken { " class=\"broken\"" } else { "" };
        let _ = writeln!(
            svg,
            "<text{class} x=\"{label_x:.1}\" y=\"{:.1}\"><title>{text}: {at:.6} s</title>{}</text>",
            y + 11.5,
            escape(&item.label)
        );
    }
}

fn legend(svg: &mut String, plan: &Plan, y: f64) {
    let bar = |svg: &mut String, x: f64, class: &str| {
        let _ = write!(
            svg,
            "<rect x=\"{x:.0}\" y=\"{:.1}\" width=\"18\" height=\"12\" rx=\"2\" fill=\"#0550ae\" fill-opacity=\".28\"{class}/>",
            y - 10.0
        );
    };
    let mut x = LEFT;
    let mut say = |svg: &mut String, text: &str| {
        let _ = writeln!(svg, "<text x=\"{:.0}\" y=\"{y:.1}\">{text}</text>", x + 24.0);
        x += 44.0 + text.chars().count() as f64 * CHARACTER;
        x
    };
    bar(svg, LEFT, "");
    let next = say(svg, "a request, from its arrival to its answer");
    bar(svg, next, " class=\"failed\"");
    let next = say(svg, "answered with a failure");
    bar(svg, next, " class=\"lost\"");
    let next = say(svg, "never answered");
    let _ = write!(svg, "<path d=\"M{:.0} {:.1}l6 11h-12z\" fill=\"#cf222e\"/>", next + 10.0, y - 10.0);
    let next = say(svg, "a fault");
    let _ = write!(
        svg,
        "<rect x=\"{next:.0}\" y=\"{:.1}\" width=\"18\" height=\"12\" fill=\"url(#down)\"/>",
        y - 10.0
    );
    let next = say(svg, "a node that is down");
    let _ = write!(svg, "<text class=\"small\" x=\"{next:.0}\" y=\"{y:.1}\">⟨ ⟩</text>");
    say(svg, "time left out");
    let indexes = plan.schema.indexes.iter().enumerate();
    let names: Vec<String> = indexes.map(|(at, index)| format!("{at} is {}", index.name)).collect();
    let text = format!(
        "0/7 is document 7 of index 0; indexes: {}. @9 is position 9 of the log. +0/7 is written, -0/7 deleted. \
         The rest is told by pointing at it.",
        names.join(", ")
    );
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>", y + 22.0, escape(&text));
}

/// XML has no way to write a control character.
fn escape(text: &str) -> String {
    text.replace(|letter: char| letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}'), " ")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
