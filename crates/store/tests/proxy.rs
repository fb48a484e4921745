//! A daemon of our own in front of Nix's, judged by Nix.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Output};

use phoenix_model::StorePath;
use phoenix_store::{DaemonProxy, Layout, Nix, ProxyError, StoreEnv};
use phoenix_testkit::NixRoot;
use rusqlite::Connection;

/// A store, and a proxy in front of it.
struct Proxied {
    root: NixRoot,
    layout: Layout,
    proxy: DaemonProxy,
    socket: tempfile::TempDir,
}

impl Proxied {
    fn new() -> Self {
        Self::by(|_| {})
    }

    /// With another Nix behind the proxy.
    fn by(change: impl FnOnce(&mut Nix)) -> Self {
        let root = NixRoot::new(Path::new(env!("CARGO_TARGET_TMPDIR")));
        root.run("nix-store", &["--init"]);
        let layout = layout(&root);
        let socket = tempfile::tempdir().unwrap();
        let mut nix = nix(&root);
        change(&mut nix);
        let proxy = DaemonProxy::start(&nix, &layout, socket.path()).unwrap();
        Self { root, layout, proxy, socket }
    }

    /// A program of Nix that writes through the proxy.
    fn command(&self, program: &str) -> Command {
        let mut command = self.root.command(program);
        command.env("NIX_REMOTE", format!("unix://{}", self.socket.path().join("daemon").display()));
        command
    }

    fn instantiate(&self, expression: &str) -> Output {
        self.command("nix-instantiate").args(["-E", expression]).output().unwrap()
    }

    /// The derivation of an expression.
    fn derivation(&self, expression: &str) -> String {
        printed(&self.instantiate(expression))
    }

    /// All that the database says, but for what differs from time to time.
    fn rows(&self) -> Vec<String> {
        let database = Connection::open(self.layout.database()).unwrap();
        let queries = [
            "select path, hash, deriver, narSize, ultimate, sigs, ca from ValidPaths order by path",
            "select a.path, b.path from Refs join ValidPaths a on referrer = a.id join ValidPaths b on \
             reference = b.id order by 1, 2",
            "select v.path, d.id, d.path from DerivationOutputs d join ValidPaths v on d.drv = v.id order by 1, 2",
        ];
        let mut all = Vec::new();
        for query in queries {
            let mut query = database.prepare(query).unwrap();
            let count = query.column_count();
            let row =
                |row: &rusqlite::Row<'_>| (0..count).map(|at| row.get(at)).collect::<Result<Vec<_>, _>>();
            let rows = query.query_map([], row).unwrap();
            all.extend(
                rows.map(|row: rusqlite::Result<Vec<rusqlite::types::Value>>| format!("{:?}", row.unwrap())),
            );
        }
        all
    }

    /// That Nix finds the store sound.
    fn is_sound(&self) {
        let output = self.root.output("nix-store", &["--verify", "--check-contents"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains("error"), "{said}");
    }

    /// The same, and that no lock is left, as there is where Nix refuses something.
    fn verify(&self) {
        self.is_sound();
        let left = std::fs::read_dir(&self.layout.real_dir).unwrap();
        let locks = left.filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().ends_with(".drv.lock")
        });
        assert_eq!(locks.count(), 0);
    }
}

fn layout(root: &NixRoot) -> Layout {
    let environment = root.env();
    let value = |name: &str| {
        let (_, value) = environment.iter().find(|(known, _)| *known == name).unwrap();
        Some(value.clone().into_string().unwrap())
    };
    let (store_dir, state_dir) = (value("NIX_STORE_DIR"), value("NIX_STATE_DIR"));
    let env = StoreEnv { store_dir, state_dir, log_dir: value("NIX_LOG_DIR"), remote: None };
    Layout::of("", &env).unwrap()
}

