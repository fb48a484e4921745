//! Bad input and bad surroundings: each ends in words that help, and loses nothing.
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test says so by failing")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Ran, TestEnv};
use phoenix_testkit::Flake;
use phoenix_testkit::binary_cache::{BinaryCache, Reply};

/// A directory with a program called `nix` that is this script.
fn fake_nix(env: &TestEnv, script: &str) -> String {
    let directory = env.file("fake");
    fs_err::create_dir_all(&directory).unwrap();
    let program = directory.join("nix");
    fs_err::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs_err::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    format!("{}:{path}", directory.display())
}

#[test]
fn no_nix_on_path() {
    let env = TestEnv::new();
    let ran = Ran::from(env.command().arg("run").env("PATH", "/nowhere").output().unwrap());
    let _ = ran.ends_with(1).says("error: no `nix` on PATH").says("hint: install Nix");
}

#[test]
fn a_usage_error_is_exit_code_1() {
    let env = TestEnv::new();
    let _ = env.phoenix(&["run", "--no-such-flag"]).ends_with(1).says("--no-such-flag");
    let _ = env.phoenix(&["run", "--keep-going", "--fail-fast"]).ends_with(1).says("cannot be used with");
    let _ = env
        .phoenix(&["run", ".#a..b"])
        .ends_with(1)
        .says("`.#a..b` is not an installable")
        .says("a name is empty");
    let _ = env
        .phoenix(&["run", "--include", "a..b", &Flake::new("{ }").reference()])
        .ends_with(1)
        .says("a name is empty");
    let _ = env.phoenix(&["--help"]).ends_with(0);
}

#[test]
fn a_path_that_is_no_flake() {
    let env = TestEnv::new();
    let empty = env.file("empty");
    fs_err::create_dir_all(&empty).unwrap();
    let _ = env
        .phoenix(&["run", &format!("path:{}", empty.display())])
        .ends_with(120)
        .says("hint: `phoenix run DIRECTORY` needs");
    let _ = env.phoenix(&["run", "path:/no/such/place"]).ends_with(120).says("/no/such/place");
    let _ = env
        .phoenix(&["run", "-f", "/no/such/file.nix"])
        .ends_with(1)
        .says("cannot evaluate /no/such/file.nix");
}

#[test]
fn a_directory_that_is_taken_for_a_name() {
    let env = TestEnv::new();
    // No registry is asked, so that nothing depends on the network.
    env.nix.configure("flake-registry = /dev/null");
    let flake = Flake::new("{ }");
    let parent = flake.path().parent().unwrap();
    let name = flake.path().file_name().unwrap().to_str().unwrap();
    let ran = Ran::from(env.command().args(["run", name]).current_dir(parent).output().unwrap());
    let _ = ran.ends_with(120).says(&format!("did you mean ./{name}?"));
}

#[test]
fn an_attribute_that_does_not_exist() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system} = { greeting = ok "greeting"; other = ok "other"; }; }"#);
    let _ = env
        .phoenix(&["run", &format!("{}#greting", flake.reference())])
        .ends_with(120)
        .says("there is no attribute `greting`")
        .says("did you mean `greeting`?");
}

#[test]
fn a_flake_with_a_syntax_error() {
    let env = TestEnv::new();
    let flake = Flake::new("{ }");
    flake.write("flake.nix", "{ outputs = { self }: { packages = ; }; }");
    let _ =
        env.phoenix(&["run", &flake.reference()]).ends_with(120).says("syntax error").says("flake.nix:1:");
    // Others go on.
    let good = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    let (ran, report) = env.report(&[&flake.reference(), &good.reference()]);
    let _ = ran.ends_with(120);
    assert_eq!((report.count("targets", "built"), report.count("targets", "notEvaluated")), (1, 1));
}

#[test]
fn outputs_that_do_not_evaluate() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"throw "the whole flake is broken""#);
    let _ = env.phoenix(&["run", &flake.reference()]).ends_with(120).says("the whole flake is broken");
}

#[test]
fn an_empty_flake_is_green() {
    let env = TestEnv::new();
    let (ran, report) = env.report(&[&Flake::new("{ }").reference()]);
    let _ = ran.ends_with(0).says("no targets");
    assert_eq!(report.attrs(), [""; 0]);
}

#[test]
fn output_that_cannot_be_understood() {
    let env = TestEnv::new();
    let run = |script: &str| {
        let path = fake_nix(&env, script);
        Ran::from(env.command().args(["run", "."]).env("PATH", path).output().unwrap())
    };
    let _ = run("echo gibberish").ends_with(1).says("no version in `gibberish`");
    let _ = run("test \"$1\" = --version && echo 'nix (Nix) 2.26.3' || echo '<html>'")
        .ends_with(1)
        .says("`nix config show` printed something that could not be understood");
    let _ = run(
        "test \"$1\" = --version && echo 'nix (Nix) 2.26.3' || { echo 'error: out of order' >&2; exit 1; }",
    )
    .ends_with(1)
    .says("out of order");
}

