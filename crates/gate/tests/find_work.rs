//! Bodies of findWork as phoenix-ci v1's users write them.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phoenix_gate::{Answer, FindWork, GateError, IsKept, Limits, Said, Work};
use serde_json::json;

const LIMITS: Limits = Limits { time: Duration::from_secs(20), memory: 16 << 20 };

fn unit(body: &str) -> FindWork {
    let unit = json!({"attrPath": "ci.app", "drvPath": "/nix/store/x.drv", "findWorkDeps": {"hello": {"path": "/nix/store/hello"}}});
    FindWork {
        attr_path: "ci.app".to_owned(),
        body: body.to_owned(),
        unit,
        bin: None,
        nix_args: Vec::new(),
        env: Vec::new(),
        is_kept: IsKept::default(),
        stop: Arc::default(),
    }
}

async fn asked(body: &str) -> Result<Answer<Work>, GateError> {
    unit(body).ask(LIMITS, Arc::new(|_| ())).await
}

async fn refused(body: &str) -> String {
    asked(body).await.expect_err("it is an error").to_string()
}

fn builds(name: &str) -> Answer<Work> {
    Answer::Work(Work { build: vec![name.to_owned()], run: Vec::new() })
}

#[tokio::test]
async fn work_is_what_it_returns() {
    let answer = asked("return {build: [`${self.attrPath}.drv`], run: ['deploy']}").await.unwrap();
    assert_eq!(
        answer,
        Answer::Work(Work { build: vec!["ci.app.drv".to_owned()], run: vec!["deploy".to_owned()] })
    );
    assert_eq!(
        asked("return {build: [self.findWorkDeps.hello.path]}").await.unwrap(),
        builds("/nix/store/hello")
    );
}

#[tokio::test]
async fn nothing_to_do_has_a_reason() {
    assert!(matches!(asked("return {}").await.unwrap(), Answer::None { .. }));
    assert!(matches!(asked("return {build: []}").await.unwrap(), Answer::None { .. }));
}

#[tokio::test]
async fn other_shapes_are_refused() {
    for body in [
        "",
        "return null",
        "return []",
        "return 'a'",
        "return {builds: []}",
        "return {build: 'a'}",
        "return {build: [1]}",
    ] {
        assert!(matches!(asked(body).await, Err(GateError::Shape { .. })), "{body}");
    }
    let shown = refused("return 'a'").await;
    assert!(shown.contains("returned \"a\"") && !shown.contains("unwell"), "{shown}");
    assert_eq!(asked("return {build: ['a'], run: [], other: 1}").await.unwrap(), builds("a"));
}

#[tokio::test]
async fn what_it_throws_is_shown_with_its_line() {
    let message = refused("const a = 1\nthrow new Error('no registry')").await;
    assert_eq!(message, "findWork of ci.app threw: no registry (line 2)");
    assert!(refused("const a = 1\n\nreturn a..b").await.contains("(line 3)"));
    assert!(refused("throw 'words'").await.contains("words"));
    assert!(refused("core.setFailed('broken'); return {}").await.contains("broken"));
}

#[tokio::test]
async fn programs_run_and_tell_how_they_ended() {
    let body = "const r = await execUtils.execCommand('sh', ['-c', 'echo out; echo err >&2; exit 3'])
        return {build: [r.stdout.trim() + r.stderr.trim() + r.exitCode]}";
    assert_eq!(asked(body).await.unwrap(), builds("outerr3"));
    let body = "const r = await execUtils.execSh('exit 4'); return {build: [String(r.exitCode)]}";
    assert_eq!(asked(body).await.unwrap(), builds("4"));
    assert!(
        refused("await execUtils.execCommand('/nowhere/x', [])").await.contains("cannot start /nowhere/x")
    );
}

