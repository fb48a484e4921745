//! `phoenix run`: from a flake to a verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use phoenix_model::{Event, Severity, Source, Stage, StorePath, Target, Verdict};
use phoenix_report::{Style, Summary, end};
use phoenix_schedule::{BuilderEnd, Happening};

use crate::acting;
use crate::args::{Format, RunArgs};
use crate::building::{Builder, Wanted, copy_derivations};
use crate::error::{CommandError, EXIT_ERROR};
use crate::farm;
use crate::gates::Permission;
use crate::history;
use crate::ledgers;
use crate::pipeline::{self, Planned, Purpose};
use crate::talk::{self, Terminal};
use crate::verbs::plan;
use crate::verbs::report::render;

/// Exit code of a run that was stopped.
const EXIT_STOPPED: u8 = 130;

/// Runs the verb.
pub(crate) fn run(args: &RunArgs) -> Result<ExitCode, CommandError> {
    let (files, formats) = (args.result_file.len(), args.result_format.len());
    if formats > 0 && formats != files {
        return Err(CommandError::new(format!(
            "--result-file is given {files} times, and --result-format {formats} times"
        ))
        .hint("give a format for each file, in the same order, or none: a name that ends in .json, .xml, .md, .html or .txt says it"));
    }
    if args.talk.json && args.talk.events.as_deref() == Some(Path::new("-")) {
        return Err(CommandError::new("`--json` and `--events -` would both write to stdout")
            .hint("give one of them a file: `--events FILE`, or `--result-file FILE` for the report"));
    }
    for file in &args.result_file {
        talk::may_write(file).map_err(|error| cannot_write(file, &error))?;
    }
    for file in args.result_file.iter().filter(|_| !args.dry_run) {
        talk::forget(file).map_err(|error| cannot_write(file, &error))?;
    }
    if let Some(ledger) = args.ledger.as_ref().filter(|_| args.runners.is_some()) {
        ledgers::check(ledger)?;
    }
    let purpose = Purpose {
        permission: Permission::of(args.build.actions, false),
        farm: args.runners.is_some().then_some(&farm::for_here),
        ships: false,
    };
    let mut planned = pipeline::plan(&args.wanted, &args.nix, &args.build, &args.talk, purpose)?;
    if args.dry_run {
        return plan::show(planned, &args.talk);
    }
    // From here on there are verdicts: whatever goes wrong, they are written.
    let trouble = planned.trouble.take().or_else(|| match args.runners {
        Some(workers) => farm::build(&mut planned, args, workers, &mut |planned| {
            if args.out_link.is_some() { bring_for_links(planned) } else { Ok(()) }
        })
        .err(),
        None => build(&mut planned, args.out_link.is_some()).err(),
    });
    if let Some(error) = &trouble {
        planned.recorder.say(Severity::Error, error.in_one_line());
        let end = BuilderEnd { exit_code: None, last_words: error.in_one_line(), ..BuilderEnd::default() };
        planned.apply(Happening::BuilderEnded(end));
    }
    // Workers keep themselves what they build.
    if args.runners.is_none() {
        keep(&mut planned);
    }
    let linked = link(&mut planned, args.out_link.as_deref());
    let acted = acting::act(&mut planned);
    let mut code = if acted { planned.run.exit_code() } else { EXIT_STOPPED };
    if code == 0 && (!linked || trouble.is_some() || planned.actions.any_red()) {
        code = 1;
    }
    learn(&mut planned);
    let directory = planned.recorder.directory().display().to_string();
    planned.recorder.record(Event::RunEnded { exit_code: code, directory: Some(directory.clone()) });
    let lost = planned.recorder.lost_events();
    let mut lost_records = planned.recorder.lost_records();
    let summary = planned.recorder.finish();
    let hints = pipeline::hints(&summary);
    drop(planned.evaluated);
    talk::stderr(&format!("\n{}", end(&summary, Style { colour: Terminal::detect().colour })));
    for hint in hints {
        talk::stderr(&format!("hint: {hint}\n"));
    }
    lost_records = lost_records.or(write_own_reports(&summary, Path::new(&directory))?);
    if let Some(why) = lost_records {
        // Said however quiet it is to be: somebody may look there.
        talk::stderr(&format!("warning: the records in {directory} are not whole: {why}\n"));
    }
    let mut troubles: Vec<CommandError> = lost.into_iter().collect();
    troubles.extend(write_reports(args, &summary).err());
    if args.talk.json {
        troubles.extend(render(&summary, Format::Json).and_then(|json| talk::stdout(&json)).err());
    }
    for trouble in &troubles {
        trouble.report();
    }
    // The verdict stands; but what was asked for and is not there is no success.
    Ok(ExitCode::from(if code == 0 && !troubles.is_empty() { EXIT_ERROR } else { code }))
}

