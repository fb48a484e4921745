//! Asking a server that misbehaves, and one that Nix itself filled.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{STORE, file, narinfo, path, settings};
use phoenix_model::{Source, Status, StorePath};
use phoenix_store::Nix;
use phoenix_substituter::{Heard, Settings, ask};
use phoenix_testkit::NixRoot;
use phoenix_testkit::binary_cache::{BinaryCache, Reply};

fn cache() -> BinaryCache {
    BinaryCache::start(STORE).unwrap()
}

fn has(cache: &BinaryCache, path: &StorePath) {
    cache.add(&file(path), &narinfo(path));
}

#[derive(Default, Debug)]
struct Told {
    answers: BTreeMap<String, Status>,
    failed: Vec<(String, String)>,
    strange: usize,
    untrusted: usize,
}

impl Told {
    fn of(&self, path: &StorePath) -> &Status {
        &self.answers[path.as_str()]
    }
}

fn asked(settings: &Settings, paths: &[StorePath]) -> Told {
    let mut told = Told::default();
    ask(settings, &AtomicBool::new(false), paths.to_vec(), &mut |heard| {
        match heard {
            Heard::Answer { path, status, .. } => {
                assert!(told.answers.insert(path.to_string(), status).is_none(), "answered twice");
            }
            Heard::Failed { url, problem } => told.failed.push((url, problem)),
            Heard::Strange { .. } => told.strange += 1,
            Heard::Untrusted { .. } => told.untrusted += 1,
            Heard::Waiting => {}
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
fn present_absent_and_one_request_a_path() {
    let cache = cache();
    has(&cache, &path(1));
    cache.latency(Duration::from_millis(5));
    let paths: Vec<StorePath> = (1..200).map(path).collect();
    let told = asked(&settings(&[cache.url()]), &paths);
    assert_eq!(*told.of(&path(1)), in_cache(&cache));
    assert_eq!(*told.of(&path(2)), Status::Absent);
    assert_eq!(told.answers.len(), 199);
    assert_eq!(cache.requests().len(), 200, "one a path and one for nix-cache-info");
    assert!((2..=16).contains(&cache.most_at_once()), "{}", cache.most_at_once());
}

#[test]
fn an_answer_may_lead_to_more_questions() {
    let cache = cache();
    has(&cache, &path(3));
    let mut seen = Vec::new();
    ask(&settings(&[cache.url()]), &AtomicBool::new(false), vec![path(1)], &mut |heard| {
        if heard == Heard::Waiting {
            return Vec::new();
        }
        let Heard::Answer { path: asked, status, .. } = heard else { panic!("{heard:?}") };
        seen.push(status == Status::Absent);
        // Asking for the same again is no new question.
        match asked {
            asked if asked == path(1) => vec![path(2), path(3), path(1)],
            _ => vec![path(2)],
        }
    })
    .unwrap();
    seen.sort_unstable();
    assert_eq!(seen, [false, true, true]);
}

#[test]
fn the_cache_with_the_lower_priority_number_is_asked_first() {
    let (late, early) = (cache(), cache());
    for cache in [&late, &early] {
        has(cache, &path(1));
    }
    let url = format!("{}?priority=10", early.url());
    let told = asked(&settings(&[late.url(), &url]), &[path(1)]);
    assert_eq!(*told.of(&path(1)), in_cache(&early));
    assert_eq!(late.requests().len(), 1, "only asked what it is");
}

#[test]
fn a_server_that_is_not_there_is_named_once_and_its_answers_are_unknown() {
    let working = cache();
    has(&working, &path(1));
    let gone = cache().url().to_owned();
    let gone = format!("{}1", gone.trim_end_matches(char::is_numeric));
    let paths: Vec<StorePath> = (1..50).map(path).collect();
    let told = asked(&settings(&[&gone, working.url()]), &paths);
    assert_eq!(told.failed.len(), 1, "{:?}", told.failed);
    assert_eq!(*told.of(&path(1)), in_cache(&working), "another one has it");
    assert_eq!(*told.of(&path(2)), Status::Unknown, "the one that is down might have it");
}

#[test]
fn unauthorised_is_unknown_and_not_tried_again() {
    let cache = cache();
    cache.rule(|request| request.path.ends_with(".narinfo").then(|| Reply::status(401)));
    let told = asked(&settings(&[cache.url()]), &[path(1)]);
    assert_eq!(*told.of(&path(1)), Status::Unknown);
    assert!(told.failed[0].1.contains("401"), "{:?}", told.failed);
    assert_eq!(cache.requests().len(), 2);
}

#[test]
fn too_many_requests_is_waited_for() {
    let cache = cache();
    has(&cache, &path(1));
    cache.rule(|request| {
        let busy = request.path.ends_with(".narinfo") && request.times == 1;
        busy.then(|| Reply { headers: vec!["Retry-After: 1".into()], ..Reply::status(429) })
    });
    let start = Instant::now();
    let told = asked(&settings(&[cache.url()]), &[path(1)]);
    assert_eq!(*told.of(&path(1)), in_cache(&cache));
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert!(told.failed.is_empty());
}

#[test]
fn a_server_error_that_stays_is_unknown() {
    let cache = cache();
    cache.rule(|request| request.path.ends_with(".narinfo").then(|| Reply::status(503)));
    let told = asked(&settings(&[cache.url()]), &[path(1), path(2), path(3)]);
    assert!((1..=3).all(|number| *told.of(&path(number)) == Status::Unknown));
    assert_eq!(told.failed.len(), 1);
    let tries = cache.requests().len() - 1;
    assert!((4..=12).contains(&tries), "{tries} requests");
}

#[test]
fn torn_and_strange_answers_are_unknown() {
    let cache = cache();
    has(&cache, &path(1));
    cache.rule(|request| {
        request
            .path
            .starts_with(&format!("/{}", path(1).hash_part()))
            .then(|| Reply { torn: true, ..Reply::text(&narinfo(&path(1))) })
    });
    assert_eq!(*asked(&settings(&[cache.url()]), &[path(1)]).of(&path(1)), Status::Unknown);

    let cache = self::cache();
    cache.add(&format!("/{}.narinfo", path(1).hash_part()), "<html>");
    cache.add(&format!("/{}.narinfo", path(2).hash_part()), &narinfo(&path(3)));
    has(&cache, &path(4));
    let told = asked(&settings(&[cache.url()]), &[path(1), path(2), path(4)]);
    assert_eq!((told.of(&path(1)), told.of(&path(2))), (&Status::Unknown, &Status::Unknown));
    assert_eq!(*told.of(&path(4)), in_cache(&cache), "the rest of it is believed");
    assert_eq!((told.strange, told.failed.len()), (1, 0));
}

#[test]
fn a_server_that_hangs_costs_a_time_out() {
    let cache = cache();
    cache
        .rule(|request| request.path.ends_with(".narinfo").then(|| Reply { hang: true, ..Reply::default() }));
    let mut settings = settings(&[cache.url()]);
    settings.timeout = Duration::from_millis(200);
    let told = asked(&settings, &[path(1)]);
    assert_eq!(*told.of(&path(1)), Status::Unknown);
    assert!(told.failed[0].1.contains("in time"), "{:?}", told.failed);
}

#[test]
fn a_cache_for_another_store_has_nothing() {
    let cache = BinaryCache::start("/other/store").unwrap();
    let told = asked(&settings(&[cache.url()]), &[path(1)]);
    assert_eq!(*told.of(&path(1)), Status::Absent, "Nix passes it over too");
    assert!(told.failed[0].1.contains("/other/store"));
}

#[test]
fn a_stop_is_heeded() {
    let cache = cache();
    cache.latency(Duration::from_millis(100));
    let stop = AtomicBool::new(false);
    let paths: Vec<StorePath> = (0..2000).map(path).collect();
    let start = Instant::now();
    ask(&settings(&[cache.url()]), &stop, paths, &mut |_| {
        stop.store(true, Ordering::Relaxed);
        Vec::new()
    })
    .unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn credentials_come_from_netrc_and_are_not_told() {
    let cache = cache();
    has(&cache, &path(1));
    cache.rule(|request| {
        // Basic, `me:secret` in base 64.
        let known = request.authorization.as_deref() == Some("Basic bWU6c2VjcmV0");
        (!known).then(|| Reply::status(401))
    });
    let directory = tempfile::tempdir().unwrap();
    let netrc = directory.path().join("netrc");
    std::fs::write(&netrc, "machine 127.0.0.1 login me password secret").unwrap();
    let with = Settings { netrc_file: Some(netrc), ..settings(&[cache.url()]) };
    assert_eq!(*asked(&with, &[path(1)]).of(&path(1)), in_cache(&cache));

    let url = cache.url().replace("http://", "http://me:wrong@");
    let told = asked(&settings(&[&url]), &[path(1)]);
    assert_eq!(*told.of(&path(1)), Status::Unknown);
    assert!(!format!("{told:?}").contains("wrong"), "{told:?}");
}

/// A store with a path that follows from its contents and one that does not.
fn filled(root: &NixRoot) -> (StorePath, StorePath) {
    let file = root.path("home/file");
    std::fs::write(&file, "contents").unwrap();
    let added = root.run("nix-store", &["--add", &file.display().to_string()]);
    let expression = root.path("home/default.nix");
    std::fs::write(
        &expression,
        r#"derivation { name = "built"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; }"#,
    )
    .unwrap();
    let built = root.run("nix-build", &["--no-out-link", &expression.display().to_string()]);
    (StorePath::parse(&added).unwrap(), StorePath::parse(&built).unwrap())
}

/// A cache that Nix wrote and signed, and one that it wrote and did not sign.
#[test]
fn signatures_of_nix_itself_are_checked() {
    let root = NixRoot::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let (added, built) = filled(&root);
    let (secret, public) = (root.path("home/secret"), root.path("home/public"));
    let _ = root.run(
        "nix-store",
        &[
            "--generate-binary-cache-key",
            "test-1",
            &secret.display().to_string(),
            &public.display().to_string(),
        ],
    );
    let (signed, unsigned) = (root.path("signed"), root.path("unsigned"));
    for (place, parameters) in
        [(&signed, format!("?secret-key={}", secret.display())), (&unsigned, String::new())]
    {
        let to = format!("file://{}{parameters}", place.display());
        let _ = root.run("nix", &["copy", "--to", &to, added.as_str(), built.as_str()]);
    }
    let key = std::fs::read_to_string(&public).unwrap();

    for (place, is_signed) in [(&signed, true), (&unsigned, false)] {
        let cache = BinaryCache::start(&root.store_dir()).unwrap();
        cache.serve_directory(place);
        for url in [cache.url().to_owned(), format!("file://{}", place.display())] {
            let present = Status::Present(Source::Substituter(url.clone()));
            let strict = Settings { require_sigs: true, store_dir: root.store_dir(), ..settings(&[&url]) };
            let trusting = Settings { trusted_public_keys: vec![key.trim().to_owned()], ..strict.clone() };
            let marked = Settings { substituters: vec![format!("{url}?trusted=1")], ..strict.clone() };
            for (settings, takes) in [(&trusting, is_signed), (&strict, false), (&marked, true)] {
                let told = asked(settings, &[added.clone(), built.clone()]);
                // Nobody has to vouch for a path that follows from its contents: Nix checks those.
                assert_eq!(*told.of(&added), present, "{told:?}");
                let (status, untrusted) = if takes { (&present, 0) } else { (&Status::Absent, 1) };
                assert_eq!((told.of(&built), told.untrusted), (status, untrusted), "{told:?}");
            }
        }
    }
}

/// A store that only Nix can reach.
#[test]
fn other_stores_are_asked_through_nix() {
    let root = NixRoot::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
    let (added, built) = filled(&root);
    let missing = StorePath::parse(&format!("{}/{:032}-missing", root.store_dir(), 1)).unwrap();
    let url = format!("local?state={}", root.path("var/nix").display());
    let mut nix = Nix::find().unwrap();
    for (name, value) in root.env() {
        nix.set_env(name, value);
    }
    let settings = Settings { nix, store_dir: root.store_dir(), ..settings(&[&url]) };
    let told = asked(&settings, &[added.clone(), built.clone(), missing.clone()]);
    let present = Status::Present(Source::Substituter("local".into()));
    assert_eq!((told.of(&added), told.of(&built), told.of(&missing)), (&present, &present, &Status::Absent));
    let strict = Settings { require_sigs: true, ..settings.clone() };
    let told = asked(&strict, &[added.clone(), built.clone()]);
    // What this store built itself it has not signed.
    assert_eq!(
        (told.of(&added), told.of(&built), told.untrusted),
        (&present, &Status::Absent, 1),
        "{told:?}"
    );
    let broken = Settings { substituters: vec!["ssh-ng://no-such-host.invalid".into()], ..settings };
    let told = asked(&broken, std::slice::from_ref(&added));
    assert_eq!((told.of(&added), told.failed.len()), (&Status::Unknown, 1), "{told:?}");
}
