//! What `phoenix eval` is asked for: installables, or jobs as nix-eval-jobs finds them.

use std::path::{Path, PathBuf};

use phoenix_evaluate::{Details, Expression, Installable, JobRoot, JobSource, Root};

use crate::args::{EvalArgs, JobsArgs};
use crate::error::CommandError;
use crate::setup::pairs;

/// Whose rules hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Manner {
    /// Those of `run`: targets, by patterns.
    Targets,
    /// nix-eval-jobs', for the one argument that it takes.
    Jobs(JobSource, String),
}

/// Tells it by the flags, and by whether the argument is a file, which no flake is.
pub(super) fn manner(args: &EvalArgs, is_file: &dyn Fn(&Path) -> bool) -> Result<Manner, CommandError> {
    let jobs = &args.jobs;
    let is_path = |text: &str| search_path(text).is_some() || is_file(Path::new(text));
    let one = match args.wanted.installables.as_slice() {
        [one] => Some(one.as_str()),
        _ => None,
    };
    let asked = jobs.flake || jobs.expr || jobs.as_nix_eval_jobs;
    let is_jobs = args.wanted.file.is_none() && (asked || one.is_some_and(is_path));
    if !is_jobs {
        refuse(&for_jobs(args), "it goes with --flake, --expr, or a file")?;
        return Ok(Manner::Targets);
    }
    refuse(
        &for_targets(args),
        "--flake, --expr and files know no patterns; `--select` chooses among what is there",
    )?;
    let Some(one) = one else {
        let what = if args.wanted.installables.is_empty() { "nothing" } else { "several things" };
        return Err(CommandError::new(format!("{what} to evaluate, where one is expected"))
            .hint("`--flake FLAKEREF#ATTR`, `--expr EXPRESSION`, or a file"));
    };
    Ok(Manner::Jobs(source(jobs, one)?, one.to_owned()))
}

fn source(jobs: &JobsArgs, one: &str) -> Result<JobSource, CommandError> {
    if jobs.expr {
        return Ok(JobSource::Expression(Expression::of(one)));
    }
    if jobs.flake {
        let installable = Installable::parse(one)
            .map_err(|error| CommandError::because("cannot understand what to evaluate", &error))?;
        return Ok(JobSource::Flake(installable.attr.unwrap_or_default()));
    }
    if let Some(name) = search_path(one) {
        return Ok(JobSource::SearchPath(name.to_owned()));
    }
    let file = fs_err::canonicalize(one).map_err(|error| {
        CommandError::because(format!("cannot evaluate {one}"), &error)
            .hint("is the path right? `--flake` is for a flake, `--expr` for an expression")
    })?;
    Ok(JobSource::File(file))
}

/// `<nixpkgs>` and such.
fn search_path(text: &str) -> Option<&str> {
    let name = text.strip_prefix('<')?.strip_suffix('>')?;
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-+/".contains(char);
    (!name.is_empty() && name.chars().all(is_plain)).then_some(name)
}

fn refuse(flags: &[&str], why: &str) -> Result<(), CommandError> {
    match flags.first() {
        Some(flag) => Err(CommandError::new(format!("{flag} cannot be used here")).hint(why)),
        None => Ok(()),
    }
}

/// The flags that were given and that only jobs know.
fn for_jobs(args: &EvalArgs) -> Vec<&'static str> {
    let jobs = &args.jobs;
    let given = [
        (jobs.select.is_some(), "--select"),
        (jobs.force_recurse, "--force-recurse"),
        (jobs.constituents, "--constituents"),
        (!jobs.arg.is_empty(), "--arg"),
        (!jobs.argstr.is_empty(), "--argstr"),
        (!jobs.arg_from_file.is_empty(), "--arg-from-file"),
    ];
    given.into_iter().filter_map(|(given, flag)| given.then_some(flag)).collect()
}

/// The flags that were given and that only targets know.
fn for_targets(args: &EvalArgs) -> Vec<&'static str> {
    let given =
        [(!args.wanted.exclude.is_empty(), "--exclude"), (!args.wanted.systems.is_empty(), "--systems")];
    given.into_iter().filter_map(|(given, flag)| given.then_some(flag)).collect()
}

/// The root of jobs.
pub(super) fn root(args: &EvalArgs, source: JobSource, shown: &str) -> Result<Root, CommandError> {
    let jobs = &args.jobs;
    let mut arguments = Vec::new();
    for (name, text) in pairs(&jobs.arg) {
        arguments.push((name.to_owned(), Expression::of(text)));
    }
    for (name, text) in pairs(&jobs.argstr) {
        arguments.push((name.to_owned(), Expression::string(text)));
    }
    for (name, file) in pairs(&jobs.arg_from_file) {
        let text = fs_err::read_to_string(file)
            .map_err(|error| CommandError::because(format!("cannot read --arg-from-file {name}"), &error))?;
        arguments.push((name.to_owned(), Expression::string(&text)));
    }
    // The last one of a name counts.
    let mut known: Vec<(String, Expression)> = Vec::new();
    for (name, value) in arguments {
        known.retain(|(other, _)| *other != name);
        known.push((name, value));
    }
    let select = jobs.select.as_deref().map(Expression::of);
    let source_text = match source {
        JobSource::Flake(_) => shown.split_once('#').map_or(shown, |(flake, _)| flake),
        _ => shown,
    };
    Ok(Root {
        source: if source_text.is_empty() { "." } else { source_text }.to_owned(),
        file: None,
        asked: Vec::new(),
        programs: Vec::new(),
        jobs: Some(JobRoot { source, select, force_recurse: jobs.force_recurse, arguments: known }),
    })
}

