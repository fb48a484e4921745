//! Folding and collecting a depot, and what is said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::HumanBytes;
use phoenix_cache::{ALIVE, Cache, Collected, GRACE, Trouble};
use phoenix_depot::{Blob, BlobName, Created, Depot};
use phoenix_pack::{Collection, Damaged, Goal};

use crate::blobs::{self, runtime};
use crate::depots;
use crate::setup::var;

/// The names of how many paths are said before "and so many more".
const FEW: usize = 10;

/// Where the others are named.
pub(crate) const NAMED: &str = "; --json names all of them";

/// Nowhere: a save has no such report.
const NOT_NAMED: &str = "";

/// Where it stands who folds what.
const FOLDS: &str = "folds/";

/// How many seconds a fold may take; whoever said that he folds has done it by then, or never will.
const FOLDING: u64 = 30 * 60;

/// How many may have failed at it.
const MOST_TURNS: u32 = 8;

/// The time, in seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What collecting aims at when nobody says otherwise.
pub(crate) fn goal(budget: u64) -> Goal {
    Goal {
        budget,
        room: budget.saturating_mul(2),
        now: now(),
        keep: BTreeSet::new(),
        alive: ALIVE,
        grace: GRACE,
        packs: 0,
        outside: BTreeMap::new(),
        foreign: BTreeSet::new(),
        replaced: BTreeMap::new(),
        damaged: Damaged::default(),
    }
}

