//! What was answered before, so that it need not be asked again.
//!
//! A locked flake is a function of what the evaluator is given: its definitions, in which every source stands with its
//! hash, the version of Nix, and Nix's settings. All that together is the [`Fingerprint`]. Under it each question has one
//! answer for ever, and [`Answers`] holds those that were given: what is there, and errors that the flake itself
//! throws. Other errors (a download, a build, memory) may not come again, and are asked for anew.

use data_encoding::HEXLOWER;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use phoenix_model::{Severity, StorePath};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::FlakeConfig;
use crate::reply::Reply;

/// Changes with what answers or their questions mean.
const FORMAT: &str = "phoenix answers 5";

/// What an evaluation is a function of, as one hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint {
    digits: String,
    is_of_family: bool,
}

impl Fingerprint {
    /// The hash of everything an evaluation depends on.
    pub(crate) fn of<'t>(parts: impl IntoIterator<Item = &'t str>) -> Self {
        let mut hasher = Sha256::new();
        for part in std::iter::once(FORMAT).chain(parts) {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self { digits: HEXLOWER.encode(&hasher.finalize()), is_of_family: false }
    }

    /// As a name: 64 hexadecimal digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.digits
    }

    /// The same for what is known of many sources at once.
    pub(crate) fn of_family(self) -> Self {
        Self { is_of_family: true, ..self }
    }

    /// Whether it stands for what is known of many sources, which is written less often than it is read.
    #[must_use]
    pub fn is_of_family(&self) -> bool {
        self.is_of_family
    }
}

/// Where answers are kept between runs. It can only make an evaluation faster: what it loses is evaluated.
pub trait KeepAnswers {
    /// What was kept last under a fingerprint, if that is still there.
    fn recall(&self, fingerprint: &Fingerprint) -> Option<Vec<u8>>;

    /// Keeps something under a fingerprint, in place of what was there. It is of use where these paths are in the
    /// store.
    fn keep(&self, fingerprint: &Fingerprint, bytes: &[u8], needs: &BTreeSet<StorePath>);

    /// Those of these paths that are in the store, once it was tried to bring back what is not. They are protected from the
    /// garbage collector from then on.
    fn present(&self, paths: &BTreeSet<StorePath>) -> HashSet<StorePath>;
}

/// The answers to the questions of one flake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// The settings that the flake asks for, once that is known.
    config: Option<BTreeMap<String, String>>,
    by_question: HashMap<String, Known>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// The JSON, or the error.
    pub(crate) answer: Result<String, String>,
    /// What was said before it.
    pub(crate) said: Vec<(Severity, String)>,
    /// What has to be in the store for it to be of use.
    needs: Vec<StorePath>,
}

impl Known {
    /// An answer that may be kept; nothing if it cannot be told what it needs.
    pub(crate) fn new(answer: Result<String, String>, said: Vec<(Severity, String)>) -> Option<Self> {
        let needs = match &answer {
            Ok(json) => needs(json)?,
            Err(_) => Vec::new(),
        };
        Some(Self { answer, said, needs })
    }

    /// Whether what is there is a derivation.
    pub(crate) fn is_derivation(&self) -> bool {
        self.answer.as_ref().is_ok_and(|json| matches!(Reply::parse(json), Ok(Reply::Derivation { .. })))
    }
}

impl Answers {
    /// Reads what [`Answers::to_bytes`] wrote; nothing if it is damaged in any way.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        unsealed(bytes)
    }

    /// Writes them, with a hash of all before them.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        sealed(self)
    }

    pub(crate) fn config(&self) -> Option<FlakeConfig> {
        self.config.clone().map(FlakeConfig)
    }

    pub(crate) fn set_config(&mut self, config: &FlakeConfig) {
        self.config = Some(config.0.clone());
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_question.len()
    }

    pub(crate) fn get(&self, question: &str) -> Option<&Known> {
        self.by_question.get(question)
    }

    pub(crate) fn insert(&mut self, question: String, known: Known) {
        self.by_question.insert(question, known);
    }

    /// Everything that they need in the store.
    pub(crate) fn needs(&self) -> BTreeSet<StorePath> {
        self.by_question.values().flat_map(|known| known.needs.iter().cloned()).collect()
    }

    /// Lets go of those that need something else than this; how many.
    pub(crate) fn retain_with(&mut self, present: &HashSet<StorePath>) -> usize {
        let before = self.by_question.len();
        self.by_question.retain(|_, known| known.needs.iter().all(|path| present.contains(path)));
        before - self.by_question.len()
    }
}

