//! What goes wrong on the way, and who has to bear it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{STORE, file, narinfo, path, settings};
use phoenix_model::{Source, Status};
use phoenix_substituter::{Found, Heard, LARGEST_NARINFO, Settings, ask};
use phoenix_testkit::binary_cache::{BinaryCache, Reply};

/// A cache with the paths of these numbers.
fn cache(numbers: impl IntoIterator<Item = usize>) -> BinaryCache {
    let cache = BinaryCache::start(STORE).unwrap();
    for path in numbers.into_iter().map(path) {
        cache.add(&file(&path), &narinfo(&path));
    }
    cache
}

#[derive(Default, Debug)]
struct Told {
    answers: BTreeMap<String, (Status, Option<Found>)>,
    others: Vec<Heard>,
}

impl Told {
    fn of(&self, number: usize) -> &Status {
        &self.answers[path(number).as_str()].0
    }

    fn failed(&self) -> Vec<&str> {
        let mut failed = Vec::new();
        for heard in &self.others {
            if let Heard::Failed { problem, .. } = heard {
                failed.push(problem.as_str());
            }
        }
        failed
    }
}

/// No answer is expected.
fn nothing_but_waiting(heard: &Heard) -> Vec<phoenix_model::StorePath> {
    assert_eq!(*heard, Heard::Waiting);
    Vec::new()
}

fn asked(settings: &Settings, numbers: impl IntoIterator<Item = usize>) -> Told {
    let mut told = Told::default();
    let paths = numbers.into_iter().map(path).collect();
    ask(settings, &AtomicBool::new(false), paths, &mut |heard| {
        match heard {
            Heard::Answer { path, status, found } => {
                assert!(told.answers.insert(path.to_string(), (status, found)).is_none(), "answered twice");
            }
            Heard::Waiting => {}
            other => told.others.push(other),
        }
        Vec::new()
    })
    .unwrap();
    told
}

fn in_cache(cache: &BinaryCache) -> Status {
    Status::Present(Source::Substituter(cache.url().to_owned()))
}

#[test]
fn what_is_found_comes_with_its_sizes_and_references() {
    let cache = cache([1]);
    let told = asked(&settings(&[cache.url()]), [1]);
    let found = told.answers[path(1).as_str()].1.clone().unwrap();
    assert_eq!((found.nar_size, found.file_size), (9, Some(7)));
    assert_eq!(found.references, [path(1).base_name()]);
}

#[test]
fn one_path_that_a_cache_cannot_answer_leaves_the_others_alone() {
    for status in [403, 500] {
        let cache = cache(2..50);
        let bad = file(&path(1));
        cache.rule(move |request| (request.path == bad).then(|| Reply::status(status)));
        cache.latency(Duration::from_millis(5));
        let mut settings = settings(&[cache.url()]);
        settings.connections = 2;
        let told = asked(&settings, (1..400).rev());
        assert_eq!(*told.of(1), Status::Unknown, "{status}");
        assert!((2..50).all(|number| *told.of(number) == in_cache(&cache)), "{status}");
        assert_eq!((told.failed(), told.others.len()), (vec![], 1), "{status}: {:?}", told.others);
        assert!(
            matches!(&told.others[0], Heard::Strange { problem, .. } if problem.contains(&status.to_string()))
        );
    }
}

#[test]
fn a_bucket_that_answers_403_for_what_it_has_not_is_asked_on() {
    let cache = cache([7]);
    cache.rule(|request| {
        let has = request.path == file(&path(7)) || request.path == "/nix-cache-info";
        (!has).then(|| Reply::status(403))
    });
    let told = asked(&settings(&[cache.url()]), 0..20);
    assert_eq!(*told.of(7), in_cache(&cache));
    assert_eq!(*told.of(6), Status::Unknown);
    assert_eq!(told.others.len(), 1, "said once: {:?}", told.others);
    assert_eq!(cache.requests().len(), 21, "not tried again");
}

#[test]
fn a_cache_that_hangs_is_named_once_and_the_rest_of_its_questions_do_not_wait() {
    let (hanging, working) = (cache([]), cache([3]));
    hanging
        .rule(|request| request.path.ends_with(".narinfo").then(|| Reply { hang: true, ..Reply::default() }));
    let mut settings = settings(&[hanging.url(), working.url()]);
    settings.timeout = Duration::from_millis(300);
    let start = Instant::now();
    let told = asked(&settings, 0..500);
    // Two tries and the wait between them, whatever the number of questions.
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(told.failed(), ["it does not answer in time"]);
    assert_eq!(*told.of(3), in_cache(&working));
    assert_eq!(*told.of(4), Status::Unknown);
    assert!(hanging.requests().len() <= 1 + 2 * 16, "{}", hanging.requests().len());
}

