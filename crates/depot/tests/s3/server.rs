//! A server that speaks S3 and keeps objects in a directory, on the loopback.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, HttpResponse};
use tokio::net::TcpListener;

pub(crate) const KEY_ID: &str = "AKIDEXAMPLE";
pub(crate) const SECRET: &str = "hunter22-is-a-secret";
pub(crate) const BUCKET: &str = "bucket";

/// Chooses an answer in place of the service's: a status and a body.
type Fault = Box<dyn FnMut(&str) -> Option<(u16, &'static str)> + Send>;

/// The server; it ends with the runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    // It is removed with the server.
    directory: tempfile::TempDir,
    shared: Arc<Shared>,
}

struct Shared {
    directory: PathBuf,
    /// How many requests there were, by method and what follows the `?`'s first word.
    requests: Mutex<BTreeMap<String, usize>>,
    fault: Mutex<Option<Fault>>,
    /// How many answers to `GET` are still to stall, and after how many bytes of their bodies.
    stalls: Mutex<(usize, usize)>,
    /// `s3s-fs` looks for the object and then writes it: what is conditional goes one by one, as if it were one
    /// step, which is how real stores have it.
    conditional: tokio::sync::Mutex<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(directory.path()).unwrap());
        service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            directory: directory.path().to_owned(),
            requests: Mutex::default(),
            fault: Mutex::default(),
            stalls: Mutex::default(),
            conditional: tokio::sync::Mutex::default(),
        });
        let state = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let _ = socket.set_nodelay(true);
                let (service, shared) = (service.clone(), Arc::clone(&state));
                tokio::spawn(async move {
                    let answer = service_fn(|request| answer(&service, &shared, request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        Self { address, directory, shared }
    }

    /// Where the bucket's objects are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The variables that let one in.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        [
            ("AWS_ACCESS_KEY_ID", KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &format!("http://{}", self.address)),
            ("HOME", "/nowhere"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    /// From now on requests are answered by `fault`, which is told the method and the query, where it answers.
    pub(crate) fn fail(&self, fault: impl FnMut(&str) -> Option<(u16, &'static str)> + Send + 'static) {
        *self.shared.fault.lock().unwrap() = Some(Box::new(fault));
    }

    /// So many answers to `GET` from now on end after so many bytes of their bodies, and the connection stays; none of an
    /// answer comes that is to end after 0.
    pub(crate) fn stall(&self, answers: usize, bytes: usize) {
        *self.shared.stalls.lock().unwrap() = (answers, bytes);
    }

    /// How many requests there were, by method and the beginning of the query.
    pub(crate) fn requests(&self) -> BTreeMap<String, usize> {
        self.shared.requests.lock().unwrap().clone()
    }
}

async fn answer(
    service: &S3Service,
    shared: &Shared,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpError> {
    let query = request.uri().query().unwrap_or_default();
    let word = query.split(['=', '&']).next().unwrap_or_default();
    let kind = format!("{} {word}", request.method());
    *shared.requests.lock().unwrap().entry(kind).or_default() += 1;
    let asked = format!("{} {query}", request.method());
    let fault = shared.fault.lock().unwrap().as_mut().and_then(|fault| fault(&asked));
    if let Some((status, body)) = fault {
        // What was sent is taken, as real servers do.
        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
        return Ok(Response::builder().status(status).body(Body::from(body.to_owned())).unwrap());
    }
    let _one_by_one = if request.headers().contains_key("if-none-match") {
        Some(shared.conditional.lock().await)
    } else {
        None
    };
    // Real stores have no folders: an object may be called like one, and is not there if it is not.
    let path = shared.directory.join(request.uri().path().trim_start_matches('/'));
    let bucket = shared.directory.join(BUCKET);
    if path.starts_with(&bucket) && path != bucket {
        let (status, text) = match request.method().as_str() {
            "GET" | "HEAD" if path.is_dir() => (404, ""),
            "PUT" if path.is_dir() || path.ancestors().skip(1).any(Path::is_file) => (501, NOT_IMPLEMENTED),
            _ => (0, ""),
        };
        if status != 0 {
            let _ = http_body_util::BodyExt::collect(request.into_body()).await;
            return Ok(Response::builder().status(status).body(Body::from(text.to_owned())).unwrap());
        }
    }
    let stalls = match &mut *shared.stalls.lock().unwrap() {
        (left @ 1.., bytes) if request.method() == "GET" => {
            *left -= 1;
            Some(*bytes)
        }
        _ => None,
    };
    let answer = service.call(request.map(Body::from)).await?;
    let Some(bytes) = stalls else { return Ok(answer) };
    if bytes == 0 {
        std::future::pending::<()>().await;
    }
    let (head, body) = answer.into_parts();
    let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes().slice(..bytes);
    let begin = futures_util::stream::iter([Ok::<_, std::io::Error>(Frame::data(body))]);
    let body = StreamBody::new(begin.chain(futures_util::stream::pending()));
    Ok(Response::from_parts(head, Body::http_body(body)))
}

/// The answer where a file system's folders are in the way, which they are in no real store.
const NOT_IMPLEMENTED: &str =
    "<Error><Code>NotImplemented</Code><Message>A folder is there</Message></Error>";
