//! Sources of a flake whose store paths are chosen: what is known about some is believed for what lies between them.

use std::path::Path;

use fs_err as fs;

use crate::NixRoot;

/// How many sources are tried to have some that lie apart.
const TRIED: usize = 24;

/// Texts for one file of a flake, in the order in which they are to be evaluated. Changes come between the paths of the first
/// two, and on both sides of these there is one that is evaluated in the other direction.
#[derive(Debug)]
pub struct Around {
    /// Each with the store path that the source has with it.
    chosen: [(String, String); 4],
}

impl Around {
    /// Tries texts for this file in the flake in a directory.
    ///
    /// # Panics
    /// When the file cannot be written, or Nix does not say where the source is.
    #[must_use]
    pub fn choose(nix: &NixRoot, flake: &Path, file: &str) -> Self {
        let tried = (0..TRIED).map(|number| {
            fs::write(flake.join(file), number.to_string()).expect("a file");
            (source_path(nix, flake), number.to_string())
        });
        let mut tried: Vec<(String, String)> = tried.collect();
        tried.sort();
        Self { chosen: [TRIED / 4, TRIED * 3 / 4, TRIED - 1, 0].map(|at| tried[at].clone()) }
    }

    /// The texts.
    #[must_use]
    pub fn texts(&self) -> [&str; 4] {
        self.chosen.each_ref().map(|(_, text)| text.as_str())
    }

    /// Changes a file until the path of the source comes between those of the first two.
    ///
    /// # Panics
    /// As [`Around::choose`], and when no text is found.
    pub fn change_between(&self, nix: &NixRoot, flake: &Path, file: &str) {
        let before = fs::read_to_string(flake.join(file)).expect("a file");
        let is_between = |text: &String| {
            fs::write(flake.join(file), text).expect("a file");
            let path = source_path(nix, flake);
            self.chosen[0].0 < path && path < self.chosen[1].0
        };
        let mut others = (100..200).map(|number: usize| number.to_string()).filter(|text| *text != before);
        others.find(is_between).expect("a path between them");
    }
}

fn source_path(nix: &NixRoot, flake: &Path) -> String {
    let metadata = nix.run("nix", &["flake", "metadata", "--json", &format!("path:{}", flake.display())]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).expect("JSON");
    metadata["path"].as_str().expect("a path").to_owned()
}
