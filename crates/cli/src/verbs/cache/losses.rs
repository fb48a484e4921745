//! What is said of paths that did not come in: one line a cause, whatever the number of paths.

use std::collections::BTreeMap;

use phoenix_cache::is_consequence;

use crate::error::hint_for;

/// So many names are said; of more, the first three. And so many causes.
const FEW: usize = 10;

/// What to say of paths that could not be had, each with why: causes first, then what refers to those.
pub(super) fn lines(failed: &[(String, String)]) -> Vec<String> {
    let (after, causes): (Vec<_>, Vec<_>) = failed.iter().partition(|(_, why)| is_consequence(why));
    let (groups, rest) = groups(causes);
    let mut lines = Vec::new();
    let mut hints = Vec::new();
    for group in groups {
        let why = &group[0].1;
        lines.push(format!("warning: {} not restored: {why}", subject_is(&group)));
        hints.extend(hint_for(why).map(|hint| format!("hint: {hint}")));
    }
    if !rest.is_empty() {
        lines.push(format!("warning: {} not restored, each for a reason of its own", subject_is(&rest)));
    }
    hints.dedup();
    match after.as_slice() {
        [] => {}
        [(name, why)] => lines.push(format!("warning: {name} is not restored: {why}")),
        several => lines.push(format!(
            "warning: {} not restored: each refers to what could not be had; {}",
            subject_is(several),
            several[0].1.replacen("it refers", &format!("{} refers", several[0].0), 1),
        )),
    }
    lines.extend(hints);
    lines
}

/// What to add where paths are in no pack that was read, when so many packs were left out.
pub(super) fn or_left_out(packs: usize) -> String {
    match packs {
        0 => String::new(),
        1 => ", unless they are in the pack that there was no room for".to_owned(),
        packs => format!(", unless they are in the {packs} packs that there was no room for"),
    }
}

/// What to say of paths that have something wrong, each with what: one line a cause.
pub(super) fn by_cause(paths: &[(String, String)]) -> Vec<String> {
    let (groups, rest) = groups(paths.iter().collect());
    let mut lines: Vec<String> =
        groups.iter().map(|group| format!("{}: {}", subject(group), group[0].1)).collect();
    if !rest.is_empty() {
        lines.push(format!("{}: each for a reason of its own", subject(&rest)));
    }
    lines
}

/// One path of a group, and why.
type Loss<'l> = &'l (String, String);

/// Those that have one cause together, most first; and what is left when there are too many causes to say.
fn groups(causes: Vec<Loss<'_>>) -> (Vec<Vec<Loss<'_>>>, Vec<Loss<'_>>) {
    let mut groups: BTreeMap<&str, Vec<Loss<'_>>> = BTreeMap::new();
    for loss in causes {
        groups.entry(cause(&loss.1)).or_default().push(loss);
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
    let rest = groups.split_off(groups.len().min(FEW)).concat();
    (groups, rest)
}

/// What is the same of all paths that have something in common: what the system says, whatever the file.
fn cause(why: &str) -> &str {
    if why.ends_with(')')
        && let Some(at) = why.rfind("(os error ")
    {
        return &why[at..];
    }
    why
}

/// One path, or several.
fn subject(losses: &[Loss<'_>]) -> String {
    match losses {
        [(name, _)] => name.clone(),
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
            format!("{} paths ({})", names.len(), few(&names))
        }
    }
}

fn subject_is(losses: &[Loss<'_>]) -> String {
    format!("{} {}", subject(losses), if losses.len() == 1 { "is" } else { "are" })
}

/// Some of these names.
pub(super) fn few(names: &[&str]) -> String {
    if names.len() > FEW { format!("{}, …", names[..3].join(", ")) } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(name: &str, why: &str) -> (String, String) {
        (name.to_owned(), why.to_owned())
    }

    #[test]
    fn a_cause_is_said_once_with_how_many_it_struck() {
        let mut failed = vec![loss("a", "a part of it could not be read"), loss("z", "it refers to a")];
        assert_eq!(
            lines(&failed),
            [
                "warning: a is not restored: a part of it could not be read",
                "warning: z is not restored: it refers to a"
            ]
        );
        failed.push(loss("y", "it refers to z"));
        for number in 0..500 {
            let why = format!("cannot write /nix/store/x/{number}: No space left on device (os error 28)");
            failed.push(loss(&format!("p{number}"), &why));
        }
        assert_eq!(
            lines(&failed),
            [
                "warning: 500 paths (p0, p1, p2, …) are not restored: cannot write /nix/store/x/0: No space left on \
                 device (os error 28)",
                "warning: a is not restored: a part of it could not be read",
                "warning: 2 paths (z, y) are not restored: each refers to what could not be had; z refers to a",
                "hint: the disk is full: make room there; in a Nix store `nix-collect-garbage` frees what nothing uses",
            ]
        );
        assert!(lines(&[]).is_empty() && by_cause(&[]).is_empty());
    }

    #[test]
    fn however_many_causes_there_are_the_lines_are_few() {
        let mut failed: Vec<_> =
            (0..40).map(|at| loss(&format!("p{at:02}"), &format!("cause {at:02}"))).collect();
        failed.extend((0..30_000).map(|at| loss(&format!("q{at}"), "a part of it is damaged")));
        for lines in [lines(&failed), by_cause(&failed)] {
            assert_eq!(lines.len(), FEW + 1);
            assert!(lines[0].contains("30000 paths (q0, q1, q2, …)"), "{}", lines[0]);
            assert!(lines[FEW].contains("31 paths (p09, p10, p11, …)"), "{}", lines[FEW]);
        }
    }
}
