//! Derivations, read from the text of their `.drv` files.
//!
//! The format is Nix's ATerm subset, `Derive([outputs],[inputDrvs],[inputSrcs],"system","builder",[args],[env])`
//! (nix `src/libstore/derivations.cc`), identical in all versions since 1.0. Newer Nix also writes
//! `DrvWithVersion("xp-dyn-drv",…)` when an input is an output of a derivation that does not exist yet.
//!
//! Only what scheduling needs is kept; most bytes of a `.drv` are its environment and are passed over.

mod modulo;

use std::borrow::Cow;

use compact_str::CompactString;

use crate::input_drvs::Span;
use crate::store_path::check;
use crate::{InputDrvs, PathKey, StorePath, StorePathError};

pub use modulo::Modulo;

/// What a derivation says of itself, less its arguments and most of its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation {
    /// The outputs, in the order of the file (sorted by name).
    pub outputs: Vec<Output>,
    /// The derivations it needs, each with the names of the outputs it needs of them.
    pub input_drvs: InputDrvs,
    /// The store paths it needs that are no outputs: sources.
    pub input_srcs: Vec<StorePath>,
    /// The system it is built on, such as `x86_64-linux`, or `builtin`.
    pub system: CompactString,
    /// What a builder must offer: `requiredSystemFeatures`.
    pub required_features: Vec<String>,
    /// `preferLocalBuild`: not worth sending anywhere.
    pub prefer_local: bool,
    /// `allowSubstitutes`: false for what is cheaper to build than to fetch.
    pub allow_substitutes: bool,
    /// Whether an input is an output of a derivation that will only be known at build time.
    pub dynamic: bool,
}

/// One output of a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name: `out`, `dev`, …
    pub name: CompactString,
    /// Where it will be, where that is known before it is built.
    pub path: Option<StorePath>,
    /// How its path comes about.
    pub kind: OutputKind,
}

/// How the path of an output comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// From the derivation itself: the common case.
    InputAddressed,
    /// From a hash written in the derivation: downloads.
    Fixed,
    /// From its contents, once it is built (`__contentAddressed`).
    Floating,
    /// From the derivation, once the content-addressed inputs are built.
    Deferred,
    /// Never the same twice (`__impure`).
    Impure,
}

/// Why the text of a `.drv` file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DerivationError {
    /// The text breaks off or has something else where the format wants a certain byte.
    #[error("it is damaged at byte {at}: expected {wanted}")]
    Damaged {
        /// Offset in bytes.
        at: usize,
        /// What the format wants there.
        wanted: &'static str,
    },
    /// A path in it is no store path.
    #[error("it is damaged: {0}")]
    Path(#[from] StorePathError),
    /// A version of the format that is not known.
    #[error("it has the format `{0}`, which this version does not know")]
    Version(String),
}

impl Derivation {
    /// Reads the text of a `.drv` file.
    ///
    /// # Errors
    /// When the text is not a derivation, or breaks off.
    pub fn parse(text: &[u8]) -> Result<Self, DerivationError> {
        let mut reader = Reader { text, at: 0 };
        reader.header()?;
        let outputs = reader.list(Reader::output)?;
        reader.byte(b',')?;
        let (input_drvs, dynamic) = reader.input_drvs()?;
        reader.byte(b',')?;
        let input_srcs = reader.list(Reader::path)?;
        reader.byte(b',')?;
        let system = CompactString::from(reader.string()?);
        reader.byte(b',')?;
        reader.skip_string()?;
        reader.byte(b',')?;
        reader.each(Reader::skip_string)?;
        reader.byte(b',')?;
        let mut options = Options::default();
        reader.each(|reader| reader.env(&mut options))?;
        reader.byte(b')')?;
        if reader.at != text.len() {
            return Err(reader.damaged("the end"));
        }
        Ok(Self {
            outputs,
            input_drvs,
            input_srcs,
            system,
            required_features: options.required_features,
            prefer_local: options.prefer_local,
            allow_substitutes: !options.no_substitutes,
            dynamic,
        })
    }

    /// Whether the only output is fixed by a hash: a download.
    #[must_use]
    pub fn is_fixed_output(&self) -> bool {
        matches!(self.outputs.as_slice(), [output] if output.kind == OutputKind::Fixed)
    }
}

#[derive(Default)]
struct Options {
    required_features: Vec<String>,
    prefer_local: bool,
    no_substitutes: bool,
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

/// What the bytes between two quotes mean.
fn unescaped(raw: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(&other) => other,
                None => b'\\',
            },
            other => other,
        });
    }
    bytes
}

