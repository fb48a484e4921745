//! Folding and collecting a depot, and what is said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use indicatif::HumanBytes;
use phoenix_cache::{ALIVE, Cache, CollectError, Collected, GRACE, Saved, Trouble};
use phoenix_depot::{Blob, BlobName, Created, Depot};
use phoenix_pack::{Beside, Collection, Damaged, Dropped, Goal, Measured, Next, Source, Why};

use crate::blobs::{self, runtime};
use crate::depots;
use crate::setup::var;
use crate::talk;

/// How many folds a save makes at most, where what was made is still too much.
const FOLDS_A_SAVE: usize = 3;

/// How often what was made is measured, by a collector.
const MEASURES: u32 = 12;

/// The names of how many paths are said before "and so many more".
pub(crate) const FEW: usize = 10;

/// How many paths are named that were not saved.
const NAMES: usize = 3;

/// Where the others are named.
pub(crate) const NAMED: &str = "; --json names all of them";

/// Nowhere: a save has no such report.
const NOT_NAMED: &str = "";

/// Where it stands who folds what.
const FOLDS: &str = "folds/";

/// How many seconds a fold may take; whoever said that he folds has done it by then, or never will.
const FOLDING: u64 = 30 * 60;

/// How many seconds the clocks of machines may be apart.
const APART: u64 = 5 * 60;

/// The time, in seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What collecting aims at when nobody says otherwise.
pub(crate) fn goal(budget: u64) -> Goal {
    Goal {
        budget,
        measured: Measured::default(),
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
        beside: Beside::default(),
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

/// What was to be saved and is not, because there is no room for what packs say of their paths.
pub(crate) fn not_saved(saved: &Saved) -> Vec<String> {
    let some = |names: &[String]| {
        let first: Vec<&str> = names.iter().map(String::as_str).collect();
        let verb = if names.len() == 1 { "is" } else { "are" };
        format!("{} ({}) {verb}", talk::paths(names.len()), some(&first))
    };
    let mut lines = Vec::new();
    if !saved.left_out.is_empty() {
        lines.push(format!(
            "{} in packs that there is no room for, and not saved anew",
            some(&saved.left_out)
        ));
    }
    if !saved.no_room.is_empty() {
        lines.push(format!(
            "{} not saved: with them, all that packs say of their paths would be more than readers have memory for. \
             `phoenix cache gc --budget BYTES`, with less than there is, lets go of what nobody needs; many small paths \
             are better kept in a depot of their own",
            some(&saved.no_room)
        ));
    }
    lines
}

/// What came of tidying up.
#[derive(Debug, Default)]
pub(crate) struct Tidied {
    /// What has to be said, and whether it is a warning.
    pub(crate) said: Vec<(bool, String)>,
    /// The paths that were let go.
    dropped: BTreeSet<String>,
}

impl Tidied {
    /// What there is to say if something of what was saved was let go.
    pub(crate) fn let_go<'s>(&self, saved: impl Iterator<Item = &'s str>, budget: u64) -> Option<String> {
        let names: Vec<&str> = saved.filter(|name| self.dropped.contains(*name)).collect();
        (!names.is_empty()).then(|| {
            format!(
                "{} let go again, as more than a budget of {} has room for: {}",
                talk::paths_are(names.len()),
                HumanBytes(budget),
                some(&names)
            )
        })
    }
}

/// The first names of some.
fn some(names: &[&str]) -> String {
    let more = if names.len() > NAMES { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(NAMES)].join(", "))
}

/// Folds and collects after a save of so many bytes, when there are too many packs or bytes; nothing that goes wrong is worse
/// than something to be said.
pub(crate) fn after_save(cache: &mut Cache, depot: &Arc<dyn Depot>, saved: u64, budget: u64) -> Tidied {
    let mut tidied = Tidied::default();
    // What is missed may be in them, and what they need is not known. It was told when the depot was read.
    if cache.left_out() > 0 {
        return tidied;
    }
    let mut troubles = Vec::new();
    // That packs are left out was told when the depot was read.
    let mut trouble = |trouble: Trouble| {
        if !matches!(trouble, Trouble::LeftOut { .. }) {
            troubles.push(trouble.to_string());
        }
    };
    if cache.is_crowded(saved, budget) {
        if let Err(why) = tidy(cache, depot, budget, &mut tidied, &mut trouble) {
            tidied.said.push((true, format!("the depot is not tidied up: {why}")));
        }
        tidied.said.splice(0..0, troubles.into_iter().map(|trouble| (true, trouble)));
    } else {
        let (count, size) = cache.remove_replaced(GRACE, &mut trouble);
        if count > 0 {
            tidied.said.push((false, format!("removed {} of {}", packs(count), HumanBytes(size))));
        }
        tidied.said.extend(troubles.into_iter().map(|trouble| (true, trouble)));
    }
    tidied
}

