//! The double of GitHub's cache, by plain requests.

use std::time::{Duration, Instant};

use phoenix_testkit::github::{Fault, Faults, Github, Permission, Request};
use phoenix_testkit::http::{Answer, request};
use serde_json::{Value, json};

const MAIN: (&str, Permission) = ("refs/heads/main", Permission::Both);

const BLOB: &[&str] = &["x-ms-blob-type: BlockBlob"];

struct Job<'a> {
    github: &'a Github,
    authorization: String,
}

impl<'a> Job<'a> {
    fn new(github: &'a Github, scopes: &[(&str, Permission)]) -> Self {
        Self { github, authorization: format!("Authorization: Bearer {}", github.token(scopes)) }
    }

    fn call(&self, method: &str, content_type: &str, body: &[u8]) -> Answer {
        let url = format!("{}twirp/github.actions.results.api.v1.CacheService/{method}", self.github.url());
        request("POST", &url, &[&self.authorization, &format!("Content-Type: {content_type}")], body)
    }

    fn json(&self, method: &str, body: &Value) -> (u16, Value) {
        let answer = self.call(method, "application/json", body.to_string().as_bytes());
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    fn create(&self, key: &str) -> (u16, Value) {
        self.json("CreateCacheEntry", &json!({ "key": key, "version": "v" }))
    }

    fn look_up(&self, key: &str) -> (u16, Value) {
        self.json("GetCacheEntryDownloadURL", &json!({ "key": key, "restoreKeys": [key], "version": "v" }))
    }

    fn finalize(&self, key: &str, size: usize) -> (u16, Value) {
        let body = json!({ "key": key, "size_bytes": size.to_string(), "version": "v" });
        self.json("FinalizeCacheEntryUpload", &body)
    }

    /// An entry, and the URL for reading it.
    fn have(&self, key: &str, bytes: &[u8]) -> String {
        let upload = text(&self.create(key).1, "signed_upload_url");
        assert_eq!(request("PUT", &upload, BLOB, bytes).status, 201);
        assert_eq!(self.finalize(key, bytes.len()).1["ok"], true);
        text(&self.look_up(key).1, "signed_download_url")
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn code(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.header("x-ms-error-code"))
}

#[test]
fn protobuf_is_answered_in_protobuf_and_errors_in_json() {
    let github = Github::start().unwrap();
    let job = Job::new(&github, &[MAIN]);
    let create = [0x12, 1, b'k', 0x1a, 1, b'v'];
    let created = job.call("CreateCacheEntry", "application/protobuf", &create);
    assert_eq!((created.status, created.header("content-type")), (200, "application/protobuf"));
    assert_eq!(created.body[..2], [0x08, 1], "ok");
    let url = String::from_utf8_lossy(&created.body);
    let url = &url[url.find("http://").unwrap()..];
    assert_eq!(request("PUT", url, BLOB, b"abc").status, 201);
    let finalize = [0x12, 1, b'k', 0x18, 3, 0x22, 1, b'v'];
    let finalized = job.call("FinalizeCacheEntryUpload", "application/protobuf", &finalize);
    assert_eq!(finalized.body, [0x08, 1, 0x10, 1], "ok, and the first entry");
    let look_up = [0x12, 1, b'x', 0x1a, 1, b'k', 0x22, 1, b'v'];
    let found = job.call("GetCacheEntryDownloadURL", "application/protobuf", &look_up);
    assert!(found.body.ends_with(&[0x1a, 1, b'k']), "the matched key");
    let again = job.call("CreateCacheEntry", "application/protobuf", &create);
    assert_eq!((again.status, again.header("content-type")), (409, "application/json"));
    assert!(String::from_utf8_lossy(&again.body).contains("already_exists"));
    assert_eq!(job.call("CreateCacheEntry", "text/plain", b"").status, 404);
    assert_eq!(job.call("DeleteCacheEntry", "application/json", b"{}").status, 404);
    assert_eq!(job.call("CreateCacheEntry", "application/json", b"{").status, 400);
}

#[test]
fn tokens_say_who_reads_and_writes_what() {
    let github = Github::start().unwrap();
    let main = Job::new(&github, &[MAIN]);
    main.have("a", b"abc");
    let read_only = Job::new(&github, &[("refs/heads/main", Permission::Read)]);
    let words = "cache write denied: token has no writable scopes";
    let denied = json!({ "ok": false, "signed_upload_url": "", "message": words });
    assert_eq!(read_only.create("b"), (200, denied));
    assert_eq!(read_only.look_up("a").1["ok"], true);
    let blind = Job::new(&github, &[("refs/heads/main", Permission::Write)]);
    let (status, answer) = blind.look_up("a");
    assert_eq!(status, 403);
    assert!(text(&answer, "msg").contains("cache read denied:"));
    let other = Job::new(&github, &[("refs/pull/1/merge", Permission::Both)]);
    assert_eq!(other.look_up("a").1["ok"], false);
    let nobody = Job { github: &github, authorization: "Authorization: Bearer nonsense".to_owned() };
    assert_eq!(nobody.look_up("a").0, 401);
    github.advance(Duration::from_secs(6 * 3600 + 1));
    assert_eq!(main.look_up("a").0, 401);
}

#[test]
fn signed_urls_are_for_one_thing_and_for_a_time() {
    let github = Github::start().unwrap();
    let job = Job::new(&github, &[MAIN]);
    let upload = text(&job.create("a").1, "signed_upload_url");
    assert_eq!(code(&request("GET", &upload, &[], b"")), (403, "AuthorizationPermissionMismatch"));
    assert_eq!(code(&request("PUT", &upload, &[], b"abc")), (400, "MissingRequiredHeader"));
    let chunked = &["x-ms-blob-type: BlockBlob", "Transfer-Encoding: chunked"];
    let without_length = request("PUT", &upload, chunked, b"3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(code(&without_length), (411, "MissingContentLengthHeader"));
    assert_eq!(job.finalize("a", 3).0, 404, "there is no blob yet");
    assert_eq!(request("PUT", &upload, BLOB, b"abc").status, 201);
    assert_eq!(job.finalize("a", 4).0, 400, "the size is wrong");
    assert_eq!(job.finalize("a", 3).0, 200);
    let download = text(&job.look_up("a").1, "signed_download_url");
    assert_eq!(code(&request("PUT", &download, BLOB, b"x")), (403, "AuthorizationPermissionMismatch"));
    for (from, to) in [("sp=r", "sp=rw"), ("sig=", "sig=x"), ("/001-1", "/001-2")] {
        assert!(download.contains(from), "{download}");
        let tampered = request("GET", &download.replace(from, to), &[], b"");
        assert_eq!(code(&tampered), (403, "AuthenticationFailed"), "{to}");
    }
    github.advance(Duration::from_secs(590));
    assert_eq!(request("GET", &download, &[], b"").body, b"abc");
    github.advance(Duration::from_secs(10));
    assert_eq!(code(&request("GET", &download, &[], b"")), (403, "AuthenticationFailed"));
    assert_eq!(request("PUT", &upload, BLOB, b"xyz").status, 201, "who has it may write for an hour");
    github.advance(Duration::from_secs(3000));
    assert_eq!(code(&request("PUT", &upload, BLOB, b"xyz")), (403, "AuthenticationFailed"));
}

#[test]
fn ranges_and_heads_are_answered_as_azure_does() {
    let github = Github::start().unwrap();
    let url = Job::new(&github, &[MAIN]).have("a", b"0123456789");
    let get = |header: &str| request("GET", &url, &[header], b"");
    let part = get("Range: bytes=2-4");
    assert_eq!(
        (part.status, part.header("content-range"), &part.body[..]),
        (206, "bytes 2-4/10", &b"234"[..])
    );
    assert_eq!(get("x-ms-range: bytes=8-99").body, b"89");
    let both = request("GET", &url, &["Range: bytes=0-0", "x-ms-range: bytes=1-1"], b"");
    assert_eq!(both.body, b"1");
    assert_eq!(code(&get("Range: bytes=10-10")), (416, "InvalidRange"));
    assert_eq!(get("Range: bytes=-3").status, 400);
    let head = request("HEAD", &url, &[], b"");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "10", 0));
    assert!(head.header("last-modified").ends_with(" GMT") && !head.header("etag").is_empty());
    assert_eq!(github.counts().bytes_out, 3 + 2 + 1);
}

#[test]
fn a_minute_has_its_limits() {
    let github = Github::start().unwrap();
    github.behave(|behaviour| {
        behaviour.creates_per_minute = 3;
        behaviour.lookups_per_minute = 2;
    });
    let job = Job::new(&github, &[MAIN]);
    let statuses: Vec<_> = (0..4).map(|n| job.create(&format!("k{n}")).0).collect();
    assert_eq!(statuses, [200, 200, 200, 429]);
    assert_eq!([job.look_up("a").0, job.look_up("a").0, job.look_up("a").0], [200, 200, 429]);
    let body = json!({ "key": "x", "version": "v" }).to_string();
    let limited = job.call("CreateCacheEntry", "application/json", body.as_bytes());
    let seconds: u64 = limited.header("retry-after").parse().unwrap();
    assert!((50..=60).contains(&seconds), "{seconds}");
    assert!(String::from_utf8_lossy(&limited.body).contains("rate limit exceeded"));
    github.advance(Duration::from_secs(seconds));
    assert_eq!(job.create("x").0, 200);
    assert_eq!(github.counts().limited, 3);
}

#[test]
fn rest_lists_and_removes_what_is_finished() {
    let github = Github::start().unwrap();
    let main = Job::new(&github, &[MAIN]);
    let pull = Job::new(&github, &[("refs/pull/1/merge", Permission::Both)]);
    main.have("a1", b"1");
    pull.have("a1", b"22");
    main.have("b", b"333");
    main.create("a2");
    let url = format!("{}repos/{}/actions/", github.url(), github.repository());
    let authorization = format!("Authorization: Bearer {}", github.rest_token());
    let ask = |method: &str, path: &str| {
        let answer = request(method, &format!("{url}{path}"), &[&authorization], b"");
        (answer.status, serde_json::from_slice::<Value>(&answer.body).unwrap_or_default())
    };
    let keys = |path: &str| {
        let all = ask("GET", path).1["actions_caches"].clone();
        let all = all.as_array().unwrap().iter().map(|entry| text(entry, "key"));
        all.collect::<Vec<_>>()
    };
    assert_eq!(keys("caches?key=a&sort=created_at&direction=asc"), ["a1", "a1"]);
    assert_eq!(keys("caches?sort=size_in_bytes&direction=desc&per_page=1&page=2"), ["a1"]);
    assert_eq!(keys("caches?ref=refs%2Fheads%2Fmain&sort=size_in_bytes"), ["b", "a1"]);
    assert_eq!(ask("GET", "cache/usage").1["active_caches_size_in_bytes"], 6);
    assert_eq!(ask("DELETE", "caches?key=a2").0, 404, "what is only reserved stays");
    assert_eq!(ask("DELETE", "caches?key=a1&ref=refs%2Fpull%2F1%2Fmerge").1["total_count"], 1);
    assert_eq!(main.look_up("a1").1["ok"], true);
    assert_eq!(ask("DELETE", "caches/3").0, 204);
    assert_eq!(main.look_up("b").1["ok"], false);
    assert_eq!(request("GET", &format!("{url}caches"), &[], b"").status, 401);
}

#[test]
fn faults_come_when_they_are_asked_for() {
    let github = Github::start().unwrap();
    let job = Job::new(&github, &[MAIN]);
    let content: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let url = job.have("a", &content);
    let get = |fault| {
        github.fault(Request::GetBlob, fault, 1);
        request("GET", &url, &[], b"")
    };
    assert_eq!(get(Fault::Torn).body, content[..5000]);
    assert_eq!(get(Fault::Slow).body, content);
    let flipped = get(Fault::Flipped).body;
    assert_eq!(flipped.iter().zip(&content).filter(|(a, b)| a != b).count(), 1);
    assert_eq!(code(&get(Fault::TooMany(Some(3)))), (503, "ServerBusy"));
    assert_eq!(get(Fault::Broken).status, 0);
    for (fault, status) in [
        (Fault::TooMany(None), 429),
        (Fault::Status(502), 502),
        (Fault::Expired, 401),
        (Fault::Broken, 0),
        (Fault::Strange, 200),
    ] {
        github.fault(Request::Create, fault, 1);
        assert_eq!(job.create("b").0, status, "{fault:?}");
        assert_eq!(github.entries().len(), 1, "{fault:?} does nothing");
    }
    github.fault(Request::Create, Fault::AnswerLost, 1);
    assert_eq!(job.create("b").0, 0);
    assert_eq!(job.create("b").0, 409, "it was done");
    github.fault(Request::Lookup, Fault::Evicted, 1);
    let evicted = text(&job.look_up("a").1, "signed_download_url");
    assert_eq!(code(&request("GET", &evicted, &[], b"")), (404, "BlobNotFound"));
    github.fault(Request::Finalize, Fault::Lost, 1);
    assert_eq!(job.have("lost", b"abc"), "");
    assert_eq!(github.counts().faults.len(), 12);
}

#[test]
fn latency_lag_and_seeds_are_kept_to() {
    let github = Github::start().unwrap();
    let job = Job::new(&github, &[MAIN]);
    github.behave(|behaviour| behaviour.latency = Duration::from_millis(50));
    let begin = Instant::now();
    job.look_up("a");
    assert!(begin.elapsed() >= Duration::from_millis(50));
    github.behave(|behaviour| {
        behaviour.latency = Duration::ZERO;
        behaviour.lag = Duration::from_secs(60);
    });
    assert_eq!(job.have("a", b"abc"), "");
    github.advance(Duration::from_secs(60));
    assert_eq!(job.look_up("a").1["ok"], true);
    let story = |seed| {
        let faults = Faults { seed, one_in: 2, kinds: vec![Fault::Status(500), Fault::TooMany(None)] };
        let github = Github::start().unwrap();
        github.behave(|behaviour| behaviour.faults = Some(faults));
        let job = Job::new(&github, &[MAIN]);
        (0..30).map(|_| job.look_up("a").0).collect::<Vec<_>>()
    };
    assert_eq!(story(1), story(1));
    assert_ne!(story(1), story(2));
}