#[test]
fn a_damaged_and_a_missing_derivation() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"let besides = ok "besides"; in { packages.${system} = rec {
          damaged = d "damaged" "echo x > $out" { };
          above = d "above" "echo x > $out" { inherit damaged besides; };
          good = ok "good";
        }; }"#,
    );
    let attr = |name: &str| format!("packages.{}.{name}", env.system());
    let ran = env.phoenix(&["eval", &format!("{}#damaged", flake.reference())]).ends_with(0);
    let line: serde_json::Value = serde_json::from_str(ran.stdout.trim()).unwrap();
    let drv = line["drvPath"].as_str().unwrap().to_owned();
    for (what, words) in [("cut", "it is damaged at byte"), ("gone", "it is not in the store")] {
        fs_err::set_permissions(&drv, std::fs::Permissions::from_mode(0o644)).unwrap();
        if what == "cut" {
            let text = fs_err::read(&drv).unwrap();
            fs_err::write(&drv, &text[..text.len() / 2]).unwrap();
        } else {
            fs_err::remove_file(&drv).unwrap();
        }
        if what == "cut" {
            let (ran, report) = env.report(&[&flake.reference(), "--fail-fast"]);
            assert_ne!(ran.code, Some(0), "{ran}");
            if report.verdict(&attr("damaged")) == "failed" {
                assert_eq!(report.verdict(&attr("good")), "cancelled", "{ran}");
                assert!(!ran.stderr.contains("Nix ended with"), "{ran}");
            }
        }
        let (ran, report) = env.report(&[&flake.reference()]);
        if what == "gone" && ran.code == Some(0) {
            // Evaluation has written it again.
            assert_eq!(report.verdict(&attr("above")), "built", "{ran}");
            assert!(Path::new(&drv).exists());
            return;
        }
        assert_ne!(ran.code, Some(0), "{ran}");
        // Some versions of Nix notice while evaluating; then it is told there.
        let verdict = report.verdict(&attr("damaged"));
        assert!(matches!(verdict, "failed" | "notEvaluated"), "{ran}");
        if verdict == "failed" {
            let ran = ran.says(words);
            let above = report.verdict(&attr("above"));
            if above == "notEvaluated" {
                // Nix had to read the damaged one to write this.
                let hint = "hint: a derivation in the store is damaged";
                let _ = ran.says("error parsing derivation").says(hint);
                let above = format!("{}#above", flake.reference());
                let ran = env.phoenix(&["plan", &above]).says("error parsing derivation").says(hint);
                assert_ne!(ran.code, Some(0), "{ran}");
                continue;
            }
            assert_eq!(above, "blocked", "{ran}");
            // What does not need it is built.
            assert_eq!(report.count("derivations", "failed"), 1, "{:#}", report.0);
            // The same where it is not asked for itself.
            let above = format!("{}#above", flake.reference());
            let _ = env
                .phoenix(&["plan", &above])
                .ends_with(1)
                .says("hint: a derivation in the store is damaged");
            let (ran, report) = env.report(&[&above]);
            let ran = ran.ends_with(1).says("hint: a derivation in the store is damaged");
            assert_eq!(report.count("derivations", "failed"), 1, "{ran}");
        }
        assert!(matches!(report.verdict(&attr("good")), "built" | "cached"));
    }
}

#[test]
fn a_store_that_may_not_be_written() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    if !is_root() {
        return;
    }
    // Somebody who owns nothing of this store.
    let home = tempfile_home();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(env!("CARGO_BIN_EXE_phoenix"));
    command.args(["run", &flake.reference()]).env_clear().envs(env.nix.env());
    command.env("PATH", std::env::var("PATH").unwrap());
    for name in ["HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        command.env(name, &home);
    }
    fs_err::set_permissions(flake.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let Ok(output) = command.output() else {
        eprintln!("skipped: there is no setpriv here");
        return;
    };
    let ran = Ran::from(output);
    assert!(matches!(ran.code, Some(1 | 120)), "{ran}");
    let _ = ran.says("hint: this user may not write there");
}