#[tokio::test]
async fn what_it_says_is_heard() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&heard);
    let say = Arc::new(move |said: Said| into.lock().expect("whole").push((said.level, said.text)));
    let body = "core.warning('w'); console.log('a', {b: 1}); return {}";
    unit(body).ask(LIMITS, say).await.unwrap();
    let expected = [("warning", "w"), ("info", r#"a {"b":1}"#)].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[tokio::test]
async fn loops_and_waits_are_ended() {
    let limits = Limits { time: Duration::from_millis(300), ..LIMITS };
    for body in ["while (true) {}", "await execUtils.execSh('sleep 30')", "await new Promise(() => {})"] {
        let error = unit(body).ask(limits, Arc::new(|_| ())).await.unwrap_err();
        assert!(matches!(error, GateError::TimeOut { .. }), "{body}: {error}");
    }
}

#[tokio::test]
async fn memory_is_bounded() {
    let error =
        asked("const all = []; while (true) all.push(new Array(1000).fill(all.length))").await.unwrap_err();
    assert!(matches!(error, GateError::Memory { .. }), "{error}");
}

#[tokio::test]
async fn nix_is_asked_and_an_error_is_not_cached() {
    let bin = tempfile::tempdir().unwrap();
    let nix_store = bin.path().join("nix-store");
    let body = "return await nix.isUncachedDrv(self.drvPath) ? {build: [self.attrPath]} : {}";
    let with = |script: &str| {
        fs_err::write(&nix_store, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs_err::set_permissions(&nix_store, std::fs::Permissions::from_mode(0o755)).expect("executable");
        FindWork { bin: Some(bin.path().to_owned()), ..unit(body) }
    };
    let say: Arc<dyn Fn(Said) + Send + Sync> = Arc::new(|_| ());
    let asked = with("echo these derivations will be built: >&2").ask(LIMITS, Arc::clone(&say)).await;
    assert_eq!(asked.unwrap(), builds("ci.app"));
    assert!(matches!(with("exit 0").ask(LIMITS, Arc::clone(&say)).await.unwrap(), Answer::None { .. }));
    let error = with("echo no such path >&2; exit 1").ask(LIMITS, say).await.unwrap_err();
    assert!(error.to_string().contains("no such path"), "{error}");
}

#[tokio::test]
async fn timers_and_the_environment_are_those_of_node() {
    let body = "const late = await new Promise(done => setTimeout(done, 20, 'late'));
        clearTimeout(setTimeout(() => { throw new Error('never') }, 0));
        await new Promise(done => setTimeout(done, 20));
        return { build: [late, process.env.OURS, process.env.HIDDEN ?? 'hidden', core.getInput('attr paths')] }";
    let set = |name: &str, value: Option<&str>| (name.into(), value.map(Into::into));
    let env = vec![
        set("OURS", Some("ours")),
        set("INPUT_ATTR_PATHS", Some(" a ")),
        set("HIDDEN", Some("x")),
        set("HIDDEN", None),
    ];
    let answer = FindWork { env, ..unit(body) }.ask(LIMITS, Arc::new(|_| ())).await.unwrap();
    let build = ["late", "ours", "hidden", "a"].map(str::to_owned).to_vec();
    assert_eq!(answer, Answer::Work(Work { build, run: Vec::new() }));
}

/// All that a body says, and its answer.
async fn heard(work: FindWork) -> (Vec<(String, String)>, Result<Answer<Work>, GateError>) {
    let all = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&all);
    let say = Arc::new(move |said: Said| into.lock().expect("whole").push((said.level, said.text)));
    let answer = work.ask(LIMITS, say).await;
    let all = all.lock().expect("whole").clone();
    (all, answer)
}

#[tokio::test]
async fn what_core_tells_later_steps_is_in_the_runners_files_and_in_the_environment_of_programs() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let variables = ["GITHUB_ENV", "GITHUB_PATH", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"];
    let mut env: Vec<_> =
        variables.iter().map(|name| ((*name).into(), Some(file(name).into_os_string()))).collect();
    env.push(("INPUT_MANY".into(), Some("a \n\nb".into())));
    env.push(("INPUT_YES".into(), Some("True".into())));
    let body = "core.exportVariable('TOKENS', {a: 1}); core.exportVariable('WORD', 'w'); core.addPath('/own/bin'); core.setOutput('more', 'x\\ny')
        core.exportVariable('HOME', 'changed')
        await core.summary.addHeading('Title', 2).addTable([[{data: 'h', header: true}], ['c']]).addRaw('raw', true).write()
        core.saveState('s', 1); core.setCommandEcho(true)
        const r = await execUtils.execSh('echo $WORD $PATH $HOME')
        return {build: [r.stdout.trim().split(':')[0], r.stdout.trim().split(' ')[2], ...core.getMultilineInput('many'),
          String(core.getBooleanInput('yes')), core.getState('s'), String(core.summary.isEmptyBuffer())]}";
    let answer = FindWork { env, ..unit(body) }.ask(LIMITS, Arc::new(|_| ())).await.unwrap();
    let build = ["w /own/bin", "changed", "a", "b", "true", "1", "true"].map(str::to_owned).to_vec();
    assert_eq!(answer, Answer::Work(Work { build, run: Vec::new() }));
    let text = |name: &str| fs_err::read_to_string(file(name)).unwrap();
    assert!(text("GITHUB_ENV").starts_with("TOKENS<<ghadelimiter_"), "{}", text("GITHUB_ENV"));
    assert!(text("GITHUB_ENV").contains("\n{\"a\":1}\nghadelimiter_"));
    assert_eq!(text("GITHUB_PATH"), "/own/bin\n");
    assert!(text("GITHUB_OUTPUT").contains("\nx\ny\nghadelimiter_"));
    let summary = "<h2>Title</h2>\n<table><tr><th>h</th></tr><tr><td>c</td></tr></table>\nraw\n";
    assert_eq!(text("GITHUB_STEP_SUMMARY"), summary);
    // Where there is no runner, nobody is told.
    let none = variables.iter().map(|name| ((*name).into(), None)).collect();
    let body = "core.exportVariable('A', 'b'); core.addPath('/x'); core.setOutput('c', 1); await core.summary.addEOL().write(); return {}";
    assert!(FindWork { env: none, ..unit(body) }.ask(LIMITS, Arc::new(|_| ())).await.is_ok());
}

#[tokio::test]
async fn a_secret_is_said_nowhere() {
    let body = "core.setSecret('hunter2'); core.info('it is hunter2'); core.setSecret(''); throw new Error('no hunter2')";
    let (said, answer) = heard(unit(body)).await;
    assert_eq!(said[0], ("mask".to_owned(), "hunter2".to_owned()));
    assert_eq!(said[1], ("info".to_owned(), "it is ***".to_owned()));
    assert_eq!(answer.unwrap_err().to_string(), "findWork of ci.app threw: no *** (line 1)");
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    for (body, name) in [
        ("core.setOutptu('a', 'b')", "core.setOutptu does not exist here; there is ExitCode, info, "),
        ("core.summary.addTabel([])", "core.summary.addTabel"),
        ("await nix.biuld('a')", "nix.biuld"),
        ("\nexecUtils.exec('a')", "execUtils.exec does"),
        ("await core.getIDToken()", "core.getIDToken"),
        ("core.getInput('no', {required: true})", "Input required and not supplied: no"),
    ] {
        let message = refused(body).await;
        assert!(message.contains(name) && message.contains("(line "), "{message}");
    }
    // What asks whether there is something, or hands an object on, is no use of it.
    let body = "return {build: ['summary' in core && !('nothing' in core) ? 'a' : 'b', typeof JSON.stringify(core), (await core) === core ? 'c' : 'd']}";
    let build = ["a", "string", "c"].map(str::to_owned).to_vec();
    assert_eq!(asked(body).await.unwrap(), Answer::Work(Work { build, run: Vec::new() }));
}

#[tokio::test]
async fn what_a_timer_throws_is_not_lost() {
    for body in [
        "setTimeout(() => { throw new Error('late') }, 1); await new Promise(() => {})",
        "setTimeout(async () => { throw new Error('late') }); await execUtils.execSh('sleep 5'); return {}",
    ] {
        assert!(refused(body).await.contains("threw: late"), "{body}");
    }
}

#[tokio::test]
async fn a_promise_that_is_rejected_and_forgotten_is_no_lack_of_work() {
    for body in [
        "Promise.reject(new Error('forgotten')); await new Promise(done => setTimeout(done, 20)); return {}",
        "const ask = async () => { await null; throw new Error('forgotten') }\nask(); await execUtils.execSh('sleep 0.1'); return {build: ['a']}",
    ] {
        let message = refused(body).await;
        assert!(message.contains("forgotten (line ") && message.contains("nobody waited for"), "{message}");
    }
    let body = "const late = Promise.reject(new Error('no')); await null; await new Promise(done => setTimeout(done, 5));
        try { await late } catch {}
        Promise.reject(1).catch(() => {}); await Promise.allSettled([Promise.reject(2)])
        return {build: ['a']}";
    assert_eq!(asked(body).await.unwrap(), builds("a"));
}

#[tokio::test]
async fn what_nix_does_not_build_is_no_lack_of_work() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["nix", "nix-store"] {
        let file = directory.path().join(name);
        fs_err::write(&file, "#!/bin/sh\ncase \"$*\" in *good*) exit 0;; esac; echo no >&2; exit 3\n")
            .unwrap();
        fs_err::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).expect("executable");
    }
    let ask = async |body: &str| {
        FindWork { bin: Some(directory.path().to_owned()), ..unit(body) }.ask(LIMITS, Arc::new(|_| ())).await
    };
    for (body, what) in [
        ("await nix.build('f', 'a'); return {}", "nix build f#a ended with exit code 3"),
        ("await nix.buildDrvs(['/nix/store/x.drv']); return {}", "the build of /nix/store/x.drv ended"),
        ("await nix.runAll('f', ['a']); return {build: []}", "nix run f#a ended with exit code 3"),
    ] {
        let message = ask(body).await.unwrap_err().to_string();
        assert!(message.contains("it found nothing to do") && message.contains(what), "{message}");
    }
    // Who looks at the code, as v1 gave it, decides.
    assert_eq!(
        ask("return await nix.build('f', 'a') === 3 ? {build: ['a']} : {}").await.unwrap(),
        builds("a")
    );
    assert!(matches!(ask("await nix.buildDrvs(['good']); return {}").await, Ok(Answer::None { .. })));
}

