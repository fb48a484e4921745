//! A real registry (distribution's), where `PHOENIX_TEST_REGISTRY` names its program.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use phoenix_gate::{Answer, Credentials, Registries};
use reqwest::{Client, Method, Response};
use sha2::{Digest, Sha256};

/// `user` with the password `pass`, as `htpasswd -B` writes it.
const USERS: &str = "user:$2a$04$TIDY9BGY9h.6ZsffxEqoC.9R8dsHcX0iKq0gWTynHZmiCrSQT2KMe\n";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry that ends with the test.
struct Registry {
    server: Child,
    host: String,
    _directory: tempfile::TempDir,
}

impl Registry {
    async fn start(program: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let here = directory.path().display();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        drop(listener);
        fs_err::write(directory.path().join("users"), USERS).expect("a file");
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: '{here}/storage' }} }}\n\
             http: {{ addr: '{host}' }}\nauth: {{ htpasswd: {{ realm: test, path: '{here}/users' }} }}\n"
        );
        let file = directory.path().join("config.yml");
        fs_err::write(&file, config).expect("a file");
        let quiet = || Stdio::null();
        let server = Command::new(program).arg("serve").arg(&file).stdout(quiet()).stderr(quiet()).spawn();
        let this = Self { server: server.expect("the registry"), host, _directory: directory };
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&this.host).is_err() {
            assert!(Instant::now() < until, "the registry does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        this
    }

    async fn send(&self, client: &Client, method: Method, path: &str, kind: &str, body: String) -> Response {
        let url =
            if path.starts_with("http") { path.to_owned() } else { format!("http://{}{path}", self.host) };
        let request = client.request(method, url).basic_auth("user", Some("pass"));
        let answer = request.header("content-type", kind).body(body).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer
    }

    /// Puts an image there, as clients do.
    async fn push(&self, name: &str, tag: &str) {
        let client = Client::new();
        let config = "{}".to_owned();
        let hex: String = Sha256::digest(&config).iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        let size = config.len();
        let uploads = format!("/v2/{name}/blobs/uploads/");
        let begun = self.send(&client, Method::POST, &uploads, "text/plain", String::new()).await;
        let place = begun.headers()["location"].to_str().expect("a place");
        let place = format!("{place}{}digest={digest}", if place.contains('?') { '&' } else { '?' });
        let _ = self.send(&client, Method::PUT, &place, "application/octet-stream", config).await;
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":{size}}},"layers":[]}}"#
        );
        let path = format!("/v2/{name}/manifests/{tag}");
        let _ = self.send(&client, Method::PUT, &path, MANIFEST, manifest).await;
    }

    async fn ask(&self, image: &str, auth: Option<&str>) -> Result<Answer<()>, String> {
        let config = auth.map_or_else(
            || "{}".to_owned(),
            |auth| format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, self.host),
        );
        let credentials = Credentials::parse(&config).expect("a config");
        let registries =
            Registries::new(credentials, Duration::from_secs(20), Duration::from_secs(20)).expect("a client");
        registries.ask(&format!("{}/{image}", self.host)).await.map_err(|error| error.to_string())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[tokio::test]
async fn a_real_registry_says_what_it_has_to_whom_it_knows() {
    let Some(program) = std::env::var("PHOENIX_TEST_REGISTRY").ok().filter(|program| !program.is_empty())
    else {
        eprintln!("skipped: PHOENIX_TEST_REGISTRY names no registry; `cargo xtask actions` has one");
        return;
    };
    // A client needs to know how to speak TLS before it is made.
    drop(Registries::new(Credentials::default(), Duration::from_secs(1), Duration::from_secs(1)));
    let registry = Registry::start(&program).await;
    registry.push("owner/app", "1").await;
    // user:pass, and user:wrong.
    let (well, wrong) = (Some("dXNlcjpwYXNz"), Some("dXNlcjp3cm9uZw=="));
    let there = registry.ask("owner/app:1", well).await;
    assert!(
        matches!(&there, Ok(Answer::None { reason }) if reason.ends_with("owner/app:1 exists")),
        "{there:?}"
    );
    for absent in ["owner/app:2", "owner/other:1"] {
        assert_eq!(registry.ask(absent, well).await, Ok(Answer::Work(())), "{absent}");
    }
    for auth in [None, wrong] {
        for image in ["owner/app:1", "owner/app:2"] {
            let error = registry.ask(image, auth).await.expect_err("it is not known who asks");
            assert!(error.contains("401") && error.contains("docker login"), "{error}");
        }
    }
    // What does not answer any more is not absent.
    let host = registry.host.clone();
    drop(registry);
    let gone = Registries::new(Credentials::default(), Duration::from_secs(5), Duration::from_secs(5))
        .expect("a client");
    assert!(gone.ask(&format!("{host}/owner/app:2")).await.is_err());
}