/// Builds what has to be built; with `for_links`, what is only in a substituter or in the depot comes too.
fn build(planned: &mut Planned, for_links: bool) -> Result<(), CommandError> {
    let (for_links, outputs) = if for_links { elsewhere(planned) } else { Default::default() };
    let derivations = &planned.recorder.summary().derivations;
    let has_failed = derivations.iter().any(|state| matches!(state.verdict, Some(Verdict::Failed { .. })));
    // What cannot be built is known before anything is.
    let is_over = planned.was_stopped() || (planned.fail_fast && has_failed);
    if is_over || (planned.to_realise.is_empty() && for_links.is_empty()) {
        // Nix did not end well with what was not asked of it.
        let exit_code = (!is_over || planned.to_realise.is_empty()).then_some(0);
        planned.apply(Happening::BuilderEnded(BuilderEnd { exit_code, ..BuilderEnd::default() }));
        return Ok(());
    }
    planned.recorder.record(Event::StageStarted { stage: Stage::Build });
    let mut needed = planned.recorder.summary().to_fetch.clone();
    needed.extend(outputs);
    let mut wanted = std::mem::take(&mut planned.to_realise);
    wanted.extend(for_links);
    fetch(planned, needed);
    let mut nix = planned.setup.nix.clone();
    // A substituter that breaks down while Nix fetches costs a rebuild, not the run.
    nix.set_option("fallback", "true");
    let asked = (!planned.failed_substituters.is_empty()).then(|| healthy(planned));
    if let Some(asked) = &asked {
        nix.set_option("substituters", &asked.join(" "));
    }
    if let Some(from) = planned.setup.copy_from.clone() {
        copy_derivations(&planned.setup, &nix, &from, &wanted)?;
    }
    let mut evaluators = Some(std::mem::take(&mut planned.evaluated.evaluators));
    let (run, recorder) = (&mut planned.run, &mut planned.recorder);
    let mut builder = Builder::new(&planned.setup, nix, planned.fail_fast, &planned.signals, run, recorder);
    if let Some(asked) = asked {
        builder = builder.asking(asked);
    }
    // Once Nix is at work it protects the derivations itself, and the evaluators' memory can go.
    builder.build(&wanted, &mut || drop(evaluators.take()))
}

/// The targets that are cached and not in the store, with the outputs that are wanted of them; and where these are.
fn elsewhere(planned: &Planned) -> (Vec<Wanted>, Vec<(StorePath, Source)>) {
    let (mut wanted, mut outputs) = (Vec::new(), Vec::new());
    for target in &planned.targets {
        if let Some(Verdict::Cached { from }) = planned.run.verdict(target.id)
            && *from != Source::Store
            && let Some(drv_path) = &target.drv_path
        {
            wanted.push((drv_path.clone(), target.wanted.clone()));
            let is_wanted = |name: &&String| target.wanted.is_empty() || target.wanted.contains(*name);
            let paths = target
                .outputs
                .iter()
                .filter(|(name, _)| is_wanted(name))
                .filter_map(|(_, path)| path.clone());
            outputs.extend(paths.map(|path| (path, from.clone())));
        }
    }
    (wanted, outputs)
}