#[test]
fn a_cache_that_is_slow_to_say_what_it_is_holds_up_the_others_only_for_a_while() {
    let (slow, working) = (cache([1, 2]), cache([2]));
    slow.rule(|request| {
        if request.path == "/nix-cache-info" && request.times == 1 {
            std::thread::sleep(Duration::from_secs(5));
        }
        None
    });
    let mut settings = settings(&[slow.url(), working.url()]);
    settings.timeout = Duration::from_secs(20);
    let told = asked(&settings, [1, 2, 3]);
    assert_eq!(*told.of(1), in_cache(&slow), "it is asked when it has opened");
    assert_eq!(*told.of(2), in_cache(&working), "nobody waited for it");
    assert_eq!(*told.of(3), Status::Absent);
    assert!(told.others.is_empty(), "{:?}", told.others);
}

#[test]
fn a_cache_that_limits_requests_is_asked_more_slowly_until_it_answers() {
    let cache = cache(0..40);
    // Every path is refused twice: with all in flight at once this is a burst of refusals.
    cache.rule(|request| {
        let busy = request.path.ends_with(".narinfo") && request.times <= 2;
        busy.then(|| Reply::status(429))
    });
    let told = asked(&settings(&[cache.url()]), 0..40);
    assert!((0..40).all(|number| *told.of(number) == in_cache(&cache)));
    assert!(told.others.is_empty(), "{:?}", told.others);
    assert_eq!(cache.requests().len(), 1 + 3 * 40);
}

#[test]
fn a_cache_that_wants_to_be_left_alone_for_long_is() {
    let cache = cache([1]);
    cache.rule(|request| {
        let busy = request.path.ends_with(".narinfo");
        busy.then(|| Reply { headers: vec!["Retry-After: 3600".into()], ..Reply::status(429) })
    });
    let start = Instant::now();
    let told = asked(&settings(&[cache.url()]), [1]);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(*told.of(1), Status::Unknown);
    assert_eq!(told.failed(), ["it answers 429 Too Many Requests and wants to be left alone for 3600 s"]);
}

#[test]
fn a_torn_answer_is_fetched_again() {
    let cache = cache([1]);
    cache.rule(|request| {
        let torn = request.path.ends_with(".narinfo") && request.times == 1;
        torn.then(|| Reply { torn: true, ..Reply::text(&narinfo(&path(1))) })
    });
    assert_eq!(*asked(&settings(&[cache.url()]), [1]).of(1), in_cache(&cache));
}

#[test]
fn an_endless_answer_is_not_read_to_its_end() {
    let cache = cache([1]);
    cache.add(&file(&path(1)), &format!("{}X: {}\n", narinfo(&path(1)), "x".repeat(LARGEST_NARINFO)));
    let told = asked(&settings(&[cache.url()]), [1]);
    assert_eq!(*told.of(1), Status::Unknown);
    assert!(matches!(&told.others[..], [Heard::Strange { problem, .. }] if problem.contains("larger")));
}

#[test]
fn a_server_that_is_no_binary_cache_is_named() {
    let other = BinaryCache::start(STORE).unwrap();
    other.rule(|_| Some(Reply::status(404)));
    let told = asked(&settings(&[other.url()]), [1]);
    assert_eq!(told.failed(), ["it is no binary cache: it has no nix-cache-info"]);
    assert_eq!(*told.of(1), Status::Absent, "Nix passes it over as well");

    let portal = BinaryCache::start(STORE).unwrap();
    portal.rule(|_| Some(Reply::text("<html>Please log in</html>\n")));
    let told = asked(&settings(&[portal.url()]), [1]);
    assert_eq!((told.of(1), told.failed().len()), (&Status::Unknown, 1), "a portal may hide the cache");
}

#[test]
fn a_directory_that_is_not_there_is_named_and_an_empty_one_has_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let there = format!("file://{}", directory.path().display());
    let told = asked(&settings(&[&there]), [1]);
    assert_eq!((told.of(1), told.failed().len()), (&Status::Absent, 0));
    let told = asked(&settings(&[&format!("{there}/x")]), [1]);
    assert_eq!((told.of(1), told.failed().len()), (&Status::Unknown, 1));
}