impl<'a> Reader<'a> {
    fn damaged(&self, wanted: &'static str) -> DerivationError {
        DerivationError::Damaged { at: self.at, wanted }
    }

    fn eat(&mut self, token: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn byte(&mut self, byte: u8) -> Result<(), DerivationError> {
        if self.text.get(self.at) == Some(&byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.damaged(match byte {
            b',' => "`,`",
            b'(' => "`(`",
            b')' => "`)`",
            b'[' => "`[`",
            b']' => "`]`",
            _ => "`\"`",
        }))
    }

    fn header(&mut self) -> Result<(), DerivationError> {
        if self.eat(b"Derive(") {
            return Ok(());
        }
        if !self.eat(b"DrvWithVersion(") {
            return Err(self.damaged("`Derive(`"));
        }
        let version = self.string()?.into_owned();
        self.byte(b',')?;
        if version == "xp-dyn-drv" { Ok(()) } else { Err(DerivationError::Version(version)) }
    }

    /// The bytes between two quotes, as they stand, and whether a backslash is among them.
    fn raw_string(&mut self) -> Result<(&'a [u8], bool), DerivationError> {
        self.byte(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            let rest = &self.text[self.at..];
            let Some(next) = memchr::memchr2(b'"', b'\\', rest) else {
                return Err(self.damaged("a closing `\"`"));
            };
            if rest[next] == b'"' {
                let raw = &self.text[start..self.at + next];
                self.at += next + 1;
                return Ok((raw, escaped));
            }
            escaped = true;
            self.at = (self.at + next + 2).min(self.text.len());
        }
    }

    fn skip_string(&mut self) -> Result<(), DerivationError> {
        self.raw_string().map(|_| ())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, DerivationError> {
        let (raw, escaped) = self.raw_string()?;
        if !escaped {
            return Ok(String::from_utf8_lossy(raw));
        }
        Ok(Cow::Owned(String::from_utf8_lossy(&unescaped(raw)).into_owned()))
    }

    fn path(&mut self) -> Result<StorePath, DerivationError> {
        Ok(StorePath::parse(&self.string()?)?)
    }

    fn each(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), DerivationError>,
    ) -> Result<(), DerivationError> {
        self.byte(b'[')?;
        if self.eat(b"]") {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.eat(b"]") {
                return Ok(());
            }
            self.byte(b',')?;
        }
    }

    fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, DerivationError>,
    ) -> Result<Vec<T>, DerivationError> {
        let mut items = Vec::new();
        self.each(|reader| {
            items.push(item(reader)?);
            Ok(())
        })?;
        Ok(items)
    }

    fn output(&mut self) -> Result<Output, DerivationError> {
        self.byte(b'(')?;
        let name = CompactString::from(self.string()?);
        self.byte(b',')?;
        let path = self.string()?;
        self.byte(b',')?;
        let algo = self.string()?;
        self.byte(b',')?;
        let hash = self.string()?;
        self.byte(b')')?;
        let kind = match (path.is_empty(), algo.is_empty(), &*hash) {
            (_, false, "impure") => OutputKind::Impure,
            (true, false, "") => OutputKind::Floating,
            (true, true, "") => OutputKind::Deferred,
            (false, true, "") => OutputKind::InputAddressed,
            _ => OutputKind::Fixed,
        };
        let path = if path.is_empty() { None } else { Some(StorePath::parse(&path)?) };
        Ok(Output { name, path, kind })
    }

    /// All inputs, and whether one of them will only be known at build time.
    fn input_drvs(&mut self) -> Result<(InputDrvs, bool), DerivationError> {
        let start = self.at;
        let (mut spans, mut dynamic) = (Vec::new(), false);
        self.each(|reader| {
            let (span, is_dynamic) = reader.input_drv(start)?;
            spans.push(span);
            dynamic |= is_dynamic;
            Ok(())
        })?;
        let text = &self.text[start..self.at];
        let text = std::str::from_utf8(text)
            .map_err(|error| DerivationError::Damaged { at: start + error.valid_up_to(), wanted: "UTF-8" })?;
        Ok((InputDrvs::from_spans(text, spans), dynamic))
    }

