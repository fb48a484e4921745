//! Runs the double of GitHub's cache and artifact services until its standard input ends, for clients in other languages.
//!
//! It prints a job's environment as one line of JSON, with tokens of several kinds, and in the end how often
//! each kind of request came, as another. An argument is how many milliseconds each answer is late.

use std::io::{Read, Write};
use std::time::Duration;

use phoenix_testkit::github::{Github, Permission};
use serde_json::{Map, Value, json};

fn main() -> std::io::Result<()> {
    let github = Github::start()?;
    if let Some(late) = std::env::args().nth(1) {
        let late =
            late.parse().map_err(|_| std::io::Error::other("the argument is a number of milliseconds"))?;
        github.behave(|behaviour| behaviour.latency = Duration::from_millis(late));
    }
    let (both, read) = (Permission::Both, Permission::Read);
    let (main, pull) = ("refs/heads/main", "refs/pull/7/merge");
    say(&json!({
        "ACTIONS_RESULTS_URL": github.url(),
        "ACTIONS_RUNTIME_TOKEN": github.token(&[(main, both)]),
        "READ_ONLY_TOKEN": github.token(&[(main, read)]),
        "OTHER_JOB_TOKEN": github.token_of_job(1, &[(main, both)]),
        "PULL_REQUEST_TOKEN": github.token(&[(pull, both), (main, read)]),
        "GITHUB_TOKEN": github.rest_token(),
        "GITHUB_REPOSITORY": github.repository(),
        "GITHUB_API_URL": github.url().trim_end_matches('/'),
    }))?;
    // Whoever started this holds the other end.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let counts = github.counts();
    let mut all: Map<_, _> = counts
        .requests
        .iter()
        .map(|(request, times)| (format!("{request:?}"), Value::from(*times)))
        .collect();
    all.insert("unknown".to_owned(), counts.unknown.into());
    all.insert("bytesIn".to_owned(), counts.bytes_in.into());
    all.insert("bytesOut".to_owned(), counts.bytes_out.into());
    say(&Value::Object(all))
}

fn say(value: &Value) -> std::io::Result<()> {
    println!("{value}");
    std::io::stdout().flush()
}
