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