    /// One input, its offsets counted from `start`, and whether it will only be known at build time.
    fn input_drv(&mut self, start: usize) -> Result<(Span, bool), DerivationError> {
        self.byte(b'(')?;
        let path = self.offset(start)? + 1;
        let (raw, _) = self.raw_string()?;
        let base = check(raw).map_err(|reason| StorePathError::new(&String::from_utf8_lossy(raw), reason))?;
        let path_end = self.offset(start)? - 1;
        self.byte(b',')?;
        let with_dynamic = self.eat(b"(");
        let names = self.offset(start)? + 1;
        self.each(|reader| match reader.raw_string()? {
            (_, false) => Ok(()),
            (_, true) => Err(reader.damaged("a name of an output before it")),
        })?;
        let names_end = self.offset(start)? - 1;
        let mut dynamic = false;
        if with_dynamic {
            // (outputs, outputs of derivations that those outputs will hold)
            self.byte(b',')?;
            dynamic = self.skip_dynamic()?;
            self.byte(b')')?;
        }
        self.byte(b')')?;
        let key = PathKey::of(raw, base);
        Ok((Span { key, path, base: path + base, path_end, names, names_end }, dynamic))
    }

    fn offset(&self, start: usize) -> Result<u32, DerivationError> {
        u32::try_from(self.at - start).map_err(|_| self.damaged("an end below 4 GiB"))
    }

    /// Passes over `[("out",…)…]`, at any depth; whether there was anything in it.
    fn skip_dynamic(&mut self) -> Result<bool, DerivationError> {
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => self.skip_string()?,
                Some(b'[' | b'(') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b']' | b')') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                    if depth == 0 {
                        return Ok(self.at - start > 2);
                    }
                }
                Some(b',') if depth > 0 => self.at += 1,
                _ => return Err(self.damaged("a list of outputs")),
            }
        }
    }

    fn env(&mut self, options: &mut Options) -> Result<(), DerivationError> {
        self.byte(b'(')?;
        let (key, _) = self.raw_string()?;
        self.byte(b',')?;
        match key {
            b"requiredSystemFeatures" => {
                options.required_features =
                    self.string()?.split_ascii_whitespace().map(str::to_owned).collect();
            }
            b"preferLocalBuild" => options.prefer_local = self.string()? == "1",
            b"allowSubstitutes" => options.no_substitutes = self.string()?.is_empty(),
            b"__json" => {
                let json = self.string()?;
                structured(&json, options);
            }
            _ => self.skip_string()?,
        }
        self.byte(b')')
    }
}

