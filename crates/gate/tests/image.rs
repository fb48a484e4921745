//! Images in a registry that is there, absent, guarded or broken.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use phoenix_gate::{Answer, Credentials, Registries};

const OK: &str = "200 OK\r\n";

/// A registry on the loopback; `answer` makes the status line and headers of a request's head.
fn registry(answer: impl Fn(&str, &str) -> (String, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let name = host.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            let (head, body) = answer(&head.join("\n"), &name);
            let length = body.len();
            let reply = format!("HTTP/1.1 {head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
            // A client that ran out of time is gone.
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    host
}

async fn ask(host: &str, config: &str) -> Result<Answer<()>, String> {
    patiently(host, config, Duration::from_secs(2)).await
}

async fn patiently(host: &str, config: &str, patience: Duration) -> Result<Answer<()>, String> {
    let credentials = Credentials::parse(config).expect("a config");
    let registries = Registries::new(credentials, Duration::from_millis(1500), patience).expect("a client");
    registries.ask(&format!("{host}/owner/app:1")).await.map_err(|error| error.to_string())
}

fn always(status: &'static str) -> String {
    registry(move |_, _| (format!("{status}\r\n"), String::new()))
}

#[tokio::test]
async fn there_is_no_work_and_absent_is() {
    let host = registry(|head, _| {
        assert!(
            head.starts_with("HEAD /v2/owner/app/manifests/1 ") && head.contains("oci.image.index"),
            "{head}"
        );
        (OK.to_owned(), String::new())
    });
    let reason = format!("image {host}/owner/app:1 exists");
    assert_eq!(ask(&host, "{}").await.unwrap(), Answer::None { reason });
    assert_eq!(ask(&always("404 Not Found"), "{}").await.unwrap(), Answer::Work(()));
}

#[tokio::test]
async fn refused_and_broken_are_not_absent() {
    for status in ["401 Unauthorized", "403 Forbidden", "429 Too Many Requests", "500 Oh", "503 Oh"] {
        let error = ask(&always(status), "{}").await.unwrap_err();
        assert!(error.contains(&status[..3]) && error.contains("unknown whether image"), "{error}");
    }
    assert!(ask("127.0.0.1:1", "{}").await.is_err(), "nobody listens");
}

/// A registry whose first answer is this, and whose second is that there is no such image.
fn busy(first: &'static str) -> String {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    registry(move |_, _| match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0 => (format!("{first}\r\n"), String::new()),
        _ => ("404 Not Found\r\n".to_owned(), String::new()),
    })
}

#[tokio::test]
async fn who_is_busy_is_asked_again_as_late_as_it_wants() {
    let patience = Duration::from_secs(20);
    for first in ["429 Too Many Requests\r\nRetry-After: 2", "503 Oh", "502 Oh\r\nRetry-After: tomorrow"] {
        let begun = std::time::Instant::now();
        assert_eq!(patiently(&busy(first), "{}", patience).await.unwrap(), Answer::Work(()), "{first}");
        let least = if first.contains("After: 2") { 2 } else { 1 };
        assert!(begun.elapsed() >= Duration::from_secs(least), "{first}");
    }
    let error = patiently(&busy("429 Oh\r\nRetry-After: 3600"), "{}", patience).await.unwrap_err();
    assert!(error.contains("answers 429") && error.contains("asked in 3600 s"), "{error}");
}

#[tokio::test]
async fn a_name_that_is_none_is_no_matter_of_a_registry() {
    let registries = Registries::new(Credentials::default(), Duration::from_secs(1), Duration::from_secs(1));
    let error = registries.unwrap().ask("docker-daemon:a/b:c:d").await.unwrap_err();
    assert!(matches!(error, phoenix_gate::GateError::ImageName { .. }), "{error}");
}

#[tokio::test]
async fn slow_is_not_absent() {
    let host = registry(|_, _| {
        std::thread::sleep(Duration::from_secs(3));
        ("404 Not Found\r\n".to_owned(), String::new())
    });
    assert!(ask(&host, "{}").await.is_err());
}

/// A registry that gives tokens to `user` with the password `pass`, and for an identity token.
fn guarded() -> String {
    registry(|head, host| {
        if head.starts_with("POST /token ") {
            return (OK.to_owned(), r#"{"access_token":"abc"}"#.to_owned());
        }
        if head.starts_with("GET /token?service=reg&scope=repository%3Aowner%2Fapp%3Apull%2Cpush ") {
            // user:pass
            return match head.contains("Basic dXNlcjpwYXNz") {
                // Docker Hub says it twice.
                true => (OK.to_owned(), r#"{"token":"abc","access_token":"abc"}"#.to_owned()),
                false => ("404 Not Found\r\n".to_owned(), String::new()),
            };
        }
        if head.contains("Bearer abc") {
            return ("404 Not Found\r\n".to_owned(), String::new());
        }
        let scope = "repository:owner/app:pull,push";
        let wants = format!(r#"Bearer realm="http://{host}/token",service="reg",scope="{scope}""#);
        (format!("401 Unauthorized\r\nWWW-Authenticate: {wants}\r\n"), String::new())
    })
}

#[tokio::test]
async fn a_token_is_fetched_with_the_users_login() {
    let host = guarded();
    let config = format!(r#"{{"auths":{{"http://{host}/v2/":{{"auth":"dXNlcjpwYXNz"}}}}}}"#);
    assert_eq!(ask(&host, &config).await.unwrap(), Answer::Work(()));
}

#[tokio::test]
async fn a_token_that_is_not_given_is_not_absence() {
    let error = ask(&guarded(), "{}").await.unwrap_err();
    assert!(error.contains("gives no token"), "{error}");
}

#[tokio::test]
async fn an_identity_token_gets_a_token() {
    let host = guarded();
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjo=","identitytoken":"t0"}}}}}}"#);
    assert_eq!(ask(&host, &config).await.unwrap(), Answer::Work(()));
}

#[tokio::test]
async fn a_helper_that_is_not_there_is_not_absence_and_is_asked_only_where_a_login_is_wanted() {
    let config = r#"{"credsStore":"of-nobody"}"#;
    assert_eq!(ask(&always("404 Not Found"), config).await.unwrap(), Answer::Work(()));
    let error = ask(&guarded(), config).await.unwrap_err();
    assert!(error.contains("cannot start docker-credential-of-nobody"), "{error}");
}
