//! Programs that run for what they do.

use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::mpsc;

use crate::{GateError, child};

/// How long a line may get before it is cut into several.
const LONGEST_LINE: usize = 64 << 10;

/// Runs a program to its end; `line` gets what it prints, without the ends of lines. Dropping the future ends it, with
/// all it started.
///
/// # Errors
///
/// When it cannot be started, or takes too long.
pub async fn run_program(
    mut command: Command,
    shown: &str,
    time_out: Duration,
    line: &mut (dyn FnMut(String) + Send),
) -> Result<ExitStatus, GateError> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = |source| GateError::Start { program: shown.to_owned(), source };
    let (mut process, group) = child::spawn(command.into()).map_err(start)?;
    let (tell, mut told) = mpsc::channel(64);
    let reading = [
        process.stdout.take().map(|pipe| tokio::spawn(lines_of(pipe, tell.clone()))),
        process.stderr.take().map(|pipe| tokio::spawn(lines_of(pipe, tell))),
    ];
    let hearing = async {
        while let Some(heard) = told.recv().await {
            line(heard);
        }
    };
    let ending = async {
        let status = process.wait().await;
        // What is left in the background may hold the pipes open.
        drop(group);
        status
    };
    let ended = tokio::time::timeout(time_out, async { tokio::join!(ending, hearing).0 }).await;
    for reader in reading.into_iter().flatten() {
        reader.abort();
    }
    match ended {
        Ok(status) => status.map_err(start),
        Err(_) => Err(GateError::TimeOut { gate: shown.to_owned(), after: time_out }),
    }
}

async fn lines_of(pipe: impl AsyncRead + Unpin, tell: mpsc::Sender<String>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        let (taken, is_end) = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(buffer) => {
                let end = buffer.iter().position(|&byte| byte == b'\n');
                line.extend_from_slice(&buffer[..end.unwrap_or(buffer.len())]);
                (end.map_or(buffer.len(), |end| end + 1), end.is_some())
            }
        };
        reader.consume(taken);
        if is_end || line.len() >= LONGEST_LINE {
            let whole = std::mem::take(&mut line);
            if tell.send(text(&whole)).await.is_err() {
                return;
            }
        }
    }
    if !line.is_empty() {
        let _ = tell.send(text(&line)).await;
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches('\r').to_owned()
}