/// Takes the options out of `__json`, the environment of a derivation with structured attributes.
///
/// Lenient, as Nix is: an attribute of another type counts as not set.
fn structured(json: &str, options: &mut Options) {
    let Ok(env) = serde_json::from_str::<serde_json::Value>(json) else { return };
    if let Some(features) = env["requiredSystemFeatures"].as_array() {
        options.required_features =
            features.iter().filter_map(|feature| feature.as_str().map(str::to_owned)).collect();
    }
    options.prefer_local = env["preferLocalBuild"].as_bool() == Some(true);
    options.no_substitutes = env["allowSubstitutes"].as_bool() == Some(false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a";
    const A_DRV: &str = "/nix/store/kh4g5sd1xfq5kiwd0yk7zrq7r5s9y8kv-a.drv";

    fn drv(outputs: &str, inputs: &str, env: &str) -> String {
        format!(
            r#"Derive([{outputs}],[{inputs}],["{A}"],"x86_64-linux","/bin/sh",["-c","echo \"hi\" > $out"],[{env}])"#
        )
    }

    fn inputs(drv: &Derivation) -> Vec<(&str, Vec<&str>)> {
        drv.input_drvs.iter().map(|input| (input.path.as_str(), input.outputs().collect())).collect()
    }

    #[test]
    fn inputs_are_told_as_they_stand() {
        let other = A_DRV.replace("-a.drv", "-b.drv");
        let text = drv("", &format!(r#"("{A_DRV}",[]),("{other}",["a,b","out"])"#), "");
        let drv = Derivation::parse(text.as_bytes()).unwrap();
        assert_eq!(inputs(&drv), [(A_DRV, vec![]), (other.as_str(), vec!["a,b", "out"])]);
        let input = drv.input_drvs.iter().next().unwrap();
        assert_eq!(input.path.to_store_path(), StorePath::parse(A_DRV).unwrap());
        assert_eq!(input.path.key(), StorePath::parse(A_DRV).unwrap().key());
    }

    #[test]
    fn an_input_that_is_no_path_or_no_name_is_damage() {
        for bad in [r#"("/nix/store/x",["out"])"#, r#"("",["out"])"#] {
            let error = Derivation::parse(drv("", bad, "").as_bytes()).unwrap_err();
            assert!(matches!(error, DerivationError::Path(_)), "{bad}: {error}");
        }
        let escaped = format!(r#"("{A_DRV}",["o\"ut"])"#);
        let error = Derivation::parse(drv("", &escaped, "").as_bytes()).unwrap_err();
        assert!(matches!(error, DerivationError::Damaged { .. }), "{error}");
    }

    #[test]
    fn reads_what_scheduling_needs() {
        let text = drv(
            &format!(r#"("dev","{A}","",""),("out","{A}","","")"#),
            &format!(r#"("{A_DRV}",["dev","out"])"#),
            r#"("PATH","a\\b\"c"),("preferLocalBuild","1"),("requiredSystemFeatures","kvm big-parallel")"#,
        );
        let drv = Derivation::parse(text.as_bytes()).unwrap();
        assert_eq!(drv.outputs.len(), 2);
        assert_eq!(drv.outputs[0].kind, OutputKind::InputAddressed);
        assert_eq!(inputs(&drv), [(A_DRV, vec!["dev", "out"])]);
        assert_eq!(drv.input_srcs[0].as_str(), A);
        assert_eq!(drv.system, "x86_64-linux");
        assert_eq!(drv.required_features, ["kvm", "big-parallel"]);
        assert!(drv.prefer_local);
        assert!(drv.allow_substitutes);
        assert!(!drv.dynamic);
    }

    #[test]
    fn kinds_of_outputs() {
        for (output, kind, path) in [
            (format!(r#"("out","{A}","","")"#), OutputKind::InputAddressed, true),
            (format!(r#"("out","{A}","r:sha256","00")"#), OutputKind::Fixed, true),
            (r#"("out","","r:sha256","")"#.to_owned(), OutputKind::Floating, false),
            (r#"("out","","","")"#.to_owned(), OutputKind::Deferred, false),
            (r#"("out","","r:sha256","impure")"#.to_owned(), OutputKind::Impure, false),
        ] {
            let drv = Derivation::parse(drv(&output, "", "").as_bytes()).unwrap();
            assert_eq!(drv.outputs[0].kind, kind);
            assert_eq!(drv.outputs[0].path.is_some(), path);
            assert_eq!(drv.is_fixed_output(), kind == OutputKind::Fixed);
        }
    }

    #[test]
    fn structured_attributes_hold_the_options_too() {
        let env = r#"("__json","{\"allowSubstitutes\":false,\"preferLocalBuild\":true,\"requiredSystemFeatures\":[\"kvm\"],\"x\":1}")"#;
        let drv = Derivation::parse(drv("", "", env).as_bytes()).unwrap();
        assert_eq!(drv.required_features, ["kvm"]);
        assert!(drv.prefer_local);
        assert!(!drv.allow_substitutes);
    }

    #[test]
    fn dynamic_inputs_are_seen_and_passed_over() {
        let text = drv("", &format!(r#"("{A_DRV}",(["out"],[("out",["x"])]))"#), "").replacen(
            "Derive(",
            r#"DrvWithVersion("xp-dyn-drv","#,
            1,
        );
        let read = Derivation::parse(text.as_bytes()).unwrap();
        assert!(read.dynamic);
        assert_eq!(inputs(&read), [(A_DRV, vec!["out"])]);
        let static_input = drv("", &format!(r#"("{A_DRV}",(["out"],[]))"#), "").replacen(
            "Derive(",
            r#"DrvWithVersion("xp-dyn-drv","#,
            1,
        );
        assert!(!Derivation::parse(static_input.as_bytes()).unwrap().dynamic);
    }

    #[test]
    fn an_unknown_version_is_named() {
        let text = drv("", "", "").replacen("Derive(", r#"DrvWithVersion("xp-new","#, 1);
        assert_eq!(Derivation::parse(text.as_bytes()), Err(DerivationError::Version("xp-new".into())));
    }

    #[test]
    fn every_cut_is_an_error() {
        let text = drv(
            &format!(r#"("out","{A}","","")"#),
            &format!(r#"("{A_DRV}",["out"])"#),
            r#"("a","b\\"),("__json","{}")"#,
        );
        for end in 0..text.len() {
            assert!(Derivation::parse(&text.as_bytes()[..end]).is_err(), "cut at {end}");
        }
        assert!(Derivation::parse(format!("{text} ").as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Derivation::parse(&bytes);
            let mut text = b"Derive([".to_vec();
            text.extend(&bytes);
            let _ = Derivation::parse(&text);
        }

        #[test]
        fn a_changed_byte_never_panics(at in 0_usize..300, to in any::<u8>()) {
            let mut text = drv(&format!(r#"("out","{A}","","")"#), &format!(r#"("{A_DRV}",["out"])"#), r#"("a","b")"#)
                .into_bytes();
            let at = at % text.len();
            text[at] = to;
            let _ = Derivation::parse(&text);
        }
    }
}
