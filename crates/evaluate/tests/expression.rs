//! Expressions on one line are, to Nix itself, what the user wrote.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

use phoenix_evaluate::Expression;
use phoenix_testkit::NixRoot;
use proptest::prelude::*;
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

/// Strings of both kinds that Nix understands.
fn strings(count: usize) -> Vec<String> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let texts = proptest::collection::vec(proptest::sample::select(PARTS), 0..12);
    let texts = (texts, proptest::sample::select(vec!["\"", "''"]));
    let mut all = Vec::new();
    while all.len() < count {
        let (parts, quote) = texts.new_tree(&mut runner).unwrap().current();
        let text = format!("{quote}{}{quote}", parts.concat());
        if Expression::parse(&text).is_ok() {
            all.push(text);
        }
    }
    all
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
    let texts = strings(1000);
    let lines = |texts: &[String]| -> Vec<String> {
        let lines = texts.iter().map(|text| Expression::parse(text).unwrap().as_str().to_owned());
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
    assert!(compared > 800, "{compared} strings, and {refused} that are none to Nix");
}
