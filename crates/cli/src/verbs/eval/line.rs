//! One line of output, in nix-eval-jobs' schema.

use std::collections::BTreeMap;

use phoenix_model::{Derivation, OutputKind, StorePath, Verdict, redact};
use phoenix_store::{Layout, read_derivations};
use serde::Serialize;
use serde_json::Value;

use crate::evaluating::FoundOne;

use super::cache_status::CacheStatus;

/// What is printed of a target; the names are nix-eval-jobs', but for `errorClass` and `fatal`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    attr: String,
    pub(super) attr_path: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Why nixpkgs refuses the package that the error is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_class: Option<&'static str>,
    /// Whether an evaluator crashed over it.
    #[serde(skip_serializing_if = "is_false")]
    fatal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drv_path: Option<StorePath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<BTreeMap<String, Option<StorePath>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_drvs: Option<BTreeMap<String, Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required_system_features: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extra_value: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    constituents: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    named_constituents: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    glob_constituents: Option<bool>,
    #[serde(flatten)]
    pub(super) cache: Option<CacheStatus>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Which of the fields are wanted that are not always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) input_drvs: bool,
    /// Whether derivations are in the store, so that their files can be read.
    pub(super) instantiated: bool,
}

impl Line {
    /// Whether an evaluator crashed over it.
    pub(super) fn is_fatal(&self) -> bool {
        self.fatal
    }

    /// What is to be said of a target, but for what only its derivation tells.
    pub(super) fn of(one: &FoundOne) -> Self {
        let FoundOne { target, verdict, unavailable, details, .. } = one;
        let error = match verdict {
            Some(Verdict::NotEvaluated { error } | Verdict::Skipped { reason: error }) => {
                Some(redact(error).into_owned())
            }
            _ => None,
        };
        Self {
            attr: target.attr(),
            attr_path: target.attr_path.names().to_vec(),
            fatal: error.as_deref().is_some_and(phoenix_evaluate::is_crash),
            error,
            error_class: unavailable.map(phoenix_evaluate::Unavailable::word),
            name: target.name.clone(),
            system: target.system.clone(),
            drv_path: target.drv_path.clone(),
            outputs: target.drv_path.is_some().then(|| target.outputs.clone()),
            input_drvs: None,
            required_system_features: None,
            meta: details.meta.clone(),
            extra_value: details.extra_value.clone(),
            glob_constituents: details.constituents.as_ref().map(|_| details.glob_constituents),
            constituents: details.constituents.clone(),
            named_constituents: details.named_constituents.clone(),
            cache: None,
        }
    }

    /// Adds what its derivations tell to lines, as far as these are in the store and can be read.
    pub(super) fn complete<'l>(lines: impl Iterator<Item = &'l mut Self>, layout: &Layout, fields: Fields) {
        if !fields.instantiated {
            return;
        }
        let with_path = lines.filter_map(|line| line.drv_path.clone().map(|drv_path| (line, drv_path)));
        let (lines, paths): (Vec<_>, Vec<StorePath>) = with_path.unzip();
        for (line, derivation) in lines.into_iter().zip(read_derivations(layout, &paths)) {
            let Ok(derivation) = derivation else { continue };
            line.system = Some(derivation.system.to_string());
            line.required_system_features = Some(features(&derivation));
            line.input_drvs = fields.input_drvs.then(|| inputs(&derivation));
        }
    }
}

/// The derivations that a derivation needs, each with its outputs.
fn inputs(derivation: &Derivation) -> BTreeMap<String, Vec<String>> {
    let outputs = |input: phoenix_model::InputDrv<'_>| {
        let mut names: Vec<String> = input.outputs().map(str::to_owned).collect();
        names.sort();
        (input.path.to_store_path().as_str().to_owned(), names)
    };
    derivation.input_drvs.iter().map(outputs).collect()
}

/// What a builder has to offer, as Nix counts it (nix `src/libstore/derivation-options.cc`).
fn features(derivation: &Derivation) -> Vec<String> {
    let mut features = derivation.required_features.clone();
    let is_known = |kind: OutputKind| matches!(kind, OutputKind::InputAddressed | OutputKind::Fixed);
    if !derivation.outputs.iter().all(|output| is_known(output.kind)) {
        features.push("ca-derivations".to_owned());
    }
    features.sort();
    features.dedup();
    features
}
