//! Whether the outputs of a derivation are where Nix has them.
//!
//! The path of an output follows from the derivation *modulo* downloads (nix `src/libstore/derivations.cc`,
//! `hashDerivationModulo`, `checkInvariants`; Dolstra 2006, 5.4.1): its text, without the paths of its outputs, and with the
//! hash of each input in place of its path. One that says otherwise would have something else built where another's output
//! belongs.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

use super::{DerivationError, Reader, unescaped};
use crate::StorePath;
use crate::content_path::path_of;

/// What a derivation comes to as an input of others, if its outputs are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modulo {
    /// What stands for it in those that need it: a SHA-256.
    pub hash: [u8; 32],
    /// Whether its outputs have the paths that follow from it, and its environment has them, too.
    pub is_right: bool,
}

/// An output as it stands in the text.
struct Out<'t> {
    name: &'t [u8],
    path: &'t [u8],
    algorithm: &'t [u8],
    hash: &'t [u8],
}

/// Where the parts of a text are that are another in what is hashed.
struct Parts<'t> {
    outs: Vec<Out<'t>>,
    inputs: Vec<(&'t [u8], Vec<&'t [u8]>)>,
    /// Of the lists with their brackets.
    outs_at: Range<usize>,
    inputs_at: Range<usize>,
    /// The values of the environment that are named as outputs, without quotes.
    values: Vec<(&'t [u8], Range<usize>)>,
}

impl Modulo {
    /// That of the derivation with this text and this name, without `.drv`. `input` tells that of a derivation that it
    /// needs.
    ///
    /// Nothing where it cannot be told: not all is known of the inputs, or the path of an output is not known before it is
    /// built.
    pub fn of(
        text: &[u8],
        name: &str,
        store_dir: &str,
        input: &mut dyn FnMut(&StorePath) -> Option<[u8; 32]>,
    ) -> Option<Self> {
        let parts = Parts::read(text).ok()?;
        let value = |name: &[u8]| {
            let (_, at) = parts.values.iter().find(|(known, _)| *known == name)?;
            text.get(at.clone())
        };
        if let [out] = parts.outs.as_slice()
            && !out.hash.is_empty()
        {
            let (kind, path) = fixed(out, name, store_dir)?;
            let is_right = out.path == path.as_bytes() && value(out.name) == Some(out.path);
            let hash = Sha256::digest(format!("{kind}{path}")).into();
            return Some(Self { hash, is_right });
        }
        let is_plain =
            |out: &Out<'_>| out.algorithm.is_empty() && out.hash.is_empty() && !out.path.is_empty();
        if parts.outs.is_empty() || !parts.outs.iter().all(is_plain) {
            return None;
        }
        let mut inputs: BTreeMap<String, BTreeSet<&[u8]>> = BTreeMap::new();
        for (path, names) in &parts.inputs {
            let path = StorePath::parse(std::str::from_utf8(path).ok()?).ok()?;
            inputs.entry(HEXLOWER.encode(&input(&path)?)).or_default().extend(names);
        }
        let hashed = |mask: bool| parts.hashed(text, &inputs, mask);
        let digest = HEXLOWER.encode(&hashed(true));
        let is_right = parts.outs.iter().all(|out| {
            let Ok(output) = std::str::from_utf8(out.name) else { return false };
            let own = if output == "out" { name.to_owned() } else { format!("{name}-{output}") };
            let path = path_of(&format!("output:{output}:sha256:{digest}"), store_dir, &own);
            out.path == path.as_bytes() && value(out.name) == Some(out.path)
        });
        Some(Self { hash: hashed(false), is_right })
    }
}

/// What a download is hashed as, up to its path, and that path (`makeFixedOutputPath`).
fn fixed(out: &Out<'_>, name: &str, store_dir: &str) -> Option<(String, String)> {
    let method = std::str::from_utf8(out.algorithm).ok()?;
    let hash = std::str::from_utf8(out.hash).ok()?;
    let digits = match method.strip_prefix("r:").unwrap_or(method) {
        "md5" => 32,
        "sha1" => 40,
        "sha256" => 64,
        "sha512" => 128,
        _ => return None,
    };
    let is_digit = |digit: u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit);
    if out.name != b"out" || hash.len() != digits || !hash.bytes().all(is_digit) {
        return None;
    }
    let kind = format!("fixed:out:{method}:{hash}:");
    let fingerprint = if method == "r:sha256" {
        format!("source:sha256:{hash}")
    } else {
        format!("output:out:sha256:{}", HEXLOWER.encode(&Sha256::digest(&kind)))
    };
    Some((kind, path_of(&fingerprint, store_dir, name)))
}