#[test]
fn without_substituters_everything_is_absent() {
    assert_eq!(*asked(&settings(&[]), [1]).of(1), Status::Absent);
}

#[test]
fn one_named_twice_is_asked_once() {
    let cache = cache([]);
    let told = asked(&settings(&[cache.url(), cache.url()]), [1]);
    assert_eq!((told.of(1), cache.requests().len()), (&Status::Absent, 2));
}

#[test]
fn a_stop_is_heeded_while_nothing_answers() {
    let cache = cache([]);
    cache.rule(|_| Some(Reply { hang: true, ..Reply::default() }));
    let stop = AtomicBool::new(false);
    let mut settings = settings(&[cache.url()]);
    settings.timeout = Duration::from_secs(60);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            ask(&settings, &stop, vec![path(1)], &mut |heard| nothing_but_waiting(&heard)).unwrap();
            Instant::now()
        });
        while cache.requests().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let stopped = Instant::now();
        stop.store(true, Ordering::Relaxed);
        let took = asking.join().unwrap() - stopped;
        assert!(took < Duration::from_millis(200), "{took:?}");
    });
}

#[test]
fn a_stop_ends_a_call_of_nix() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let mut settings = settings(&["local?root=/nonexistent/phoenix"]);
    // Nix reads its configuration first, and this one never comes.
    settings.nix.set_env("NIX_USER_CONF_FILES", &fifo);
    settings.timeout = Duration::from_secs(60);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
        });
        let start = Instant::now();
        ask(&settings, &stop, vec![path(1)], &mut |heard| nothing_but_waiting(&heard)).unwrap();
        let took = start.elapsed();
        assert!((Duration::from_millis(300)..Duration::from_millis(600)).contains(&took), "{took:?}");
    });
}

#[test]
fn questions_go_out_while_others_are_in_flight() {
    let cache = cache([]);
    let slow = file(&path(0));
    // Refused twice, it takes more than 375 ms.
    cache.rule(move |request| (request.path == slow && request.times <= 2).then(|| Reply::status(500)));
    let mut order = Vec::new();
    ask(&settings(&[cache.url()]), &AtomicBool::new(false), vec![path(0), path(1)], &mut |heard| {
        if heard == Heard::Waiting {
            return Vec::new();
        }
        let Heard::Answer { path: answered, .. } = heard else { panic!("{heard:?}") };
        let number = (0..9).find(|&number| path(number) == answered).unwrap();
        order.push(number);
        // A chain of eight, one after the other, beside the slow one.
        if (1..8).contains(&number) { vec![path(number + 1)] } else { Vec::new() }
    })
    .unwrap();
    assert_eq!(order, [1, 2, 3, 4, 5, 6, 7, 8, 0]);
}

#[test]
fn secrets_are_told_nowhere() {
    let cache = cache([1]);
    // `me:s@cret` in base 64.
    cache.rule(|request| {
        (request.authorization.as_deref() != Some("Basic bWU6c0BjcmV0")).then(|| Reply::status(401))
    });
    let good = cache.url().replace("http://", "http://me:s%40cret@") + "/?token=s%40cret";
    let told = asked(&settings(&[&good]), [1]);
    assert_eq!(*told.of(1), in_cache(&cache), "{told:?}");
    let gone = good.replace("127.0.0.1", "127.0.0.1.invalid");
    let broken = "http://me:s%40cret@host:port/";
    let nix = "ssh-ng://me:s%40cret@no-such-host.invalid";
    let settings = settings(&[&gone, broken, nix]);
    let told = asked(&settings, [1]);
    assert_eq!(told.failed().len(), 3, "{told:?}");
    for text in [format!("{told:?}"), format!("{settings:?}")] {
        assert!(!text.contains("cret"), "{text}");
    }
}

#[test]
fn time_falls_with_the_number_of_requests_in_flight() {
    let cache = cache([]);
    cache.latency(Duration::from_millis(30));
    let mut settings = settings(&[cache.url()]);
    settings.connections = 64;
    let start = Instant::now();
    asked(&settings, 0..2000);
    let took = start.elapsed();
    // 2000 / 64 rounds of 30 ms are 0.94 s; a busy machine gets some more.
    assert!(took < Duration::from_millis(2500), "{took:?}");
    assert_eq!(cache.requests().len(), 2001);
    assert!(cache.most_at_once() > 32 && cache.most_at_once() <= 64, "{}", cache.most_at_once());
}
