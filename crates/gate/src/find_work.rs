//! `findWork`: JavaScript that says what a target has to build and to run.
//!
//! A body runs in an engine of its own, with no access but what its four arguments give it.

mod host;
mod mouth;

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rquickjs::context::EvalOptions;
use rquickjs::prelude::Async;
use rquickjs::runtime::RejectionTracker;
use rquickjs::{AsyncContext, AsyncRuntime, CatchResultExt, CaughtError, Function, Promise, async_with};
use serde::Deserialize;
use serde_json::Value;

use crate::answer::shortened;
use crate::{Answer, GateError, Work};
use host::Host;
use mouth::Mouth;

const PRELUDE: &str = include_str!("find_work/prelude.js");
/// The script's name in stack traces.
const NAME: &str = "findWork";

/// A `findWork` and what it is asked about.
#[derive(Debug, Clone)]
pub struct FindWork {
    /// The attribute that has it, for messages.
    pub attr_path: String,
    /// The body of the function.
    pub body: String,
    /// `self`.
    pub unit: Value,
    /// The directory of `nix` and `nix-store`, if they are not on `PATH`.
    pub bin: Option<std::path::PathBuf>,
    /// What both are always told, `--store` for example.
    pub nix_args: Vec<String>,
    /// Variables that every program gets besides those that we have, and without a value those that none gets.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// Whether all outputs of a derivation are kept somewhere that Nix does not know of.
    pub is_kept: IsKept,
    /// Set when nobody waits for the answer any more: a body that computes sees nothing else.
    pub stop: Arc<AtomicBool>,
}

/// Whether all outputs of a derivation are kept somewhere.
#[derive(Clone)]
pub struct IsKept(pub Arc<dyn Fn(&str) -> bool + Send + Sync>);

impl Default for IsKept {
    fn default() -> Self {
        Self(Arc::new(|_| false))
    }
}

impl std::fmt::Debug for IsKept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("IsKept").finish_non_exhaustive()
    }
}

/// What one body may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long it may run, with all it starts.
    pub time: Duration,
    /// Bytes of memory of the engine.
    pub memory: usize,
}

/// A line that a script wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// `info`, `warning`, `group`, …: the function of `core` that it came by. `mask` has something that is to be shown
    /// nowhere.
    pub level: String,
    /// The text.
    pub text: String,
}

/// What the prelude returns.
#[derive(Deserialize)]
struct Returned {
    value: Value,
    failed: Option<String>,
    /// What Nix was asked for and did not do.
    unwell: Vec<String>,
}

impl FindWork {
    /// Asks. Dropping the future ends the script and the programs that it started.
    ///
    /// A body that computes holds up its thread: many are asked together on threads of their own.
    ///
    /// # Errors
    ///
    /// Where the script throws, says that it failed, takes too much, or returns something else than work.
    pub async fn ask(
        &self,
        limits: Limits,
        say: Arc<dyn Fn(Said) + Send + Sync>,
    ) -> Result<Answer<Work>, GateError> {
        let begun = Instant::now();
        let mouth = Arc::new(Mouth::new(say));
        let answer = self.asked(limits, begun, &mouth).await;
        answer.map_err(|error| error.with_message(|message| shortened(&mouth.masked(&message))))
    }

    async fn asked(
        &self,
        limits: Limits,
        begun: Instant,
        mouth: &Arc<Mouth>,
    ) -> Result<Answer<Work>, GateError> {
        let timed = tokio::time::timeout(limits.time, self.run(limits, begun, Arc::clone(mouth))).await;
        let time_out =
            || GateError::TimeOut { gate: format!("findWork of {}", self.attr_path), after: limits.time };
        match timed {
            Err(_) => Err(time_out()),
            // The interrupted script throws, but that is not what went wrong.
            Ok(Err(_)) if begun.elapsed() >= limits.time => Err(time_out()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(returned)) => self.answer(&returned),
        }
    }

