//! Nix's evaluation errors, without what is ours in them.
//!
//! Since 2.19 or so an error begins with frames, "… while …" and a place each, and ends in the error
//! itself. The frames of the expressions an evaluator is driven with say nothing to a user; their place
//! is `«string»`, as no file's is.

/// An error of Nix.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fault {
    /// As it is told.
    pub(crate) text: String,
    /// Whether a pure evaluation ends in it every time: it is one of the language, and not of a download, a build or
    /// the machine.
    pub(crate) lasts: bool,
    /// Whether it prints a value as far as that was evaluated by then, so that its text depends on what the process was
    /// asked before.
    pub(crate) prints_progress: bool,
    /// What else there is to say of it, if it is none of what was asked: somebody ended that, or a process that it needs, so
    /// that it may go better when it is tried again. A flake may throw the same words.
    pub(crate) cut_short: Option<String>,
}

impl Fault {
    /// Reads what was printed from `error:` on.
    pub(crate) fn read(lines: &[String]) -> Self {
        let text = tidy(lines);
        let cut_short = if DAEMON_IS_GONE.contains(&text.as_str()) {
            Some(format!(
                "the process that builds for it ended; was it killed, maybe for want of memory? ({text})"
            ))
        } else if text == INTERRUPTED {
            Some(format!("the evaluator was interrupted by a signal ({text})"))
        } else {
            None
        };
        let prints_progress = message(lines).is_some_and(prints_progress);
        Self { text, lasts: is_of_the_language(lines), prints_progress, cut_short }
    }

    /// One that is none of what was asked.
    pub(crate) fn cut_short(text: &str) -> Self {
        Self { cut_short: Some(text.to_owned()), ..Self::passing(text) }
    }