#[test]
fn a_full_disk() {
    let env = TestEnv::new();
    if !is_root() {
        return;
    }
    // The store is on a small file system of its own.
    let store = env.nix.path("store");
    fs_err::create_dir_all(&store).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&store).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let _unmount = Unmount(&store);
    let flake = Flake::new(
        r#"{ packages.${system} = {
          big = d "big" "head -c 8000000 /dev/zero > $out" { };
          a-small = ok "a-small";
        }; }"#,
    );
    let (ran, report) = env.report(&[&flake.reference(), "-j", "1"]);
    let _ = ran.ends_with(100).says("No space left on device").says("hint: the disk is full");
    assert_eq!(report.verdict(&format!("packages.{}.a-small", env.system())), "built");
    assert_eq!(report.verdict(&format!("packages.{}.big", env.system())), "failed");
}

#[test]
fn records_that_cannot_be_written_are_told_of_however_quiet_it_is_to_be() {
    let env = TestEnv::new();
    if !is_root() {
        return;
    }
    let small = env.file("small");
    fs_err::create_dir_all(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&small).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    let _unmount = Unmount(&small);
    let flake = Flake::new(
        r#"{ packages.${system}.bad = d "bad" "head -c 200000 /dev/zero | tr '\\0' 'x' | fold; exit 1" { }; }"#,
    );
    let mut command = env.command();
    command.args(["run", "--quiet", &flake.reference()]).env("XDG_STATE_HOME", &small);
    let ran = Ran::from(command.output().unwrap()).ends_with(100);
    let _ = ran.says("warning: the records in ").says("No space left on device");
}

#[test]
fn two_hundred_that_nobody_can_build_are_one_failure_with_a_hint() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = builtins.listToAttrs (map (n: { name = "n${toString n}"; value = derivation {
          name = "n${toString n}"; system = "riscv64-linux"; builder = "/bin/sh"; }; }) (builtins.genList (n: n) 200)); }"#,
    );
    let ran = env.phoenix(&["run", &flake.reference()]).ends_with(1);
    let ran = ran.says("FAILED 200 derivations: ").says("and 195 more").says("hint: `--builders`");
    let lines = ran.stderr.lines().count();
    assert!(lines < 60, "{lines} lines: {ran}");
}

#[test]
fn an_input_is_replaced_by_a_relative_path_from_here() {
    let env = TestEnv::new();
    let lib = |name: &str| format!("{{ outputs = {{ self }}: {{ name = \"{name}\"; }}; }}");
    let here = env.file("here");
    for name in ["one", "two"] {
        let directory = here.join(name);
        fs_err::create_dir_all(&directory).unwrap();
        fs_err::write(directory.join("flake.nix"), lib(name)).unwrap();
    }
    let flake = Flake::new("{ }");
    flake.write(
        "flake.nix",
        &format!(
            "{{ inputs.lib.url = \"path:{}/one\"; outputs = {{ self, lib }}: let {} in {{ packages.${{system}}.x = ok lib.name; }}; }}",
            here.display(),
            phoenix_testkit::PREAMBLE
        ),
    );
    let mut command = env.command();
    command
        .args(["run", "--json", &flake.reference(), "--override-input", "lib", "path:two"])
        .current_dir(&here);
    let ran = Ran::from(command.output().unwrap()).ends_with(0);
    assert!(ran.stdout.contains("\"name\": \"two\""), "{ran}");
}

struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: this needs root");
    }
    root
}

fn tempfile_home() -> std::path::PathBuf {
    let home = std::env::temp_dir().join(format!("phoenix-test-home-{}", std::process::id()));
    fs_err::create_dir_all(&home).unwrap();
    fs_err::set_permissions(&home, std::fs::Permissions::from_mode(0o777)).unwrap();
    home
}

#[test]
fn a_store_that_does_not_answer_leaves_verdicts_all_the_same() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    // An ssh that never gets anywhere.
    let path = fake_nix(&env, "exit 1");
    let directory = path.split(':').next().unwrap();
    fs_err::remove_file(format!("{directory}/nix")).unwrap();
    fs_err::write(format!("{directory}/ssh"), "#!/bin/sh\nexit 255\n").unwrap();
    fs_err::set_permissions(format!("{directory}/ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let run = |verb: &str| {
        let args = [verb, "--json", "--store", "ssh-ng://nowhere", &flake.reference()];
        Ran::from(env.command().args(args).env("PATH", &path).output().unwrap())
    };
    let ran = run("run").ends_with(1).says("cannot look into the store");
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["exitCode"], &report["targets"][0]["verdict"]), (&1.into(), &"failed".into()));
    let _ = run("plan").ends_with(1).says("error: cannot look into the store");
}

#[test]
fn an_unknown_key_in_phoenix_toml() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    flake.write("phoenix.toml", "exclud = []");
    let _ = env.phoenix(&["run", &flake.reference()]).ends_with(1).says("`exclud`; did you mean `exclude`?");
}