/// Folds and collects until the budget is kept, or what was made is as much as there was.
fn tidy(
    cache: &mut Cache,
    depot: &Arc<dyn Depot>,
    budget: u64,
    tidied: &mut Tidied,
    trouble: &mut (dyn FnMut(Trouble) + Send),
) -> Result<(), CollectError> {
    let mut goal = Goal { packs: cache.most_packs(), measured: Measured::at_once(), ..goal(budget) };
    let mut claims = Claims::new(depot.clone());
    let mut folded = BTreeSet::new();
    let mut left = 0;
    for _ in 0..FOLDS_A_SAVE {
        cache.look_again(trouble);
        let plan = cache.plan_collection(&goal, trouble)?;
        // The depot may not show yet what was folded.
        if plan.is_nothing() || plan.sources.iter().any(|source| folded.contains(&source.name)) {
            return Ok(());
        }
        let collected = match claims.collect(cache, &plan, trouble) {
            // Another collector does it.
            Err(error) if error.is_race() => return Ok(()),
            Err(CollectError::Claimed { .. }) => {
                if plan.before > budget {
                    let over = HumanBytes(plan.before - budget);
                    tidied
                        .said
                        .push((false, format!("{over} more than the budget until another job has folded")));
                }
                return Ok(());
            }
            collected => collected?,
        };
        tidied.said.extend(done_lines(&plan, &collected, NOT_NAMED).into_iter().map(|line| (false, line)));
        let after = after(&plan, &collected);
        let is_too_much = is_too_much(&mut goal, &plan, &collected);
        tidied.dropped.extend(plan.dropped.into_iter().map(|path| path.name));
        if !is_too_much {
            return Ok(());
        }
        left = after;
        folded.extend(plan.sources.into_iter().map(|source| source.name));
    }
    let over = HumanBytes(left.saturating_sub(budget));
    tidied
        .said
        .push((false, format!("{over} more than the budget; the next save, or `phoenix cache gc`, goes on")));
    Ok(())
}

/// What a job has said that it folds, so that others leave it to that job.
#[derive(Debug)]
pub(crate) struct Claims {
    depot: Arc<dyn Depot>,
    /// By what it said so, with where that stands: it need not say it twice.
    said: BTreeMap<String, Option<BlobName>>,
}

impl Claims {
    pub(crate) fn new(depot: Arc<dyn Depot>) -> Self {
        Self { depot, said: BTreeMap::new() }
    }

    /// Does what is planned, if that is for this job to do.
    pub(crate) fn collect(
        &mut self,
        cache: &mut Cache,
        plan: &Collection,
        trouble: &mut (dyn FnMut(Trouble) + Send),
    ) -> Result<Collected, CollectError> {
        self.take(plan)?;
        let collected = cache.collect(&depots::new_name(), plan, trouble);
        if collected.is_err() {
            self.give_back(plan);
        }
        collected
    }

    /// Whether what is planned is for this job to do, which it has said from now on.
    fn take(&mut self, plan: &Collection) -> Result<(), CollectError> {
        let Some(oldest) = oldest(plan) else { return Ok(()) };
        if !self.said.contains_key(&oldest) {
            let turn = runtime()
                .map_or(Turn::Ours(None), |runtime| runtime.block_on(turn(&self.depot, &oldest, now())));
            let Turn::Ours(name) = turn else {
                return Err(CollectError::Claimed { depot: self.depot.location().to_owned() });
            };
            self.said.insert(oldest, name);
        }
        Ok(())
    }

    /// Leaves to others what it did not come to.
    fn give_back(&mut self, plan: &Collection) {
        let name = oldest(plan).and_then(|oldest| self.said.remove(&oldest)).flatten();
        if let (Some(name), Ok(runtime)) = (name, runtime()) {
            // Where it cannot be taken back it ends by itself.
            let _ = runtime.block_on(self.depot.remove(&name));
        }
    }
}

/// Whose turn it is to fold some packs.
enum Turn {
    /// This job's, which has said so there, if it could.
    Ours(Option<BlobName>),
    /// Another's.
    Theirs,
}

/// The oldest of the packs that are to be folded, by which it is said who does that.
fn oldest(plan: &Collection) -> Option<String> {
    // One that was folded before and is needed again was said to be folded then.
    let is_again = |source: &&Source| source.why == Why::NeededAgain;
    let first = plan.sources.iter().filter(|source| !is_again(source)).map(|source| leaf(&source.name)).min();
    first.map(str::to_owned).or_else(|| {
        let again = plan.sources.iter().map(|source| leaf(&source.name)).min();
        again.map(|again| format!("{again}-again"))
    })
}