/// A number of bytes: `500M` and the like count in thousands, `10GiB` and the like in powers of two.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (letter, binary) = match unit {
        "" | "B" => ("", false),
        unit => match unit.strip_suffix("iB") {
            Some(letter) => (letter, true),
            None => (unit.strip_suffix('B').unwrap_or(unit), false),
        },
    };
    let power = match letter {
        "" => 0,
        "K" | "k" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return Err("it is a number of bytes such as 10G, 500M or 8GiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "it is a number of bytes such as 10G, 500M or 8GiB")?;
    let unit = if binary { 1024_u64 } else { 1000 };
    number.checked_mul(unit.pow(power)).ok_or_else(|| "it is more than there can be".to_owned())
}

/// What a branch is called where nobody says.
const NO_BRANCH: &str = "default";

/// Tells a cache for which branch it saves and in which run: `branch`, or what GitHub's variables say.
pub(crate) fn set_branch(cache: &mut Cache, branch: Option<&str>) {
    // The jobs of one run need what all of them need.
    let run = var("GITHUB_RUN_ID").or_else(|| var("CI_PIPELINE_ID"));
    let run = run.and_then(|run| run.parse().ok()).unwrap_or_else(now);
    cache.set_branch(branch_or_ours(branch), run);
}

fn branch_or_ours(branch: Option<&str>) -> String {
    let branch =
        branch.map(str::to_owned).or_else(|| var("GITHUB_REF")).unwrap_or_else(|| NO_BRANCH.to_owned());
    // Each workflow has runs of its own, and needs of its own. No branch has a colon in its name.
    match var("GITHUB_WORKFLOW") {
        Some(workflow) => format!("{branch}:{workflow}"),
        None => branch,
    }
}

/// Whether what a branch of this name needs is of one of these, whatever the workflow.
pub(crate) fn is_of(name: &str, branch: &str) -> bool {
    name == branch || name.strip_prefix(branch).is_some_and(|rest| rest.starts_with(':'))
}

/// The branches whose last run most likely needed what this one will: its own, and the one that a pull request is
/// to be merged into.
pub(crate) fn branches(branch: Option<&str>) -> Vec<String> {
    let base = var("GITHUB_BASE_REF").map(|base| branch_or_ours(Some(&format!("refs/heads/{base}"))));
    std::iter::once(branch_or_ours(branch)).chain(base).collect()
}

/// Folds and collects after a save of so many bytes, when there are too many packs or bytes. Returns what has to
/// be said, and whether it is a warning; nothing that goes wrong is worse than that.
pub(crate) fn after_save(
    cache: &mut Cache,
    depot: &Arc<dyn Depot>,
    saved: u64,
    budget: u64,
) -> Vec<(bool, String)> {
    let mut said = Vec::new();
    let mut troubles = Vec::new();
    let mut trouble = |trouble: Trouble| troubles.push(trouble.to_string());
    if !cache.is_crowded(saved, budget) {
        let (count, size) = cache.remove_replaced(GRACE, &mut trouble);
        if count > 0 {
            said.push((false, format!("removed {} of {}", packs(count), HumanBytes(size))));
        }
        said.extend(troubles.into_iter().map(|trouble| (true, trouble)));
        return said;
    }
    let done = (|| {
        cache.look_again(&mut trouble);
        let goal = Goal { packs: cache.most_packs(), ..goal(budget) };
        let plan = cache.plan_collection(&goal, &mut trouble).map_err(|error| error.to_string())?;
        if plan.is_nothing() || !is_our_turn(depot, &plan) {
            return Ok(None);
        }
        match cache.collect(&depots::new_name(), &plan, &mut trouble) {
            Ok(collected) => Ok::<_, String>(Some((plan, collected))),
            // Another collector does it.
            Err(error) if error.is_race() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    })();
    match done {
        Ok(None) => {}
        Ok(Some((plan, collected))) => {
            said.extend(done_lines(&plan, &collected, NOT_NAMED).into_iter().map(|line| (false, line)));
        }
        Err(why) => said.push((true, format!("the depot is not tidied up: {why}"))),
    }
    said.splice(0..0, troubles.into_iter().map(|trouble| (true, trouble)));
    said
}

/// Whether nobody else has said that he folds what is to be folded, and nobody will from now on. Jobs that save at the same
/// moment see the same packs; if each of them folded these, there would be as many copies as jobs. Who says so by the
/// oldest of the packs first does it; when that is long ago and the pack is still there, he did not.
fn is_our_turn(depot: &Arc<dyn Depot>, plan: &Collection) -> bool {
    let Some(oldest) = plan.sources.iter().map(|source| &source.name).min_by_key(|name| leaf(name)) else {
        return true;
    };
    let Ok(runtime) = runtime() else { return true };
    runtime.block_on(async {
        for attempt in 0..MOST_TURNS {
            let Ok(name) = BlobName::new(format!("{FOLDS}{}-{attempt}", leaf(oldest))) else { return true };
            match blobs::create(depot.as_ref(), &name, now().to_string().into_bytes()).await {
                Ok(Created::Taken) => {}
                Ok(Created::New(_)) => {
                    let all = depot.list(FOLDS).await.unwrap_or_default();
                    let is_old =
                        |blob: &Blob| blob.created.is_some_and(|at| at.saturating_add(GRACE) < now());
                    blobs::forget(depot, all.into_iter().filter(is_old)).await;
                    return true;
                }
                // A fold too many loses nothing.
                Err(_) => return true,
            }
            let since = match depot.find(&name).await {
                Ok(Some(blob)) => blobs::read(depot.as_ref(), &blob).await.ok(),
                _ => None,
            };
            let since = since.and_then(|since| String::from_utf8(since).ok()?.parse::<u64>().ok());
            // What cannot be read is just being made.
            if since.is_none_or(|since| since.saturating_add(FOLDING) >= now()) {
                return false;
            }
        }
        false
    })
}

/// The last part of a name: when a pack was made, and a lot.
fn leaf(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

fn packs(count: usize) -> String {
    if count == 1 { "1 pack".to_owned() } else { format!("{count} packs") }
}

/// What a plan would do, line by line.
pub(crate) fn plan_lines(plan: &Collection) -> Vec<String> {
    let mut lines = Vec::new();
    for (branch, alive) in &plan.branches {
        lines.push(format!(
            "branch {branch}: {}",
            if *alive { "alive" } else { "gone, or not seen for long" }
        ));
    }
    for source in &plan.sources {
        let (size, wanted) = (HumanBytes(source.size), HumanBytes(source.wanted));
        lines.push(format!("fold {} ({size}, {wanted} of it kept): {}", source.name, source.why));
    }
    for unwanted in &plan.unwanted {
        let why = if unwanted.replaced { "it was replaced" } else { "there is no room for it" };
        lines.push(format!("remove {} ({}): {why}", unwanted.name, HumanBytes(unwanted.size)));
    }
    lines.extend(dropped_lines(plan, NAMED));
    lines
}

fn dropped_lines(plan: &Collection, rest: &str) -> Vec<String> {
    let mut lines: Vec<String> = plan
        .dropped
        .iter()
        .take(FEW)
        .map(|dropped| format!("drop {} ({}): {}", dropped.name, HumanBytes(dropped.nar_size), dropped.why))
        .collect();
    if let Some(more) = plan.dropped.len().checked_sub(FEW).filter(|&more| more > 0) {
        lines.push(format!("drop {more} more paths{rest}"));
    }
    lines
}

/// What was done. `rest` says where all that is dropped is named.
pub(crate) fn done_lines(plan: &Collection, collected: &Collected, rest: &str) -> Vec<String> {
    let mut lines = dropped_lines(plan, rest);
    if let Some(pack) = &collected.pack {
        lines.push(format!(
            "folded {} into {pack} ({}, {} of it copied as it was)",
            packs(plan.sources.len()),
            HumanBytes(collected.size),
            HumanBytes(collected.copied),
        ));
    }
    for name in collected.lost.iter().take(FEW) {
        lines.push(format!("lost {name}: a part of it was damaged"));
    }
    if let Some(more) = collected.lost.len().checked_sub(FEW).filter(|&more| more > 0) {
        lines.push(format!("lost {more} more paths{rest}"));
    }
    // One that holds something of its own is named; what is folded is elsewhere.
    let whole = plan.unwanted.iter().filter(|unwanted| !unwanted.replaced);
    for unwanted in whole.filter(|unwanted| collected.removed.iter().any(|(name, _)| *name == unwanted.name))
    {
        let size = HumanBytes(unwanted.size);
        lines.push(format!("removed {} ({size}): there is no room for it", unwanted.name));
    }
    if !collected.removed.is_empty() {
        let size = collected.removed.iter().map(|(_, size)| size).sum();
        lines.push(format!("removed {} of {}", packs(collected.removed.len()), HumanBytes(size)));
    }
    if let Some(why) = &collected.left {
        lines.push(format!("what is not needed is left to the depot's own eviction: {why}"));
    }
    lines.extend(waiting_line(plan));
    lines
}

/// What is replaced and stays for a while, if anything is.
pub(crate) fn waiting_line(plan: &Collection) -> Option<String> {
    let (mut count, mut size) = plan.waiting;
    if !plan.at_once {
        count += plan.sources.len();
        size += plan.sources.iter().map(|source| source.size).sum::<u64>();
    }
    (count > 0).then(|| {
        format!(
            "{} of {} wait until no job can rely on them any more; a later save or gc removes them",
            packs(count),
            HumanBytes(size)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, number) in [
            ("0", 0),
            ("123", 123),
            ("7B", 7),
            ("10G", 10_000_000_000),
            ("500M", 500_000_000),
            ("500MB", 500_000_000),
            ("3k", 3_000),
            ("8GiB", 8 << 30),
            ("2KiB", 2048),
            ("1T", 1_000_000_000_000),
        ] {
            assert_eq!(bytes(text), Ok(number), "{text}");
        }
        for bad in ["", "G", "-1", "1.5G", "10 G", "10X", "99999999999T", "iB", "1iB1"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
