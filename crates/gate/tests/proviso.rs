//! Provisos as std-action's users write them.

use std::time::{Duration, Instant};

use phoenix_gate::{Answer, GateError, Proviso};

async fn ask(script: &str, action: &str, time_out: Duration) -> Result<Answer<()>, GateError> {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("proviso.sh");
    fs_err::write(&file, script).expect("written");
    Proviso { file, action: action.to_owned(), env: Vec::new(), time_out }.ask().await
}

async fn asked(script: &str) -> Result<Answer<()>, GateError> {
    ask(script, r#"{"name":"app"}"#, Duration::from_secs(20)).await
}

#[tokio::test]
async fn zero_is_work_and_stdout_is_free() {
    assert_eq!(asked("echo anything; echo more").await.unwrap(), Answer::Work(()));
}

#[tokio::test]
async fn one_is_no_work_and_its_last_line_is_the_reason() {
    let answer = asked("echo looking >&2; echo 'app is published' >&2; exit 1").await.unwrap();
    assert_eq!(answer, Answer::None { reason: "its proviso says no: app is published".to_owned() });
}

#[tokio::test]
async fn the_action_is_the_first_argument() {
    let hostile = r#"{"name":"$(exit 3) '\" ; exit 4"}"#;
    let script = r#"[[ $# == 1 && "$1" == '{"name":"$(exit 3) '\''\" ; exit 4"}' ]] || exit 7"#;
    assert_eq!(ask(script, hostile, Duration::from_secs(20)).await.unwrap(), Answer::Work(()));
}

#[tokio::test]
async fn a_crash_is_an_error_with_its_stderr() {
    let message = asked("echo 'jq: cannot index string' >&2; exit 5").await.unwrap_err().to_string();
    assert!(message.contains("exit code 5"), "{message}");
    assert!(message.ends_with("\n  | jq: cannot index string"), "{message}");
    assert!(asked("command-that-is-not-there").await.is_err());
    assert!(asked("(exit 4) | true").await.is_err(), "pipefail");
    let message = asked("kill -9 $$").await.unwrap_err().to_string();
    assert!(message.contains("signal 9"), "{message}");
}

#[tokio::test]
async fn a_time_out_ends_what_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let mark = directory.path().join("mark");
    let script = format!("(sleep 1.5; touch '{}') & sleep 30", mark.display());
    let error = ask(&script, "{}", Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, GateError::TimeOut { .. }), "{error}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!mark.exists(), "its child lives on");
}

#[tokio::test]
async fn something_in_the_background_is_not_waited_for() {
    let begun = Instant::now();
    assert_eq!(asked("sleep 15 & exit 0").await.unwrap(), Answer::Work(()));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_question_that_is_answered_no_is_no_work() {
    for script in [
        "exit 1",
        "echo a >&2; false || exit 1",
        "echo a >&2; [[ a == b ]]",
        "echo a >&2; test -e /nowhere/x",
        "echo a >&2; (( 1 == 2 ))",
        "echo a >&2; echo b | grep -q c",
        "echo a >&2; ! ls / >&2",
        "echo a >&2; [[ a == b ]] && exit 0",
        "echo a >&2; trap 'echo bye' EXIT; cat /nowhere/x",
        "ask() { echo a >&2; return 1; }; ask",
        "false",
        "cat /nowhere/x 2>/dev/null",
        "exec false",
    ] {
        assert!(
            matches!(asked(script).await, Ok(Answer::None { .. })),
            "{script}: {:?}",
            asked(script).await
        );
    }
}

#[tokio::test]
async fn a_command_that_fails_is_no_answer_though_its_code_is_1() {
    for (script, words) in [
        ("echo $UNSET; exit 0", "`echo $UNSET`"),
        ("[[ -n $UNSET ]]", "unbound variable"),
        ("x=$(echo $UNSET)", "unbound variable"),
        ("cat /nowhere/x; exit 0", "`cat /nowhere/x`"),
        ("cat /nowhere/x | sort; exit 0", "No such file"),
        ("cat /nowhere/x | grep -q y", "No such file"),
        (". /nowhere/x", "No such file"),
    ] {
        let message = asked(script).await.unwrap_err().to_string();
        assert!(message.contains(words) && message.contains("exit code 1"), "{script}: {message}");
    }
}

#[tokio::test]
async fn a_script_sees_nothing_of_the_note() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("it's own");
    fs_err::write(&own, "given=yes\n").unwrap();
    let script = directory.path().join("proviso.sh");
    let ask = async |text: &str, env| {
        fs_err::write(&script, text).unwrap();
        let time_out = Duration::from_secs(20);
        Proviso { file: script.clone(), action: "{}".to_owned(), env, time_out }.ask().await
    };
    let bare = "[[ -z ${BASH_ENV+x} && $LINENO == 1 && $0 == *proviso.sh && $# == 1 ]] || exit 7";
    assert_eq!(ask(bare, vec![("BASH_ENV".into(), None)]).await.unwrap(), Answer::Work(()));
    let env = || vec![("BASH_ENV".into(), Some(own.clone().into_os_string()))];
    let given =
        r#"[[ $given == yes && $BASH_ENV == *own ]] || exit 7; bash -c '[[ $given == yes ]]' || exit 8"#;
    assert_eq!(ask(given, env()).await.unwrap(), Answer::Work(()));
    assert!(ask("cat /nowhere/x", env()).await.is_err());
}
