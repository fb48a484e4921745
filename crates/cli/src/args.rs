//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod cache;
mod dialect;
mod eval;

pub(crate) use cache::{PushArgs, ServeArgs};
pub(crate) use dialect::understand;
pub(crate) use eval::{EvalArgs, JobsArgs};

/// Continuous integration for Nix flakes that does no work twice.
#[derive(Debug, Parser)]
#[command(name = "phoenix", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Build what a flake asks for, less what exists already, and give every target its verdict
    Run(RunArgs),
    /// Show what `run` would do: what would be built, what is where, in which order
    Plan(PlanArgs),
    /// Evaluate targets and print them as JSON lines (a stand-in for nix-eval-jobs)
    ///
    /// An INSTALLABLE is what `run` would build: its targets, and exit code 120 if one does not evaluate. With --flake,
    /// --expr, or a file, it is what nix-eval-jobs would find: every derivation below that, through sets with
    /// `recurseForDerivations = true`; then an attribute that does not evaluate is a line like others, and the exit
    /// code is 0, or 1 if an evaluator crashed. Called by the name nix-eval-jobs, it takes that program's arguments.
    Eval(EvalArgs),
    /// Work on a plan that `plan --runners` shipped, beside other workers
    Work(WorkArgs),
    /// Make any report again from an events file, or collect what workers did
    Report(ReportArgs),
    /// Save store paths to a depot, and restore them
    #[command(subcommand)]
    Cache(CacheVerb),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheVerb {
    /// Save store paths, with all they refer to, in one new pack
    Save(SaveArgs),
    /// Restore store paths, with all they refer to
    Restore(RestoreArgs),
    /// Serve what a depot holds to the Nix on this machine, as a binary cache
    Serve(ServeArgs),
    /// Copy store paths, with all they refer to, to another store or a cache service
    Push(PushArgs),
    /// List the store paths that can be restored, as JSON lines
    Ls(DepotArgs),
    /// Say how much a depot holds, as JSON
    Stat(DepotArgs),
    /// Read everything a depot holds and check it
    Verify(VerifyArgs),
    /// Fold many packs into few, and let go of what there is no room for
    ///
    /// What is kept comes first by rank: what --keep names, what the last runs of branches that are alive saved
    /// (those of the last two weeks), then everything else, newest first, until the budget is used up. Packs are
    /// never changed: a new one replaces them, and they are removed when no job can rely on them any more. Where
    /// we may not remove (on GitHub that takes `actions: write`), they are left to the depot's own eviction.
    ///
    /// Where packs are left out, for there is no room for all that packs say of their paths, they go first, with what
    /// cannot be restored without them.
    Gc(GcArgs),
}

/// Which depot.
#[derive(Debug, Args, Clone)]
pub(crate) struct DepotArgs {
    /// Where packs are kept: dir:PATH, github: (the cache of the repository, in actions), s3://BUCKET/PREFIX,
    /// gs://…, az://… [default: a directory of the user's cache]
    #[arg(long, value_name = "URL", env = "PHOENIX_DEPOT")]
    pub(crate) depot: Option<String>,

    /// How many threads read, compress and write [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

/// What to do about damage.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Let go of what is damaged, so that it is saved anew by whoever has it: the packs it is in are rewritten
    /// without it
    #[arg(long)]
    pub(crate) repair: bool,

    /// Print what was found as JSON, with all that is bad, not read or let go by name
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) depot: DepotArgs,
}

/// What to keep, and what to let go.
#[derive(Debug, Args)]
pub(crate) struct GcArgs {
    /// How much all packs in use may have together, and what was replaced and waits as much again: bytes, or 500M, 10G,
    /// 8GiB
    #[arg(long, value_name = "BYTES", default_value = "10G", value_parser = crate::tidy::bytes)]
    pub(crate) budget: u64,

    /// Keep this store path, with all it refers to, before everything else
    #[arg(long, value_name = "STORE-PATH")]
    pub(crate) keep: Vec<String>,

    /// This branch is no more (`refs/pull/7/merge`): what only it needed goes with all else by its age
    #[arg(long, value_name = "BRANCH")]
    pub(crate) gone: Vec<String>,

    /// Remove what was replaced, or has no room, only after so long: no job that is still going may have begun before
    #[arg(long, value_name = "MINUTES", default_value_t = phoenix_cache::GRACE / 60)]
    pub(crate) grace: u64,

    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Print what is done as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,

    /// The depot (see `cache save --help`)
    #[arg(long, value_name = "URL", env = "PHOENIX_DEPOT")]
    pub(crate) depot: Option<String>,
}

