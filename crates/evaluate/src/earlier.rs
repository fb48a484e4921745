//! Answers about earlier sources of a flake: taken in before it is evaluated, and learned while it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use phoenix_model::{Severity, StorePath};
use phoenix_store::Nix;
use serde_json::{Value, json};

use crate::across::{Across, Item, Recorded, Source, Standing};
use crate::answers::{Fingerprint, Known};
use crate::recording::{Recording, Shared, hold};
use crate::source::SourceTree;
use crate::{FlakeConfig, KeepAnswers, LockedFlake};

/// What the settings that a flake asks for are kept under.
const CONFIG: &str = "nixConfig";

/// How many paths Nix is asked about in one call; its arguments stay far below the kernel's limit.
const MOST_ASKED: usize = 2000;

/// How many changes are named.
const NAMED: usize = 3;

/// What is known of earlier sources, and what becomes known of this one.
#[derive(Debug)]
pub(crate) struct Earlier {
    family: Fingerprint,
    across: Across,
    tree: SourceTree,
    flake: LockedFlake,
    /// The file that the flake is in.
    file: Vec<u8>,
    recording: Option<Shared>,
    fresh: Vec<(String, u32, Known)>,
    /// What the flake said with answers that are not kept.
    said: Vec<(Severity, String)>,
    /// How many answers were given of which it is not known what they read.
    missed: usize,
}

impl Earlier {
    /// Recalls what is known of sources like this one. `parts` is all that an evaluation depends on besides the flake.
    ///
    /// # Errors
    /// Why nothing can be known of it.
    pub(crate) fn recall(
        flake: &LockedFlake,
        source: &Path,
        parts: &[&str],
        kept: &dyn KeepAnswers,
    ) -> Result<Self, String> {
        let tree = SourceTree::read(source).map_err(|error| error.to_string())?;
        let of_flake = flake.family();
        let all = ["family", &tree.shape].into_iter().chain(parts.iter().copied());
        let family = Fingerprint::of(all.chain(of_flake.iter().map(String::as_str))).of_family();
        let across = kept.recall(&family).and_then(|bytes| Across::from_bytes(&bytes)).unwrap_or_default();
        let file = tree.file(&flake.file()).ok_or("its flake.nix is not in its source")?;
        let (flake, recording, fresh) = (flake.clone(), None, Vec::new());
        Ok(Self { family, across, tree, flake, file, recording, fresh, said: Vec::new(), missed: 0 })
    }

    /// The answers that hold for this source too, the settings it asks for, and what there is to say of the others.
    pub(crate) fn hold(&self) -> (Vec<(String, Known)>, Option<FlakeConfig>, String) {
        let (mut hold, others) = self.across.hold_for(&self.source(&|item| self.content(item)));
        let config =
            hold.iter().position(|(question, _)| question == CONFIG).map(|at| hold.swap_remove(at).1);
        let known = hold.len();
        let words = match known + others.len() {
            0 => "nothing is known about another source that has the same files, links and inputs".to_owned(),
            _ => in_words(known, &others),
        };
        (hold, config.and_then(|known| read_config(&known)), words)
    }

    /// Begins to record what is read.
    ///
    /// # Errors
    /// Why that is not possible.
    pub(crate) fn record(&mut self, nix_cache: Option<&Path>) -> Result<(), String> {
        let recording = Recording::start(&self.tree, nix_cache).map_err(|error| error.to_string())?;
        self.recording = Some(Arc::new(Mutex::new(recording)));
        Ok(())
    }

    /// What evaluators are to be started for.
    pub(crate) fn recording(&self) -> Option<&Shared> {
        self.recording.as_ref()
    }

    /// Whether this source is to be gone through in the other direction than the last one, so that what was read by the way is
    /// told from what is needed.
    pub(crate) fn goes_backwards(&self) -> bool {
        self.across.readings() % 2 == 1
    }

    /// Takes in what was read by now.
    pub(crate) fn look(&mut self) {
        if let Some(recording) = &self.recording {
            hold(recording).look();
        }
    }

    /// How much was read by now; nothing where that is not known whole.
    pub(crate) fn read(&mut self) -> Option<u32> {
        let mut recording = hold(self.recording.as_ref()?);
        recording.look().filter(|_| recording.saw(&self.file))
    }

    /// Learns an answer that was given when so much had been read.
    pub(crate) fn answered(&mut self, question: String, known: Known, read: Option<u32>) {
        if let Some(read) = read {
            self.fresh.push((question, read, known));
        } else if self.recording.is_some() {
            self.said.extend(known.said);
            self.missed += 1;
        }
    }

    /// Learns what the flake said with an answer that is not kept.
    pub(crate) fn heard(&mut self, said: Vec<(Severity, String)>) {
        self.said.extend(said);
    }

    /// Learns which settings the flake asks for.
    pub(crate) fn asks_for(&mut self, config: &FlakeConfig) {
        let answer = json!({ "kind": "other", "config": config.0 }).to_string();
        if let Some(known) = Known::new(Ok(answer), Vec::new()) {
            let read = self.read();
            self.answered(CONFIG.to_owned(), known, read);
        }
    }

