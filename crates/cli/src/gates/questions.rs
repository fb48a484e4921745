//! Asks many gates at once.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, unbounded};
use phoenix_gate::{
    Answer, Credentials, FindWork, GateError, IsKept, Limits, Proviso, Registries, Said, Work,
};
use phoenix_model::Severity;
use phoenix_store::Nix;
use serde_json::Value;

use crate::config::UnknownImages;
use crate::error::CommandError;
use crate::recorder::Recorder;
use crate::setup::var;

/// How much memory the engine of one script may take.
const MEMORY: usize = 256 << 20;

/// How many gates are asked at the same time: each waits for others most of the time.
const AT_ONCE: usize = 64;

/// How long a request to a registry may take.
const REGISTRY: Duration = Duration::from_secs(30);

/// How often it is looked whether to stop.
const TICK: Duration = Duration::from_millis(100);

/// What is asked.
pub(super) enum Question {
    /// Nothing: there is work.
    None,
    /// A script in JavaScript.
    FindWork {
        attr_path: String,
        body: String,
        unit: Value,
        time_out: Duration,
        nix: Nix,
        /// Derivations that are kept somewhere that Nix does not know of.
        kept: Vec<String>,
    },
    /// A script in bash, and the image that it is about.
    Proviso { file: PathBuf, action: String, time_out: Duration, nix: Nix, image: Option<ImageQuestion> },
    /// A registry.
    Image(ImageQuestion),
    /// Nobody can be asked: why.
    Wrong(String),
}

/// Whether an image is there.
pub(super) struct ImageQuestion {
    /// Its name.
    pub(super) name: String,
    /// How long that may take.
    pub(super) time_out: Duration,
    /// What it is when its registry does not say.
    pub(super) unknown: UnknownImages,
}

/// What a gate answered, or why it could not.
pub(super) type Answered = Result<Answer<Work>, String>;

/// What is heard of a question.
enum Heard {
    Said(usize, Said),
    Answered(usize, Answered),
}

/// The answers to questions, in their order; none for what was not answered because we are to stop.
pub(super) fn ask_all(
    questions: Vec<(String, Question)>,
    recorder: &mut Recorder,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<Option<Answered>>, CommandError> {
    let names: Vec<String> = questions.iter().map(|(name, _)| name.clone()).collect();
    let mut answers: Vec<Option<_>> = (0..questions.len()).map(|_| None).collect();
    let threads = questions.len().min(AT_ONCE);
    let numbered = questions.into_iter().map(|(_, question)| question).enumerate();
    let todo = Mutex::new(numbered.collect::<Vec<_>>().into_iter());
    let next = || todo.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        let (heard, hear) = unbounded::<Heard>();
        for _ in 0..threads {
            let (heard, next) = (heard.clone(), &next);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed)
                    && let Some((number, question)) = next()
                {
                    if let Some(answer) = answer(number, question, &heard, stop) {
                        let _ = heard.send(Heard::Answered(number, answer));
                    }
                }
            });
        }
        drop(heard);
        loop {
            match hear.recv_timeout(TICK) {
                Ok(Heard::Said(number, said)) => say(&names[number], &said, recorder),
                Ok(Heard::Answered(number, answer)) => answers[number] = Some(answer),
                Err(RecvTimeoutError::Timeout) => recorder.tick(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    Ok(answers)
}

/// Asks one; none when it was broken off.
fn answer(
    number: usize,
    question: Question,
    heard: &Sender<Heard>,
    stop: &Arc<AtomicBool>,
) -> Option<Answered> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Some(Err(format!("nothing can be asked: {error}"))),
    };
    let stopped = async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(TICK).await;
        }
    };
    let answer = runtime.block_on(async {
        tokio::select! {
            answer = asked(number, question, heard, stop) => Some(answer),
            () = stopped => None,
        }
    });
    // What was interrupted has its own words for that.
    answer.filter(|_| !stop.load(Ordering::Relaxed))
}

async fn asked(number: usize, question: Question, heard: &Sender<Heard>, stop: &Arc<AtomicBool>) -> Answered {
    let warn = |text: String| {
        let said = Said { level: "warning".to_owned(), text };
        drop(heard.send(Heard::Said(number, said)));
    };
    let work = |answer: Answer<()>| match answer {
        Answer::Work(()) => Answer::Work(Work::default()),
        Answer::None { reason } => Answer::None { reason },
    };
    match question {
        Question::None => Ok(Answer::Work(Work::default())),
        Question::FindWork { attr_path, body, unit, time_out, nix, kept } => {
            let find_work = FindWork {
                attr_path,
                body,
                unit,
                bin: None,
                nix_args: nix.option_args(),
                env: env(&nix),
                stop: Arc::clone(stop),
                is_kept: IsKept(Arc::new(move |drv_path| kept.iter().any(|kept| kept == drv_path))),
            };
            let heard = heard.clone();
            let say = Arc::new(move |said| drop(heard.send(Heard::Said(number, said))));
            let limits = Limits { time: time_out, memory: MEMORY };
            find_work.ask(limits, say).await.map_err(|error| error.to_string())
        }
        Question::Proviso { file, action, time_out, nix, image } => {
            let proviso = Proviso { file, action, env: env(&nix), time_out };
            let answer = proviso.ask().await.map_err(|error| error.to_string())?;
            match (answer, image) {
                (Answer::Work(()), Some(image)) => confirmed(&proviso.file, &image, &warn).await.map(work),
                (answer, _) => Ok(work(answer)),
            }
        }
        Question::Image(image) => {
            let answer = image.ask().await?;
            image.settle(answer, &warn).map(work)
        }
        Question::Wrong(error) => Err(error),
    }
}

