//! Expressions on one line are, to Nix itself, what the user wrote.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

use phoenix_evaluate::Expression;
use phoenix_testkit::NixRoot;
use proptest::prelude::{RngExt, Strategy};
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// What strings are made of; much of it means something.
const PARTS: &[&str] = &[
    " ",
    "  ",
    "    ",
    "\n",
    "\n\n",
    "\r",
    "\r\n",
    "\t",
    "a",
    "é",
    "$",
    "{",
    "}",
    "'",
    "\\",
    "\\n",
    "\\r",
    "\\t",
    "\\\\",
    "\\$",
    "\\${",
    "\\é",
    "\"",
    "''\\n",
    "''\\r",
    "''\\t",
    "''\\ ",
    "''\\\n",
    "''\\a",
    "''\\'",
    "''$",
    "''${",
    "'''",
    "$$",
    "$${",
    "${a}",
    "${\"x\ny\"}",
    "${''\n  b\n c''}",
    "#",
    "/* */",
    "\u{1}",
    "\u{7}",
    "\u{1b}",
    "\u{7f}",
];

/// What whole expressions are made of.
const TOKENS: &[&str] = &[
    "a",
    "b",
    "a''b",
    "_x-y'",
    "or",
    "null",
    "true",
    "0",
    "12",
    "1.5",
    ".5e5",
    "1.e3",
    "00.5e1",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "${",
    "let",
    "in",
    "rec",
    "inherit",
    "with",
    "assert",
    "if",
    "then",
    "else",
    "=",
    ";",
    ":",
    ",",
    "...",
    "@",
    "?",
    ".",
    "+",
    "-",
    "*",
    "/",
    "//",
    "++",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    "&&",
    "||",
    "->",
    "!",
    "$",
    "'",
    "#",
    "# c''\n",
    "# \"\r",
    "/* '' \" */",
    "/**/",
    "/*",
    "*/",
    "./a",
    "./a/",
    "a/b",
    "/a",
    "~/a",
    "<a/b>",
    "<a>",
    "./a${b}",
    "a/${b}c",
    "/${",
    "a:b",
    "http://a/''b*c#d",
    "x:''",
    " ",
    "  ",
    "\n",
    "\t",
    "\r",
    "\r\n",
    "\u{a0}",
    "\u{c}",
    "\u{b}",
    "é",
    "\"",
    "\"s\"",
    "\"a\n${b}\"",
    "''",
    "''s''",
    "''\n  a\n   ${b}''",
    "''\t''",
];

/// Expressions that are some to Nix, for what stands for `?` another one, and any gap, comment and line of its own.
const SHAPES: &[&str] = &[
    "(?)",
    "[?~?]",
    "?~.~a",
    "? . a or ?",
    "? ? a.\"b\"",
    "{~a~=~?;~}",
    "rec {~a = ?; inherit~b ;~inherit (?)~c d;}",
    "let~a = ?; in ?",
    "let {~body = ?; }",
    "let {body=let~{ body = a; b = ?; }; a = {~c = ?; }; }",
    "with ?; ?",
    "assert ?;~?",
    "if ? then ?~else~?",
    "x:~?",
    "{ x ? ?, ... }~: ?",
    "{ x,~y }@z: ?",
    "z@{~}: ?",
    "a ?",
    "-?",
    "!~?",
    "? + ?",
    "?+?",
    "? //?",
    "?//?",
    "? ++ ?",
    "? -> ?",
    "? * ?",
    "? /~?",
    "? == ?",
    "? && ?",
    "\"${?}\"",
    "\"a\n$${b}${?}\\n$\"",
    "''\n    a\n  ${?}''$\n  '''b''",
    "''  ${~?~} ''",
    "./a${?}b",
    "/a/${?}/c''s\n''",
    "~/x",
    "./a''s''",
    "{ ${?} = ?; }",
    "{ \"${?}\" = 1; a.b.\"c\" = ?; }",
];
const LEAVES: &[&str] = &[
    "a",
    "b",
    "a''b",
    "1",
    "0.5e1",
    "\"s\n\"",
    "''\n  s\n''",
    "./x",
    "../y/z",
    "<n/m>",
    "a:''b/*",
    "{ }",
    "[ ]",
    "null",
    "builtins.add",
];
const GAPS: &[&str] = &[" ", "\n", " # c '' \"\n", "/* \" ''\n */", "\t", "\r\n", " #\r", "/***/ "];

/// A source of chance.
fn chance(seed: u8) -> TestRunner {
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]))
}

fn one<'c>(runner: &mut TestRunner, choices: &[&'c str]) -> &'c str {
    choices[runner.rng().random_range(0..choices.len())]
}

/// An expression of so many levels at most.
fn expression(runner: &mut TestRunner, depth: usize) -> String {
    if depth == 0 {
        return one(runner, LEAVES).to_owned();
    }
    let shape = one(runner, SHAPES).to_owned();
    let mut text = String::new();
    for (at, char) in shape.char_indices() {
        // These three are what they are.
        let is_home = char == '~' && shape[at..].starts_with("~/x");
        let is_question = char == '?'
            && ["x ? ?", "? ? a"].iter().any(|with| shape.find(with).is_some_and(|found| found + 2 == at));
        match char {
            '~' if !is_home => text.push_str(one(runner, GAPS)),
            '?' if !is_question => {
                text.push_str(&format!("({}{})", expression(runner, depth - 1), one(runner, GAPS)));
            }
            other => text.push(other),
        }
    }
    text
}

