//! `.narinfo` files: what a binary cache says of a store path (nix `src/libstore/nar-info.cc`).

use std::fmt;

use phoenix_model::{StorePath, StorePathError};

use crate::PathInfo;

/// The most bytes of a `.narinfo` that are read. Most have a few hundred; one that refers to ten thousand
/// paths still has less.
pub const LARGEST_NARINFO: usize = 1 << 20;

/// A `.narinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NarInfo {
    /// What it says of the path itself.
    pub info: PathInfo,
    /// Where the compressed NAR is, relative to the cache.
    pub url: String,
    /// How it is compressed; Nix takes `bzip2` where this is not said.
    pub compression: Option<String>,
    /// Hash of what has to be fetched, where told.
    pub file_hash: Option<String>,
    /// Bytes of what has to be fetched, where told.
    pub file_size: Option<u64>,
    /// Base name of the derivation it was built from, where told.
    pub deriver: Option<String>,
}

/// Why a text is no `.narinfo`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NarInfoError {
    /// It is longer than [`LARGEST_NARINFO`].
    #[error("it is larger than 1 MiB")]
    Large,
    /// It does not end with a line's end: a part is missing.
    #[error("it breaks off")]
    BreaksOff,
    /// A line has no `: `, or a control character.
    #[error("line {0} is not `Name: value`")]
    Line(usize),
    /// A field is missing.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A field comes twice.
    #[error("it has {0} twice")]
    Twice(&'static str),
    /// A number is none, or is zero where it cannot be.
    #[error("its {0} is no number")]
    Number(&'static str),
    /// The path, or one it refers to, is none.
    #[error(transparent)]
    Path(#[from] StorePathError),
}

impl NarInfo {
    /// Reads the text of a `.narinfo`. Fields that are not known are passed over.
    ///
    /// Stricter than Nix where that costs nothing: a field that comes twice is refused.
    ///
    /// # Errors
    /// When the text is too long or breaks off, a line is malformed, or a field that every `.narinfo` has is
    /// missing, doubled or malformed.
    pub fn parse(text: &str) -> Result<Self, NarInfoError> {
        if text.len() > LARGEST_NARINFO {
            return Err(NarInfoError::Large);
        }
        let fields = Fields::read(text)?;
        let store_path = StorePath::parse(required(fields.store_path, "StorePath")?)?;
        let references: Vec<String> = words(fields.references).map(str::to_owned).collect();
        for reference in &references {
            StorePath::parse(&format!("{}/{reference}", store_path.store_dir()))?;
        }
        let nar_size = number(required(fields.nar_size, "NarSize")?, "NarSize")?;
        if nar_size == 0 {
            return Err(NarInfoError::Number("NarSize"));
        }
        let kept = |field: Option<&str>| field.filter(|value| !value.is_empty()).map(str::to_owned);
        Ok(Self {
            url: required(fields.url, "URL")?.to_owned(),
            compression: kept(fields.compression),
            file_hash: kept(fields.file_hash),
            file_size: fields.file_size.map(|size| number(size, "FileSize")).transpose()?,
            deriver: kept(fields.deriver).filter(|deriver| deriver != "unknown-deriver"),
            info: PathInfo {
                store_path,
                nar_hash: required(fields.nar_hash, "NarHash")?.to_owned(),
                nar_size,
                references,
                signatures: fields.signatures,
                content_address: kept(fields.content_address),
            },
        })
    }
}

/// As Nix writes it.
impl fmt::Display for NarInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let optional = |f: &mut fmt::Formatter<'_>, name: &str, value: &Option<String>| match value {
            Some(value) => writeln!(f, "{name}: {value}"),
            None => Ok(()),
        };
        writeln!(f, "StorePath: {}", self.info.store_path)?;
        writeln!(f, "URL: {}", self.url)?;
        optional(f, "Compression", &self.compression)?;
        optional(f, "FileHash", &self.file_hash)?;
        optional(f, "FileSize", &self.file_size.map(|size| size.to_string()))?;
        writeln!(f, "NarHash: {}", self.info.nar_hash)?;
        writeln!(f, "NarSize: {}", self.info.nar_size)?;
        writeln!(f, "References: {}", self.info.references.join(" "))?;
        optional(f, "Deriver", &self.deriver)?;
        for signature in &self.info.signatures {
            writeln!(f, "Sig: {signature}")?;
        }
        optional(f, "CA", &self.info.content_address)
    }
}