/// Whose turn it is to fold what is to be folded, by the last part of the name of the oldest pack: this job's if nobody else
/// has said that he does, and nobody will from now on. Jobs that save at the same moment see the same packs; if each of them
/// folded these, there would be as many copies as jobs. What is said holds for the half hour that is in its name, whatever
/// becomes of it: a depot may keep a name for a blob that was never finished, and show nothing.
async fn turn(depot: &Arc<dyn Depot>, oldest: &str, now: u64) -> Turn {
    let turn = now / FOLDING;
    let name = |turn: u64| BlobName::new(format!("{FOLDS}{oldest}-{turn}"));
    let (Ok(before), Ok(ours)) = (name(turn.saturating_sub(1)), name(turn)) else { return Turn::Ours(None) };
    // Who began in the half hour before may still be at it. A time that is to come is none.
    let begun = depot.find(&before).await.ok().flatten().and_then(|said| said.created);
    if begun.is_some_and(|begun| begun <= now + APART && begun + FOLDING > now) {
        return Turn::Theirs;
    }
    match blobs::create(depot.as_ref(), &ours, now.to_string().into_bytes()).await {
        Ok(Created::Taken) => Turn::Theirs,
        Ok(Created::New(_)) => {
            let all = depot.list(FOLDS).await.unwrap_or_default();
            blobs::forget(depot, all.into_iter().filter(|said| is_over(said, now))).await;
            Turn::Ours(Some(ours))
        }
        // A fold too many loses nothing.
        Err(_) => Turn::Ours(None),
    }
}

/// Whether what was said of a fold is of no use to anybody.
fn is_over(said: &Blob, now: u64) -> bool {
    let turn = said.name.as_str().rsplit('-').next().and_then(|turn| turn.parse::<u64>().ok());
    // A name is free to say anything.
    let at = turn.map(|turn| turn.saturating_mul(FOLDING)).filter(|at| *at <= now + APART);
    at.or(said.created).is_some_and(|at| at.saturating_add(GRACE) < now)
}