/// Brings the targets that are cached and not in the store, while the run is still open.
fn bring_for_links(planned: &mut Planned) -> Result<(), CommandError> {
    let (wanted, needed) = elsewhere(planned);
    if wanted.is_empty() || planned.was_stopped() {
        return Ok(());
    }
    fetch(planned, needed);
    let mut nix = planned.setup.nix.clone();
    nix.set_option("fallback", "true");
    let (run, recorder) = (&mut planned.run, &mut planned.recorder);
    let mut builder = Builder::new(&planned.setup, nix, planned.fail_fast, &planned.signals, run, recorder);
    builder.bring(&wanted, &mut || {}).map(drop)
}

/// Brings what the depot has of this into the store. What does not come is built.
fn fetch(planned: &mut Planned, needed: Vec<(StorePath, Source)>) {
    let Some(kept) = &mut planned.kept else { return };
    let source = kept.source();
    let paths: Vec<StorePath> =
        needed.into_iter().filter(|(_, from)| *from == source).map(|(path, _)| path).collect();
    kept.fetch(&paths, &planned.setup, &mut planned.recorder);
}

/// Keeps what was built in the depot. That it cannot be kept is no fault of the build.
fn keep(planned: &mut Planned) {
    let Some(kept) = &mut planned.kept else { return };
    let needed = planned.recorder.summary().targets.values().filter_map(|state| match &state.verdict {
        Some(Verdict::Built | Verdict::Cached { .. }) => {
            Some(state.target.outputs.values().flatten().cloned())
        }
        _ => None,
    });
    kept.set_needs(needed.flatten());
    let is_built = |drv_path: &StorePath| {
        let state = planned.recorder.summary().of_derivation(drv_path);
        state.is_some_and(|state| state.verdict == Some(Verdict::Built))
    };
    let built = |step: &u32| is_built(&planned.run.steps()[*step as usize].drv_path);
    let steps = (0..).take(planned.run.steps().len()).filter(built);
    let outputs = steps.flat_map(|step| planned.run.steps()[step as usize].outputs.iter().flatten());
    // What was to come for a link and had to be built is no step.
    let linked = planned.targets.iter().filter(|target| target.drv_path.as_ref().is_some_and(is_built));
    let linked = linked.flat_map(|target| target.outputs.values().flatten());
    let outputs: BTreeSet<StorePath> = outputs.chain(linked).cloned().collect();
    let outputs: Vec<StorePath> = outputs.into_iter().collect();
    kept.keep(outputs, &planned.setup, &mut planned.recorder);
}

/// The substituters Nix may ask: those that answered, and those that have something a build needs.
fn healthy(planned: &Planned) -> Vec<String> {
    let needed = |shown: &str| {
        let fetched = planned.recorder.summary().to_fetch.iter();
        fetched.map(|(_, from)| from).any(|from| *from == Source::Substituter(shown.to_owned()))
    };
    let may_be_asked = |url: &&String| {
        let shown = phoenix_substituter::Location::parse(url).shown();
        !planned.failed_substituters.contains(&shown) || needed(&shown)
    };
    planned.setup.settings.substituters.iter().filter(may_be_asked).cloned().collect()
}

/// Makes the symlinks that were asked for; whether that went well.
fn link(planned: &mut Planned, link: Option<&Path>) -> bool {
    let Some(link) = link.filter(|_| !planned.run.is_cancelled()) else { return true };
    let green: Vec<Target> = planned
        .targets
        .iter()
        .filter(|target| {
            matches!(planned.run.verdict(target.id), Some(Verdict::Built | Verdict::Cached { .. }))
        })
        .cloned()
        .collect();
    let several = planned.targets.len() > 1;
    // The first failure ended the run before all was fetched.
    let broken_off = planned.fail_fast && planned.run.exit_code() != 0;
    let mut left_out = Vec::new();
    let mut well = true;
    let mut taken: BTreeMap<PathBuf, String> = BTreeMap::new();
    for target in green {
        let Some(drv_path) = &target.drv_path else { continue };
        let name = if several { named(link, &target) } else { link.to_path_buf() };
        let shown = format!("{} of {}", target.attr(), target.source);
        let links = links_of(&name, &target);
        if let Some((link, other)) = links.iter().find_map(|link| taken.get_key_value(link)) {
            well = false;
            let text = format!("{shown} has no link: {} is that of {other}", link.display());
            planned.recorder.say(Severity::Error, text);
            continue;
        }
        taken.extend(links.into_iter().map(|link| (link, shown.clone())));
        if let Err(error) = realise_link(planned, drv_path, &target.wanted, &name) {
            if broken_off {
                left_out.push(target.attr());
                continue;
            }
            well = false;
            let text = format!("cannot make the link {}: {}", name.display(), error.in_one_line());
            planned.recorder.say(Severity::Error, text);
        }
    }
    if !left_out.is_empty() {
        let text = format!(
            "--fail-fast: the run ended before these were fetched, and they have no link: {}",
            left_out.join(", ")
        );
        planned.recorder.say(Severity::Warning, text);
    }
    well
}