/// What a proviso takes for work is no work because it could not see the image. Its registry is asked, too.
async fn confirmed(
    proviso: &Path,
    image: &ImageQuestion,
    warn: &impl Fn(String),
) -> Result<Answer<()>, String> {
    match image.ask().await? {
        // It is no image of a registry, and the proviso's own business.
        Err(GateError::ImageName { .. }) => Ok(Answer::Work(())),
        Ok(Answer::None { reason }) if is_of_std(proviso) => {
            Ok(Answer::None { reason: format!("{reason}, though its proviso does not see it") })
        }
        Ok(Answer::None { reason }) => {
            warn(format!("{reason}; it is published nevertheless, as its proviso says"));
            Ok(Answer::Work(()))
        }
        answer => image.settle(answer, warn),
    }
}

/// Whether a proviso is that of std's containers, which asks for nothing but whether `skopeo inspect` finds the image.
fn is_of_std(proviso: &Path) -> bool {
    let name = proviso.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with("containers-proviso.sh")
        && fs_err::read_to_string(proviso).is_ok_and(|text| text.contains("skopeo inspect"))
}

impl ImageQuestion {
    /// What the registry says, or why it does not.
    async fn ask(&self) -> Result<Result<Answer<()>, GateError>, String> {
        let registries = Registries::new(credentials()?, REGISTRY, self.time_out);
        Ok(registries.map_err(|error| error.to_string())?.ask(&self.name).await)
    }

    /// What follows from that.
    fn settle(
        &self,
        answer: Result<Answer<()>, GateError>,
        warn: &impl Fn(String),
    ) -> Result<Answer<()>, String> {
        let error = match answer {
            Err(error @ GateError::ImageUnknown { .. }) => error.to_string(),
            answer => return answer.map_err(|error| error.to_string()),
        };
        match self.unknown {
            UnknownImages::Red => {
                Err(format!("{error} (`unknown-images` of phoenix.toml may take that for work, or for none)"))
            }
            UnknownImages::Work => {
                warn(format!("{error}; it is taken for absent (`unknown-images` of phoenix.toml)"));
                Ok(Answer::Work(()))
            }
            UnknownImages::None => {
                let reason = format!("{error}; it is taken for there (`unknown-images` of phoenix.toml)");
                Ok(Answer::None { reason })
            }
        }
    }
}

/// The user's logins at registries: docker's, and podman's where docker has none.
fn credentials() -> Result<Credentials, String> {
    let in_home = |below: &str| var("HOME").map(|home| PathBuf::from(home).join(below));
    let docker = var("DOCKER_CONFIG").map(PathBuf::from).or_else(|| in_home(".docker"));
    let podman = var("REGISTRY_AUTH_FILE").map(PathBuf::from).or_else(|| {
        var("XDG_RUNTIME_DIR").map(|directory| PathBuf::from(directory).join("containers/auth.json"))
    });
    let docker = docker.map(|directory| directory.join("config.json"));
    let mut all = Credentials::default();
    for file in [docker, podman].into_iter().flatten() {
        match fs_err::read_to_string(&file) {
            Ok(text) => {
                let read = Credentials::parse(&text).map_err(|error| format!("{}: {error}", file.display()));
                all = all.or(read?);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(all)
}

fn env(nix: &Nix) -> Vec<(OsString, Option<OsString>)> {
    nix.env().to_vec()
}

/// Passes on what a script says.
fn say(name: &str, said: &Said, recorder: &mut Recorder) {
    let severity = match said.level.as_str() {
        "debug" | "output" => Severity::Detail,
        "endgroup" => return,
        "mask" => {
            // The runner, too, shows it nowhere from here on.
            if var("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
                eprint!("{}", phoenix_github::mask(&said.text));
            }
            return;
        }
        // A script that failed says so by what it returns; this is only talk.
        "warning" | "error" => Severity::Warning,
        _ => Severity::Notice,
    };
    recorder.say(severity, format!("{name}: {}", said.text));
}
