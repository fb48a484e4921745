//! Runs the double of GitHub's cache service until its standard input ends, for clients in other languages.
//!
//! It prints a job's environment as one line of JSON, with tokens of several kinds.

use std::io::{Read, Write};

use phoenix_testkit::github::{Github, Permission};

fn main() -> std::io::Result<()> {
    let github = Github::start()?;
    let main = ("refs/heads/main", Permission::Both);
    let environment = [
        ("ACTIONS_RESULTS_URL", github.url().to_owned()),
        ("ACTIONS_RUNTIME_TOKEN", github.token(&[main])),
        ("READ_ONLY_TOKEN", github.token(&[("refs/heads/main", Permission::Read)])),
        (
            "PULL_REQUEST_TOKEN",
            github.token(&[("refs/pull/7/merge", Permission::Both), ("refs/heads/main", Permission::Read)]),
        ),
        ("GITHUB_TOKEN", github.rest_token().to_owned()),
        ("GITHUB_REPOSITORY", github.repository().to_owned()),
        ("GITHUB_API_URL", github.url().trim_end_matches('/').to_owned()),
    ];
    let environment: Vec<_> = environment.iter().map(|(name, value)| format!("{name:?}:{value:?}")).collect();
    println!("{{{}}}", environment.join(","));
    std::io::stdout().flush()?;
    // Whoever started this holds the other end.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    eprintln!("{:?}", github.counts());
    Ok(())
}