/// Which store.
#[derive(Debug, Args, Clone)]
pub(crate) struct StoreArgs {
    /// The store: for `cache` verbs one on this machine, for `work` any that Nix builds in
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,

    /// Set a Nix setting
    #[arg(long = "option", num_args = 2, allow_hyphen_values = true, value_names = ["NAME", "VALUE"], action = clap::ArgAction::Append)]
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["paths", "since", "all"])))]
pub(crate) struct SaveArgs {
    /// The paths; links to them, such as `result`, will do
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// All that is valid now and was not when `cache restore --snapshot FILE` was run
    #[arg(long, value_name = "FILE")]
    pub(crate) since: Option<PathBuf>,

    /// All that is valid
    #[arg(long)]
    pub(crate) all: bool,

    /// Also what a trusted key signed, which its owner's substituter has already
    #[arg(long)]
    pub(crate) include_upstream: bool,

    /// Nothing, where GitHub runs the job for code from another repository: a pull request from a fork, or a workflow that one
    /// set off
    #[arg(long)]
    pub(crate) unless_fork: bool,

    /// Nothing, where this job may read the depot and not write it: why is printed, and the exit code is 0
    #[arg(long)]
    pub(crate) unless_denied: bool,

    /// Only see whether the arguments make sense, before something is built that is to be saved
    #[arg(long)]
    pub(crate) check: bool,

    /// The branch this is for, so that `cache restore --latest` and `cache gc` know what branches need
    #[arg(long, value_name = "NAME", env = "GITHUB_REF")]
    pub(crate) branch: Option<String>,

    /// How much all packs in use may have together; more than that, or more than four packs, are tidied up as by `gc`
    #[arg(long, value_name = "BYTES", default_value = "10G", value_parser = crate::tidy::bytes)]
    pub(crate) budget: u64,

    /// Sign what is saved with the key in this file (`nix key generate-secret` makes one)
    #[arg(long, value_name = "FILE")]
    pub(crate) sign_key: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) depot: DepotArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(group(
    clap::ArgGroup::new("what").required(true).multiple(true).args(["installables", "latest", "snapshot"])
))]
pub(crate) struct RestoreArgs {
    /// Store paths, links to them such as `result`, or what is to be evaluated: FLAKEREF or FLAKEREF#ATTR
    #[arg(value_name = "INSTALLABLE")]
    pub(crate) installables: Vec<String>,

    /// What the last run of this branch needed, or of the one it is to be merged into, or of any: what it
    /// restored and what it saved
    #[arg(long, conflicts_with = "installables")]
    pub(crate) latest: bool,

    /// The branch this is for
    #[arg(long, value_name = "NAME", env = "GITHUB_REF")]
    pub(crate) branch: Option<String>,

    /// Write down what is valid before and afterwards, for `cache save --since FILE`; alone it does no more than that
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,

    /// Take in only what this public key, or another one that is named, signed, and what is content-addressed;
    /// may be given several times
    #[arg(long, value_name = "KEY")]
    pub(crate) trusted_key: Vec<String>,

    /// Systems to evaluate for [default: this machine's]
    #[arg(long, value_name = "SYSTEM", value_delimiter = ',')]
    pub(crate) systems: Vec<String>,

    #[command(flatten)]
    pub(crate) depot: DepotArgs,
    #[command(flatten)]
    pub(crate) nix: NixArgs,
}

/// What to look at.
#[derive(Debug, Args, Clone)]
pub(crate) struct Wanted {
    /// What to build: FLAKEREF or FLAKEREF#ATTR [default: .]
    ///
    /// Without an attribute: checks, packages and devShells of the systems, formatter, nixosConfigurations,
    /// darwinConfigurations, homeConfigurations, hydraJobs and ci.
    #[arg(value_name = "INSTALLABLE")]
    pub(crate) installables: Vec<String>,

    /// Evaluate a file instead of a flake
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "installables", help_heading = "Targets")]
    pub(crate) file: Option<PathBuf>,

    /// An attribute of the file; may be given several times
    #[arg(
        short = 'A',
        long,
        value_name = "ATTR",
        requires = "file",
        conflicts_with = "installables",
        help_heading = "Targets"
    )]
    pub(crate) attr: Vec<String>,

    /// Systems to build for [default: this machine's]
    #[arg(long, value_name = "SYSTEM", value_delimiter = ',', help_heading = "Targets")]
    pub(crate) systems: Vec<String>,

    /// Only targets whose attribute path matches: `*` is one name, `**` any number; replaces the default
    #[arg(long, value_name = "GLOB", help_heading = "Targets")]
    pub(crate) include: Vec<String>,

    /// No targets whose attribute path matches, nor anything below; wins over --include
    #[arg(long, value_name = "GLOB", help_heading = "Targets")]
    pub(crate) exclude: Vec<String>,
}