    async fn run(&self, limits: Limits, begun: Instant, mouth: Arc<Mouth>) -> Result<String, GateError> {
        let engine = |error: rquickjs::Error| GateError::Engine {
            attr_path: self.attr_path.clone(),
            cause: error.to_string(),
        };
        let runtime = AsyncRuntime::new().map_err(engine)?;
        runtime.set_memory_limit(limits.memory).await;
        let stop = Arc::clone(&self.stop);
        let is_over = move || begun.elapsed() >= limits.time || stop.load(Ordering::Relaxed);
        runtime.set_interrupt_handler(Some(Box::new(is_over))).await;
        let context = AsyncContext::full(&runtime).await.map_err(engine)?;
        let rejections = Rejections::default();
        runtime.set_host_promise_rejection_tracker(Some(rejections.tracker())).await;
        // On one line with the beginning of the body, so that lines count as the author counts them.
        let script = format!("(async (self, core, nix, execUtils) => {{{}\n}})", self.body);
        let unit = self.unit.to_string();
        let host = Arc::new(Host {
            bin: self.bin.clone(),
            nix_args: self.nix_args.clone(),
            env: self.env.clone(),
            is_kept: self.is_kept.clone(),
        });
        let ran: Result<String, (String, bool)> = async_with!(context => |ctx| {
            let inside = ctx.clone();
            let run = async move {
                let mut options = EvalOptions::default();
                options.strict = false;
                options.filename = Some(NAME.to_owned());
                let body: Function = inside.eval_with_options(script, options)?;
                let prelude: Function = inside.eval(PRELUDE)?;
                let unit = inside.json_parse(unit)?;
                let env = inside.json_parse(host.variables())?;
                let files = Arc::clone(&host);
                let append = Function::new(inside.clone(), move |variable: String, text: String| {
                    files.append(&variable, &text)
                })?;
                let call = Function::new(inside.clone(), Async(move |name: String, args: String| {
                    let host = Arc::clone(&host);
                    async move { host.call(&name, &args).await }
                }))?;
                let say = Function::new(inside.clone(), move |level: String, text: String| mouth.say(level, &text))?;
                let node = inside.json_parse(node().to_string())?;
                let promise: Promise = prelude.call((body, unit, call, say, append, env, node))?;
                promise.into_future::<String>().await
            };
            run.await.catch(&ctx).map_err(|error| described(&error))
        })
        .await;
        let forgotten = rejections.first();
        let ran = match forgotten {
            Some(message) if ran.is_ok() => {
                Err((format!("{message}; it is what became of a promise that nobody waited for"), false))
            }
            _ => ran,
        };
        ran.map_err(|(message, memory)| {
            let attr_path = self.attr_path.clone();
            if memory {
                GateError::Memory { attr_path, limit: limits.memory }
            } else {
                GateError::Threw { attr_path, message }
            }
        })
    }

    fn answer(&self, returned: &str) -> Result<Answer<Work>, GateError> {
        let shape = |value: &str, cause: String| GateError::Shape {
            attr_path: self.attr_path.clone(),
            returned: value.chars().take(200).collect(),
            cause,
        };
        let Returned { value, failed, unwell } =
            serde_json::from_str(returned).map_err(|error| shape(returned, error.to_string()))?;
        if let Some(message) = failed {
            return Err(GateError::SaidFailed { attr_path: self.attr_path.clone(), message });
        }
        let text = value.to_string();
        let Some(keys) = value.as_object() else { return Err(shape(&text, "it is no object".to_owned())) };
        // One of another name alone is a slip; beside these nobody looks at it.
        if !keys.is_empty() && !keys.contains_key("build") && !keys.contains_key("run") {
            return Err(shape(&text, "it has neither `build` nor `run`".to_owned()));
        }
        let work: Work = serde_json::from_value(value).map_err(|error| shape(&text, error.to_string()))?;
        if work == Work::default() {
            // Who finds nothing after that may have looked for what was not built.
            if let Some(unwell) = unwell.first() {
                let message = format!("it found nothing to do, and {unwell}");
                return Err(GateError::SaidFailed { attr_path: self.attr_path.clone(), message });
            }
            return Ok(Answer::None { reason: "its findWork found nothing to build or run".to_owned() });
        }
        Ok(Answer::Work(work))
    }
}

/// What a script sees of the machine, as in Node.
fn node() -> Value {
    let platform = if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => other,
    };
    let cwd = std::env::current_dir().unwrap_or_default();
    serde_json::json!({ "cwd": cwd.to_string_lossy(), "platform": platform, "arch": arch })
}

/// Promises that were rejected and that nobody has waited for. In Node they end the process.
#[derive(Clone, Default)]
struct Rejections(Arc<Mutex<Vec<(u64, String)>>>);

impl Rejections {
    fn tracker(&self) -> RejectionTracker {
        let all = Arc::clone(&self.0);
        Box::new(move |_, promise, reason, is_handled| {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            // By its place in memory: what another one there was rejected with before is older.
            let mut hasher = DefaultHasher::new();
            promise.hash(&mut hasher);
            let id = hasher.finish();
            if is_handled {
                if let Some(at) = all.iter().rposition(|(known, _)| *known == id) {
                    all.remove(at);
                }
            } else {
                let error = match reason.clone().into_exception() {
                    Some(exception) => CaughtError::Exception(exception),
                    None => CaughtError::Value(reason),
                };
                all.push((id, described(&error).0));
            }
        })
    }

    /// What the first of them was rejected with.
    fn first(&self) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.first().map(|(_, message)| message.clone())
    }
}

/// What was thrown, in words, with its line; and whether it is for want of memory.
fn described(error: &CaughtError<'_>) -> (String, bool) {
    match error {
        CaughtError::Exception(thrown) => {
            let message = thrown.message().unwrap_or_default();
            let memory = message == "out of memory";
            match thrown.stack().as_deref().and_then(line) {
                Some(line) => (format!("{message} (line {line})"), memory),
                None => (message, memory),
            }
        }
        CaughtError::Value(value) if value.is_null() => ("out of memory".to_owned(), true),
        CaughtError::Value(value) => {
            let text = value.as_string().and_then(|text| text.to_string().ok());
            (text.unwrap_or_else(|| format!("{value:?}")), false)
        }
        CaughtError::Error(error) => (error.to_string(), matches!(error, rquickjs::Error::Allocation)),
    }
}

/// The innermost line of the script in a stack trace.
fn line(stack: &str) -> Option<u32> {
    let (_, after) = stack.split_once(&format!("{NAME}:"))?;
    after.split(|other: char| !other.is_ascii_digit()).next()?.parse().ok()
}