#[test]
fn a_daemon_that_is_not_there_is_no_fault_of_the_flake() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    let mut command = env.command();
    command.env("NIX_REMOTE", "daemon").env("NIX_DAEMON_SOCKET_PATH", env.file("no-socket"));
    let output = command.args(["run", &flake.reference()]).output().unwrap();
    let _ =
        Ran::from(output).ends_with(1).says("cannot connect to socket").says("is the Nix daemon running?");
}

#[test]
fn each_report_has_one_format() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    let (one, two, reference) = (env.file("one"), env.file("two"), flake.reference());
    let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
    let files = ["--result-file", one, "--result-file", two];
    let args = [&["run", reference.as_str()][..], &files, &["--result-format", "junit"]].concat();
    let _ =
        env.phoenix(&args).ends_with(1).says("--result-file is given 2 times, and --result-format 1 times");
    let args = [&args[..], &["--result-format", "markdown"]].concat();
    let _ = env.phoenix(&args).ends_with(0);
    assert!(fs_err::read_to_string(one).unwrap().starts_with("<?xml"));
    assert!(!fs_err::read_to_string(two).unwrap().starts_with(['<', '{']));
}

/// Sends a signal to a run once it has said something, and waits for its end.
fn stopped(env: &TestEnv, flake: &Flake, signal: rustix::process::Signal) -> (Ran, Duration) {
    let report = env.file("report.json").display().to_string();
    let args = ["run", &flake.reference(), "-j", "1", "-L", "--result-file", &report];
    let mut child = env.command().args(args).spawn().unwrap();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    loop {
        let before = said.len();
        assert_ne!(std::io::BufRead::read_line(&mut stderr, &mut said).unwrap(), 0, "{said}");
        if said[before..].contains("sleeping now") {
            break;
        }
    }
    let start = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    let code = child.wait().unwrap().code();
    (Ran { code, stdout: String::new(), stderr: said }, start.elapsed())
}

#[test]
fn a_signal_ends_everything_in_order() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let env = TestEnv::new();
        let alive = env.file("alive");
        let flake = Flake::new(&format!(
            r#"let first = ok "first"; in {{ packages.${{system}} = {{
              inherit first;
              slow = d "slow" "echo sleeping now; sleep 20; echo > {}; echo x > $out" {{ inherit first; }};
              third = d "third" "echo x > $out" {{ inherit first; }};
            }}; }}"#,
            alive.display()
        ));
        let (ran, took) = stopped(&env, &flake, signal);
        let _ = ran.ends_with(130).says("stopping (SIG").says("cancelled");
        assert!(took < Duration::from_secs(15), "{took:?}");
        let text = fs_err::read_to_string(env.file("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["exitCode"], 130);
        assert_eq!(report["summary"]["withoutVerdict"], 0);
        assert_eq!(report["summary"]["targets"]["built"], 1, "{report:#}");
        let first =
            report["targets"].as_array().unwrap().iter().find(|target| target["name"] == "first").unwrap();
        assert!(env.nix.is_valid(first["outputs"]["out"].as_str().unwrap()), "what was built stays valid");
        // The builder is gone: it would have left a mark.
        assert!(!still_runs(&env, "sleep 20"));
    }
}

/// Whether a builder of this store still runs.
fn still_runs(env: &TestEnv, command: &str) -> bool {
    let found = Command::new("pgrep").args(["-f", command]).output();
    found.is_ok_and(|found| {
        let pids = String::from_utf8_lossy(&found.stdout).into_owned();
        pids.lines().any(|pid| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&env.nix.store_dir())
        })
    })
}