/// What Nix is told.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Nix")]
pub(crate) struct NixArgs {
    /// Set a Nix setting
    #[arg(long = "option", num_args = 2, allow_hyphen_values = true, value_names = ["NAME", "VALUE"], action = clap::ArgAction::Append)]
    pub(crate) options: Vec<String>,

    /// Use the Nix settings a flake asks for (nixConfig)
    #[arg(long)]
    pub(crate) accept_flake_config: bool,

    /// Replace an input of the flake
    #[arg(long, num_args = 2, allow_hyphen_values = true, value_names = ["INPUT", "FLAKEREF"], action = clap::ArgAction::Append)]
    pub(crate) override_input: Vec<String>,

    /// Let evaluation read the environment and any file
    #[arg(long)]
    pub(crate) impure: bool,

    /// Show the whole trace of evaluation errors
    #[arg(long)]
    pub(crate) show_trace: bool,

    /// The store to build in
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,

    /// The store to evaluate in [default: --store if it is on this machine, else auto]
    #[arg(long, value_name = "URL")]
    pub(crate) eval_store: Option<String>,

    /// How many evaluator processes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) eval_workers: usize,

    /// How much memory all evaluator processes may have together [default: four fifths of what is available]
    #[arg(long, value_name = "BYTES", value_parser = crate::tidy::bytes)]
    pub(crate) eval_memory: Option<u64>,

    /// Evaluate anew what was evaluated before, and keep nothing of it
    #[arg(long)]
    pub(crate) no_eval_cache: bool,

    /// Who evaluates
    #[arg(long, value_enum, value_name = "PROGRAM", default_value = "nix")]
    pub(crate) evaluator: EvaluatorProgram,
}

/// Who evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum EvaluatorProgram {
    /// Processes of the Nix on PATH
    Nix,
    /// The nix-eval-jobs on PATH
    NixEvalJobs,
}

impl From<EvaluatorProgram> for phoenix_evaluate::EvaluatorKind {
    fn from(program: EvaluatorProgram) -> Self {
        match program {
            EvaluatorProgram::Nix => Self::Nix,
            EvaluatorProgram::NixEvalJobs => Self::NixEvalJobs,
        }
    }
}

/// How Nix builds.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Building")]
pub(crate) struct BuilderArgs {
    /// How many derivations Nix builds at once
    #[arg(short = 'j', long, value_name = "N|auto")]
    pub(crate) max_jobs: Option<String>,

    /// How many cores each build may use
    #[arg(long, value_name = "N")]
    pub(crate) cores: Option<u32>,

    /// Remote builders, as in nix.conf
    #[arg(long, value_name = "BUILDERS")]
    pub(crate) builders: Option<String>,

    /// Give up on a build after so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,

    /// Give up on a build that prints nothing for so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_silent_time: Option<u32>,
}

/// How to build.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Building")]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(crate) builder: BuilderArgs,

    /// Go on with what does not depend on a failure (this is the default)
    #[arg(short = 'k', long, conflicts_with = "fail_fast")]
    pub(crate) keep_going: bool,

    /// Stop at the first failure
    #[arg(long)]
    pub(crate) fail_fast: bool,

    /// Take from this depot what it has, and keep there what is built (see `cache --help`)
    #[arg(long, value_name = "URL", env = "PHOENIX_DEPOT")]
    pub(crate) depot: Option<String>,

    /// Build again what failed within a day in a run with this depot [default: if GitHub runs a job again]
    #[arg(long)]
    pub(crate) retry_failed: bool,

    /// How much all packs of the depot in use may have together; what is more is let go as by `cache gc`
    #[arg(long, value_name = "BYTES", default_value = "10G", value_parser = crate::tidy::bytes)]
    pub(crate) budget: u64,

    /// Whether what follows builds runs: deployments, publications. `auto`: on GitHub, on the default branch or the
    /// `refs` of phoenix.toml. Never for pull requests from forks
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    pub(crate) actions: ActionsMode,
}

/// When actions run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ActionsMode {
    /// Where a forge says that it is for a branch that is allowed to
    Auto,
    /// Whatever the branch is
    Run,
    /// Never
    Skip,
}

impl BuildArgs {
    /// The depot, if one is named; a variable that is empty names none.
    pub(crate) fn depot(&self) -> Option<&str> {
        self.depot.as_deref().filter(|url| !url.is_empty())
    }
}

