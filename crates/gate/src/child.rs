//! Programs in process groups of their own, ended with everything they started.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// How much of an output is kept: its end.
const KEPT: usize = 1 << 20;

/// What a program wrote, and how it ended.
pub(crate) struct Finished {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

/// Ends the group when it is dropped: at the end, on a time-out, and when nobody waits any more.
pub(crate) struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // That nothing is left to end is the usual case.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs a program to its end, and ends what it left behind. Dropping the future ends it, too.
pub(crate) async fn run(command: Command) -> std::io::Result<Finished> {
    let (child, group) = spawn(command)?;
    finish(child, group, &[]).await
}

/// The same for a program that reads this on its standard input.
pub(crate) async fn run_on(command: Command, input: &[u8]) -> std::io::Result<Finished> {
    let (child, group) = spawn_with(command, Stdio::piped())?;
    finish(child, group, input).await
}

async fn finish(mut child: Child, group: Group, input: &[u8]) -> std::io::Result<Finished> {
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read all of it says by its end what it makes of that.
        let _ = stdin.write_all(input).await;
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = async {
        let status = child.wait().await;
        // Something in the background may hold the pipes open; without this they would be read for ever.
        drop(group);
        status
    };
    let (stdout, stderr, status) = tokio::join!(end_of(stdout), end_of(stderr), ended);
    Ok(Finished { stdout: stdout?, stderr: stderr?, status: status? })
}

/// Gives a program variables besides those that we have; those without a value it does not get.
pub(crate) fn set_env(command: &mut Command, env: &[(OsString, Option<OsString>)]) {
    for (name, value) in env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
}

/// Starts a program in a group of its own.
pub(crate) fn spawn(command: Command) -> std::io::Result<(Child, Group)> {
    spawn_with(command, Stdio::null())
}

fn spawn_with(mut command: Command, stdin: Stdio) -> std::io::Result<(Child, Group)> {
    command.stdin(stdin).process_group(0).kill_on_drop(true);
    let child = command.spawn()?;
    let group = Group(group_of(&child));
    Ok((child, group))
}

fn group_of(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// Reads to the end and keeps the last of it, so that no program can fill the memory.
async fn end_of(pipe: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let Some(mut pipe) = pipe else { return Ok(String::new()) };
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    loop {
        let read = pipe.read(&mut buffer).await?;
        if read == 0 {
            return Ok(String::from_utf8_lossy(&kept).into_owned());
        }
        kept.extend_from_slice(&buffer[..read]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
}