#[test]
fn a_signal_ends_what_evaluation_builds() {
    let env = TestEnv::new();
    let begun = env.file("begun");
    let flake = Flake::new(&format!(
        r#"{{ packages.${{system}}.a = ok "a${{import (d "import" "touch {}; sleep 31; echo 1 > $out" {{ }})}}"; }}"#,
        begun.display()
    ));
    let child = env.command().args(["run", &flake.reference()]).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !begun.exists() {
        assert!(Instant::now() < deadline, "nothing is built");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(still_runs(&env, "sleep 31"));
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let _ = Ran::from(child.wait_with_output().unwrap()).ends_with(130).says("cancelled");
    assert!(!still_runs(&env, "sleep 31"));
}

#[test]
fn a_signal_that_is_ignored_stays_so() {
    let env = TestEnv::new();
    let begun = env.file("begun");
    let flake = Flake::new(&format!(
        r#"{{ packages.${{system}}.a = d "a" "touch {}; sleep 1; echo > $out" {{ }}; }}"#,
        begun.display()
    ));
    let phoenix = env.command();
    let mut command = env.nix.command("/bin/sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(phoenix.get_program());
    let child = command
        .args(["run", &flake.reference()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !begun.exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let code = if cfg!(target_os = "linux") { 0 } else { 130 };
    let _ = Ran::from(child.wait_with_output().unwrap()).ends_with(code);
}

#[test]
fn a_system_that_does_not_exist() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    let args = ["run", &flake.reference(), "--systems", "x86-64-linux"];
    let _ = env.phoenix(&args).ends_with(1).says("`x86-64-linux` is no system that Nix knows");
    flake.write("phoenix.toml", "systems = [\"x86_64-linx\"]");
    let args = ["run", &flake.reference()];
    let _ = env.phoenix(&args).ends_with(1).says("`x86_64-linx` is no system that Nix knows");
    flake.write("phoenix.toml", "");
    let other = if env.system() == "aarch64-darwin" { "x86_64-linux" } else { "aarch64-darwin" };
    let args = ["run", &flake.reference(), "--systems", other];
    let _ = env.phoenix(&args).ends_with(120).says(&format!("there is no target for {other}"));
}

#[test]
fn a_signal_ends_the_fetching_of_a_flake() {
    let env = TestEnv::new();
    // It takes connections, and says nothing.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let flake = format!("http://{}/flake.tar.gz", server.local_addr().unwrap());
    let other = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    let report = env.file("report.json").display().to_string();
    let args = ["run", &flake, &other.reference(), "--result-file", &report];
    let mut child = env.command().args(args).spawn().unwrap();
    let connection = server.accept().unwrap();
    let start = Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    let code = child.wait().unwrap().code();
    let _ = Ran { code, stdout: String::new(), stderr: said }.ends_with(130);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(connection);
    let text = fs_err::read_to_string(env.file("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["summary"]["targets"]["cancelled"], 2, "{report:#}");
    assert_eq!(report["targets"].as_array().unwrap().len(), 2, "{report:#}");
}

#[test]
fn a_substituter_that_is_down_makes_unknown_and_the_run_goes_on() {
    let env = TestEnv::new();
    let cache = BinaryCache::start(&env.nix.store_dir()).unwrap();
    cache.rule(|request| request.path.ends_with(".narinfo").then(|| Reply::status(401)));
    env.nix.configure(&format!("substituters = {} http://127.0.0.1:1", cache.url()));
    let flake = Flake::new(r#"{ packages.${system} = { a = ok "a"; b = ok "b"; }; }"#);
    let (ran, report) = env.report(&[&flake.reference()]);
    let ran = ran.ends_with(0).says("401 Unauthorized").says("Connection refused");
    assert_eq!(report.count("targets", "built"), 2);
    assert_eq!(report.0["substitutersFailed"].as_array().unwrap().len(), 2);
    assert_eq!(ran.stderr.matches("warning: substituter").count(), 2, "each is named once: {ran}");
    let nix_asked = cache.requests().len();
    assert!(nix_asked <= 4, "Nix is not sent there again: {nix_asked}");
}

#[test]
fn what_a_substituter_has_is_cached_and_fetched_only_for_a_build() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system} = rec { base = ok "base"; app = d "app" "read x < $base; echo $x > $out" { inherit base; }; }; }"#,
    );
    // Another Nix has built it all and put it into a cache.
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    let out = |name: &str| {
        report.field(&format!("packages.{}.{name}", env.system()), "outputs")["out"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let directory = env.file("cache");
    env.nix.run("nix", &["copy", "--to", &format!("file://{}", directory.display()), &out("base")]);
    let cache = BinaryCache::start(&env.nix.store_dir()).unwrap();
    cache.serve_directory(&directory);
    env.nix.run("nix-store", &["--delete", &out("app"), &out("base")]);
    env.nix.configure(&format!("substituters = {}\nrequire-sigs = false", cache.url()));

    let ran = env.phoenix(&["plan", &format!("{}#base", flake.reference())]).ends_with(0);
    assert!(ran.stdout.contains(&format!("in {}", cache.url())), "{ran}");
    let (ran, report) = env.report(&[&format!("{}#base", flake.reference())]);
    let _ = ran.ends_with(0);
    assert_eq!(report.count("targets", "cached"), 1);
    assert!(!env.nix.is_valid(&out("base")), "a cached target is not fetched");

    let (ran, report) = env.report(&[&flake.reference(), "-v"]);
    let _ = ran.ends_with(0).says("fetching ");
    assert_eq!((report.count("targets", "cached"), report.count("targets", "built")), (1, 1));
    assert!(env.nix.is_valid(&out("base")) && env.nix.is_valid(&out("app")));

    // One that says it has it, and does not give it: then it was built, and nothing else is said.
    env.nix.run("nix-store", &["--delete", &out("app"), &out("base")]);
    cache.rule(|request| request.path.contains(".nar.").then(|| Reply::status(404)));
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    assert_eq!(
        (report.count("targets", "cached"), report.count("targets", "built")),
        (0, 2),
        "{:#}",
        report.0
    );
    assert!(env.nix.is_valid(&out("base")) && env.nix.is_valid(&out("app")));
}

/// Nix 2.8 dies of an archive that a substituter answers with 500 for, and would again for every other.
/// Puts paths into a cache, which is the substituter from then on; the store keeps them.
fn served(env: &TestEnv, paths: &[&str]) -> BinaryCache {
    let directory = env.file("cache");
    let to = format!("file://{}", directory.display());
    env.nix.run("nix", &[&["copy", "--to", &to], paths].concat());
    let cache = BinaryCache::start(&env.nix.store_dir()).unwrap();
    cache.serve_directory(&directory);
    let settings = "require-sigs = false\ndownload-attempts = 1";
    env.nix.configure(&format!("substituters = {}\n{settings}", cache.url()));
    cache
}

/// The same cache, that says what it has and gives none of it.
fn broken(cache: BinaryCache) -> BinaryCache {
    cache.rule(|request| request.path.contains(".nar.").then(|| Reply::status(500)));
    cache
}

#[test]
fn a_substituter_that_breaks_off_costs_builds_and_not_the_run() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"let
          numbers = [ "1" "2" "3" "4" "5" ];
          base = number: ok "base-${number}";
          app = number: d "app-${number}" "read x < $base; echo $x > $out" { base = base number; };
          all = make: builtins.listToAttrs (map (number: { name = "n${number}"; value = make number; }) numbers);
        in { packages.${system} = all app; checks.${system} = all base; }"#,
    );
    let (ran, report) = env.report(&[&flake.reference()]);
    let _ = ran.ends_with(0);
    let out = |attr: String| report.field(&attr, "outputs")["out"].as_str().unwrap().to_owned();
    let all =
        |of: &str| (1..6).map(|number| out(format!("{of}.{}.n{number}", env.system()))).collect::<Vec<_>>();
    let (apps, bases) = (all("packages"), all("checks"));
    let _cache = broken(served(&env, &bases.iter().map(String::as_str).collect::<Vec<_>>()));
    for more in [&[][..], &["--fail-fast"]] {
        let paths: Vec<&str> = apps.iter().chain(&bases).map(String::as_str).collect();
        env.nix.run("nix-store", &[&["--delete"], &paths[..]].concat());
        let include = ["--include", "packages.**"];
        let (ran, report) = env.report(&[&[flake.reference().as_str()], &include[..], more].concat());
        let _ = ran.ends_with(0);
        assert_eq!(report.count("targets", "built"), 5, "{:#}", report.0);
    }
}

/// A target that another Nix has built and put into a cache, and that is built only where a file is.
fn cached_elsewhere(env: &TestEnv) -> (Flake, BinaryCache, String) {
    let flag = env.file("flag");
    fs_err::write(&flag, "").unwrap();
    let flake = Flake::new(&format!(
        r#"{{ packages.${{system}}.a = d "a" "test -e {} || {{ echo no flag; exit 7; }}; echo x > $out" {{ }}; }}"#,
        flag.display()
    ));
    let out = env.output(&flake, "a");
    let cache = served(env, &[&out]);
    env.nix.run("nix-store", &["--delete", &out]);
    fs_err::remove_file(&flag).unwrap();
    (flake, cache, env.file("link").display().to_string())
}

#[test]
fn what_is_built_for_its_link_ends_as_any_build() {
    let env = TestEnv::new();
    let (flake, cache, link) = cached_elsewhere(&env);
    let _cache = broken(cache);
    let (ran, report) = env.report(&[&flake.reference(), "-o", &link]);
    let _ = ran.ends_with(100).says("a> no flag");
    assert_eq!(report.count("targets", "failed"), 1, "{:#}", report.0);
    assert!(fs_err::symlink_metadata(&link).is_err());
}

#[test]
fn fail_fast_says_what_has_no_link() {
    let env = TestEnv::new();
    let flag = env.file("flag");
    fs_err::write(&flag, "").unwrap();
    let flake = Flake::new(&format!(
        r#"let app = name: d name "test -e {} || exit 7; echo x > $out" {{ }};
        in {{ packages.${{system}} = {{ a = app "a"; b = app "b"; }}; }}"#,
        flag.display()
    ));
    let outs = ["a", "b"].map(|name| env.output(&flake, name));
    let _cache = broken(served(&env, &[&outs[0], &outs[1]]));
    env.nix.run("nix-store", &["--delete", &outs[0], &outs[1]]);
    fs_err::remove_file(&flag).unwrap();
    let link = env.file("link").display().to_string();
    let (ran, report) = env.report(&[&flake.reference(), "-o", &link, "--fail-fast", "-j", "1"]);
    let _ = ran.ends_with(100).says("they have no link");
    assert_eq!(report.count("targets", "failed"), 1, "{:#}", report.0);
}

/// A target that was to come from a substituter is blocked by what has to be built for it and fails.
#[test]
fn what_fails_beside_the_plan_blocks_what_needs_it() {
    let env = TestEnv::new();
    let flag = env.file("flag");
    fs_err::write(&flag, "").unwrap();
    let flake = Flake::new(&format!(
        r#"let
          base = d "base" "test -e {} || {{ echo no flag; exit 7; }}; echo x > $out" {{ }};
          app = d "app" "read x < $base; echo $x > $out" {{ inherit base; }};
          top = d "top" "read x < $app; echo $x > $out" {{ inherit app; }};
        in {{ packages.${{system}} = {{ inherit app top; }}; }}"#,
        flag.display()
    ));
    let outs = ["app", "top"].map(|name| env.output(&flake, name));
    let base = env.nix.run("nix-store", &["--query", "--references", &outs[0]]);
    let _cache = broken(served(&env, &[&outs[0]]));
    env.nix.run("nix-store", &["--delete", &outs[1], &outs[0]]);
    for path in base.split_whitespace() {
        env.nix.run("nix-store", &["--delete", path]);
    }
    env.nix.run("nix-collect-garbage", &[]);
    fs_err::remove_file(&flag).unwrap();
    let (ran, report) = env.report(&[&flake.reference(), "-o", &env.file("link").display().to_string()]);
    let ran = ran.ends_with(100).says("base> no flag");
    let verdict = |name: &str| report.verdict(&format!("packages.{}.{name}", env.system())).to_owned();
    assert_eq!((verdict("app").as_str(), verdict("top").as_str()), ("blocked", "blocked"), "{ran}");
    assert_eq!(ran.stderr.matches("no flag").count(), 2, "it was tried once: {ran}");
}

#[test]
fn a_signal_ends_what_is_fetched_for_a_link() {
    let env = TestEnv::new();
    let (flake, cache, link) = cached_elsewhere(&env);
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    cache.rule({
        let asked = asked.clone();
        move |request| {
            if request.path.contains(".nar.") {
                asked.store(true, std::sync::atomic::Ordering::Relaxed);
                std::thread::sleep(Duration::from_secs(8));
            }
            None
        }
    });
    let run = common::start(&env, &["run", &flake.reference(), "-o", &link]);
    while !asked.load(std::sync::atomic::Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let begun = Instant::now();
    let id = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let _ = common::end(run).ends_with(130).says("SIGTERM");
    assert!(begun.elapsed().as_secs() < 5 && fs_err::symlink_metadata(&link).is_err());
}

#[test]
fn a_pipe_gets_a_report_and_an_old_report_does_not_stay() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    let pipe = env.file("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs_err::read_to_string(pipe).unwrap()
    });
    let args = ["run", &flake.reference(), "--result-format", "json", "--result-file"];
    let _ = env.phoenix(&[&args[..], &[&pipe.display().to_string()]].concat()).ends_with(0);
    let report: serde_json::Value = serde_json::from_str(&reader.join().unwrap()).unwrap();
    assert_eq!(report["exitCode"], 0);

    let old = env.file("old.json");
    fs_err::write(&old, "of another run").unwrap();
    let mut command = env.command();
    command.args(args).arg(&old).env("PATH", "/nowhere");
    let _ = Ran::from(command.output().unwrap()).ends_with(1);
    assert!(!old.exists());
}

/// Names and logs of a flake are the words of strangers.
#[test]
fn a_hostile_flake_cannot_draw_on_the_terminal() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"let esc = builtins.fromJSON "\"\\u001b\""; in { packages.${system} = {
          ${"evil${esc}]0;owned${esc}[2J\n::error::x"} = throw "${esc}[2J::add-mask::x";
          loud = d "loud" "printf '\\033[2Jowned\\n::set-output name=x::y\\n'; exit 1" { };
        }; }"#,
    );
    let (ran, _) = env.report(&[&flake.reference(), "-L"]);
    assert!(!ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
    assert!(!ran.stderr.lines().any(|line| line.starts_with("::")), "{ran}");
    let _ = ran.ends_with(100).says("owned");
}

#[test]
fn a_setting_that_nix_does_not_take() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    for (args, words) in [
        (&["-j", "abc"] as &[_], "'max-jobs' should be"),
        (&["--option", "sandbox", "maybe"], "'sandbox' has invalid value 'maybe'"),
    ] {
        let ran = env.phoenix(&[&["run", &flake.reference()], args].concat());
        let _ = ran.ends_with(1).says(words).says("hint: ");
    }
}

