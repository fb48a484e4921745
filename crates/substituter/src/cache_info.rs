//! `nix-cache-info`: what a binary cache says of itself.

/// What a binary cache says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CacheInfo {
    /// It is for our store; its priority, lower is asked first.
    Ours(i64),
    /// Nix passes it over, and why.
    Foreign(String),
    /// This is no `nix-cache-info`: perhaps the page of a proxy.
    Nonsense,
}

/// Reads a `nix-cache-info`. As in Nix, whatever is not said is as it should be, and the priority 0.
pub(crate) fn parse(text: &str, store_dir: &str) -> CacheInfo {
    let mut priority = 0;
    let mut known = text.trim().is_empty();
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name {
            "StoreDir" if value.trim_end_matches('/') != store_dir.trim_end_matches('/') => {
                let value: String = value.chars().filter(|char| !char.is_control()).take(100).collect();
                return CacheInfo::Foreign(format!(
                    "it is for stores in {value}, and this one is in {store_dir}"
                ));
            }
            "StoreDir" | "WantMassQuery" => known = true,
            "Priority" => {
                known = true;
                priority = value.parse().unwrap_or(priority);
            }
            _ => {}
        }
    }
    if known { CacheInfo::Ours(priority) } else { CacheInfo::Nonsense }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_says_its_priority_and_its_store() {
        let text = "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n";
        assert_eq!(parse(text, "/nix/store"), CacheInfo::Ours(40));
        assert_eq!(parse("", "/nix/store"), CacheInfo::Ours(0));
        assert_eq!(parse("WantMassQuery: 1\nPriority: much\n", "/nix/store"), CacheInfo::Ours(0));
        let CacheInfo::Foreign(problem) = parse(text, "/other") else { panic!() };
        assert_eq!(problem, "it is for stores in /nix/store, and this one is in /other");
    }

    #[test]
    fn a_page_is_no_cache() {
        assert_eq!(parse("<html>\n<a href=\"http://x\">log in: here</a>", "/nix/store"), CacheInfo::Nonsense);
    }
}