#[derive(Default)]
struct Fields<'a> {
    store_path: Option<&'a str>,
    url: Option<&'a str>,
    compression: Option<&'a str>,
    file_hash: Option<&'a str>,
    file_size: Option<&'a str>,
    nar_hash: Option<&'a str>,
    nar_size: Option<&'a str>,
    references: Option<&'a str>,
    deriver: Option<&'a str>,
    content_address: Option<&'a str>,
    signatures: Vec<String>,
}

impl<'a> Fields<'a> {
    fn read(text: &'a str) -> Result<Self, NarInfoError> {
        let mut fields = Self::default();
        let text = text.strip_suffix('\n').ok_or(NarInfoError::BreaksOff)?;
        for (number, line) in (1..).zip(text.split('\n')) {
            let (name, value) = line.split_once(':').ok_or(NarInfoError::Line(number))?;
            let value = if value.is_empty() { Some(value) } else { value.strip_prefix(' ') };
            let value =
                value.filter(|value| !value.contains(char::is_control)).ok_or(NarInfoError::Line(number))?;
            let (field, name) = match name {
                "StorePath" => (&mut fields.store_path, "StorePath"),
                "URL" => (&mut fields.url, "URL"),
                "Compression" => (&mut fields.compression, "Compression"),
                "FileHash" => (&mut fields.file_hash, "FileHash"),
                "FileSize" => (&mut fields.file_size, "FileSize"),
                "NarHash" => (&mut fields.nar_hash, "NarHash"),
                "NarSize" => (&mut fields.nar_size, "NarSize"),
                "References" => (&mut fields.references, "References"),
                "Deriver" => (&mut fields.deriver, "Deriver"),
                "CA" => (&mut fields.content_address, "CA"),
                "Sig" => {
                    fields.signatures.push(value.to_owned());
                    continue;
                }
                _ => continue,
            };
            if field.replace(value).is_some() {
                return Err(NarInfoError::Twice(name));
            }
        }
        Ok(fields)
    }
}

fn required<'a>(field: Option<&'a str>, name: &'static str) -> Result<&'a str, NarInfoError> {
    field.filter(|value| !value.is_empty()).ok_or(NarInfoError::Missing(name))
}

fn number(value: &str, name: &'static str) -> Result<u64, NarInfoError> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or(NarInfoError::Number(name))
}