#[test]
fn what_was_asked_for_and_cannot_be_written_is_no_success() {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: there is no /dev/full");
        return;
    }
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    for verb in ["run", "plan", "eval"] {
        let json: &[&str] = if verb == "eval" { &[] } else { &["--json"] };
        let full = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap().into_parts().0;
        let output = env.command().arg(verb).args(json).arg(flake.reference()).stdout(full).output();
        let _ = Ran::from(output.unwrap()).ends_with(1).says("error: cannot write to stdout");
    }
    let _ = env
        .phoenix(&["run", "--events", "/dev/full", &flake.reference()])
        .ends_with(1)
        .says("error: the events file /dev/full is not whole");
    // It is found out before anything is built.
    let nowhere = env.file("no/such/directory/report.json");
    let ran = env.phoenix(&["run", "--result-file", nowhere.to_str().unwrap(), &flake.reference()]);
    let ran = ran.ends_with(1).says("error: cannot write the report");
    assert!(!ran.stderr.contains("evaluating"), "{ran}");
}

#[test]
fn reports_and_events_go_to_stdout_when_asked() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    let ran = env.phoenix(&["run", "--events", "-", &flake.reference()]).ends_with(0);
    assert!(ran.stdout.lines().all(|line| line.starts_with("{\"at\":")), "{ran}");
    let ran = env.phoenix(&["run", "--result-file", "-", "--result-format", "markdown", &flake.reference()]);
    assert!(ran.stdout.starts_with("## ✅ 1 target: "), "{ran}");
}