/// As bytes, with a hash of all before them.
pub(crate) fn sealed(value: &impl Serialize) -> Option<Vec<u8>> {
    let body = postcard::to_allocvec(value).ok()?;
    let mut bytes = Sha256::digest(&body).to_vec();
    bytes.extend(body);
    Some(bytes)
}

/// What [`sealed`] wrote; nothing if it is damaged in any way.
pub(crate) fn unsealed<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (hash, body) = bytes.split_first_chunk::<32>()?;
    let whole = Sha256::digest(body).as_slice() == hash;
    if whole { postcard::from_bytes(body).ok() } else { None }
}

/// What an answer needs in the store: a derivation its `.drv`, everything else what its text comes from, as
/// `nix/inspect.nix` tells it.
fn needs(json: &str) -> Option<Vec<StorePath>> {
    let answer: Value = serde_json::from_str(json).ok()?;
    let path = |value: &Value| StorePath::parse(value.as_str()?).ok();
    match answer.get("kind")?.as_str()? {
        "derivation" => Some(vec![path(answer.get("drvPath")?)?]),
        "set" | "other" | "missing" | "name" | "stdActions" => Some(Vec::new()),
        _ => answer.get("context")?.as_array()?.iter().map(path).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DRV: &str = "/nix/store/00000000000000000000000000000000-a.drv";

    fn known(json: &str) -> Option<Known> {
        Known::new(Ok(json.to_owned()), Vec::new())
    }

    #[test]
    fn a_fingerprint_knows_where_a_part_ends() {
        assert_ne!(Fingerprint::of(["ab", "c"]), Fingerprint::of(["a", "bc"]));
        assert_ne!(Fingerprint::of(["a"]), Fingerprint::of(["a", ""]));
        assert_eq!(Fingerprint::of(["a"]).as_str().len(), 64);
    }

    #[test]
    fn what_is_not_in_the_store_any_more_is_asked_for_again() {
        let mut answers = Answers::default();
        answers.insert("a".into(), known(&format!(r#"{{"kind":"derivation","drvPath":"{DRV}"}}"#)).unwrap());
        answers.insert("b".into(), known(r#"{"kind":"set","names":[]}"#).unwrap());
        answers.insert("c".into(), Known::new(Err("no".into()), Vec::new()).unwrap());
        let drv = StorePath::parse(DRV).unwrap();
        assert_eq!(answers.needs(), BTreeSet::from([drv.clone()]));
        assert_eq!(answers.clone().retain_with(&HashSet::from([drv])), 0);
        assert_eq!(answers.retain_with(&HashSet::new()), 1);
        assert!(answers.get("a").is_none() && answers.get("b").is_some() && answers.get("c").is_some());
    }

    #[test]
    fn an_answer_that_does_not_say_what_it_needs_is_not_kept() {
        for json in [
            "",
            "{}",
            r#"{"kind":"workUnit"}"#,
            r#"{"kind":"derivation","drvPath":"x"}"#,
            r#"{"kind":"program","context":["relative"]}"#,
        ] {
            assert_eq!(known(json), None, "{json}");
        }
        let of_program = known(&format!(r#"{{"kind":"program","context":["{DRV}"]}}"#)).unwrap();
        assert_eq!(of_program.needs.len(), 1);
    }

    proptest! {
        #[test]
        fn reading_is_the_inverse_of_writing_and_any_damage_is_seen(
            questions in proptest::collection::hash_map(".{0,20}", proptest::result::maybe_ok(".{0,40}", ".{0,40}"), 0..10),
            at in any::<proptest::sample::Index>(), bit in 0_u8..8,
        ) {
            let mut answers = Answers::default();
            for (question, answer) in questions {
                let said = vec![(Severity::Warning, "w".to_owned())];
                answers.insert(question, Known { answer, said, needs: Vec::new() });
            }
            let mut bytes = answers.to_bytes().unwrap();
            prop_assert_eq!(Answers::from_bytes(&bytes), Some(answers));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(Answers::from_bytes(&bytes), None);
            prop_assert_eq!(Answers::from_bytes(&bytes[..at.min(31)]), None);
        }
    }
}
