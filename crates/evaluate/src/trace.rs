//! Nix's evaluation errors, without what is ours in them.
//!
//! Since 2.19 or so an error begins with frames, "… while …" and a place each, and ends in the error
//! itself. The frames of the expressions an evaluator is driven with say nothing to a user; their place
//! is `«string»`, as no file's is.

/// An error as it is told: without its first word, our own frames, and the space around it.
pub(crate) fn tidy(lines: &[String]) -> String {
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
    fn what_has_no_error_is_left_as_it_is() {
        assert_eq!(tidied("Killed"), "Killed");
        assert_eq!(tidied(""), "");
    }
}
