//! Writing store paths straight into a store, judged by Nix.

#![expect(clippy::unwrap_used, reason = "a test")]

mod nasty;
mod stores;

use fs_err as fs;
use phoenix_model::{NarHash, StorePath, ValidPathInfo};
use phoenix_store::{Import, ImportError, PathInfos, ReceiveError, RegisterError};
use rusqlite::Connection;
use rusqlite::types::Value;
use stores::{Source, Target, metadata};

/// All rows of a table, without what differs from store to store.
fn rows(target: &Target<'_>, query: &str) -> Vec<Vec<Value>> {
    let database = Connection::open(target.layout.database()).unwrap();
    let mut query = database.prepare(query).unwrap();
    let count = query.column_count();
    let rows = query.query_map([], |row| (0..count).map(|at| row.get(at)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

const ROWS: [&str; 3] = [
    "select path, hash, deriver, narSize, ultimate, sigs, ca from ValidPaths order by path",
    "select a.path, b.path from Refs join ValidPaths a on referrer = a.id join ValidPaths b on reference = b.id \
     order by 1, 2",
    "select v.path, d.id, d.path from DerivationOutputs d join ValidPaths v on d.drv = v.id order by 1, 2",
];

#[test]
fn what_comes_in_is_what_nix_would_have() {
    let source = Source::new();
    let mut infos = source.infos();
    assert!(infos.len() > 30, "{}", infos.len());
    assert!(infos.iter().any(|info| info.content_address.is_some()));
    assert!(infos.iter().any(|info| info.deriver.is_some()));
    assert!(infos.iter().any(|info| info.references.contains(&info.path)));
    assert!(infos.iter().any(|info| info.path.is_derivation()));
    assert!(infos.iter().any(|info| info.ultimate));

    // As Nix does it.
    let theirs = source.target("theirs");
    let all = PathInfos::open(&source.layout).unwrap().all_paths().unwrap();
    for derivations in [true, false] {
        let mut copy = source.nix.command("nix");
        copy.args(["--extra-experimental-features", "nix-command", "copy", "--no-check-sigs", "--to"]);
        copy.arg(theirs.url()).args(derivations.then_some("--derivation"));
        let some = all.iter().filter(|path| path.is_derivation() == derivations);
        let output = copy.args(some.map(StorePath::as_str)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    // In an order that is none.
    let ours = source.target("ours");
    infos.reverse();
    for info in &mut infos {
        info.ultimate = false;
    }
    let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let import = ours.import();
    infos.iter_mut().for_each(|info| info.registration_time = 0);
    let done = ours.take(&import, &infos, 10_007);
    assert_eq!(done.new.len(), infos.len());
    assert!(done.already.is_empty());

    ours.verify();
    for query in ROWS {
        let (ours, theirs) = (rows(&ours, query), rows(&theirs, query));
        assert_eq!(ours.len(), theirs.len(), "{query}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{query}");
        }
    }
    for info in ours.infos() {
        assert!(info.registration_time.unsigned_abs() >= before);
        let path = &info.path;
        assert_eq!(
            metadata(&ours.layout.real_path(path)),
            metadata(&theirs.layout.real_path(path)),
            "{path}"
        );
        let refers = |target: &Target<'_>| {
            let text = target.run("nix-store", &["--query", "--references", path.as_str()]);
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let references: Vec<String> = info.references.iter().map(ToString::to_string).collect();
        assert_eq!(refers(&ours), references, "{path}");
    }
    let json = |target: &Target<'_>| {
        let text = target.run("nix", &["path-info", "--all", "--json", "--sigs"]);
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let entries: Vec<&mut serde_json::Value> = match &mut json {
            serde_json::Value::Array(array) => array.iter_mut().collect(),
            serde_json::Value::Object(object) => object.values_mut().collect(),
            other => panic!("{other}"),
        };
        let mut signed = 0;
        for entry in entries {
            entry.as_object_mut().unwrap().remove("registrationTime");
            signed += usize::from(entry["signatures"].as_array().is_some_and(|some| !some.is_empty()));
        }
        assert!(signed > 10, "{text}");
        json
    };
    assert_eq!(json(&ours), json(&theirs));

    // And once more: there is nothing to do.
    assert_eq!(import.valid(&all).unwrap().len(), all.len());
    assert!(import.receive(infos[0].clone()).unwrap().is_none());
    let names = ours.names();
    assert!(names.iter().all(|name| !name.ends_with(".lock") && !name.contains("phoenix")), "{names:?}");
    drop(import);
    let roots = fs::read_dir(ours.layout.state_dir.join("temproots")).unwrap().count();
    assert_eq!(roots, 0, "no temporary roots are left");
    assert_eq!(ours.infos().len(), infos.len());
}

#[test]
fn the_database_says_what_nix_says() {
    let source = Source::new();
    let text = source.nix.run("nix", &["path-info", "--all", "--json"]);
    let infos = source.infos();
    for info in &infos {
        assert!(text.contains(info.path.base_name()));
        for word in info.signatures.iter().chain(&info.content_address) {
            assert!(text.contains(word.as_str()), "{word}");
        }
        let hash = source.nix.run("nix-store", &["--query", "--hash", info.path.as_str()]);
        let hex = source.nix.run("nix-hash", &["--type", "sha256", "--to-base16", &hash[7..]]);
        assert_eq!(info.nar_hash.to_hex(), hex);
        let size = source.nix.run("nix-store", &["--query", "--size", info.path.as_str()]);
        assert_eq!(info.nar_size.to_string(), size);
        let deriver = source.nix.run("nix-store", &["--query", "--deriver", info.path.as_str()]);
        assert_eq!(info.deriver.as_ref().map_or("unknown-deriver", StorePath::as_str), deriver);
    }
    let missing = StorePath::parse(&format!("{}/{}-x", source.nix.store_dir(), "0".repeat(32))).unwrap();
    let some = [&infos[1].path, &missing, &infos[0].path];
    let found = PathInfos::open(&source.layout).unwrap().of(some).unwrap();
    assert_eq!(
        found,
        [infos[1].clone(), infos[0].clone()],
        "in the order asked for, without what is not valid"
    );
}

#[test]
fn a_wrong_hash_or_size_leaves_nothing() {
    let source = Source::new();
    let target = source.target("t");
    let import = target.import();
    let info = source.infos().into_iter().find(|info| info.path.name() == "self").unwrap();
    let nar = source.nar(&info.path);
    let wrong = |change: &dyn Fn(&mut ValidPathInfo), nar: &[u8]| {
        let mut info = ValidPathInfo { references: Vec::new(), ..info.clone() };
        change(&mut info);
        let mut receive = import.receive(info).unwrap().unwrap();
        let result = nar.chunks(100).try_for_each(|piece| receive.feed(piece));
        let error = match result {
            Ok(()) => receive.finish().unwrap_err(),
            Err(error) => {
                drop(receive);
                error
            }
        };
        assert_eq!(target.names(), Vec::<String>::new(), "{error}");
        error
    };
    let error = wrong(&|info| info.nar_hash = NarHash([0; 32]), &nar);
    assert!(matches!(error, ReceiveError::Hash { .. }), "{error}");
    let error = wrong(&|info| info.nar_size += 8, &nar);
    assert!(matches!(error, ReceiveError::Size { more: false, .. }), "{error}");
    let error = wrong(&|info| info.nar_size -= 8, &nar);
    assert!(matches!(error, ReceiveError::Size { more: true, .. }), "{error}");
    let error = wrong(&|info| info.nar_size = nar.len() as u64 - 8, &nar[..nar.len() - 8]);
    assert!(matches!(error, ReceiveError::Damaged { .. }), "{error}");
    let error = wrong(&|info| info.nar_size = 0, &nar);
    assert!(matches!(error, ReceiveError::Size { .. }), "{error}");
    let mut flipped = nar.clone();
    flipped[300] ^= 1;
    wrong(&|_| {}, &flipped);
    target.verify();
}

#[test]
fn what_refers_to_nothing_is_refused() {
    let source = Source::new();
    let target = source.target("t");
    let import = target.import();
    let infos = source.infos();
    let info = infos.iter().find(|info| info.path.name() == "self").unwrap();
    let mut receive = import.receive(info.clone()).unwrap().unwrap();
    receive.feed(&source.nar(&info.path)).unwrap();
    let error = import.register(vec![receive.finish().unwrap()]).unwrap_err();
    let RegisterError::Reference { path, reference } = &error else { panic!("{error}") };
    assert_eq!((path, reference.name()), (&info.path, "leaf"));
    assert_eq!(target.names(), Vec::<String>::new());
    assert!(target.infos().is_empty());
}

#[test]
fn leftovers_are_replaced_and_what_is_valid_is_kept() {
    use std::os::unix::fs::PermissionsExt as _;
    let source = Source::new();
    let target = source.target("t");
    let infos = source.infos();
    let tree = infos.iter().find(|info| info.path.name() == "tree").unwrap();
    let fixed = infos.iter().find(|info| info.path.name() == "fixed").unwrap();
    let at = target.layout.real_path(&tree.path);
    fs::create_dir_all(at.join("a/b")).unwrap();
    fs::write(at.join("a/b/c"), "leftover").unwrap();
    std::os::unix::fs::symlink("/etc", at.join("etc")).unwrap();
    for directory in ["a/b", "a", ""] {
        fs::set_permissions(at.join(directory), std::fs::Permissions::from_mode(0o555)).unwrap();
    }
    fs::write(target.layout.real_path(&fixed.path), "leftover").unwrap();

    let import = target.import();
    target.take(&import, &[tree.clone(), fixed.clone()], 1 << 20);
    target.verify();
    assert!(std::path::Path::new("/etc/passwd").exists());
    assert!(!at.join("a").exists());

    // Valid paths are not looked at; two who bring the same path both succeed.
    let text = infos.iter().find(|info| info.path.name() == "text").unwrap();
    let twice: Vec<_> = (0..2)
        .map(|_| {
            let mut receive = import.receive(text.clone()).unwrap().unwrap();
            receive.feed(&source.nar(&text.path)).unwrap();
            receive.finish().unwrap()
        })
        .collect();
    let mut twice = twice.into_iter();
    let first = import.register(vec![twice.next().unwrap()]).unwrap();
    assert_eq!((first.new.len(), first.already.len()), (1, 0));
    let second = import.register(twice.collect()).unwrap();
    assert_eq!((second.new.len(), second.already.len()), (0, 1));
    target.verify();
    assert_eq!(target.names().len(), 3);
}

#[test]
fn what_comes_in_order_is_registered_as_what_it_is() {
    let source = Source::new();
    let target = source.target("t");
    let import = target.import();
    let fixed = source.infos().into_iter().find(|info| info.path.name() == "fixed").unwrap();
    let come = || {
        let mut receive = import.receive(fixed.clone()).unwrap().unwrap();
        receive.feed(&source.nar(&fixed.path)).unwrap();
        receive.finish().unwrap().into_parts()
    };
    let (info, whole) = come();
    let lie = ValidPathInfo { nar_hash: NarHash([0; 32]), ..info };
    let error = import.register_in_order([(lie, whole)]).unwrap_err();
    assert!(matches!(error, RegisterError::Other { .. }), "{error}");
    assert_eq!(target.names(), Vec::<String>::new());
    let registered = import.register_in_order([come()]).unwrap();
    assert_eq!(registered.new, std::slice::from_ref(&fixed.path));
    target.verify();
}

#[test]
fn a_derivation_that_is_none_is_refused() {
    let source = Source::new();
    let target = source.target("t");
    let import = target.import();
    let fixed = source.infos().into_iter().find(|info| info.path.name() == "fixed").unwrap();
    let path = StorePath::parse(&format!("{}/{}-x.drv", source.nix.store_dir(), "1".repeat(32))).unwrap();
    let info =
        ValidPathInfo { path: path.clone(), references: Vec::new(), content_address: None, ..fixed.clone() };
    let mut receive = import.receive(info).unwrap().unwrap();
    receive.feed(&source.nar(&fixed.path)).unwrap();
    let error = import.register(vec![receive.finish().unwrap()]).unwrap_err();
    assert!(matches!(&error, RegisterError::Derivation { path: named, .. } if *named == path), "{error}");
    assert_eq!(target.names(), Vec::<String>::new());
}

#[test]
fn a_store_that_is_not_known_is_not_written() {
    let source = Source::new();
    let target = source.no_store("none");
    let error = Import::open(&target.layout).unwrap_err();
    assert!(matches!(error, ImportError::NoStore { .. }), "{error}");
    let target = source.target("t");
    fs::write(target.layout.state_dir.join("db/schema"), "11").unwrap();
    let error = Import::open(&target.layout).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the store has a database of version 11, and only 10 is known; another Nix made it"
    );
    let other = StorePath::parse(&format!("/other/store/{}-x", "1".repeat(32))).unwrap();
    fs::write(target.layout.state_dir.join("db/schema"), "10").unwrap();
    let error = target.import().receive(ValidPathInfo::new(other, NarHash([0; 32]), 1)).unwrap_err();
    assert!(matches!(error, ImportError::OtherStore { .. }), "{error}");
}

#[test]
fn a_store_is_made_by_nix_once() {
    let source = Source::new();
    let target = source.no_store("new");
    let mut nix = phoenix_store::Nix::find().unwrap();
    for (name, value) in source.nix.env() {
        nix.set_env(name, value);
    }
    nix.set_env("NIX_REMOTE", target.url());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| phoenix_store::initialise(&nix, &target.layout).unwrap());
        }
    });
    let import = target.import();
    target.take(&import, &source.infos(), 1 << 20);
    target.verify();
    assert_eq!(target.infos().len(), source.infos().len());
}
