//! Text of strangers in Markdown and HTML.

use std::fmt::Write as _;

use crate::clean;
use crate::clean::clip;

/// How many characters of a line in a fence are shown.
const LINE_LENGTH: usize = 500;

/// Text in which nothing is markup, on one line.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in clean(text).chars() {
        match char {
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '!' | '$' => escaped.extend(['\\', char]),
            other => push_html(&mut escaped, other),
        }
    }
    escaped
}

/// Text in an HTML block, where Markdown is not read.
pub(crate) fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    clean(text).chars().for_each(|char| push_html(&mut escaped, char));
    escaped
}

fn push_html(escaped: &mut String, char: char) {
    match char {
        '&' => escaped.push_str("&amp;"),
        '<' => escaped.push_str("&lt;"),
        '>' => escaped.push_str("&gt;"),
        // No mention of anybody.
        '@' => escaped.push_str("&#64;"),
        other => escaped.push(other),
    }
}

/// Text as code, in a table too: HTML, since backquotes cannot hold every text.
pub(crate) fn code(text: &str) -> String {
    format!("<code>{}</code>", escape(text))
}

/// A block that can be opened, with clean lines in a fence longer than any in them.
pub(crate) fn details<'a>(page: &mut String, title: &str, lines: impl Iterator<Item = &'a str>) {
    let lines: Vec<String> = lines.map(|line| clip(&clean(line), LINE_LENGTH).into_owned()).collect();
    let text = lines.join("\n");
    let longest = text.split(|char| char != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let title = html(&clip(title, LINE_LENGTH));
    let _ =
        writeln!(page, "<details><summary>{title}</summary>\n\n{fence}text\n{text}\n{fence}\n\n</details>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_markup() {
        assert_eq!(escape("a_b|`c`<d>&\n## @all"), r"a\_b\|\`c\`&lt;d&gt;&amp;�\#\# &#64;all");
        assert_eq!(code("x_y"), r"<code>x\_y</code>");
    }

    #[test]
    fn html_has_no_backslashes() {
        assert_eq!(html("attribute `foo_bar' <missing> | 1"), "attribute `foo_bar' &lt;missing&gt; | 1");
    }

    #[test]
    fn a_fence_is_longer_than_any_in_it() {
        let mut page = String::new();
        details(&mut page, "</summary>", ["````", "</details>"].into_iter());
        assert_eq!(
            page,
            "<details><summary>&lt;/summary&gt;</summary>\n\n`````text\n````\n</details>\n`````\n\n</details>\n\n"
        );
    }
}
