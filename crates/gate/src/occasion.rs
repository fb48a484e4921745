//! Whether actions may run at all, by what a run is for.

use wildmatch::WildMatch;

/// What a run is for, as its forge says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occasion {
    /// The branch or tag, such as `main`; for a pull request `NUMBER/merge`.
    pub ref_name: String,
    /// The repository's default branch, where that is known.
    pub default_branch: Option<String>,
    /// Whether what is built comes from somebody who may not write to the repository.
    pub is_fork: bool,
}

impl Occasion {
    /// Whether actions with these refs may run: names of branches and tags, in which `*` stands for anything; none for
    /// the default branch alone.
    ///
    /// # Errors
    /// Why not.
    pub fn allows(&self, refs: &[String]) -> Result<(), String> {
        if self.is_fork {
            return Err("this is for a pull request from a fork, which may not run actions".to_owned());
        }
        let own = &self.ref_name;
        if !refs.is_empty() {
            let allowed = refs.iter().any(|pattern| WildMatch::new(pattern).matches(own));
            let none = || format!("it runs on {} only, and this is {own}", refs.join(", "));
            return if allowed { Ok(()) } else { Err(none()) };
        }
        match &self.default_branch {
            Some(default) if default == own => Ok(()),
            Some(default) => Err(format!(
                "it runs on the default branch {default} only, and this is {own}; `refs` in phoenix.toml allows more"
            )),
            None => Err("the forge does not say which branch is the default one; `refs` in phoenix.toml \
                         names those it may run on"
                .to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(ref_name: &str) -> Occasion {
        Occasion { ref_name: ref_name.into(), default_branch: Some("main".into()), is_fork: false }
    }

    fn refs(refs: &[&str]) -> Vec<String> {
        refs.iter().map(|&pattern| pattern.to_owned()).collect()
    }

    #[test]
    fn without_refs_it_is_the_default_branch() {
        assert_eq!(on("main").allows(&[]), Ok(()));
        for other in ["feature", "12/merge", "mains", ""] {
            assert!(on(other).allows(&[]).unwrap_err().contains("default branch main"), "{other}");
        }
        let unknown = Occasion { default_branch: None, ..on("main") };
        assert!(unknown.allows(&[]).unwrap_err().contains("does not say"));
        assert_eq!(unknown.allows(&refs(&["main"])), Ok(()));
    }

    #[test]
    fn refs_are_patterns() {
        assert_eq!(on("v1.2").allows(&refs(&["main", "v*"])), Ok(()));
        assert_eq!(on("release/1/x").allows(&refs(&["release/*"])), Ok(()));
        assert!(on("main").allows(&refs(&["v*"])).is_err(), "the default branch is one like any other then");
        assert!(on("xmain").allows(&refs(&["main"])).is_err());
    }

    #[test]
    fn a_fork_never_acts() {
        let fork = Occasion { is_fork: true, ..on("main") };
        assert!(fork.allows(&[]).unwrap_err().contains("fork"));
        assert!(fork.allows(&refs(&["*"])).unwrap_err().contains("fork"));
    }
}
