//! Evaluators end with this process, however it ends: who is killed can stop nobody any more.
//!
//! A shell is told which process groups there are, through a pipe of which only this process has the other end. When the
//! pipe ends, it stops those that are left. No system has a way of its own for this that all have, and Linux' is tied to
//! the thread that started a process.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `+ GROUP` is there from now on, `- GROUP` is gone.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
groups=
while read -r what group; do
  others=
  for one in $groups; do [ "$one" = "$group" ] || others="$others $one"; done
  groups=$others
  [ "$what" = - ] || groups="$groups $group"
done
for one in $groups; do kill -9 "-$one"; done
"#;

/// The shell, once there is something to guard. Where none can be started, evaluators end when they next say something.
static SHELL: Mutex<Option<Child>> = Mutex::new(None);

/// From now on this process group is stopped when this process is gone.
pub(crate) fn guard(group: u32) {
    let mut shell = shell();
    if shell.is_none() {
        *shell = start().ok();
    }
    tell(&mut shell, '+', group);
}

/// This process group is no concern any more. To be said before its number can be another's.
pub(crate) fn let_go(group: u32) {
    tell(&mut shell(), '-', group);
}

fn shell() -> MutexGuard<'static, Option<Child>> {
    SHELL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> std::io::Result<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // What is sent to our group is not for it, and it holds no directory.
    command.process_group(0).current_dir("/").spawn()
}

fn tell(shell: &mut Option<Child>, what: char, group: u32) {
    if let Some(stdin) = shell.as_mut().and_then(|child| child.stdin.as_mut())
        && writeln!(stdin, "{what} {group}").is_err()
        && let Some(mut gone) = shell.take()
    {
        let _ = gone.wait();
    }
}
