//! The setting `builders` (Nix manual, "Remote Builds"): `URI SYSTEMS KEY JOBS SPEED FEATURES MANDATORY`,
//! separated by semicolons or lines, or `@FILE`.

/// What a remote builder can build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteBuilder {
    /// The systems it builds for; empty for this machine's.
    pub systems: Vec<String>,
    /// The features it has.
    pub features: Vec<String>,
    /// Features that a derivation has to require for it.
    pub mandatory: Vec<String>,
}

impl RemoteBuilder {
    /// Reads the setting; `read` gets the text of a file it refers to, if there is one.
    #[must_use]
    pub fn parse(setting: &str, read: &dyn Fn(&str) -> Option<String>) -> Vec<Self> {
        let mut builders = Vec::new();
        for entry in setting.split([';', '\n']).map(str::trim) {
            match entry.strip_prefix('@') {
                Some(file) => {
                    let text = read(file.trim()).unwrap_or_default();
                    // A file does not refer to further files.
                    builders.extend(Self::parse(&text.replace('@', "#"), &|_| None));
                }
                None => builders.extend(Self::entry(entry)),
            }
        }
        builders
    }

    fn entry(entry: &str) -> Option<Self> {
        let entry = entry.split('#').next().unwrap_or_default();
        let mut words = entry.split_ascii_whitespace();
        words.next()?;
        let list = |word: Option<&str>| -> Vec<String> {
            let word = word.filter(|word| *word != "-").unwrap_or_default();
            word.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
        };
        let systems = list(words.next());
        let mut words = words.skip(3);
        Some(Self { systems, features: list(words.next()), mandatory: list(words.next()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_files_and_comments() {
        let file = |name: &str| {
            (name == "/etc/nix/machines")
                .then(|| "# mine\nssh://b aarch64-linux,armv7l-linux /key 4 1 kvm,nixos-test kvm\n".into())
        };
        let builders =
            RemoteBuilder::parse("ssh://a x86_64-darwin - 2; @/etc/nix/machines\n\nssh://c", &file);
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            builders,
            [
                RemoteBuilder { systems: owned(&["x86_64-darwin"]), ..RemoteBuilder::default() },
                RemoteBuilder {
                    systems: owned(&["aarch64-linux", "armv7l-linux"]),
                    features: owned(&["kvm", "nixos-test"]),
                    mandatory: owned(&["kvm"])
                },
                RemoteBuilder::default(),
            ]
        );
        assert_eq!(RemoteBuilder::parse("@/nowhere", &file), []);
        assert_eq!(RemoteBuilder::parse("", &file), []);
    }
}