#[tokio::test]
async fn what_node_has_for_texts_is_there() {
    let body = "let ticks = 0
        await new Promise(done => { const timer = setInterval(() => { if (++ticks === 3) { clearInterval(timer); done() } }, 1) })
        const bytes = new TextEncoder().encode('hé'), text = 'Phoenix, ü'
        return {build: [String(ticks), atob('aGVsbG8='), btoa('hello'), btoa('a'), String(bytes.length), new TextDecoder().decode(bytes),
          Buffer.from(text).toString('base64'), Buffer.from(Buffer.from(text).toString('base64'), 'base64').toString(),
          Buffer.from('68c3a9', 'hex').toString(), Buffer.from('hé').toString('hex'), process.platform, typeof process.cwd(), typeof global.Buffer]}";
    let build = [
        "3",
        "hello",
        "aGVsbG8=",
        "YQ==",
        "3",
        "hé",
        "UGhvZW5peCwgw7w=",
        "Phoenix, ü",
        "hé",
        "68c3a9",
        if cfg!(target_os = "macos") { "darwin" } else { std::env::consts::OS },
        "string",
        "function",
    ];
    let build = build.map(str::to_owned).to_vec();
    assert_eq!(asked(body).await.unwrap(), Answer::Work(Work { build, run: Vec::new() }));
    assert!(refused("process.exit(1)").await.contains("process.exit does not exist here"));
}

#[tokio::test]
async fn words_without_end_are_cut() {
    let (said, answer) = heard(unit("core.info('é'.repeat(1e6)); throw new Error('y'.repeat(1e6))")).await;
    let text = &said[0].1;
    assert!(text.len() < 20_000 && text.ends_with("(1983616 bytes more)"), "{}", &text[text.len() - 40..]);
    assert!(answer.unwrap_err().to_string().len() < 20_000);
    let (said, answer) =
        heard(unit("for (let i = 0; i < 2000; i++) core.info('z'.repeat(1e4)); return {}")).await;
    assert!(answer.is_ok());
    assert!(said.iter().map(|(_, text)| text.len()).sum::<usize>() <= (4 << 20) + 100);
    assert!(said.last().unwrap().1.contains("the rest is not shown"), "{:?}", said.last());
}
