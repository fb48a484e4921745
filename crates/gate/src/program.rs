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

/// What follows the beginning of a line that is too long. The rest is left out: a secret across the two would be hidden in
/// neither.
const CUT: &str = "… (the rest of this line is left out)";

async fn lines_of(pipe: impl AsyncRead + Unpin, tell: mpsc::Sender<String>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    let mut is_cut = false;
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
        let mut whole = None;
        if is_cut {
            line.clear();
        } else if line.len() > LONGEST_LINE {
            whole = Some(text(&line[..LONGEST_LINE]) + CUT);
            line.clear();
            is_cut = true;
        } else if is_end {
            whole = Some(text(&std::mem::take(&mut line)));
        }
        is_cut &= !is_end;
        if let Some(whole) = whole
            && tell.send(whole).await.is_err()
        {
            return;
        }
    }
    if !line.is_empty() {
        let _ = tell.send(text(&line)).await;
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches('\r').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_without_end_is_cut_and_the_next_one_is_whole() {
        let text = format!("first\n{}\r\nlast\n\nno end", "x".repeat(3 * LONGEST_LINE));
        let (tell, mut told) = mpsc::channel(100);
        lines_of(text.as_bytes(), tell).await;
        let mut lines = Vec::new();
        while let Some(line) = told.recv().await {
            lines.push(line);
        }
        assert_eq!(lines.len(), 5, "{}", lines.len());
        assert_eq!((&*lines[0], &*lines[2], &*lines[3], &*lines[4]), ("first", "last", "", "no end"));
        assert!(lines[1].len() < LONGEST_LINE + 100 && lines[1].ends_with(CUT));
    }
}
