//! `.narinfo` files: what a binary cache says of a store path (nix `src/libstore/nar-info.cc`).

use phoenix_model::{StorePath, StorePathError};

/// The parts of a `.narinfo` that matter here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// The path it is about.
    pub store_path: StorePath,
    /// Bytes of what has to be fetched, where told.
    pub file_size: Option<u64>,
    /// SHA-256 of the NAR, in any of Nix's notations, as it stands.
    pub nar_hash: String,
    /// Bytes of the NAR.
    pub nar_size: u64,
    /// Base names of the paths it refers to.
    pub references: Vec<String>,
    /// Signatures, `NAME:BASE64`.
    pub signatures: Vec<String>,
}

/// Why a text is no `.narinfo`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoError {
    /// A line has no `: `.
    #[error("line {0} is not `Name: value`")]
    Line(usize),
    /// A field is missing.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A field comes twice.
    #[error("it has {0} twice")]
    Twice(&'static str),
    /// A number is none.
    #[error("its {0} is no number")]
    Number(&'static str),
    /// The path is none.
    #[error(transparent)]
    Path(#[from] StorePathError),
}

impl NarInfo {
    /// Reads the text of a `.narinfo`. Fields that do not matter here are passed over.
    ///
    /// # Errors
    /// When a line is malformed, or a field that every `.narinfo` has is missing, doubled or malformed.
    pub fn parse(text: &str) -> Result<Self, NarInfoError> {
        let (mut store_path, mut nar_hash, mut nar_size, mut file_size, mut references) =
            (None, None, None, None, None);
        let mut signatures = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.is_empty() {
                continue;
            }
            let (name, value) = line.split_once(':').ok_or(NarInfoError::Line(number))?;
            let value = value.trim();
            match name {
                "StorePath" => once(&mut store_path, "StorePath", value)?,
                "NarHash" => once(&mut nar_hash, "NarHash", value)?,
                "NarSize" => once(&mut nar_size, "NarSize", value)?,
                "FileSize" => once(&mut file_size, "FileSize", value)?,
                "References" => once(&mut references, "References", value)?,
                "Sig" => signatures.push(value.to_owned()),
                _ => {}
            }
        }
        let number = |name, value: &str| value.parse::<u64>().map_err(|_| NarInfoError::Number(name));
        Ok(Self {
            store_path: StorePath::parse(store_path.ok_or(NarInfoError::Missing("StorePath"))?)?,
            file_size: file_size.map(|size| number("FileSize", size)).transpose()?,
            nar_hash: nar_hash.ok_or(NarInfoError::Missing("NarHash"))?.to_owned(),
            nar_size: number("NarSize", nar_size.ok_or(NarInfoError::Missing("NarSize"))?)?,
            references: references
                .unwrap_or_default()
                .split_ascii_whitespace()
                .map(str::to_owned)
                .collect(),
            signatures,
        })
    }
}

fn once<'a>(field: &mut Option<&'a str>, name: &'static str, value: &'a str) -> Result<(), NarInfoError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(NarInfoError::Twice(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "StorePath: /nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a\nURL: nar/x.nar.zst\nCompression: zstd\nFileHash: sha256:1\nFileSize: 12\nNarHash: sha256:2\nNarSize: 34\nReferences: b c\nDeriver: d.drv\nSig: k:AA==\nSig: l:BB==\n";

    #[test]
    fn fields() {
        let info = NarInfo::parse(TEXT).unwrap();
        assert_eq!(info.store_path.name(), "a");
        assert_eq!((info.file_size, info.nar_size, info.nar_hash.as_str()), (Some(12), 34, "sha256:2"));
        assert_eq!(info.references, ["b", "c"]);
        assert_eq!(info.signatures, ["k:AA==", "l:BB=="]);
    }

    #[test]
    fn what_is_missing_doubled_or_malformed_is_named() {
        let without = |name: &str| {
            let lines = TEXT.lines().filter(|line| !line.starts_with(name));
            lines.map(|line| format!("{line}\n")).collect::<String>()
        };
        for name in ["StorePath", "NarHash", "NarSize"] {
            assert_eq!(NarInfo::parse(&without(name)).unwrap_err().to_string(), format!("it has no {name}"));
        }
        assert!(NarInfo::parse(&without("References")).unwrap().references.is_empty());
        assert_eq!(NarInfo::parse(&format!("{TEXT}NarSize: 1\n")).unwrap_err(), NarInfoError::Twice("NarSize"));
        assert_eq!(NarInfo::parse("<html>").unwrap_err(), NarInfoError::Line(1));
        assert_eq!(
            NarInfo::parse(&TEXT.replace("NarSize: 34", "NarSize: -1")).unwrap_err(),
            NarInfoError::Number("NarSize")
        );
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "(StorePath|NarHash|NarSize|Sig|References|[a-z])?(: ?|\n)[ -~\n]{0,80}") {
            let _ = NarInfo::parse(&text);
        }
    }
}