    /// One that may not come again.
    pub(crate) fn passing(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// What Nix says, before and since 2.9 or so, when the daemon that it talks to ends (`src/libstore/remote-store.cc`).
/// And where it has ended before.
const DAEMON_IS_GONE: &[&str] = &[
    "unexpected end-of-file",
    "Nix daemon disconnected unexpectedly (maybe it crashed?)",
    "writing to file: Broken pipe",
];

/// What Nix says that was sent a signal which does not end it at once (`src/libutil/util.cc`).
const INTERRUPTED: &str = "interrupted by the user";

/// What errors of the language begin with and have in them, where all there is to it are the expression and the values in
/// it (nix `src/libexpr/eval.cc`, `primops.cc`). `throw` and `assert` are told otherwise, by `tryEval`; a stack that
/// overflows depends on its size.
const OF_THE_LANGUAGE: &[(&str, &str)] = &[
    ("attribute '", "' missing"),
    ("undefined variable '", "'"),
    ("infinite recursion encountered", ""),
    ("function '", "' called without required argument '"),
    ("function '", "' called with unexpected argument '"),
    ("attempt to call something which is not a function but ", ""),
    ("expected a", " but found "),
    ("value is ", " was expected"),
    ("cannot coerce ", " to a string"),
    ("cannot add ", " to "),
    ("cannot compare ", " with "),
    ("division by zero", ""),
    ("list index ", " is out of bounds"),
    ("syntax error, unexpected ", ""),
    ("evaluation aborted with the following error message: ", ""),
];

/// What errors begin with and have in them that print values (nix `src/libexpr/eval.cc`, `primops.cc`): of the language, and
/// of an `assert` that compares, since 2.25 or so.
const PRINTING: &[(&str, &str)] = &[
    ("attempt to call something which is not a function but ", ""),
    ("expected a", " but found "),
    ("cannot coerce ", " to a string: "),
    ("cannot compare ", " with "),
    ("", " of value '"),
    ("", " with value '"),
    ("list of size '", "' is not equal to list of size '"),
    ("attribute name '", "' is contained in '"),
    ("attribute names of attribute set '", "' differs from attribute set '"),
    ("derivation '", "' is not equal to "),
];

/// Whether a message prints a set or a list with something in it, or something that is not evaluated yet. What is in a set
/// is printed as a thunk until somebody evaluates it.
fn prints_progress(message: &str) -> bool {
    let prints =
        |(start, part): &(&str, &str)| message.strip_prefix(start).is_some_and(|rest| rest.contains(part));
    // These are the same however much is evaluated.
    let rest = message.replace("{ }", "").replace("[ ]", "");
    PRINTING.iter().any(prints) && ["{", "[", "«thunk»", "«potential"].iter().any(|sign| rest.contains(sign))
}

/// The error itself, on its first line: the last one, for frames come before it.
fn message(lines: &[String]) -> Option<&str> {
    let mut errors = lines.iter().rev().filter_map(|line| line.trim_start().strip_prefix("error:"));
    errors.next().map(str::trim)
}

/// Whether an error is one of the language beyond doubt: its message is one of those, and nothing is printed beside it but
/// frames before it and its place after it. What a server or a builder says stands in a message that is none of those.
fn is_of_the_language(lines: &[String]) -> bool {
    let errors: Vec<usize> =
        (0..lines.len()).filter(|&at| lines[at].trim_start().starts_with("error:")).collect();
    let text = |at: usize| lines[at].trim_start().strip_prefix("error:").unwrap_or_default().trim();
    let message = match errors[..] {
        [0] => 0,
        [0, at] if text(0).is_empty() => {
            let before = lines[1..at].iter().map(|line| line.trim()).find(|line| !line.is_empty());
            if !before.is_none_or(|line| line.starts_with('…')) {
                return false;
            }
            at
        }
        _ => return false,
    };
    let begins = |(start, part): &(&str, &str)| {
        text(message).strip_prefix(start).is_some_and(|rest| rest.contains(part))
    };
    OF_THE_LANGUAGE.iter().any(begins) && lines[message + 1..].iter().all(|line| is_place(line.trim()))
}

/// Whether a line tells where an error is.
fn is_place(line: &str) -> bool {
    let excerpt = line.trim_start_matches(|char: char| char.is_ascii_digit());
    line.is_empty()
        || line.starts_with("at ")
        || line.starts_with("Did you mean ")
        || excerpt.starts_with('|')
}

/// How many bytes of a line are told.
const LONGEST_LINE: usize = 16 << 10;

/// A line, or the beginning of one that nobody reads to its end.
pub(crate) fn bounded(line: &str) -> String {
    if line.len() <= LONGEST_LINE {
        return line.to_owned();
    }
    let end = line.floor_char_boundary(LONGEST_LINE);
    format!("{}… ({} bytes more)", &line[..end], line.len() - end)
}

/// An error as it is told: without its first word, our own frames, and the space around it, and with no line longer
/// than anybody reads.
pub(crate) fn tidy(lines: &[String]) -> String {
    whole(lines).split('\n').map(bounded).collect::<Vec<_>>().join("\n")
}

fn whole(lines: &[String]) -> String {
    let Some(start) = lines.iter().position(|line| line.starts_with("error:")) else {
        return lines.join("\n").trim().to_owned();
    };
    let mut blocks: Vec<Vec<&str>> = vec![Vec::new()];
    let first = lines[start].strip_prefix("error:").unwrap_or_default();
    for line in std::iter::once(first).chain(lines[start + 1..].iter().map(String::as_str)) {
        let bare = line.trim_start();
        if bare.starts_with('…') || bare.starts_with("error:") {
            blocks.push(Vec::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push(line);
        }
    }
    let count = blocks.len();
    let kept: Vec<&str> = blocks
        .into_iter()
        .enumerate()
        .filter(|(at, block)| at + 1 == count || !is_ours(block))
        .flat_map(|(at, block)| if at + 1 == count { without_our_place(block) } else { block })
        .collect();
    let text = unindent(&kept).join("\n");
    let text = text.trim();
    text.strip_prefix("error:").unwrap_or(text).trim().to_owned()
}

fn is_ours(block: &[&str]) -> bool {
    block.iter().any(|line| line.trim_start().starts_with("at «string»"))
}

/// The error itself, up to a place in our own expression.
fn without_our_place(block: Vec<&str>) -> Vec<&str> {
    match block.iter().position(|line| line.trim_start().starts_with("at «string»")) {
        Some(at) => block[..at].to_vec(),
        None => block,
    }
}

/// Takes away the space that all lines but the first begin with.
fn unindent<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let space = |line: &str| line.len() - line.trim_start_matches(' ').len();
    let common = lines.iter().skip(1).filter(|line| !line.trim().is_empty()).map(|line| space(line)).min();
    let common = common.unwrap_or(0);
    lines.iter().map(|line| &line[common.min(space(line))..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tidied(text: &str) -> String {
        tidy(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let text = tidied(&format!("error: no {}\n\n       at /s/flake.nix:1:2:", "é".repeat(1 << 20)));
        assert!(text.starts_with("no é") && text.ends_with("\n\nat /s/flake.nix:1:2:"));
        assert!(text.len() < 17_000 && text.contains("é… (2080772 bytes more)"));
    }

    #[test]
    fn a_plain_error_keeps_its_place() {
        assert_eq!(
            tidied("error: boom\n\n       at /s/flake.nix:1:2:\n\n            1| x"),
            "boom\n\nat /s/flake.nix:1:2:\n\n     1| x"
        );
    }

    #[test]
    fn our_frames_go_and_the_flake_s_stay() {
        let text = "\
error:
       … while calling the 'toJSON' builtin
         at «string»:1:1327:
            1| (mark: root: …)
             |  ^

       … while evaluating the attribute 'x'
         at /s/flake.nix:3:4:
            3|  x = throw \"boom\";
             |  ^

       error: boom";
        assert_eq!(
            tidied(text),
            "… while evaluating the attribute 'x'\n  at /s/flake.nix:3:4:\n     3|  x = throw \"boom\";\n      |  ^\n\nerror: boom"
        );
    }

    #[test]
    fn an_error_of_only_our_frames_is_what_it_says() {
        let text = "error:\n       … while calling the 'toJSON' builtin\n         at «string»:1:3:\n            1| y\n\n       error: boom";
        assert_eq!(tidied(text), "boom");
        assert_eq!(
            tidied("error: attribute 'x' missing\n       at «string»:1:1:\n            1| y"),
            "attribute 'x' missing"
        );
    }

    #[test]
    fn an_error_of_the_language_comes_again() {
        let lasts = |text: &str| is_of_the_language(&text.lines().map(str::to_owned).collect::<Vec<_>>());
        let place =
            "\n       at /s/flake.nix:3:4:\n\n            2|\n            3|  x = y.z;\n             |  ^\n";
        let frame = "error:\n       … while calling the 'toJSON' builtin\n         at «string»:1:1327:\n            1| x\n\n";
        for message in [
            "attribute 'x' missing",
            "undefined variable 'x'",
            "infinite recursion encountered",
            "function 'anonymous lambda' called without required argument 'x'",
            "expected a set but found a string: \"a\"",
            "cannot add a string to an integer",
            "cannot coerce a function to a string: «lambda @ /s/x.nix:1:2»",
            "syntax error, unexpected end of file",
        ] {
            assert!(lasts(&format!("error: {message}{place}")), "{message}");
            assert!(lasts(&format!("error: {message}")), "{message}");
            assert!(
                lasts(&format!("{frame}       error: {message}{place}       Did you mean y?")),
                "{message}"
            );
            // In somebody else's words.
            assert!(!lasts(&format!("error: unable to download 'x'\n\n       error: {message}")));
            assert!(!lasts(&format!(
                "{frame}       error: HTTP error 404\n\n       error: {message}{place}"
            )));
            assert!(!lasts(&format!("error: x\n         at «string»:1:1:\nerror: {message}")));
            assert!(!lasts(&format!("error:\n  a server's words\n       error: {message}")));
            assert!(!lasts(&format!("error: {message}\n       and more")));
            assert!(!lasts(&format!("warning: x\nerror: {message}")));
        }
        for message in [
            "boom",
            "stack overflow; max-call-depth exceeded",
            "unable to download 'https://a/attribute 'x' missing'",
            "builder for '/s/a.drv' failed with exit code 1;\n       last 1 log lines:\n       > error: attribute 'x' missing",
            "getting status of '/s/a': No such file or directory",
            "interrupted by the user",
        ] {
            assert!(!lasts(&format!("error: {message}")), "{message}");
        }
        assert!(!lasts("") && !lasts("attribute 'x' missing"));
    }

    #[test]
    fn an_error_that_prints_what_may_be_evaluated_by_then_is_known() {
        let read = |text: &str| Fault::read(&text.lines().map(str::to_owned).collect::<Vec<_>>());
        for message in [
            "cannot coerce a set to a string: { a = 2; b = «thunk»; }",
            "expected a string but found a set: { a = 2; }",
            "expected a set but found a list: [ 1 ]",
            "attempt to call something which is not a function but a set: { a = «thunk»; }",
            "cannot compare a set with a string; values are { a = 1; } and \"x\"",
        ] {
            let fault = read(&format!("error: {message}\n       at /s/flake.nix:3:4:"));
            assert!(fault.lasts && fault.prints_progress, "{message}");
        }
        for message in [
            "cannot coerce a set to a string: { }",
            "expected a set but found a list: [ ]",
            "expected an integer but found a string: \"s\"",
            "cannot coerce a function to a string: «lambda mk @ /s/flake.nix:1:2»",
            "attribute '{ [' missing",
            "evaluation aborted with the following error message: '{ a }'",
        ] {
            let fault = read(&format!("error: {message}\n       at /s/flake.nix:3:4:"));
            assert!(fault.lasts && !fault.prints_progress, "{message}");
        }
        // Those of `assert`, which `tryEval` catches.
        for message in [
            "attribute name 'a' is contained in '{ a = «thunk»; }', but not in '{ b = 2; }'",
            "list of size '1' is not equal to list of size '2', left hand side is '[ «thunk» ]', right hand side is '[ 2 3 ]'",
            "a list of value '[ 1 ]' is not equal to a set of value '{ }'",
            "attribute names of attribute set '{ a = 1; }' differs from attribute set '{ b = 2; }'",
        ] {
            let frame = "error:\n       … while evaluating the condition of the assertion '(x == y)'\n         at /s/x:1:1:\n\n";
            assert!(read(&format!("{frame}       error: {message}")).prints_progress, "{message}");
        }
        assert!(!read("error: assertion '(x == { })' failed").prints_progress);
        assert!(
            !read("error: an integer with value '2' is not equal to an integer with value '3'")
                .prints_progress
        );
        assert!(!read("error: no [thing]").prints_progress);
    }

    #[test]
    fn what_has_no_error_is_left_as_it_is() {
        assert_eq!(tidied("Killed"), "Killed");
        assert_eq!(tidied(""), "");
    }
}
