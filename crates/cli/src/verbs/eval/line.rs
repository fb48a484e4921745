//! One line of output, in nix-eval-jobs' schema.

use std::collections::BTreeMap;

use phoenix_evaluate::Detailed;
use phoenix_model::{Derivation, OutputKind, StorePath, Target, Verdict, redact};
use serde::Serialize;
use serde_json::Value;

use crate::evaluating::FoundOne;
use crate::setup::Setup;

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

    /// What is to be said of a target.
    pub(super) fn of(setup: &Setup, one: &FoundOne, fields: Fields) -> Self {
        let FoundOne { target, verdict, unavailable, details, .. } = one;
        let error = match verdict {
            Some(Verdict::NotEvaluated { error } | Verdict::Skipped { reason: error }) => {
                Some(redact(error).into_owned())
            }
            _ => None,
        };
        let derivation = fields.instantiated.then(|| read(setup, target)).flatten();
        Self {
            attr: target.attr(),
            attr_path: target.attr_path.names().to_vec(),
            fatal: error.as_deref().is_some_and(phoenix_evaluate::is_crash),
            error,
            error_class: unavailable.map(phoenix_evaluate::Unavailable::word),
            cache: None,
            ..Self::described(target, derivation.as_ref(), details, fields)
        }
    }

    fn described(
        target: &Target,
        derivation: Option<&Derivation>,
        details: &Detailed,
        fields: Fields,
    ) -> Self {
        let has_drv = target.drv_path.is_some();
        let inputs = derivation.filter(|_| fields.input_drvs).map(|derivation| {
            let outputs = |input: phoenix_model::InputDrv<'_>| {
                let mut names: Vec<String> = input.outputs().map(str::to_owned).collect();
                names.sort();
                (input.path.to_store_path().as_str().to_owned(), names)
            };
            derivation.input_drvs.iter().map(outputs).collect()
        });
        Self {
            attr: String::new(),
            attr_path: Vec::new(),
            error: None,
            error_class: None,
            fatal: false,
            name: target.name.clone(),
            system: derivation
                .map(|derivation| derivation.system.to_string())
                .or_else(|| target.system.clone()),
            drv_path: target.drv_path.clone(),
            outputs: has_drv.then(|| target.outputs.clone()),
            input_drvs: inputs,
            required_system_features: derivation.map(features),
            meta: details.meta.clone(),
            extra_value: details.extra_value.clone(),
            glob_constituents: details.constituents.as_ref().map(|_| details.glob_constituents),
            constituents: details.constituents.clone(),
            named_constituents: details.named_constituents.clone(),
            cache: None,
        }
    }
}

fn read(setup: &Setup, target: &Target) -> Option<Derivation> {
    let drv_path = target.drv_path.as_ref()?;
    let read = phoenix_store::read_derivations(&setup.eval_layout, std::slice::from_ref(drv_path));
    read.into_iter().next()?.ok()
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