fn named(link: &Path, target: &Target) -> PathBuf {
    let mut name = link.as_os_str().to_owned();
    name.push(format!("-{}", target.attr().replace(['/', '"'], "_")));
    PathBuf::from(name)
}

/// The links of a target's outputs as `nix-store --add-root` names them: `out` has the name itself.
fn links_of(name: &Path, target: &Target) -> Vec<PathBuf> {
    let of_output = |output: &String| {
        let mut link = name.as_os_str().to_owned();
        if output != "out" {
            link.push(format!("-{output}"));
        }
        PathBuf::from(link)
    };
    if target.wanted.is_empty() {
        target.outputs.keys().map(of_output).collect()
    } else {
        target.wanted.iter().map(of_output).collect()
    }
}

/// Makes a link to what is there.
fn realise_link(
    planned: &Planned,
    drv_path: &StorePath,
    outputs: &[String],
    link: &Path,
) -> Result<(), CommandError> {
    let mut nix = planned.setup.nix.clone();
    nix.set_option("substitute", "false");
    nix.set_option("max-jobs", "0");
    nix.set_option("builders", "");
    let mut command = nix.nix_store("--realise");
    let wanted =
        if outputs.is_empty() { drv_path.to_string() } else { format!("{drv_path}!{}", outputs.join(",")) };
    command.arg(wanted).arg("--add-root").arg(link).arg("--indirect");
    nix.run(&mut command, "nix-store --realise --add-root")?;
    Ok(())
}

/// Remembers how long builds took, and what failed.
fn learn(planned: &mut Planned) {
    let built = history::built(planned.recorder.summary());
    if let Err(error) = planned.state.learn(&built) {
        planned.recorder.say(Severity::Warning, format!("cannot remember how long builds took: {error}"));
    }
    if let Some(kept) = &planned.kept
        && let Err(error) = history::add(kept.depot(), planned.recorder.summary(), &planned.sizes)
    {
        planned.recorder.say(Severity::Warning, error.in_one_line());
    }
}

/// Writes the run's own reports, which are a convenience: why one of them is not there, if one is not.
fn write_own_reports(summary: &Summary, directory: &Path) -> Result<Option<String>, CommandError> {
    let mut lost = None;
    for (name, format) in [
        ("report.json", Format::Json),
        ("report.xml", Format::Junit),
        ("report.md", Format::Markdown),
        ("report.html", Format::Html),
    ] {
        let file = directory.join(name);
        if let Err(error) = fs_err::write(&file, render(summary, format)?) {
            lost = Some(error.to_string());
            let _ = fs_err::remove_file(&file);
        }
    }
    Ok(lost)
}

fn write_reports(args: &RunArgs, summary: &Summary) -> Result<(), CommandError> {
    for (at, file) in args.result_file.iter().enumerate() {
        let asked = args.result_format.get(at).copied();
        let format = asked.or_else(|| Format::of_name(file)).unwrap_or(Format::Json);
        talk::write(file, &render(summary, format)?).map_err(|error| cannot_write(file, &error))?;
    }
    Ok(())
}

fn cannot_write(path: &Path, error: &std::io::Error) -> CommandError {
    CommandError::because(format!("cannot write the report {}", path.display()), error)
}