/// What is said.
#[derive(Debug, Default, Args, Clone)]
#[command(next_help_heading = "Output")]
pub(crate) struct TalkArgs {
    /// Print the builders' logs
    #[arg(short = 'L', long)]
    pub(crate) print_build_logs: bool,

    /// Say only what is wrong, and the end
    #[arg(long, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Say more
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Print the report (or the plan) as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,

    /// Write everything that happens as JSON lines
    #[arg(long, value_name = "FILE")]
    pub(crate) events: Option<PathBuf>,

    /// For programs that show our lines: each log comes in one piece, between the lines `MARK begin TITLE` and `MARK
    /// end` where it ended well, and a slot that answers for something of its own says what failed of it in lines `MARK
    /// error title=TITLE::TEXT`. MARK is the first line of standard input, so that nobody who prints knows it
    #[arg(long, hide = true)]
    pub(crate) log_groups: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    #[command(flatten)]
    pub(crate) nix: NixArgs,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,

    /// Only show what would be done, as `plan` does
    #[arg(long, conflicts_with_all = ["out_link", "result_file"], help_heading = "Building")]
    pub(crate) dry_run: bool,

    /// Build with so many worker processes, each with a store of its own, as a farm of runners would
    #[arg(long, value_name = "N", conflicts_with = "dry_run", value_parser = clap::value_parser!(u32).range(1..=256), help_heading = "Farm")]
    pub(crate) runners: Option<u32>,

    /// Where the workers take units and say how they ended: dir:PATH, nats://HOST:PORT/RUN, or on GitHub
    /// github-artifacts:RUN [default: a directory of the run]
    #[arg(long, value_name = "URL", requires = "runners", help_heading = "Farm")]
    pub(crate) ledger: Option<String>,

    /// Make symlinks to the outputs: LINK for one target, LINK-ATTR for several
    #[arg(short = 'o', long, value_name = "LINK", conflicts_with = "no_link", help_heading = "Output")]
    pub(crate) out_link: Option<PathBuf>,

    /// Make no symlinks to the outputs (this is the default)
    #[arg(long, help_heading = "Output")]
    pub(crate) no_link: bool,

    /// Write a report to a file; may be given several times
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) result_file: Vec<PathBuf>,

    /// The format of each result file, in the same order [default: by the file's name, else json]
    #[arg(long, value_enum, value_name = "FORMAT", requires = "result_file", help_heading = "Output")]
    pub(crate) result_format: Vec<Format>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    #[command(flatten)]
    pub(crate) nix: NixArgs,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
    #[command(flatten)]
    pub(crate) farm: FarmArgs,
}

/// A plan for several runners.
#[derive(Debug, Args)]
#[command(next_help_heading = "Farm")]
pub(crate) struct FarmArgs {
    /// Plan for so many runners, or for as many as pay off
    #[arg(long, value_name = "N|auto")]
    pub(crate) runners: Option<Runners>,

    /// At most so many runners, though one of each kind that is needed
    #[arg(long, value_name = "N", default_value_t = 20, requires = "runners", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) max_runners: u32,

    /// Show what it would take with 1, 2, 4 … 256 runners, and with a runner for each target
    #[arg(long)]
    pub(crate) simulate: bool,

    /// Of what is drawn in the simulation
    #[arg(long, value_name = "NUMBER", default_value_t = 0, requires = "simulate")]
    pub(crate) seed: u64,

    /// How wrong estimates are in the simulation: the deviation of the logarithm of what each build takes
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0, requires = "simulate", value_parser = not_negative)]
    pub(crate) noise: f64,

    /// How many of the builds fail in the simulation, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, requires = "simulate", value_parser = share)]
    pub(crate) failing: f64,

    /// Ship the plan to the depot and print the rows of a job matrix, one for each runner
    #[arg(long, value_enum, value_name = "FORMAT", requires = "runners", conflicts_with = "json")]
    pub(crate) matrix: Option<Matrix>,

    /// The name to ship the plan under, for `work --plan` and `report --plan` [default: one that no other has]
    #[arg(long = "plan", value_name = "REF", requires = "matrix")]
    pub(crate) reference: Option<String>,
}

fn not_negative(text: &str) -> Result<f64, String> {
    up_to(10.0, text)
}

fn share(text: &str) -> Result<f64, String> {
    up_to(1.0, text)
}

fn up_to(most: f64, text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if (0.0..=most).contains(&number) { Ok(number) } else { Err(format!("it is from 0 to {most}")) }
}

/// How many runners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runners {
    /// As many as pay off.
    Auto,
    /// So many.
    Just(u32),
}

