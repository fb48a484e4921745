//! The arguments of `cache serve` and `cache push`.

use std::path::PathBuf;

use clap::Args;

use super::{DepotArgs, StoreArgs};

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Where to listen: an address of this machine's loopback; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: String,

    /// Write the port to this file as soon as it can be asked
    #[arg(long, value_name = "FILE")]
    pub(crate) port_file: Option<PathBuf>,

    /// Sign all that is served with the key in this file, whoever saved it
    #[arg(long, value_name = "FILE")]
    pub(crate) sign_key: Option<PathBuf>,

    /// Serve only what this public key, or another one that is named, signed, and what is content-addressed; may
    /// be given several times
    #[arg(long, value_name = "KEY")]
    pub(crate) trusted_key: Vec<String>,

    /// Look for new packs at most every so many seconds, when something is asked for that is in none
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) look_every: u64,

    /// The store to serve paths for, which has to be on this machine; only its name counts
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,

    #[command(flatten)]
    pub(crate) depot: DepotArgs,
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["paths", "since", "all"])))]
pub(crate) struct PushArgs {
    /// Where to: the URL of any Nix store, cachix:CACHE, attic:CACHE or attic:SERVER:CACHE
    #[arg(long, value_name = "STORE-URL")]
    pub(crate) to: String,

    /// The paths; links to them, such as `result`, will do
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,

    /// All that is valid now and was not when `cache restore --snapshot FILE` was run
    #[arg(long, value_name = "FILE")]
    pub(crate) since: Option<PathBuf>,

    /// All that is valid
    #[arg(long)]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}
