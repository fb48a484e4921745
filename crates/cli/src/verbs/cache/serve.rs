//! `phoenix cache serve`: what a depot holds, to the Nix on this machine.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use phoenix_cache::serve::{ServeError, Server, Settings};

use super::{keys, say, threads, warn};
use crate::args::ServeArgs;
use crate::error::CommandError;
use crate::{depots, signals, talk};

/// How long requests that are being answered may take when the end is asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Serves until the process is told to end.
pub(super) fn serve(args: &ServeArgs) -> Result<ExitCode, CommandError> {
    without_huge_pages();
    let address = address(&args.listen)?;
    let sign = args.sign_key.as_deref().map(keys::secret).transpose()?;
    let trusted = keys::trusted(&args.trusted_key)?;
    // Nothing of the store is needed but its name.
    let store_dir = super::layout(args.store.as_deref())?.store_dir;
    let signals = signals::listen(&Arc::new(AtomicBool::new(false)))?;
    let settings = Settings {
        address,
        store_dir,
        sign,
        trusted,
        look_every: Duration::from_secs(args.look_every),
        threads: threads(&args.depot),
    };
    let depot = depots::open(args.depot.depot.as_deref())?;
    let server = Server::start(depot, settings, Box::new(|trouble| warn(&trouble))).map_err(|error| {
        let failed = CommandError::because("cannot serve", &error);
        match error {
            ServeError::NotLoopback(_) => {
                failed.hint("leave --listen out, or name 127.0.0.1:PORT or [::1]:PORT")
            }
            ServeError::Listen { .. } => failed.hint("is somebody else there? Port 0 is any that is free"),
            ServeError::Threads(_) => failed,
        }
    })?;
    let server_port = server.address().port();
    if let Some(file) = &args.port_file {
        write_port(file, server_port)?;
    }
    talk::stdout(&format!("http://{}\n", server.address()))?;
    if let Ok(signal) = signals.recv() {
        say(format!("{signal}: no more is served"));
    }
    server.stop(PATIENCE);
    if let Some(file) = &args.port_file {
        remove_port(file, server_port);
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the system give memory in small pages: with the huge ones that the allocator asks for, a server that runs
/// beside builds for hours would hold twice as much.
fn without_huge_pages() {
    // Where that cannot be had, it serves all the same.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// The address of `HOST:PORT`; `localhost` is 127.0.0.1, whatever others make of it.
fn address(text: &str) -> Result<SocketAddr, CommandError> {
    let numbers = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numbers.as_deref().unwrap_or(text).parse().map_err(|_| {
        CommandError::new(format!("`{text}` is no address to listen at"))
            .hint("one is 127.0.0.1:PORT or [::1]:PORT; port 0 is any that is free")
    })
}

/// Whoever waits for the file is not to find the port of one who has gone; that of another one stays.
fn remove_port(file: &Path, port: u16) {
    if fs_err::read_to_string(file).is_ok_and(|text| text.trim() == port.to_string()) {
        // A port that nobody listens at is found out soon enough.
        let _ = fs_err::remove_file(file);
    }
}

/// Whoever waits for the file finds all of it.
fn write_port(file: &Path, port: u16) -> Result<(), CommandError> {
    let failed = |error: std::io::Error| {
        CommandError::because(format!("cannot write {}", file.display()), &error)
            .hint("--port-file takes a file in a directory that is there and may be written")
    };
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Others may read it, too.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let draft = tempfile::Builder::new().permissions(mode).tempfile_in(directory).map_err(failed)?;
    fs_err::write(draft.path(), format!("{port}\n")).map_err(failed)?;
    draft.persist(file).map_err(|error| failed(error.error))?;
    Ok(())
}