    /// Whether evaluation may have had something built from the source by its path: what such a build tells may be of any
    /// file, and is not read again where it is there. `built` is what was asked for to be built, where that is known.
    pub(crate) fn is_built_from(&self, nix: &Nix, built: Option<&[StorePath]>) -> bool {
        let Some(recording) = &self.recording else { return false };
        if self.fresh.is_empty() || built.is_some_and(<[_]>::is_empty) {
            return false;
        }
        let was_asked_for = hold(recording).was_told("outPath");
        let query = |what: &[&str], paths: &[&str]| {
            let mut command = nix.nix_store("--query");
            command.args(what).args(paths);
            let paths = nix.run(&mut command, "nix-store --query").ok()?;
            Some(paths.lines().map(str::to_owned).collect::<Vec<_>>())
        };
        let source = self.flake.source();
        let Some(dependents) = query(&["--referrers-closure"], &[source]) else { return true };
        let mut dependents = dependents.iter().filter(|path| *path != source);
        match built {
            Some(built) => dependents.any(|path| built.iter().any(|built| built.as_str() == path)),
            // Nobody has a reason to refer to it who has not asked for its path.
            None if !was_asked_for => dependents.next().is_some(),
            None => {
                let derivations: Vec<&str> =
                    dependents.map(String::as_str).filter(|path| path.ends_with(".drv")).collect();
                derivations.chunks(MOST_ASKED).any(|some| match query(&["--outputs"], some) {
                    Some(outputs) => outputs.iter().any(|output| Path::new(output).exists()),
                    None => true,
                })
            }
        }
    }

    /// What there is to say of answers that cannot be kept for other sources.
    pub(crate) fn missed(&self) -> Option<String> {
        let why = "for it was not told whole which files were opened";
        (self.missed > 0).then(|| format!("{} answers are not kept for other sources, {why}", self.missed))
    }

    /// Keeps what was learned, which is of use where these paths are in the store.
    pub(crate) fn keep(mut self, kept: &dyn KeepAnswers, needs: &BTreeSet<StorePath>) {
        let Some(recording) = self.recording.take() else { return };
        let (answers, said) = (std::mem::take(&mut self.fresh), std::mem::take(&mut self.said));
        let recorded = Recorded { items: hold(&recording).end(), answers, said };
        if recorded.answers.is_empty() {
            return;
        }
        let mut across = std::mem::take(&mut self.across);
        across.learn(&self.source(&|item| self.content(item)), recorded);
        if let Some(bytes) = across.to_bytes() {
            kept.keep(&self.family, &bytes, needs);
        }
    }

    fn source<'s>(&'s self, content: &'s dyn Fn(&Item) -> Option<crate::across::Content>) -> Source<'s> {
        Source { hash: self.flake.source_hash(), content }
    }

    fn content(&self, item: &Item) -> Option<crate::across::Content> {
        match item {
            Item::Told(name) => self.flake.told(name),
            Item::File(_) => self.tree.content(item),
        }
    }
}

fn read_config(known: &Known) -> Option<FlakeConfig> {
    let value: Value = serde_json::from_str(known.answer.as_ref().ok()?).ok()?;
    let config = value.get("config")?.as_object()?;
    let setting = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
    config.iter().map(setting).collect::<Option<BTreeMap<_, _>>>().map(FlakeConfig)
}

/// What holds, and why the others do not.
fn in_words(hold: usize, others: &[Standing]) -> String {
    let mut words = format!("{hold} answers about earlier sources hold for this one");
    let mut changes: BTreeMap<String, usize> = BTreeMap::new();
    let (mut unproven, mut of_whole) = (0, 0);
    for standing in others {
        match standing {
            Standing::Holds => {}
            Standing::Changed(item) => *changes.entry(item.shown()).or_default() += 1,
            Standing::Unproven => unproven += 1,
            Standing::OfWhole => of_whole += 1,
        }
    }
    let mut changes: Vec<(String, usize)> = changes.into_iter().collect();
    changes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let more: usize = changes.iter().skip(NAMED).map(|(_, count)| count).sum();
    let named = changes
        .into_iter()
        .take(NAMED)
        .map(|(item, count)| format!("{count} may have read {item}, which has changed"));
    let mut why: Vec<String> = named.collect();
    let rest = [
        (more, "may have read something else that has changed"),
        (
            unproven,
            "have come out the same only from sources whose paths all come before this one's, or all after it",
        ),
        (of_whole, "depend on the path of the source, in which everything has a part"),
    ];
    why.extend(rest.into_iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}")));
    if !why.is_empty() {
        words.push_str(&format!("; asked for again: {}", why.join(", ")));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_why_something_is_asked_for_again() {
        let changed = |path: &str| Standing::Changed(Item::File(path.as_bytes().to_vec()));
        let others = [
            Standing::Unproven,
            changed("a"),
            changed("b"),
            changed("b"),
            Standing::Changed(Item::Told("rev".into())),
            changed("z"),
            Standing::OfWhole,
        ];
        assert_eq!(
            in_words(3, &others),
            "3 answers about earlier sources hold for this one; asked for again: 2 may have read b, which has changed, \
             1 may have read a, which has changed, 1 may have read self.rev, which has changed, 1 may have read \
             something else that has changed, 1 have come out the same only from sources whose paths all come before \
             this one's, or all after it, 1 depend on the path of the source, in which everything has a part"
        );
    }

    #[test]
    fn settings_are_kept_like_answers() {
        let config = FlakeConfig(BTreeMap::from([("a".to_owned(), "b c".to_owned())]));
        let answer = json!({ "kind": "other", "config": config.0 }).to_string();
        assert_eq!(read_config(&Known::new(Ok(answer), Vec::new()).unwrap()), Some(config));
    }
}
