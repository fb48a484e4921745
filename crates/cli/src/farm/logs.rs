//! Logs, from the worker that has them to whoever reports: those of what failed one by one and whole, as the events are to
//! have them; in the end all that a worker has in one blob.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use phoenix_depot::{BlobName, Depot};
use phoenix_model::{Event, StorePath};
use phoenix_report::{Summary, TAIL_LINES};
use phoenix_schedule::farm::{FarmPlan, Record};
use serde::{Deserialize, Serialize};

use crate::blobs::{self, runtime};
use crate::recorder::Recorder;

/// Where logs lie in a depot.
pub(super) const LOGS: &str = "logs/";

/// The most logs that one worker keeps: a depot on GitHub has room for few entries.
pub(super) const MOST: usize = 20;

/// How much of a log is kept: its end.
const LONGEST: usize = 8 << 20;

/// How much of a log is kept among all: its end.
const LONGEST_OF_ALL: u64 = 4 << 20;

/// How much a worker keeps of all logs together.
const MOST_OF_ALL: u64 = 64 << 20;

/// How often a worker may be started again in its slot and have its logs kept all the same.
const TIMES: usize = 4;

/// How many blobs are asked for at once.
const AT_ONCE: usize = 8;

/// The level of zstd.
const LEVEL: i32 = 3;

fn name(reference: &str, drv_path: &StorePath) -> Option<BlobName> {
    let hash_part = drv_path.base_name().get(..32)?;
    BlobName::new(format!("{LOGS}{reference}/{hash_part}")).ok()
}

/// Keeps a log. That it cannot be kept costs its whole length: its end is told in any case.
pub(super) fn keep(depot: &Arc<dyn Depot>, reference: &str, drv_path: &StorePath, file: &str) -> Option<()> {
    let text = fs_err::read(file).ok()?;
    let cut = text.len().saturating_sub(LONGEST);
    let said = if cut > 0 { left_out(cut as u64) } else { String::new() };
    let bytes = zstd::encode_all(Read::chain(said.as_bytes(), &text[cut..]), LEVEL).ok()?;
    let name = name(reference, drv_path)?;
    runtime().ok()?.block_on(blobs::create(depot.as_ref(), &name, bytes)).ok().map(drop)
}

/// Reads a log; none where it is not kept.
fn read(depot: &Arc<dyn Depot>, reference: &str, drv_path: &StorePath) -> Option<String> {
    let name = name(reference, drv_path)?;
    let bytes = runtime().ok()?.block_on(async {
        let blob = depot.find(&name).await.ok()??;
        blobs::read(depot.as_ref(), &blob).await.ok()
    })?;
    let mut text = Vec::new();
    let decoder = zstd::Decoder::new(bytes.as_slice()).ok()?;
    Read::read_to_end(&mut Read::take(decoder, 2 * LONGEST as u64), &mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Tells the logs of what failed by these records: whole ones where they are kept, else their ends.
pub(super) fn tell(
    records: &[Record],
    plan: &FarmPlan,
    depot: &Arc<dyn Depot>,
    reference: &str,
    recorder: &mut Recorder,
) {
    let outcomes = records.iter().filter_map(|record| match record {
        Record::Outcome(outcome) => Some(outcome),
        _ => None,
    });
    for (outcome, failure) in
        outcomes.flat_map(|outcome| outcome.failed.iter().map(move |failed| (outcome, failed)))
    {
        let Some(derivation) = plan.derivations().get(failure.derivation as usize) else { continue };
        let drv_path = &derivation.drv_path;
        let is_told = recorder.summary().of_derivation(drv_path).is_some_and(|state| state.verdict.is_some());
        if is_told || failure.log.is_empty() {
            continue;
        }
        let whole = read(depot, reference, drv_path);
        recorder.keep_logs(whole.is_some());
        let lines: Vec<String> = match whole {
            Some(whole) => whole.lines().map(str::to_owned).collect(),
            None => {
                let words = format!("(the last lines; the whole log is with runner {})", outcome.slot.0);
                // With these words they are as many as a summary keeps.
                let skip = failure.log.len().saturating_sub(TAIL_LINES - 1);
                std::iter::once(words).chain(failure.log.iter().skip(skip).cloned()).collect()
            }
        };
        for line in lines {
            recorder.record(Event::LogLine { drv_path: drv_path.clone(), line });
        }
        recorder.keep_logs(false);
    }
}

/// What comes before a log among all.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    /// The name of its file.
    name: String,
    /// How many bytes follow.
    bytes: u64,
    /// How many came before these and are left out.
    cut: u64,
}

/// Keeps all logs that a worker has, in one blob. That they cannot be kept costs nothing else.
pub(crate) fn keep_all(depot: &Arc<dyn Depot>, reference: &str, slot: u32, summary: &Summary) {
    let of_builds = summary.derivations.iter().filter_map(|state| state.log.as_ref());
    let files: Vec<&String> =
        of_builds.chain(summary.actions.values().filter_map(|state| state.log.as_ref())).collect();
    if files.is_empty() {
        return;
    }
    let Ok(bytes) = packed(files.into_iter().map(Path::new), LONGEST_OF_ALL, MOST_OF_ALL) else { return };
    let Ok(runtime) = runtime() else { return };
    for time in 0..TIMES {
        let Some(name) = name_of_all(reference, slot, time) else { return };
        match runtime.block_on(blobs::create(depot.as_ref(), &name, bytes.clone())) {
            Ok(phoenix_depot::Created::Taken) => {}
            _ => return,
        }
    }
}

/// The line that stands for the beginning of a log.
fn left_out(bytes: u64) -> String {
    format!("({bytes} bytes before this are left out)\n")
}

fn name_of_all(reference: &str, slot: u32, time: usize) -> Option<BlobName> {
    BlobName::new(format!("{LOGS}{reference}/all-{slot}-{time}")).ok()
}

fn packed<'f>(files: impl Iterator<Item = &'f Path>, longest: u64, most: u64) -> io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
    let mut room = most;
    for path in files {
        let (Some(name), Ok(text)) = (path.file_name().and_then(|name| name.to_str()), fs_err::read(path))
        else {
            continue;
        };
        let size = text.len() as u64;
        let bytes = size.min(longest).min(room);
        room -= bytes;
        let head = Head { name: name.to_owned(), bytes, cut: size - bytes };
        serde_json::to_writer(&mut encoder, &head)?;
        encoder.write_all(b"\n")?;
        encoder.write_all(&text[text.len() - usize::try_from(bytes).unwrap_or(0)..])?;
    }
    encoder.finish()
}