fn nix(root: &NixRoot) -> Nix {
    let mut nix = Nix::find().unwrap();
    for (name, value) in root.env() {
        nix.set_env(name, value);
    }
    nix
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Derivations of all kinds, texts, and a source.
fn expression(source: &Path, salt: &str) -> String {
    format!(
        r#"let
          make = name: more: derivation ({{ inherit name; system = builtins.currentSystem; builder = "/bin/sh";
            args = [ "-c" "echo {salt} > $out" ]; }} // more);
          text = builtins.toFile "text" "{salt}";
          other = builtins.toFile "other" "${{text}} again";
          fixed = make "fixed" {{ outputHashMode = "flat"; outputHashAlgo = "sha256";
            outputHash = "0000000000000000000000000000000000000000000000000000"; }};
          many = make "many" {{ outputs = [ "out" "dev" ]; inherit text other fixed; src = {source}; }};
          structured = make "structured" {{ __structuredAttrs = true; inherit many; list = [ 1 "two" ]; }};
        in make "top" {{ inherit many structured; dev = many.dev; bytes = "ü
{salt}"; }}"#,
        source = source.display()
    )
}

#[test]
fn what_is_written_through_it_is_what_nix_writes() {
    let through = Proxied::new();
    let source = through.root.path("source");
    std::fs::create_dir_all(source.join("empty")).unwrap();
    std::fs::write(source.join("file"), "contents").unwrap();
    let expression = expression(&source, "salt");
    let drv_path = through.derivation(&expression);
    assert_eq!(through.proxy.written(), 7, "two texts, four derivations, a source");
    through.proxy.register().unwrap();
    assert_eq!(through.proxy.registered().unwrap(), through.proxy.written());
    assert!(through.root.is_valid(&drv_path));
    through.verify();
    let ours = through.rows();
    let metadata = std::fs::metadata(&drv_path).unwrap();
    assert!(metadata.permissions().readonly());
    assert_eq!(metadata.modified().unwrap().elapsed().unwrap().as_secs() / 1_000_000, {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        (since - 1) / 1_000_000
    });

    // As Nix itself does it, in the same place.
    let Proxied { root, layout, proxy, socket } = through;
    drop(proxy);
    root.run("nix-store", &["--gc"]);
    assert!(!root.is_valid(&drv_path));
    let again = root.run("nix-instantiate", &["-E", &expression]);
    assert_eq!(again.lines().next_back(), Some(drv_path.as_str()));
    let proxy = DaemonProxy::start(&nix(&root), &layout, &{
        std::fs::remove_file(socket.path().join("daemon")).unwrap();
        socket.path().to_owned()
    });
    let through = Proxied { root, layout, proxy: proxy.unwrap(), socket };
    assert_eq!(ours, through.rows());
    // What is there already is not written again.
    assert_eq!(through.derivation(&expression), drv_path);
    assert_eq!(through.proxy.written(), 0);
}

#[test]
fn what_is_not_ours_is_handed_on() {
    let through = Proxied::new();
    let make = |name: &str, script: &str| {
        format!(
            r#"derivation {{ name = "{name}"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" ''{script}'' ]; }}"#
        )
    };
    // A build for the evaluation, of something that was written a moment before.
    let number = make("number", "echo 42 > $out");
    let value = format!("import ({number}) + 1");
    let ran = through
        .command("nix-instantiate")
        .args(["--eval", "--read-write-mode", "-E", &value])
        .output()
        .unwrap();
    assert_eq!(printed(&ran), "43", "{}", said(&ran));
    let built = through.proxy.built().unwrap();
    assert!(built.iter().any(|path| path.name() == "number.drv"), "{built:?}");
    // One that fails is told of in Nix's words.
    let failing = make("failing", "echo why it fails >&2; exit 7");
    let value = format!("import ({failing})");
    let ran = through
        .command("nix-instantiate")
        .args(["--eval", "--read-write-mode", "-E", &value])
        .output()
        .unwrap();
    assert!(!ran.status.success());
    assert!(said(&ran).contains("failing.drv") && said(&ran).contains("exit code 7"), "{}", said(&ran));
    // A derivation is there as soon as Nix says so.
    let value = format!("builtins.readFile ({number}).drvPath");
    let ran = through
        .command("nix-instantiate")
        .args(["--eval", "--read-write-mode", "-E", &value])
        .output()
        .unwrap();
    assert!(printed(&ran).contains("Derive("), "{}", said(&ran));
    // Questions of all kinds, and things that only Nix can do.
    let drv_path = through.derivation(&make("asked", "echo > $out"));
    let ask = |args: &[&str]| printed(&through.command("nix-store").args(args).output().unwrap());
    assert_eq!(
        ask(&["--query", "--hash", &drv_path]),
        through.root.run("nix-store", &["--query", "--hash", &drv_path])
    );
    let out = ask(&["--realise", &drv_path]);
    assert!(through.root.is_valid(&out));
    assert_eq!(ask(&["--query", "--deriver", &out]), drv_path);
    assert_eq!(ask(&["--check-validity", "--print-invalid", &drv_path, &out]), "");
    let missing = drv_path.replace("-asked", "-missing");
    assert_eq!(ask(&["--check-validity", "--print-invalid", &missing, &out]), missing);
    assert!(ask(&["--dump-db"]).contains(&out));
    let file = through.root.path("file");
    std::fs::write(&file, "added").unwrap();
    assert!(through.root.is_valid(&ask(&["--add", file.to_str().unwrap()])));
    through.verify();
}

#[test]
fn a_nix_that_is_there_by_one_name_only_builds_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = std::env::var_os("PATH").unwrap();
    let nix = std::env::split_paths(&path).map(|place| place.join("nix")).find(|nix| nix.exists()).unwrap();
    std::os::unix::fs::symlink(nix, directory.path().join("nix")).unwrap();
    let through = Proxied::by(|nix| nix.set_env("PATH", directory.path()));
    let value = r#"import (derivation { name = "seven"; system = builtins.currentSystem; builder = "/bin/sh";
        args = [ "-c" "echo 7 > $out" ]; })"#;
    let ran = through
        .command("nix-instantiate")
        .args(["--eval", "--read-write-mode", "-E", value])
        .output()
        .unwrap();
    assert_eq!(printed(&ran), "7", "{}", said(&ran));
}

/// Texts that are called derivations and say that they make what others make.
#[test]
fn a_derivation_whose_outputs_are_others_is_for_nix_to_refuse() {
    let through = Proxied::new();
    let innocent = r#"derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh"; args = [ "-c" "echo good > $out" ]; }"#;
    let fixed = r#"derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh"; outputHashMode = "flat";
        outputHashAlgo = "sha256"; outputHash = "0000000000000000000000000000000000000000000000000000"; }"#;
    for expression in [innocent, fixed] {
        let drv_path = through.derivation(expression);
        let text = std::fs::read_to_string(&drv_path).unwrap();
        let out = printed(
            &through.command("nix-store").args(["--query", "--outputs", &drv_path]).output().unwrap(),
        );
        let other = format!("{}-y", out.strip_suffix("-x").unwrap());
        let forged = [
            // Another builder, and the same path.
            text.replace("/bin/sh", "/bin/evil"),
            // Another path, in one place or in both.
            text.replace(&out, &other),
            text.replacen(&out, &other, 1),
        ];
        for text in forged {
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
            through.proxy.register().unwrap();
            let before = through.rows();
            let value = format!("builtins.toFile \"x.drv\" \"{quoted}\"");
            let ran = through
                .command("nix-instantiate")
                .args(["--eval", "--read-write-mode", "-E", &value])
                .output()
                .unwrap();
            // Whoever builds what was fetched, and where the text says it is, is no matter for a download.
            if expression == innocent || !text.contains(&out) {
                assert!(!ran.status.success() && said(&ran).contains("incorrect"), "{text}: {}", said(&ran));
                assert_eq!(through.rows(), before, "{text}");
            }
            assert!(!through.rows().iter().any(|row| row.contains(&other)), "{text}");
        }
    }
    through.is_sound();
}

