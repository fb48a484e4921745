//! What is seen while a run goes on: a live view on a terminal, lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use phoenix_model::{Logged, Stamp};
use phoenix_report::{Annotation, Detail, Groups, Lines, Shown, Style, Summary, frame};

use crate::args::TalkArgs;
use crate::mark::Mark;
use crate::talk::{self, Terminal};

/// How often the live view is drawn at the most.
const REDRAW: Duration = Duration::from_millis(100);

/// The most lines of the live view.
const MOST_LINES: usize = 12;

/// Shows events.
#[derive(Debug)]
pub(crate) struct Screen {
    lines: How,
    live: Option<Live>,
}

/// How events become lines.
#[derive(Debug)]
enum How {
    Lines(Lines),
    /// With marks where parts that can be folded begin and end.
    Groups(Groups, Mark),
}

#[derive(Debug)]
struct Live {
    bar: ProgressBar,
    style: Style,
    drawn: Instant,
}

impl Screen {
    /// The screen that the flags and the terminal ask for.
    pub(crate) fn new(args: &TalkArgs) -> Self {
        let terminal = Terminal::detect();
        let style = Style { colour: terminal.colour };
        let detail = match (args.quiet, args.verbose) {
            (true, _) => Detail::Quiet,
            (false, 0) => Detail::Normal,
            (false, _) => Detail::Verbose,
        };
        let live = (terminal.live && !args.quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(20));
            if let Ok(style) = ProgressStyle::with_template("{msg}") {
                bar.set_style(style);
            }
            Live { bar, style, drawn: Instant::now() }
        });
        let lines = Lines::new(detail, args.print_build_logs, style);
        let lines = match live {
            Some(_) => How::Lines(lines.without_starts()),
            None => match args.log_groups.then(Mark::read).flatten() {
                Some(mark) => How::Groups(Groups::new(lines), mark),
                None => How::Lines(lines),
            },
        };
        Self { lines, live }
    }

    /// Shows an event that `summary` has taken in.
    pub(crate) fn event(&mut self, summary: &Summary, logged: &Logged) {
        let lines = self.lines.lines(summary, logged);
        match &mut self.live {
            Some(live) => {
                for line in lines {
                    live.bar.println(line);
                }
                live.draw(summary, logged.at, false);
            }
            // At once, so that nothing comes between the lines of a group.
            None if lines.is_empty() => {}
            None => talk::stderr(&(lines.join("\n") + "\n")),
        }
    }

    /// Has whoever reads the marks show these beside the run; without marks, nobody does.
    pub(crate) fn annotate(&self, annotations: &[Annotation]) {
        if let How::Groups(_, mark) = &self.lines {
            for Annotation { title, text } in annotations {
                talk::stderr(&(mark.error(title, text) + "\n"));
            }
        }
    }

    /// Shows that time has passed.
    pub(crate) fn tick(&mut self, summary: &Summary, now: Stamp) {
        match &mut self.live {
            Some(live) => live.draw(summary, now, true),
            None => {
                if let Some(line) = self.lines.heartbeat(summary, now) {
                    talk::stderr(&format!("{line}\n"));
                }
            }
        }
    }

    /// Takes the live view away.
    pub(crate) fn finish(&mut self) {
        if let Some(live) = self.live.take() {
            live.bar.finish_and_clear();
        }
    }
}

impl How {
    fn lines(&mut self, summary: &Summary, logged: &Logged) -> Vec<String> {
        match self {
            Self::Lines(lines) => lines.lines(summary, logged),
            Self::Groups(groups, mark) => {
                let shown = groups.shown(summary, logged).into_iter();
                let line = |shown| match shown {
                    Shown::Line(line) => line,
                    Shown::Begin(title) => mark.begin(&title),
                    Shown::End => mark.end(),
                };
                shown.map(line).collect()
            }
        }
    }

    fn heartbeat(&mut self, summary: &Summary, now: Stamp) -> Option<String> {
        match self {
            Self::Lines(lines) => lines.heartbeat(summary, now),
            Self::Groups(groups, _) => groups.heartbeat(summary, now),
        }
    }
}

impl Live {
    fn draw(&mut self, summary: &Summary, now: Stamp, force: bool) {
        if !force && self.drawn.elapsed() < REDRAW {
            return;
        }
        self.drawn = Instant::now();
        let (width, height) = size();
        // One column and one line are left free, so that no terminal wraps or scrolls.
        let lines = frame(
            summary,
            now,
            width.saturating_sub(1),
            MOST_LINES.min(height.saturating_sub(2)),
            self.style,
        );
        self.bar.set_message(lines.join("\n"));
        self.bar.tick();
    }
}

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    let (height, width) = console::Term::stderr().size();
    (usize::from(width), usize::from(height))
}
