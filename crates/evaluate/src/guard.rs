//! Evaluators end with this process, however it ends: who is killed can stop nobody any more.
//!
//! A shell is told which process groups there are, through a pipe of which only this process has the other end. When the
//! pipe ends, it stops those that are left. No system has a way of its own for this that all have, and Linux' is tied to
//! the thread that started a process.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

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

/// What is guarded.
static GUARDED: Mutex<Guarded> = Mutex::new(Guarded { groups: Vec::new(), shell: None });

struct Guarded {
    groups: Vec<u32>,
    /// There while there are groups. Where none can be started, evaluators end when they next say something.
    shell: Option<Child>,
}

/// From now on this process group is stopped when this process is gone.
pub(crate) fn guard(group: u32) {
    let mut guarded = GUARDED.lock().unwrap_or_else(PoisonError::into_inner);
    guarded.groups.push(group);
    guarded.tell('+', group);
}

/// This process group is no concern any more. To be said before its number can be another's.
pub(crate) fn let_go(group: u32) {
    let mut guarded = GUARDED.lock().unwrap_or_else(PoisonError::into_inner);
    guarded.groups.retain(|other| *other != group);
    if guarded.groups.is_empty() {
        guarded.end();
    } else {
        guarded.tell('-', group);
    }
}

impl Guarded {
    /// Tells the shell, and a new one all there is where there is none or it is gone.
    fn tell(&mut self, what: char, group: u32) {
        if self.shell.as_mut().is_some_and(|shell| say(shell, what, group)) {
            return;
        }
        self.end();
        if let Ok(mut shell) = start()
            && self.groups.iter().all(|group| say(&mut shell, '+', *group))
        {
            self.shell = Some(shell);
        }
    }

    fn end(&mut self) {
        if let Some(mut shell) = self.shell.take() {
            // Before it reads the end of the pipe. It may be gone.
            let _ = shell.kill();
            let _ = shell.wait();
        }
    }
}

fn start() -> io::Result<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // What is sent to our group is not for it, and it holds no directory.
    command.process_group(0).current_dir("/").spawn()
}

/// Whether it could be told. A line goes at once, for there may be nobody to end it.
fn say(shell: &mut Child, what: char, group: u32) -> bool {
    let line = format!("{what} {group}\n");
    shell.stdin.as_mut().is_some_and(|stdin| stdin.write_all(line.as_bytes()).is_ok())
}