#[test]
fn many_at_once_and_nix_beside_them() {
    let through = Proxied::new();
    let expression = r#"let
        make = n: derivation { name = "n-${toString n}"; system = builtins.currentSystem; builder = "/bin/sh";
          inputs = map make (builtins.filter (m: m >= 0 && m < n) [ (n - 1) (n / 2) ]); };
      in map (n: let v = make n; in v) (builtins.genList (n: n) 12)"#;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..6)
            .map(|number| {
                let mut command = if number % 3 == 2 {
                    through.root.command("nix-instantiate")
                } else {
                    through.command("nix-instantiate")
                };
                scope.spawn(move || command.args(["-E", expression]).output().unwrap())
            })
            .collect();
        let all: Vec<String> = running.into_iter().map(|one| printed(&one.join().unwrap())).collect();
        assert!(all.iter().all(|one| *one == all[0]) && all[0].lines().count() == 12, "{all:?}");
    });
    through.proxy.register().unwrap();
    through.verify();
}

#[test]
fn what_is_written_is_kept_from_the_collector_as_long_as_it_is_there() {
    let through = Proxied::new();
    let drv_path = through.derivation(&expression(&through.root.path("var"), "kept"));
    through.proxy.register().unwrap();
    through.root.run("nix-store", &["--gc"]);
    assert!(through.root.is_valid(&drv_path));
    through.verify();
    let Proxied { root, proxy, .. } = through;
    drop(proxy);
    root.run("nix-store", &["--gc"]);
    assert!(!root.is_valid(&drv_path));
}

#[test]
fn a_store_that_cannot_be_written_is_told_of_and_has_nothing_left_over() {
    let through = Proxied::new();
    let database = Connection::open(through.layout.database()).unwrap();
    database
        .execute_batch(
            "create trigger no before insert on ValidPaths begin select raise(abort, 'no room'); end",
        )
        .unwrap();
    let first = through.instantiate("builtins.toFile \"first\" \"\"");
    let error = through.proxy.register().unwrap_err();
    assert!(matches!(error, ProxyError::Write(_)));
    let error = error.to_string();
    assert!(error.contains("db.sqlite") && error.contains("no room"), "{error}");
    // Whoever comes later is told so, too.
    let later = through.instantiate("builtins.toFile \"later\" \"\"");
    assert!(!later.status.success() && said(&later).contains("no room"), "{}", said(&later));
    drop((first, database));
    let objects = std::fs::read_dir(&through.layout.real_dir).unwrap();
    let names: Vec<_> =
        objects.map(|entry| entry.unwrap().file_name()).filter(|name| name != ".links").collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn a_client_that_is_none_is_sent_away() {
    use std::io::{Read as _, Write as _};
    let through = Proxied::new();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 16], &[0xff; 64]] {
        let mut stream =
            std::os::unix::net::UnixStream::connect(through.socket.path().join("daemon")).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // It may be reset.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{answer:?}");
    }
    // Others are served as before.
    let drv_path = through.derivation(&expression(&through.root.path("etc"), "after"));
    assert!(StorePath::parse(&drv_path).unwrap().is_derivation());
}

#[test]
fn a_proxy_whose_socket_is_gone_ends() {
    let through = Proxied::new();
    let _ = through.instantiate("builtins.toFile \"first\" \"\"");
    assert!(!through.proxy.is_gone());
    std::fs::remove_file(through.socket.path().join("daemon")).unwrap();
    assert!(through.proxy.is_gone());
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(through);
        let _ = ended.send(());
    });
    end.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
}
