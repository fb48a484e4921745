//! What is told of derivations besides name, system and outputs.

use serde::Deserialize;
use serde_json::Value;

use crate::Expression;
use crate::flake::one_line;

const DETAILS: &str = include_str!("nix/details.nix");

/// What is to be told.
#[derive(Debug, Clone, Default)]
pub struct Details {
    /// The `meta` of a derivation, as far as it is plain data.
    pub meta: bool,
    /// A function from a derivation to a set of what else is to be told.
    pub apply: Option<Expression>,
    /// The constituents of Hydra's aggregates.
    pub constituents: bool,
}

/// What was told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Detailed {
    /// The `meta`, null for a derivation without.
    #[serde(deserialize_with = "given")]
    pub meta: Option<Value>,
    /// What the function made of the derivation.
    pub extra_value: Option<Value>,
    /// The derivations that an aggregate needs.
    pub constituents: Option<Vec<String>>,
    /// The jobs that an aggregate needs, by name; none once they are among the constituents.
    pub named_constituents: Option<Vec<String>>,
    /// Whether those names are patterns.
    pub glob_constituents: bool,
}

/// Null is something that was told, too.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Details {
    /// A function of Nix from a derivation to what is to be told of it.
    pub(crate) fn function(&self) -> String {
        if !self.meta && !self.constituents && self.apply.is_none() {
            return "(_: { })".to_owned();
        }
        let apply = self.apply.as_ref().map_or("null", Expression::as_str);
        format!(
            "(({}) {{ meta = {}; apply = {apply}; constituents = {}; }})",
            one_line(DETAILS),
            self.meta,
            self.constituents
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_derivation_without_meta_has_null() {
        let read = |value: Value| serde_json::from_value::<Detailed>(value).unwrap();
        assert_eq!(read(json!({"meta": null})).meta, Some(Value::Null));
        assert_eq!(read(json!({})), Detailed::default());
    }

    #[test]
    fn nothing_is_asked_for_what_is_not_wanted() {
        assert_eq!(Details::default().function(), "(_: { })");
        let details = Details { meta: true, ..Details::default() };
        assert!(details.function().ends_with("{ meta = true; apply = null; constituents = false; })"));
    }
}
