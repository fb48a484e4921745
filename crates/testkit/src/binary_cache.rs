//! A binary cache over HTTP that misbehaves on demand.
//!
//! It serves files from memory and from a directory, one thread a connection, on the loopback. HTTP/1.1 with
//! keep-alive, as much of it as clients of binary caches use.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What is answered to a request.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// More headers, each `Name: value`.
    pub headers: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
    /// Break the connection after half of the body.
    pub torn: bool,
    /// Never answer.
    pub hang: bool,
}

impl Reply {
    /// 200 with a text.
    #[must_use]
    pub fn text(body: &str) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    /// A status and nothing else.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }
}

type Rule = Box<dyn Fn(&Request) -> Option<Reply> + Send + Sync>;

/// A request that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The path, with its slash.
    pub path: String,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The how-manieth request for this path it is, from 1.
    pub times: usize,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    directory: Option<PathBuf>,
    rules: Vec<Rule>,
    requests: Vec<Request>,
    times: HashMap<String, usize>,
    latency: Duration,
}

/// A running server; dropping it ends it.
pub struct BinaryCache {
    address: String,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    most_at_once: Arc<AtomicUsize>,
}

impl BinaryCache {
    /// Starts a server that has a `nix-cache-info` for a store directory and nothing else.
    ///
    /// # Errors
    /// When there is no port to be had.
    pub fn start(store_dir: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (at_once, most_at_once) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let this = Self {
            address,
            state: Arc::clone(&state),
            stop: Arc::clone(&stop),
            most_at_once: Arc::clone(&most_at_once),
        };
        this.add("/nix-cache-info", &format!("StoreDir: {store_dir}\nWantMassQuery: 1\nPriority: 40\n"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (state, stop) = (Arc::clone(&state), Arc::clone(&stop));
                let (at_once, most) = (Arc::clone(&at_once), Arc::clone(&most_at_once));
                std::thread::spawn(move || {
                    // A client that goes away is no concern of the server's.
                    let _ = serve(stream, &state, &stop, &at_once, &most);
                });
            }
        });
        Ok(this)
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.address
    }

    /// Serves a text at a path.
    pub fn add(&self, path: &str, text: &str) {
        self.lock().files.insert(path.to_owned(), text.into());
    }

    /// Serves what is in a directory besides.
    pub fn serve_directory(&self, directory: impl Into<PathBuf>) {
        let mut state = self.lock();
        state.files.clear();
        state.directory = Some(directory.into());
    }

    /// Waits so long before each answer.
    pub fn latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// Answers requests by a rule of one's own, where it has an answer; the latest rule comes first.
    pub fn rule(&self, rule: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static) {
        self.lock().rules.insert(0, Box::new(rule));
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// The most requests that were being answered at the same time.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.most_at_once.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for BinaryCache {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
    }
}

fn serve(
    stream: TcpStream,
    state: &Mutex<State>,
    stop: &AtomicBool,
    at_once: &AtomicUsize,
    most: &AtomicUsize,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    while !stop.load(Ordering::Relaxed) {
        let Some((request, is_head)) = read_request(&mut reader)? else { return Ok(()) };
        let now = at_once.fetch_add(1, Ordering::Relaxed) + 1;
        most.fetch_max(now, Ordering::Relaxed);
        let (reply, latency) = answer(state, request);
        std::thread::sleep(latency);
        at_once.fetch_sub(1, Ordering::Relaxed);
        if reply.hang {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            return Ok(());
        }
        let mut bytes =
            format!("HTTP/1.1 {} x\r\nContent-Length: {}\r\n", reply.status, reply.body.len()).into_bytes();
        for header in &reply.headers {
            bytes.extend(header.as_bytes());
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"\r\n");
        let whole = match (is_head, reply.torn) {
            (true, _) => 0,
            (false, true) => reply.body.len() / 2,
            (false, false) => reply.body.len(),
        };
        bytes.extend(&reply.body[..whole]);
        writer.write_all(&bytes)?;
        if reply.torn {
            return writer.shutdown(std::net::Shutdown::Both);
        }
    }
    Ok(())
}

/// A request, and whether it is for the head of an answer alone.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<(Request, bool)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let is_head = line.starts_with("HEAD ");
    let mut authorization = None;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            return Ok(Some((Request { path, authorization, times: 0 }, is_head)));
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_owned());
        }
    }
}

fn answer(state: &Mutex<State>, mut request: Request) -> (Reply, Duration) {
    let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let times = state.times.entry(request.path.clone()).or_default();
    *times += 1;
    request.times = *times;
    state.requests.push(request.clone());
    let reply = state.rules.iter().find_map(|rule| rule(&request)).unwrap_or_else(|| {
        let file = state.files.get(&request.path).cloned().or_else(|| {
            let directory = state.directory.as_ref()?;
            std::fs::read(directory.join(request.path.trim_start_matches('/'))).ok()
        });
        file.map_or(Reply::status(404), |body| Reply { status: 200, body, ..Reply::default() })
    });
    (reply, state.latency)
}