impl std::str::FromStr for Runners {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "auto" => Ok(Self::Auto),
            Ok(number) if (1..=256).contains(&number) => Ok(Self::Just(number)),
            _ => Err("it is `auto` or a number from 1 to 256".to_owned()),
        }
    }
}

/// For whom the rows of a matrix are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Matrix {
    /// `strategy.matrix` of a GitHub workflow, through `fromJSON`
    Github,
    /// A child pipeline of GitLab
    Gitlab,
    /// All that is known of the slots
    Json,
    /// The `hits` of phoenix-ci v1: a row for each work unit that has work, and for each derivation to be built; evaluates
    /// with --impure, as it did
    V1,
    /// The `hits` of std-action: for each block and action a row for each target that has work
    Std,
}

/// Where a plan is, and where its workers meet.
#[derive(Debug, Args, Clone)]
#[command(next_help_heading = "Farm")]
pub(crate) struct SharedArgs {
    /// Where the workers take units and say how they ended: dir:PATH, nats://HOST:PORT/RUN, or on GitHub
    /// github-artifacts:RUN
    #[arg(long, value_name = "URL", env = "PHOENIX_LEDGER")]
    pub(crate) ledger: Option<String>,

    /// The depot that the plan was shipped to (see `cache save --help`)
    #[arg(long, value_name = "URL", env = "PHOENIX_DEPOT")]
    pub(crate) depot: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WorkArgs {
    /// The plan, as `plan --matrix` named it
    #[arg(long = "plan", value_name = "REF", help_heading = "Farm")]
    pub(crate) reference: String,

    /// Which of its slots, counted from 0
    #[arg(long, value_name = "K", help_heading = "Farm")]
    pub(crate) slot: u32,

    /// Stop after so many minutes, with time left to keep what was built: the job's own limit, less five minutes
    #[arg(long, value_name = "MINUTES", help_heading = "Farm")]
    pub(crate) time_limit: Option<u32>,

    /// When less is free on the store's disk, delete what was brought or built here and no unit needs any more
    #[arg(long, value_name = "BYTES", default_value = "2G", value_parser = crate::tidy::bytes, help_heading = "Farm")]
    pub(crate) min_free: u64,

    /// Keep a list of what is built and not in the depot yet, and of what is claimed, in this file, for `--keep-unsaved`
    #[arg(long, value_name = "FILE", help_heading = "Farm")]
    pub(crate) unsaved: Option<PathBuf>,

    /// Only do what a worker had yet to do that was ended, by its list of `--unsaved`: keep what it built, give back the rest
    #[arg(long, requires = "unsaved", help_heading = "Farm")]
    pub(crate) keep_unsaved: bool,

    #[command(flatten)]
    pub(crate) shared: SharedArgs,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) builder: BuilderArgs,
    #[command(flatten)]
    pub(crate) talk: TalkArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// What `--events` wrote; `-` for stdin
    #[arg(value_name = "EVENTS", required_unless_present = "reference", conflicts_with = "reference")]
    pub(crate) events: Option<PathBuf>,

    /// Wait for the workers of this plan, and give every target its verdict
    #[arg(long = "plan", value_name = "REF", requires = "ledger", help_heading = "Farm")]
    pub(crate) reference: Option<String>,

    /// Give up when nothing was heard of any worker for so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = 30, requires = "reference", help_heading = "Farm")]
    pub(crate) patience: u32,

    /// All workers were told to stop and have ended: wait for none, and call cancelled what they left
    #[arg(long, requires = "reference", help_heading = "Farm")]
    pub(crate) cancelled: bool,

    #[command(flatten)]
    pub(crate) shared: SharedArgs,

    /// The format [default: by the name of the file, else terminal]
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,

    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Write a page for a browser to this file, besides
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// The formats of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// What `run` prints at its end
    Terminal,
    /// JSON (docs/report-schema.md)
    Json,
    /// JUnit XML
    Junit,
    /// GitHub-flavoured Markdown
    Markdown,
    /// One page for a browser that needs nothing else
    Html,
    /// Workflow commands for GitHub's runner: an annotation for each root failure, at most ten
    Github,
}

impl Format {
    /// The format a file's name asks for, if it does.
    pub(crate) fn of_name(file: &std::path::Path) -> Option<Self> {
        match file.extension().and_then(|extension| extension.to_str())? {
            "md" | "markdown" => Some(Self::Markdown),
            "xml" => Some(Self::Junit),
            "txt" | "log" => Some(Self::Terminal),
            "json" => Some(Self::Json),
            "html" | "htm" => Some(Self::Html),
            _ => None,
        }
    }
}