/// Strings of both kinds, some of which Nix understands.
fn strings(count: usize) -> Vec<String> {
    let mut runner = chance(7);
    let texts = proptest::collection::vec(proptest::sample::select(PARTS), 0..12);
    let texts = (texts, proptest::sample::select(vec!["\"", "''"]));
    let mut string = || {
        let (parts, quote) = texts.new_tree(&mut runner).unwrap().current();
        format!("{quote}{}{quote}", parts.concat())
    };
    (0..count).map(|_| string()).collect()
}

/// What Nix prints, with the pieces of a string together, which are others on one line, and strings as names the same
/// with and without a `${`.
fn plain(printed: &str) -> String {
    printed.replace(['(', ')'], "").replace("\" + \"", "").replace("\"${\"", "\"").replace("\"}\"", "\"")
}

/// How Nix prints each of some texts that it reads; nothing of those that it refuses. It reads no more after one that it
/// refuses.
fn parsed(nix: &NixRoot, texts: &[String]) -> Vec<Option<String>> {
    let mut all = Vec::new();
    while all.len() < texts.len() {
        let mut args = vec!["--parse".to_owned(), "--expr".to_owned()];
        let group = &texts[all.len()..texts.len().min(all.len() + 200)];
        args.extend(
            group.iter().map(|text| format!("let a = 1; b = 2; x = 3; y = 4; a''b = 5; in\n[({text}\n)]")),
        );
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = nix.output("nix-instantiate", &args);
        let before = all.len();
        let printed = String::from_utf8_lossy(&output.stdout);
        all.extend(printed.split_terminator(")\n").map(|text| Some(plain(text))));
        assert!(all.len() - before <= group.len(), "{printed}");
        if !output.status.success() {
            all.push(None);
        }
    }
    all
}

#[test]
fn expressions_are_read_as_nix_reads_them() {
    let directory = tempfile::tempdir().unwrap();
    let nix = NixRoot::new(directory.path());
    let mut runner = chance(11);
    let mut texts: Vec<String> = (0..1000).map(|number| expression(&mut runner, 1 + number % 3)).collect();
    let of_tokens = |runner: &mut TestRunner| -> String {
        let count = runner.rng().random_range(1..7);
        (0..count).map(|_| one(runner, TOKENS)).collect()
    };
    texts.extend((0..400).map(|_| of_tokens(&mut runner)));
    let lines: Vec<String> = texts.iter().map(|text| Expression::of(text).as_str().to_owned()).collect();
    let (theirs, ours) = (parsed(&nix, &texts), parsed(&nix, &lines));
    let mut compared = 0;
    for (((text, line), theirs), ours) in texts.iter().zip(&lines).zip(&theirs).zip(&ours) {
        assert!(!line.contains(['\n', '\r', '\t']), "{line:?}");
        if theirs.is_some() {
            assert_eq!(ours, theirs, "{text:?} became {line:?}");
            compared += 1;
        }
    }
    eprintln!("{compared} of {} expressions are some to Nix", texts.len());
    assert!(compared > 900, "{compared} of {} expressions are some to Nix", texts.len());
}

/// What Nix makes of a list of strings, as JSON; nothing where one of them is no string to it.
fn read(nix: &NixRoot, texts: &[String]) -> Option<Vec<String>> {
    let list = format!("let a = \"A\\n  B\"; in [\n{}\n]", texts.join("\n"));
    let output = nix.output("nix-instantiate", &["--eval", "--strict", "--json", "--expr", &list]);
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn strings_are_read_as_nix_reads_them() {
    let directory = tempfile::tempdir().unwrap();
    let nix = NixRoot::new(directory.path());
    let mut texts = strings(1400);
    let theirs = parsed(&nix, &texts);
    texts = texts.into_iter().zip(theirs).filter_map(|(text, theirs)| theirs.map(|_| text)).collect();
    let lines = |texts: &[String]| -> Vec<String> {
        let lines = texts.iter().map(|text| Expression::of(text).as_str().to_owned());
        lines.collect()
    };
    let (mut compared, mut refused) = (0, 0);
    let mut groups: Vec<&[String]> = texts.chunks(100).collect();
    while let Some(group) = groups.pop() {
        let Some(expected) = read(&nix, group) else {
            // One that only we take for a string is looked for among them.
            if group.len() > 1 {
                let (first, second) = group.split_at(group.len() / 2);
                groups.extend([first, second]);
            } else {
                refused += 1;
            }
            continue;
        };
        let lines = lines(group);
        assert!(!lines.concat().contains('\n'));
        let ours = read(&nix, &lines).unwrap_or_else(|| {
            for (text, line) in group.iter().zip(&lines) {
                let ours = read(&nix, std::slice::from_ref(line));
                assert!(ours.is_some(), "Nix takes {text:?}, and does not take {line:?}");
            }
            panic!("Nix takes them one by one, and not together: {lines:?}")
        });
        for ((text, expected), ours) in group.iter().zip(&expected).zip(&ours) {
            assert_eq!(ours, expected, "{text:?}");
        }
        compared += group.len();
    }
    eprintln!("{compared} strings, and {refused} that are none to Nix");
    assert!(compared > 500, "{compared} strings, and {refused} that are none to Nix");
}