impl<'t> Parts<'t> {
    /// Reads a text as Nix writes it.
    fn read(text: &'t [u8]) -> Result<Self, DerivationError> {
        let mut reader = Reader { text, at: 0 };
        if !reader.eat(b"Derive(") {
            return Err(reader.damaged("`Derive(`"));
        }
        let outs_begin = reader.at;
        let outs = reader.list(|reader| {
            reader.byte(b'(')?;
            let name = plain(reader)?;
            let mut next = || {
                reader.byte(b',')?;
                plain(reader)
            };
            let (path, algorithm, hash) = (next()?, next()?, next()?);
            reader.byte(b')')?;
            Ok(Out { name, path, algorithm, hash })
        })?;
        ascending(&reader, outs.iter().map(|out| out.name))?;
        let outs_at = outs_begin..reader.at;
        reader.byte(b',')?;
        let inputs_begin = reader.at;
        let inputs = reader.list(|reader| {
            reader.byte(b'(')?;
            let path = plain(reader)?;
            reader.byte(b',')?;
            let names = reader.list(plain)?;
            reader.byte(b')')?;
            Ok((path, names))
        })?;
        ascending(&reader, inputs.iter().map(|(path, _)| *path))?;
        for (_, names) in &inputs {
            ascending(&reader, names.iter().copied())?;
        }
        let inputs_at = inputs_begin..reader.at;
        reader.byte(b',')?;
        let sources = reader.list(plain)?;
        ascending(&reader, sources.iter().copied())?;
        // System, builder, arguments.
        for _ in 0..2 {
            reader.byte(b',')?;
            written(&mut reader)?;
        }
        reader.byte(b',')?;
        reader.each(|reader| written(reader).map(drop))?;
        reader.byte(b',')?;
        let mut values = Vec::new();
        let mut last: Option<Cow<'_, [u8]>> = None;
        reader.each(|reader| {
            reader.byte(b'(')?;
            let (raw, is_escaped) = written(reader)?;
            let name = if is_escaped { Cow::Owned(unescaped(raw)) } else { Cow::Borrowed(raw) };
            if last.as_ref().is_some_and(|last| *last >= name) {
                return Err(reader.damaged(ORDER));
            }
            reader.byte(b',')?;
            let start = reader.at + 1;
            written(reader)?;
            if let Some(out) = outs.iter().find(|out| *out.name == *name) {
                values.push((out.name, start..reader.at - 1));
            }
            last = Some(name);
            reader.byte(b')')
        })?;
        reader.byte(b')')?;
        if reader.at != text.len() {
            return Err(reader.damaged("the end"));
        }
        Ok(Self { outs, inputs, outs_at, inputs_at, values })
    }

    /// The hash of the text with other inputs, and without the paths of the outputs if they are masked.
    fn hashed(&self, text: &[u8], inputs: &BTreeMap<String, BTreeSet<&[u8]>>, mask: bool) -> [u8; 32] {
        let mut hashed = Vec::with_capacity(text.len());
        hashed.extend_from_slice(&text[..self.outs_at.start]);
        if mask {
            hashed.push(b'[');
            for (number, out) in self.outs.iter().enumerate() {
                hashed.extend_from_slice(if number == 0 { b"(\"" } else { b",(\"" });
                hashed.extend_from_slice(out.name);
                hashed.extend_from_slice(b"\",\"\",\"\",\"\")");
            }
            hashed.push(b']');
        } else {
            hashed.extend_from_slice(&text[self.outs_at.clone()]);
        }
        hashed.extend_from_slice(b",[");
        for (number, (hash, names)) in inputs.iter().enumerate() {
            hashed.extend_from_slice(if number == 0 { b"(\"" } else { b",(\"" });
            hashed.extend_from_slice(hash.as_bytes());
            hashed.extend_from_slice(b"\",[");
            for (number, name) in names.iter().enumerate() {
                hashed.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
                hashed.extend_from_slice(name);
                hashed.push(b'"');
            }
            hashed.extend_from_slice(b"])");
        }
        hashed.push(b']');
        let mut at = self.inputs_at.end;
        if mask {
            for (_, value) in &self.values {
                hashed.extend_from_slice(&text[at..value.start]);
                at = value.end;
            }
        }
        hashed.extend_from_slice(&text[at..]);
        Sha256::digest(&hashed).into()
    }
}

