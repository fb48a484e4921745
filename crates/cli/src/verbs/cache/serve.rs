//! `phoenix cache serve`: a depot as a substituter.

use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use indicatif::HumanBytes;
use phoenix_cache::{Serving, Sign, unpacked};
use phoenix_substituter::SecretKey;

use super::{layout, open, say, warn};
use crate::args::ServeArgs;
use crate::error::CommandError;
use crate::{signals, talk};

/// Runs the verb, until a signal ends it.
pub(super) fn serve(args: &ServeArgs) -> Result<ExitCode, CommandError> {
    if !args.listen.ip().is_loopback() {
        return Err(CommandError::new(format!(
            "{} is not an address of this machine alone",
            args.listen.ip()
        ))
        .hint("whoever reaches the server may read all of the depot: use 127.0.0.1 or [::1]"));
    }
    let store_dir = layout(&args.store)?.store_dir;
    let sign = args.sign_key.as_deref().map(|file| signer(file, &store_dir)).transpose()?;
    let cache = open(&args.depot)?;
    let cannot_listen = |error: std::io::Error| {
        CommandError::because(format!("cannot listen at {}", args.listen), &error)
            .hint("port 0 takes any that is free")
    };
    let listener = TcpListener::bind(args.listen).map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let stop = Arc::new(AtomicBool::new(false));
    let _signals = signals::listen(&stop)?;
    talk::stdout(&format!("http://{address}\n"))?;
    let serving = Serving { store_dir, priority: args.priority, sign };
    let served = cache
        .serve(listener, serving, &stop, Box::new(|trouble| warn(&trouble)))
        .map_err(|error| CommandError::because("cannot serve", &error))?;
    say(format!(
        "answered {} requests, {} archives of {} among them",
        served.requests,
        served.archives,
        HumanBytes(served.bytes)
    ));
    Ok(ExitCode::SUCCESS)
}

/// Signs with the key in a file.
fn signer(file: &Path, store_dir: &str) -> Result<Box<Sign>, CommandError> {
    let cannot = |error: &dyn std::error::Error| {
        CommandError::because(format!("cannot sign with {}", file.display()), error)
    };
    let text = fs_err::read_to_string(file).map_err(|error| cannot(&error))?;
    let key = SecretKey::parse(&text).map_err(|error| cannot(&error))?;
    let store_dir = store_dir.to_owned();
    Ok(Box::new(move |info| Some(key.sign(&unpacked(info, &store_dir).ok()?))))
}
