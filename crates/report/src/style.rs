//! Colours and marks.

use anstyle::{AnsiColor, Color, Style as Ansi};
use phoenix_model::VerdictKind;

/// How text may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Style {
    /// With colours, and with marks beside verdicts; else words say it all.
    pub colour: bool,
}

impl Style {
    pub(crate) fn paint(self, text: &str, ansi: Ansi) -> String {
        if self.colour { format!("{ansi}{text}{ansi:#}") } else { text.to_owned() }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint(text, Ansi::new().bold())
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint(text, Ansi::new().dimmed())
    }

    /// A mark for a verdict with a space after it, where marks may be.
    pub(crate) fn mark(self, kind: VerdictKind) -> &'static str {
        match (self.colour, kind) {
            (false, _) => "",
            (true, VerdictKind::Failed | VerdictKind::NotEvaluated) => "✗ ",
            (true, VerdictKind::Blocked) => "↯ ",
            (true, VerdictKind::Cancelled | VerdictKind::Skipped) => "− ",
            (true, VerdictKind::Built | VerdictKind::Cached) => "✓ ",
        }
    }

    pub(crate) fn verdict(self, kind: VerdictKind, text: &str) -> String {
        let colour = match kind {
            VerdictKind::Failed | VerdictKind::NotEvaluated => AnsiColor::Red,
            VerdictKind::Blocked | VerdictKind::Cancelled => AnsiColor::Yellow,
            VerdictKind::Built => AnsiColor::Green,
            VerdictKind::Cached => AnsiColor::Cyan,
            VerdictKind::Skipped => AnsiColor::BrightBlack,
        };
        self.paint(text, Ansi::new().fg_color(Some(Color::Ansi(colour))))
    }
}