/// Writes the logs of all workers into a directory, less those that are there.
pub(super) fn fetch_all(depot: &Arc<dyn Depot>, reference: &str, slots: usize, directory: &Path) {
    let names = (0..u32::try_from(slots).unwrap_or(u32::MAX)).map(|slot| async move {
        let mut found = Vec::new();
        for time in 0..TIMES {
            let Some(name) = name_of_all(reference, slot, time) else { break };
            let Ok(Some(blob)) = depot.find(&name).await else { break };
            found.extend(blobs::read(depot.as_ref(), &blob).await);
        }
        found
    });
    let Ok(runtime) = runtime() else { return };
    let all: Vec<Vec<Vec<u8>>> = runtime.block_on(stream::iter(names).buffered(AT_ONCE).collect());
    for bytes in all.iter().flatten() {
        // What came before something damaged is there.
        let _ = unpack(bytes, directory);
    }
}

fn unpack(bytes: &[u8], directory: &Path) -> io::Result<()> {
    let mut reader = io::BufReader::new(zstd::Decoder::new(bytes)?).take(MOST_OF_ALL * 2);
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let head: Head = serde_json::from_slice(&line)?;
        let mut text = Vec::new();
        if reader.by_ref().take(head.bytes).read_to_end(&mut text)? as u64 != head.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let character = |c: char| c.is_ascii_alphanumeric() || "._+=?-".contains(c);
        // It comes from another machine.
        let is_name = !head.name.starts_with('.') && head.name.chars().all(character);
        let file = directory.join(&head.name);
        if !is_name || file.exists() {
            continue;
        }
        let mut written = fs_err::File::create(file)?;
        if head.cut > 0 {
            written.write_all(left_out(head.cut).as_bytes())?;
        }
        written.write_all(&text)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_come_back_and_say_what_is_left_out() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut files = Vec::new();
        for (name, text) in
            [("a.log", "short"), ("b.log", "0123456789"), ("c.log", "no room"), ("d.log", "x")]
        {
            fs_err::write(from.path().join(name), text).unwrap();
            files.push(from.path().join(name));
        }
        fs_err::write(to.path().join("d.log"), "was here").unwrap();
        let bytes = packed(files.iter().map(std::path::PathBuf::as_path), 8, 15).unwrap();
        unpack(&bytes, to.path()).unwrap();
        let read = |name: &str| fs_err::read_to_string(to.path().join(name)).unwrap();
        assert_eq!(read("a.log"), "short");
        assert_eq!(read("b.log"), "(2 bytes before this are left out)\n23456789");
        assert_eq!(read("c.log"), "(5 bytes before this are left out)\nom");
        assert_eq!(read("d.log"), "was here");
        // What is damaged, or leads elsewhere, leaves nothing.
        let _ = unpack(&bytes[..bytes.len() / 2], to.path());
        let evil = zstd::encode_all(&b"{\"name\":\"../evil\",\"bytes\":1,\"cut\":0}\nx"[..], LEVEL).unwrap();
        unpack(&evil, to.path()).unwrap();
        assert!(!to.path().parent().unwrap().join("evil").exists());
    }
}