/// The last part of a name: when a pack was made, and a lot.
fn leaf(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

pub(crate) fn packs(count: usize) -> String {
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
    lines.extend(dropped_lines(&plan.dropped, NAMED));
    lines.extend(next_lines(plan));
    lines
}

/// How many bytes the packs in use have after what was done.
pub(crate) fn after(plan: &Collection, done: &Collected) -> u64 {
    if done.pack.is_some() { plan.with_made(done.size) } else { plan.after }
}

/// Whether what was made is more than it should be, so that more has to go.
pub(crate) fn is_too_much(goal: &mut Goal, plan: &Collection, done: &Collected) -> bool {
    if done.pack.is_none() || after(plan, done) <= goal.budget {
        return false;
    }
    goal.measured.note(plan);
    goal.measured.over < MEASURES
}

/// What is to be seen to after what is planned, and what goes then.
fn next_lines(plan: &Collection) -> Vec<String> {
    let first = match plan.next {
        None => return Vec::new(),
        Some(Next::TooMuchInOne) => {
            "after that more is rewritten, which would say too much in one pack with these".to_owned()
        }
        Some(Next::Measure) => format!(
            "how much that brings is an estimate: it is measured, and if it is not enough, some of {} goes as well",
            talk::paths(plan.later.len())
        ),
    };
    std::iter::once(first).chain(dropped_lines(&plan.later, NAMED)).collect()
}

fn dropped_lines(dropped: &[Dropped], rest: &str) -> Vec<String> {
    let mut lines: Vec<String> = dropped
        .iter()
        .take(FEW)
        .map(|dropped| format!("drop {} ({}): {}", dropped.name, HumanBytes(dropped.nar_size), dropped.why))
        .collect();
    if let Some(more) = dropped.len().checked_sub(FEW).filter(|&more| more > 0) {
        lines.push(format!("drop {more} more paths{rest}"));
    }
    lines
}

/// What was done. `rest` says where all that is dropped is named.
pub(crate) fn done_lines(plan: &Collection, collected: &Collected, rest: &str) -> Vec<String> {
    let mut lines = dropped_lines(&plan.dropped, rest);
    lines.extend(folded_line(plan, collected));
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

/// What was folded, if anything was.
pub(crate) fn folded_line(plan: &Collection, collected: &Collected) -> Option<String> {
    let pack = collected.pack.as_ref()?;
    Some(format!(
        "folded {} into {pack} ({}, {} of it copied as it was)",
        packs(plan.sources.len()),
        HumanBytes(collected.size),
        HumanBytes(collected.copied),
    ))
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
    use bytes::Bytes;
    use phoenix_depot::testing::{Memory, body, bytes as noise};
    use phoenix_depot::{Body, DepotError};

    use super::*;

    fn ours(depot: &Arc<dyn Depot>, now: u64) -> bool {
        let turn = runtime().expect("a runtime").block_on(turn(depot, "1-a", now));
        matches!(turn, Turn::Ours(_))
    }

    fn say(depot: &Arc<dyn Depot>, turn: u64, body: Body) {
        let name = BlobName::new(format!("{FOLDS}1-a-{turn}")).expect("a name");
        runtime().expect("a runtime").block_on(depot.create(&name, body)).expect("it is said");
    }

    #[test]
    fn one_folds_in_half_an_hour() {
        let depot: Arc<dyn Depot> = Arc::new(Memory::new());
        let now = now();
        assert!(ours(&depot, now) && !ours(&depot, now));
        assert!(!ours(&depot, now + FOLDING / 2), "it may take so long, whatever the turn");
        assert!(ours(&depot, now + FOLDING + 5) && !ours(&depot, now + FOLDING + 5));
        let much_later = now + GRACE + 3 * FOLDING;
        assert!(ours(&depot, much_later));
        let left = runtime().expect("a runtime").block_on(depot.list(FOLDS)).expect("a list");
        assert_eq!(left.len(), 1, "what is over is removed: {left:?}");
    }

    #[test]
    fn a_collector_says_what_it_folds_once_and_leaves_it_to_who_said_so_first() {
        let depot: Arc<dyn Depot> = Arc::new(Memory::new());
        let why = Why::Small;
        let source = Source { pack: 0, name: "packs/1-a".to_owned(), size: 1, wanted: 1, why };
        let mut plan = Collection::default();
        plan.sources.push(source);
        let mut claims = Claims::new(depot.clone());
        assert!(claims.take(&plan).is_ok() && claims.take(&plan).is_ok());
        let mut other = Claims::new(depot.clone());
        let others = other.take(&plan);
        assert!(matches!(others, Err(CollectError::Claimed { .. })), "{others:?}");
        assert!(Claims::new(depot).take(&Collection::default()).is_ok(), "nothing is folded");
        other.give_back(&plan);
        assert!(other.take(&plan).is_err(), "it was not its own");
        claims.give_back(&plan);
        assert!(other.take(&plan).is_ok(), "who failed leaves it to others");
    }

    #[test]
    fn nothing_that_was_said_holds_longer_than_its_half_hour() {
        let now = now();
        let turn = now / FOLDING;
        for said in [noise(1, 0), noise(1, 9), (now + (1 << 30)).to_string().into_bytes().into()] {
            let depot: Arc<dyn Depot> = Arc::new(Memory::new());
            say(&depot, turn, body(said));
            assert!(!ours(&depot, now));
            assert!(ours(&depot, (turn + 1) * FOLDING + FOLDING - 1));
        }
        // The depot says of this one that it was made in a month.
        let depot: Arc<dyn Depot> = Arc::new(Memory::new());
        let before = now - 30 * 24 * 3600;
        say(&depot, before / FOLDING - 1, body(noise(1, 9)));
        assert!(ours(&depot, before));
    }

    /// A name stays taken, and nothing is seen under it.
    #[derive(Debug)]
    struct Reserved(Memory, u64);

    #[async_trait::async_trait]
    impl Depot for Reserved {
        fn location(&self) -> &str {
            self.0.location()
        }
        async fn create(&self, name: &BlobName, body: Body) -> Result<Created, DepotError> {
            let is_taken = name.as_str().ends_with(&format!("-{}", self.1));
            if is_taken { Ok(Created::Taken) } else { self.0.create(name, body).await }
        }
        async fn find(&self, name: &BlobName) -> Result<Option<Blob>, DepotError> {
            self.0.find(name).await
        }
        async fn newest(&self, prefix: &str) -> Result<Option<Blob>, DepotError> {
            self.0.newest(prefix).await
        }
        async fn read(&self, blob: &Blob, range: std::ops::Range<u64>) -> Result<Bytes, DepotError> {
            self.0.read(blob, range).await
        }
        async fn list(&self, prefix: &str) -> Result<Vec<Blob>, DepotError> {
            self.0.list(prefix).await
        }
        async fn remove(&self, name: &BlobName) -> Result<(), DepotError> {
            self.0.remove(name).await
        }
    }

    #[test]
    fn who_said_so_and_was_never_seen_keeps_nobody_from_it_for_longer() {
        let now = now();
        let depot: Arc<dyn Depot> = Arc::new(Reserved(Memory::new(), now / FOLDING));
        assert!(!ours(&depot, now) && !ours(&depot, now));
        assert!(ours(&depot, now + FOLDING) && !ours(&depot, now + FOLDING));
    }

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
