//! The flags of `phoenix eval`: Nix's, and nix-eval-jobs'.

use std::path::PathBuf;

use clap::Args;

use super::{NixArgs, Wanted};

#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    #[command(flatten)]
    pub(crate) nix: NixArgs,
    #[command(flatten)]
    pub(crate) jobs: JobsArgs,

    /// Take from this depot what was evaluated elsewhere, and keep there what is evaluated (see `cache --help`). One that
    /// cannot be used is warned of, and everything is evaluated
    #[arg(long, value_name = "URL", env = "PHOENIX_DEPOT")]
    pub(crate) depot: Option<String>,

    /// How much all packs of the depot in use may have together; what is more is let go as by `cache gc`
    #[arg(long, value_name = "BYTES", default_value = "10G", value_parser = crate::tidy::bytes)]
    pub(crate) budget: u64,

    /// Print in the order of the attribute paths, when everything is evaluated [default: as they come]
    #[arg(long, help_heading = "Output")]
    pub(crate) sorted: bool,

    /// Say nothing but the targets
    #[arg(long, conflicts_with = "verbose", help_heading = "Output")]
    pub(crate) quiet: bool,

    /// Say more
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = "Output")]
    pub(crate) verbose: u8,
}

/// What nix-eval-jobs takes.
#[derive(Debug, Args, Clone, Default)]
#[command(next_help_heading = "As nix-eval-jobs")]
pub(crate) struct JobsArgs {
    /// The argument is a flake: all jobs below FLAKEREF#ATTR, which is meant from the flake's root; without ATTR,
    /// below the flake with its inputs and outputs
    #[arg(long, conflicts_with_all = ["expr", "file"])]
    pub(crate) flake: bool,

    /// The argument is a Nix expression
    #[arg(short = 'E', long, conflicts_with = "file")]
    pub(crate) expr: bool,

    /// Look below what this function makes of the flake, the file or the expression
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) select: Option<String>,

    /// Print what this function makes of each derivation, a set, as `extraValue`
    #[arg(long, value_name = "FUNCTION")]
    pub(crate) apply: Option<String>,

    /// Look into all sets, whatever their `recurseForDerivations`
    #[arg(long)]
    pub(crate) force_recurse: bool,

    /// How many evaluator processes (the same as --eval-workers)
    #[arg(long, value_name = "N", conflicts_with = "eval_workers")]
    pub(crate) workers: Option<usize>,

    /// How much memory each evaluator process may take
    #[arg(long, value_name = "MEGABYTES")]
    pub(crate) max_memory_size: Option<u64>,

    /// Keep derivations from the garbage collector by links in this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) gc_roots_dir: Option<PathBuf>,

    /// Print of each derivation whether it is in the store or a substituter, and what has to be built for it
    #[arg(long)]
    pub(crate) check_cache_status: bool,

    /// Print the derivations that each needs
    #[arg(long)]
    pub(crate) show_input_drvs: bool,

    /// Print the `meta` of derivations
    #[arg(long)]
    pub(crate) meta: bool,

    /// Print what Hydra's aggregates need, and make those that name jobs need them
    #[arg(long)]
    pub(crate) constituents: bool,

    /// Write no derivations to the store (slow, for each attribute gets a process of its own)
    #[arg(long, conflicts_with_all = ["show_input_drvs", "check_cache_status", "constituents"])]
    pub(crate) no_instantiate: bool,

    /// Read this lock file instead of the flake's own
    #[arg(long, value_name = "FILE")]
    pub(crate) reference_lock_file: Option<PathBuf>,

    /// Give functions that are met an argument, an expression
    #[arg(long, num_args = 2, allow_hyphen_values = true, value_names = ["NAME", "EXPR"], action = clap::ArgAction::Append)]
    pub(crate) arg: Vec<String>,

    /// Give functions that are met an argument, a text
    #[arg(long, num_args = 2, allow_hyphen_values = true, value_names = ["NAME", "TEXT"], action = clap::ArgAction::Append)]
    pub(crate) argstr: Vec<String>,

    /// Give functions that are met an argument, the text of a file
    #[arg(long, num_args = 2, allow_hyphen_values = true, value_names = ["NAME", "FILE"], action = clap::ArgAction::Append)]
    pub(crate) arg_from_file: Vec<String>,

    /// Look for `<…>` here: PATH or NAME=PATH, before what NIX_PATH says. --include means this as well with --flake,
    /// --expr or a file, and where its value is no pattern: NAME=PATH, /…, ./…, or a URL
    #[arg(short = 'I', value_name = "PATH", action = clap::ArgAction::Append)]
    pub(crate) search_path: Vec<String>,

    /// How Nix would log; nothing here depends on it
    #[arg(long, value_name = "FORMAT", hide = true)]
    pub(crate) log_format: Option<String>,

    /// Say everything
    #[arg(long, hide = true)]
    pub(crate) debug: bool,

    /// The arguments are nix-eval-jobs'
    #[arg(long, hide = true)]
    pub(crate) as_nix_eval_jobs: bool,
}
