//! The timeline as a Gantt chart that GitHub draws (Mermaid, <https://mermaid.js.org/syntax/gantt.html>).

use std::fmt::Write as _;

use phoenix_model::{Verdict, VerdictKind};

use crate::Summary;
use crate::timeline::{Bar, Timeline};

/// How many characters of a name are shown.
const NAME_LENGTH: usize = 60;

/// Adds the chart of the longest builds, `most` of them; nothing where there is nothing to compare.
pub(crate) fn gantt(page: &mut String, summary: &Summary, timeline: &Timeline, most: usize) {
    let mut longest: Vec<&Bar> = timeline.rows.iter().flat_map(|row| &row.bars).collect();
    if longest.len() < 2 || most == 0 {
        return;
    }
    let left_out = longest.len().saturating_sub(most);
    longest.sort_by(|a, b| (b.end - b.begin).total_cmp(&(a.end - a.begin)));
    let shown: Vec<usize> = longest.iter().take(most).map(|bar| bar.derivation).collect();
    page.push_str("<details><summary>When, and on which runner</summary>\n\n```mermaid\ngantt\n");
    // Local times, read and shown as such: whoever reads sees the time since the beginning.
    page.push_str("    dateFormat YYYY-MM-DD HH:mm:ss.SSS\n    axisFormat %H:%M:%S\n");
    for row in &timeline.rows {
        let bars: Vec<&Bar> = row.bars.iter().filter(|bar| shown.contains(&bar.derivation)).collect();
        if bars.is_empty() {
            continue;
        }
        let machine = if row.machine.is_empty() { "this machine" } else { &row.machine };
        let _ = writeln!(page, "    section {}", word(machine));
        for bar in bars {
            let state = &summary.derivations[bar.derivation];
            let tag = match state.verdict.as_ref().map(Verdict::kind) {
                Some(VerdictKind::Failed) => "crit, ",
                Some(VerdictKind::Built) => "done, ",
                _ => "active, ",
            };
            let name = word(state.planned.drv_path.human_name());
            // A bar without a width is not drawn.
            let end = bar.end.max(bar.begin + 0.001);
            let _ =
                writeln!(page, "    {name} :{tag}d{}, {}, {}", bar.derivation, clock(bar.begin), clock(end));
        }
    }
    page.push_str("```\n\n");
    if left_out > 0 {
        let _ = writeln!(page, "The {left_out} shortest builds are not drawn.\n");
    }
    page.push_str("</details>\n\n");
}

/// A name in which nothing means anything to Mermaid or Markdown.
fn word(text: &str) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() || " ._+-".contains(char) { char } else { '_' };
    text.chars().take(NAME_LENGTH).map(plain).collect()
}

/// Seconds as a time of the first days of 1970.
fn clock(seconds: f64) -> String {
    let milliseconds = std::time::Duration::from_secs_f64(seconds.clamp(0.0, 1e6)).as_millis();
    let (whole, rest) = (milliseconds / 1000, milliseconds % 1000);
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    format!("1970-01-{:02} {hours:02}:{minutes:02}:{:02}.{rest:03}", 1 + days, whole % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_chart_has_a_section_for_each_runner_and_no_word_of_its_own() {
        let summary = fixture::summary();
        let mut page = String::new();
        gantt(&mut page, &summary, &Timeline::of(&summary), 100);
        assert!(page.contains("    section "), "{page}");
        assert!(page.contains(":crit, "), "{page}");
        assert_eq!(word("a:b\n```#;%%x"), "a_b________x");
        assert_eq!(clock(90_061.25), "1970-01-02 01:01:01.250");
    }

    #[test]
    fn the_longest_are_drawn_and_the_others_counted() {
        let summary = fixture::summary();
        let mut page = String::new();
        gantt(&mut page, &summary, &Timeline::of(&summary), 1);
        assert!(page.contains("The 1 shortest builds are not drawn."), "{page}");
        let mut none = String::new();
        gantt(&mut none, &summary, &Timeline::of(&summary), 0);
        assert_eq!(none, "");
    }
}