/// What is to be told of derivations.
pub(super) fn details(jobs: &JobsArgs) -> Details {
    let apply = jobs.apply.as_deref().map(Expression::of);
    Details { meta: jobs.meta, apply, constituents: jobs.constituents }
}

/// What `<…>` is looked for in first, and what is left of `--include` as patterns.
pub(super) fn search_paths(args: &EvalArgs, manner: &Manner) -> (Vec<String>, Vec<String>) {
    let is_path = |value: &str| {
        matches!(manner, Manner::Jobs(..))
            || value.starts_with(['/', '.', '~'])
            || value.contains("://")
            || value.split_once('=').is_some_and(|(name, _)| !name.contains('"'))
    };
    let (paths, patterns): (Vec<String>, Vec<String>) =
        args.wanted.include.iter().cloned().partition(|value| is_path(value));
    (args.jobs.search_path.iter().cloned().chain(paths).collect(), patterns)
}

/// A directory for links, absolute and there.
pub(super) fn roots_directory(directory: &Path) -> Result<PathBuf, CommandError> {
    let failed = |error: &std::io::Error| {
        CommandError::because(format!("cannot use --gc-roots-dir {}", directory.display()), error)
    };
    fs_err::create_dir_all(directory).map_err(|error| failed(&error))?;
    std::path::absolute(directory).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Verb};
    use clap::Parser;

    fn args(words: &[&str]) -> EvalArgs {
        match Cli::try_parse_from([&["phoenix", "eval"], words].concat()).unwrap().verb {
            Verb::Eval(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn manner_of(words: &[&str]) -> Result<Manner, String> {
        manner(&args(words), &|path| path == Path::new("ci.nix")).map_err(|error| error.in_one_line())
    }

    #[test]
    fn installables_stay_what_they_are() {
        for words in
            [&[][..], &["."], &[".#a", ".#b"], &["github:a/b"], &["-f", "ci.nix"], &["ci.nix", "other"]]
        {
            assert_eq!(manner_of(words), Ok(Manner::Targets), "{words:?}");
        }
    }

    #[test]
    fn jobs_are_asked_for_by_a_flag_or_a_file() {
        let attr = phoenix_model::AttrPath::parse("a.b").unwrap();
        assert_eq!(
            manner_of(&["--flake", "x#a.b"]),
            Ok(Manner::Jobs(JobSource::Flake(attr), "x#a.b".into()))
        );
        let expression = Expression::of("{ }");
        assert_eq!(
            manner_of(&["-E", "{ }"]),
            Ok(Manner::Jobs(JobSource::Expression(expression), "{ }".into()))
        );
        assert_eq!(
            manner_of(&["<nixpkgs>"]),
            Ok(Manner::Jobs(JobSource::SearchPath("nixpkgs".into()), "<nixpkgs>".into()))
        );
        assert!(manner_of(&["ci.nix"]).unwrap_err().contains("cannot evaluate ci.nix"), "no such file here");
        assert!(manner_of(&["--as-nix-eval-jobs"]).unwrap_err().contains("nothing to evaluate"));
        assert!(manner_of(&["--flake", "a", "b"]).unwrap_err().contains("several things"));
    }

    #[test]
    fn flags_of_the_other_manner_are_refused() {
        assert!(manner_of(&["--select", "x: x", "."]).unwrap_err().starts_with("--select cannot be used"));
        assert!(manner_of(&["--flake", ".", "--exclude", "a"]).unwrap_err().starts_with("--exclude"));
    }

    #[test]
    fn include_is_a_pattern_or_a_path() {
        let split = |words: &[&str]| {
            let args = args(words);
            search_paths(&args, &manner(&args, &|_| false).unwrap())
        };
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            split(&[".", "--include", "a.*", "--include", "nixpkgs=/x", "--include", "./y", "-I", "z"]),
            (owned(&["z", "nixpkgs=/x", "./y"]), owned(&["a.*"]))
        );
        assert_eq!(split(&["-E", "1", "--include", "a"]), (owned(&["a"]), owned(&[])));
    }

    #[test]
    fn the_last_argument_of_a_name_counts() {
        let args = args(&["-E", "x", "--argstr", "a", "1", "--arg", "a", "2", "--argstr", "b", "3"]);
        let root = root(&args, JobSource::Expression(Expression::string("x")), "x").unwrap();
        let arguments = root.jobs.unwrap().arguments;
        let shown: Vec<_> =
            arguments.iter().map(|(name, value)| format!("{name}={}", value.as_str())).collect();
        assert_eq!(shown, ["a=\"1\"", "b=\"3\""]);
    }
}