#[test]
fn a_password_is_nowhere_to_be_seen() {
    let env = TestEnv::new();
    let events = env.file("events.jsonl");
    let url = "git+http://user:s3cret@127.0.0.1:1/x.git?ref=main&token=s3cret";
    for verb in ["run", "plan", "eval"] {
        let more: &[&str] =
            if verb == "run" { &["--json", "--events", events.to_str().unwrap()] } else { &[] };
        let ran = env.phoenix(&[&[verb, url], more].concat()).ends_with(120);
        assert!(!ran.stderr.contains("s3cret") && !ran.stdout.contains("s3cret"), "{ran}");
    }
    let ran = env.phoenix(&["cache", "ls", "--depot", "http://user:s3cret@127.0.0.1/"]);
    assert!(ran.code != Some(0) && !ran.stderr.contains("s3cret"), "{ran}");
    let events = fs_err::read_to_string(events).unwrap();
    assert!(events.contains("user:***@127.0.0.1") && !events.contains("s3cret"), "{events}");
}

#[test]
fn a_line_without_an_end_is_a_line_of_its_build() {
    let env = TestEnv::new();
    let flake = Flake::new(
        r#"{ packages.${system}.a = d "a" "head -c 3000000 /dev/zero | tr '\\000' x; echo; echo after > $out" { }; }"#,
    );
    let (ran, report) = env.report(&[&flake.reference()]);
    let ran = ran.ends_with(0);
    assert!(!ran.stderr.contains("@nix"), "{ran}");
    let log = fs_err::read_to_string(report.0["derivations"][0]["log"].as_str().unwrap()).unwrap();
    assert!(log.starts_with("xxxx") && log.len() > 900_000, "{}", log.len());
    assert!(log.trim_end().ends_with("(the line is longer)"));
}

#[test]
fn a_pattern_that_matches_nothing_is_told() {
    let env = TestEnv::new();
    let flake = Flake::new(r#"{ packages.${system}.a = ok "a"; }"#);
    let reference = flake.reference();
    let ran = env.phoenix(&["run", "--include", "**.nosuch", &reference]).ends_with(120);
    let _ = ran.says("no attribute matches `**.nosuch`");
    let ran = env.phoenix(&["run", "--include", "**.a", "--include", "checks.*.*", &reference]);
    let _ = ran.ends_with(0).says("warning: the pattern `checks.*.*` matches nothing").says("1 target");
    let ran = env.phoenix(&["run", "--systems", "riscv64-linux", &reference]);
    let _ = ran.ends_with(120).says("there is no target for riscv64-linux");
}
