//! The report as one page of HTML that needs nothing else.
//!
//! What strangers wrote gets into it in two ways only: through the template, which escapes everything, after
//! [`clean()`]; and as JSON in which no `<` is left. No script or style but ours runs: the page says so to the
//! browser by their hashes, and has no attribute that would need more.

mod bars;
mod blockage;
mod data;
mod parts;

use askama::Template;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use crate::timeline::Timeline;
use crate::{Summary, clean, human_seconds};

use bars::Picture;
use blockage::Blockage;
use parts::{Card, Chip, Failure, Remark, Row, Saved};

/// How many bytes the page has at most.
pub const PAGE_LIMIT: usize = 2_000_000;

const STYLE: &str = include_str!("../templates/page.css");
const SCRIPT: &str = include_str!("../templates/page.js");

/// How much of each part is shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Rows of the table.
    targets: usize,
    /// Bars of the timeline, and what is told of derivations.
    derivations: usize,
    /// Failures with their logs.
    failures: usize,
    /// Lines of each log.
    lines: usize,
}

/// From nearly everything to next to nothing.
const BOUNDS: [Bounds; 5] = [
    Bounds { targets: 10_000, derivations: 20_000, failures: 1000, lines: 25 },
    Bounds { targets: 4000, derivations: 4000, failures: 500, lines: 25 },
    Bounds { targets: 2000, derivations: 2000, failures: 100, lines: 25 },
    Bounds { targets: 500, derivations: 500, failures: 50, lines: 10 },
    Bounds { targets: 50, derivations: 50, failures: 10, lines: 2 },
];

/// The page. What does not fit into [`PAGE_LIMIT`] is left out, and said.
#[must_use]
pub fn html(summary: &Summary) -> String {
    let timeline = Timeline::of(summary);
    let mut page = String::new();
    for bounds in BOUNDS {
        page = Page::new(summary, &timeline, bounds).render().unwrap_or_default();
        if page.len() <= PAGE_LIMIT {
            break;
        }
    }
    page
}

/// What the template is filled with. All texts are clean.
#[derive(Debug, Template)]
#[template(path = "page.html")]
struct Page {
    style: &'static str,
    script: &'static str,
    style_hash: String,
    script_hash: String,
    title: String,
    green: bool,
    headline: String,
    subtitle: String,
    cards: Vec<Card>,
    failures: Vec<Failure>,
    failures_left_out: usize,
    blockage: Option<Blockage>,
    picture: Option<Picture>,
    saved: Saved,
    actions: Vec<Row>,
    chips: Vec<Chip>,
    rows: Vec<Row>,
    rows_left_out: usize,
    remarks: Vec<Remark>,
    data: String,
    phoenix: String,
    nix: String,
    directory: Option<String>,
}

impl Page {
    fn new(summary: &Summary, timeline: &Timeline, bounds: Bounds) -> Self {
        let failures = parts::failures(summary, bounds);
        let rows = parts::rows(summary);
        let installables: Vec<_> = summary.installables.iter().map(|text| clean(text)).collect();
        let installables = installables.join(" ");
        let blockage = blockage::blockage(summary);
        let shown = shown(summary, timeline, blockage.as_ref(), bounds.derivations);
        let picture = bars::picture(summary, timeline, &shown);
        Self {
            style: STYLE,
            script: SCRIPT,
            style_hash: hash(STYLE),
            script_hash: hash(SCRIPT),
            title: if installables.is_empty() { "run".to_owned() } else { installables },
            green: summary.is_green(),
            headline: parts::headline(summary),
            subtitle: parts::subtitle(summary),
            cards: parts::cards(summary, timeline),
            failures_left_out: failures.len().saturating_sub(bounds.failures),
            failures: failures.into_iter().take(bounds.failures).collect(),
            blockage,
            data: data::data(summary, timeline, &shown),
            picture,
            saved: parts::saved(summary),
            actions: parts::actions(summary),
            chips: parts::chips(summary),
            rows_left_out: rows.len().saturating_sub(bounds.targets),
            rows: rows.into_iter().take(bounds.targets).collect(),
            remarks: parts::remarks(summary),
            phoenix: clean(&summary.phoenix).into_owned(),
            nix: clean(&summary.nix).into_owned(),
            directory: summary.directory.as_deref().map(|text| clean(text).into_owned()),
        }
    }
}

/// Which derivations are shown, `most` of them: those in the graph, then the longest builds, then any.
fn shown(summary: &Summary, timeline: &Timeline, graph: Option<&Blockage>, most: usize) -> Vec<bool> {
    let mut bars: Vec<_> = timeline.rows.iter().flat_map(|row| &row.bars).collect();
    bars.sort_by(|a, b| (b.end - b.begin).total_cmp(&(a.end - a.begin)));
    let in_graph = graph.into_iter().flat_map(|graph| graph.boxes.iter().map(|shown| shown.id));
    let all = in_graph.chain(bars.into_iter().map(|bar| bar.derivation)).chain(0..summary.derivations.len());
    let mut shown = vec![false; summary.derivations.len()];
    let mut left = most;
    for at in all {
        if left > 0 && !std::mem::replace(&mut shown[at], true) {
            left -= 1;
        }
    }
    shown
}

/// The hash by which a page allows a script or a style of its own (Content Security Policy, level 3).
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text.as_bytes())))
}

/// The class of a verdict in the style sheet, and its mark for those who see no colours.
fn look(kind: Option<phoenix_model::VerdictKind>) -> (&'static str, &'static str) {
    use phoenix_model::VerdictKind::{Blocked, Built, Cached, Cancelled, Failed, NotEvaluated, Skipped};
    match kind {
        Some(Failed) => ("failed", "✗"),
        Some(NotEvaluated) => ("noteval", "!"),
        Some(Blocked) => ("blocked", "⊘"),
        Some(Cancelled) => ("cancelled", "◌"),
        Some(Built) => ("built", "✓"),
        Some(Cached) => ("cached", "≡"),
        Some(Skipped) => ("skipped", "–"),
        None => ("open", "?"),
    }
}

/// A point in time as the page says it: from the beginning of the run.
fn clock(seconds: f64) -> String {
    format!("+{}", human_seconds(seconds))
}

#[cfg(test)]
mod tests;
