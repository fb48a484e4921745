//! How nix-eval-jobs is called, in words that `phoenix eval` takes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Command;

/// The name by which this program is nix-eval-jobs.
const NAME: &str = "nix-eval-jobs";

/// Whether the value of a setting is true or false, by the name of the setting.
pub(crate) type Settings = BTreeMap<String, bool>;

/// The words of a command line as they are meant: called by the name of nix-eval-jobs, this is `phoenix eval` with that
/// program's arguments, and as all programs of Nix do, `eval` takes settings as flags.
pub(crate) fn understand(
    mut words: Vec<OsString>,
    command: &mut Command,
    settings: &mut dyn FnMut() -> Settings,
) -> Vec<OsString> {
    let name = words.first().and_then(|word| Path::new(word).file_name());
    if name == Some(OsStr::new(NAME)) {
        let rest = words.split_off(1);
        words = ["phoenix", "eval", "--as-nix-eval-jobs"].into_iter().map(OsString::from).collect();
        words.extend(rest);
    }
    if words.get(1).is_none_or(|word| word != "eval") {
        return words;
    }
    command.build();
    match command.find_subcommand("eval") {
        Some(eval) => settings_as_options(words, eval, settings),
        None => words,
    }
}

/// `--NAME VALUE`, `--NAME` and `--no-NAME` for settings become `--option NAME VALUE`.
fn settings_as_options(
    words: Vec<OsString>,
    command: &Command,
    settings: &mut dyn FnMut() -> Settings,
) -> Vec<OsString> {
    let values_of = |name: &str| {
        let mut arguments = command.get_arguments();
        let found = arguments.find(|argument| {
            argument.get_long() == Some(name)
                || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
        })?;
        let values = found.get_num_args().map_or(0, |range| range.min_values());
        Some(if found.get_action().takes_values() { values } else { 0 })
    };
    let mut known: Option<Settings> = None;
    let mut kept = Vec::with_capacity(words.len());
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        let name = text.strip_prefix("--").filter(|name| !name.contains('='));
        let Some(name) = name else {
            kept.push(word);
            continue;
        };
        if name.is_empty() {
            kept.push(word);
            kept.extend(words.by_ref());
            break;
        }
        if let Some(count) = values_of(name) {
            kept.push(word);
            kept.extend(words.by_ref().take(count));
            continue;
        }
        let known = known.get_or_insert_with(&mut *settings);
        let option = |name: &str, value: OsString| [OsString::from("--option"), name.into(), value];
        let without =
            |prefix: &str| name.strip_prefix(prefix).and_then(|rest| Some((rest, *known.get(rest)?)));
        match (known.get(name), without("no-"), without("extra-")) {
            (Some(true), _, _) => kept.extend(option(name, "true".into())),
            (Some(false), _, _) | (None, None, Some((_, false))) => match words.next() {
                Some(value) => kept.extend(option(name, value)),
                None => kept.push(word),
            },
            (None, Some((setting, true)), _) => kept.extend(option(setting, "false".into())),
            // Nobody knows it; the usual error says so.
            _ => kept.push(word),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory;

    fn understood(words: &str) -> String {
        let settings = [("experimental-features", false), ("sandbox", true), ("cores", false)];
        let settings = settings.map(|(name, flag)| (name.to_owned(), flag));
        let words = words.split(' ').map(OsString::from).collect();
        let words = understand(words, &mut Cli::command(), &mut || Settings::from(settings.clone()));
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn by_its_name_it_is_the_other_program() {
        assert_eq!(understood("/x/bin/nix-eval-jobs --flake ."), "phoenix eval --as-nix-eval-jobs --flake .");
        assert_eq!(understood("phoenix run --cores 3"), "phoenix run --cores 3");
    }

    #[test]
    fn settings_are_flags() {
        assert_eq!(
            understood(
                "phoenix eval --extra-experimental-features flakes --meta --no-sandbox --cores 3 --sandbox x"
            ),
            "phoenix eval --option extra-experimental-features flakes --meta --option sandbox false --option cores 3 \
             --option sandbox true x"
        );
    }

    #[test]
    fn values_of_other_flags_are_no_settings() {
        let same = "phoenix eval --option cores --cores --override-input --sandbox --cores --argstr a --cores x -- --cores";
        assert_eq!(understood(same), same);
        assert_eq!(
            understood("phoenix eval --no-cores --unknown --cores"),
            "phoenix eval --no-cores --unknown --cores"
        );
    }
}