/// What is said where something is not in the order in which Nix writes it, or twice.
const ORDER: &str = "the order of Nix";

fn ascending<'t>(
    reader: &Reader<'_>,
    names: impl IntoIterator<Item = &'t [u8], IntoIter: Clone>,
) -> Result<(), DerivationError> {
    let names = names.into_iter();
    if names.clone().zip(names.skip(1)).all(|(one, next)| one < next) {
        return Ok(());
    }
    Err(reader.damaged(ORDER))
}

/// A string as Nix writes it, between its quotes, and whether anything is escaped (nix `src/libstore/derivations.cc`,
/// `printString`): another one with the same meaning would be hashed as something else.
fn written<'t>(reader: &mut Reader<'t>) -> Result<(&'t [u8], bool), DerivationError> {
    let (raw, is_escaped) = reader.raw_string()?;
    let mut is_written = memchr::memchr3(b'\n', b'\r', b'\t', raw).is_none();
    if is_escaped {
        let mut rest = raw.iter();
        while let Some(byte) = rest.next() {
            is_written &= *byte != b'\\' || rest.next().is_some_and(|next| b"\"\\nrt".contains(next));
        }
    }
    if is_written { Ok((raw, is_escaped)) } else { Err(reader.damaged("a string as Nix writes it")) }
}

/// A string in which nothing is escaped.
fn plain<'t>(reader: &mut Reader<'t>) -> Result<&'t [u8], DerivationError> {
    match written(reader)? {
        (raw, false) => Ok(raw),
        (_, true) => Err(reader.damaged("a string without `\\`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is known of a derivation of this text.
    fn of(text: &str) -> Option<Modulo> {
        Modulo::of(text.as_bytes(), "x", "/nix/store", &mut |_| Some([0; 32]))
    }

    #[test]
    fn only_what_nix_itself_would_write_is_known() {
        let (one, two) = ("00000000000000000000000000000000-a", "11111111111111111111111111111111-b");
        let whole = |sources: &str, argument: &str, environment: &str| {
            format!(
                r#"Derive([("a","/nix/store/{one}","",""),("out","/nix/store/{two}","","")],[],[{sources}],"s","/bin/sh",["{argument}"],[{environment}])"#
            )
        };
        let sources = [format!(r#""/nix/store/{one}""#), format!(r#""/nix/store/{two}""#)];
        let both = sources.join(",");
        let good = whole(&both, r#"\"\\\n\r\t'$"#, r#"("a","1"),("b\"","2"),("out","3")"#);
        assert!(of(&good).is_some_and(|modulo| !modulo.is_right));
        let (first, second) = (&sources[0], &sources[1]);
        for (sources, argument, environment) in [
            (format!("{second},{first}"), "", r#"("a","1")"#),
            (format!("{first},{first}"), "", r#"("a","1")"#),
            (both.clone(), r"\q", r#"("a","1")"#),
            (both.clone(), "\n", r#"("a","1")"#),
            (both.clone(), "\t", r#"("a","1")"#),
            (both.clone(), "", r#"("b","1"),("a","2")"#),
            (both.clone(), "", r#"("out","1"),("out","2")"#),
            (both.clone(), "", r#"("b\n","1"),("b\"","2"),("b\"","3")"#),
            (both.clone(), "", r#"("a","\$")"#),
        ] {
            let text = whole(&sources, argument, environment);
            assert_eq!(of(&text), None, "{text}");
        }
        let outputs = r#"("a","/nix/store/00000000000000000000000000000000-a","","")"#;
        let twice = good.replacen(outputs, &format!("{outputs},{outputs}"), 1);
        assert_eq!(of(&twice), None, "{twice}");
    }
}