fn words(field: Option<&str>) -> impl Iterator<Item = &str> {
    field.unwrap_or_default().split(' ').filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "StorePath: /nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a
URL: nar/x.nar.zst
Compression: zstd
FileHash: sha256:1
FileSize: 12
NarHash: sha256:2
NarSize: 34
References: kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-b kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-c
Deriver: d.drv
Sig: k:AA==
Sig: l:BB==
CA: fixed:sha256:3
";

    #[test]
    fn every_field_is_read() {
        let narinfo = NarInfo::parse(TEXT).unwrap();
        assert_eq!(narinfo.info.store_path.name(), "a");
        assert_eq!((narinfo.url.as_str(), narinfo.compression.as_deref()), ("nar/x.nar.zst", Some("zstd")));
        assert_eq!((narinfo.file_hash.as_deref(), narinfo.file_size), (Some("sha256:1"), Some(12)));
        assert_eq!((narinfo.info.nar_hash.as_str(), narinfo.info.nar_size), ("sha256:2", 34));
        assert_eq!(
            narinfo.info.references,
            ["kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-b", "kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-c"]
        );
        assert_eq!(narinfo.deriver.as_deref(), Some("d.drv"));
        assert_eq!(narinfo.info.signatures, ["k:AA==", "l:BB=="]);
        assert_eq!(narinfo.info.content_address.as_deref(), Some("fixed:sha256:3"));
        assert_eq!(narinfo.to_string(), TEXT);
    }

    #[test]
    fn what_is_missing_doubled_or_malformed_is_named() {
        let without = |name: &str| {
            let lines = TEXT.lines().filter(|line| !line.starts_with(name));
            lines.map(|line| format!("{line}\n")).collect::<String>()
        };
        for name in ["StorePath", "URL", "NarHash", "NarSize"] {
            assert_eq!(NarInfo::parse(&without(name)).unwrap_err().to_string(), format!("it has no {name}"));
        }
        for name in ["Compression", "FileHash", "FileSize", "References", "Deriver", "Sig", "CA"] {
            assert!(NarInfo::parse(&without(name)).is_ok(), "{name}");
        }
        let with = |from: &str, to: &str| NarInfo::parse(&TEXT.replace(from, to)).unwrap_err();
        assert_eq!(
            NarInfo::parse(&format!("{TEXT}NarSize: 1\n")).unwrap_err(),
            NarInfoError::Twice("NarSize")
        );
        assert_eq!(NarInfo::parse("<html>\n").unwrap_err(), NarInfoError::Line(1));
        assert_eq!(with("URL: ", "URL:"), NarInfoError::Line(2));
        assert_eq!(with("zstd\n", "zstd\r\n"), NarInfoError::Line(3));
        for size in ["-1", "+1", "0", "1 ", "99999999999999999999"] {
            assert_eq!(
                with("NarSize: 34", &format!("NarSize: {size}")),
                NarInfoError::Number("NarSize"),
                "{size}"
            );
        }
        assert!(matches!(with("y8kv-b", "/../x"), NarInfoError::Path(_)));
        assert!(matches!(with("/nix/store/kh", "/nix/store/x"), NarInfoError::Path(_)));
    }

    #[test]
    fn a_torn_or_endless_text_is_refused() {
        for end in 0..TEXT.len() {
            if !TEXT[..end].ends_with('\n') {
                assert_eq!(NarInfo::parse(&TEXT[..end]).unwrap_err(), NarInfoError::BreaksOff, "{end}");
            }
        }
        let long = format!("{TEXT}X: {}\n", "x".repeat(LARGEST_NARINFO));
        assert_eq!(NarInfo::parse(&long).unwrap_err(), NarInfoError::Large);
    }

    fn base_name() -> impl Strategy<Value = String> {
        "[0-9abcdfghijklmnpqrsvwxyz]{32}-[a-zA-Z0-9+._?=-]{1,20}"
    }

    fn value() -> impl Strategy<Value = String> {
        "[!-~]([ -~]{0,20}[!-~])?"
    }

    prop_compose! {
        fn narinfo()(
            name in base_name(), url in value(), compression in prop::option::of(value()),
            file_hash in prop::option::of(value()), file_size in any::<Option<u64>>(), nar_hash in value(),
            nar_size in 1u64.., references in prop::collection::vec(base_name(), 0..4),
            deriver in prop::option::of(base_name()), signatures in prop::collection::vec(value(), 0..3),
            content_address in prop::option::of(value()),
        ) -> NarInfo {
            let store_path = StorePath::parse(&format!("/nix/store/{name}")).unwrap();
            let info = PathInfo { store_path, nar_hash, nar_size, references, signatures, content_address };
            NarInfo { info, url, compression, file_hash, file_size, deriver }
        }
    }

    proptest! {
        #[test]
        fn text_and_narinfo_are_one(narinfo in narinfo()) {
            prop_assert_eq!(NarInfo::parse(&narinfo.to_string()).unwrap(), narinfo);
        }

        #[test]
        fn no_text_is_too_strange(text in "((StorePath|URL|NarHash|NarSize|Sig|References|[a-z])?(: ?|\n)[ -~\n]{0,30}){0,8}") {
            let _ = NarInfo::parse(&text);
        }

        #[test]
        fn a_changed_byte_does_no_harm(at in 0..TEXT.len(), byte in any::<char>()) {
            let text: String = TEXT.chars().enumerate().map(|(n, old)| if n == at { byte } else { old }).collect();
            if let Ok(narinfo) = NarInfo::parse(&text) {
                let _ = narinfo.to_string();
            }
        }
    }
}
