//! A closure made of the files of Debian packages, with the references that their dependencies are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use crate::place::Place;

/// Which closure: so many paths of so many bytes in all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) paths: usize,
    pub(crate) bytes: u64,
}

/// A package of Debian's that is installed here.
#[derive(Debug, Clone)]
struct Package {
    name: String,
    files: Vec<String>,
    bytes: u64,
    depends: Vec<String>,
}

/// What a closure is made of.
#[derive(Debug)]
pub(crate) struct Corpus {
    chosen: Vec<Package>,
    /// For each of some packages another of about the same size, which stands for its next version.
    changed: BTreeMap<usize, Package>,
}

/// A variant of the closure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    First,
    /// 5 % of the paths have other contents; what refers to them has other references.
    Changed,
    /// All paths have other hashes, and nothing else is new.
    OtherHashes,
}

impl Corpus {
    /// Chooses packages by a fixed seed; none on a machine that is no Debian.
    pub(crate) fn choose(size: Size) -> Option<Self> {
        let mut all = installed()?;
        // The same machine gives the same closure: an order by a hash of the names.
        all.sort_by_key(|package| fnv(&package.name));
        let mut chosen = Vec::new();
        let mut rest = Vec::new();
        let mut bytes = 0;
        let average = size.bytes / size.paths as u64;
        for package in all {
            // Neither one that is half of all, nor so many small ones that nothing else has room.
            let fits = package.bytes < average * 40
                && bytes + package.bytes <= size.bytes
                && (bytes + package.bytes <= average * (chosen.len() as u64 + 20) || package.bytes < average);
            if fits && chosen.len() < size.paths {
                bytes += package.bytes;
                chosen.push(package);
            } else {
                rest.push(package);
            }
        }
        let mut changed = BTreeMap::new();
        let step = 20;
        for at in (step / 2..chosen.len()).step_by(step) {
            let wanted: u64 = chosen[at].bytes;
            let near = (0..rest.len()).min_by_key(|&other| rest[other].bytes.abs_diff(wanted));
            if let Some(other) = near {
                changed.insert(at, rest.swap_remove(other));
            }
        }
        Some(Self { chosen, changed })
    }

    /// Builds a variant into a store and returns the path that refers to all others.
    pub(crate) fn build(&self, place: &Place, variant: Variant) -> String {
        let names: BTreeMap<&str, usize> =
            self.chosen.iter().zip(0..).map(|(package, at)| (package.name.as_str(), at)).collect();
        let lists = place.path(&format!("lists-{variant:?}"));
        std::fs::create_dir_all(&lists).expect("a directory");
        let salt = if variant == Variant::OtherHashes { "other" } else { "" };
        let mut text = String::from("let\n  make = name: list: depends: derivation {\n");
        let os = if cfg!(target_os = "macos") { "darwin" } else { "linux" };
        let system = format!("{}-{os}", std::env::consts::ARCH);
        let _ = write!(
            text,
            "    inherit name list depends; system = \"{system}\"; salt = \"{salt}\"; builder = \"/bin/sh\";\n    \
             args = [ \"-c\" ''\n      PATH=/bin:/usr/bin; mkdir $out; tar -C / -cf - -T $list 2>/dev/null | tar -C $out -xf - 2>/dev/null\n      \
             chmod -R u+w $out; mkdir -p $out/nix-support; echo $depends > $out/nix-support/propagated\n      \
             for n in 1 2 3 4; do for d in $out $depends; do echo \"prefix$n=$d\"; done > $out/nix-support/config-$n.pc; done\n    '' ];\n  }};\n"
        );
        for (at, package) in self.chosen.iter().enumerate() {
            let source = match (variant, self.changed.get(&at)) {
                (Variant::Changed, Some(other)) => other,
                _ => package,
            };
            let list = lists.join(at.to_string());
            let files: String =
                source.files.iter().map(|file| format!("{}\n", file.trim_start_matches('/'))).collect();
            std::fs::write(&list, files).expect("a list");
            let depends: BTreeSet<usize> = package
                .depends
                .iter()
                .filter_map(|name| names.get(name.as_str()))
                .copied()
                .filter(|&other| other < at)
                .collect();
            let depends: Vec<String> = depends.iter().map(|other| format!("p{other}")).collect();
            let name: String =
                package.name.chars().filter(|char| char.is_ascii_alphanumeric() || *char == '-').collect();
            let _ =
                writeln!(text, "  p{at} = make \"{name}\" \"{}\" [ {} ];", list.display(), depends.join(" "));
        }
        let all: Vec<String> = (0..self.chosen.len()).map(|at| format!("p{at}")).collect();
        let empty = lists.join("none");
        std::fs::write(&empty, "").expect("a list");
        let _ = writeln!(text, "in make \"all\" \"{}\" [ {} ]", empty.display(), all.join(" "));
        let file = lists.join("default.nix");
        std::fs::write(&file, text).expect("a file");
        let derivation = place.run("nix-instantiate", &[&file.display().to_string()]);
        // Nobody loses anything if the machine stops, so the disk need not have each path before the next.
        let derivation = derivation.lines().last().unwrap_or_default();
        place.run("nix-store", &["--realise", derivation, "--option", "fsync-metadata", "false"])
    }
}

/// The packages that are installed, with the files they have.
fn installed() -> Option<Vec<Package>> {
    let status = std::fs::read_to_string("/var/lib/dpkg/status").ok()?;
    let mut packages = Vec::new();
    for entry in status.split("\n\n") {
        let field = |name: &str| {
            entry.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
        };
        let Some(name) = field("Package") else { continue };
        let arch = field("Architecture").unwrap_or_default();
        let info = Path::new("/var/lib/dpkg/info");
        let list = [format!("{name}.list"), format!("{name}:{arch}.list")];
        let Some(list) = list.iter().find_map(|list| std::fs::read_to_string(info.join(list)).ok()) else {
            continue;
        };
        let mut files = Vec::new();
        let mut bytes = 0;
        for file in list.lines().filter(|file| file.starts_with("/usr/")) {
            match std::fs::symlink_metadata(file) {
                Ok(found) if found.is_file() => bytes += found.len(),
                Ok(found) if found.is_symlink() => {}
                _ => continue,
            }
            files.push(file.to_owned());
        }
        let depends = field("Depends").unwrap_or_default();
        let word = |text: &str| text.trim().split([' ', ':', '(']).next().unwrap_or_default().to_owned();
        let depends = depends.split([',', '|']).map(word).collect();
        if !files.is_empty() {
            packages.push(Package { name, files, bytes, depends });
        }
    }
    (packages.len() > 50).then_some(packages)
}

/// FNV-1a: an order that has nothing to do with anything.
fn fnv(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
