//! Requests to answers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::answer::{Answer, Body};
use super::blob::Refused;
use super::fault::{Fault, Request};
use super::state::{Shared, State};
use super::{data, rest, sas, twirp};

/// Serves connections until the runtime ends.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, perhaps: others may be closed soon.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        // Only the speed would suffer.
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { answer(&shared, request).await }
            });
            // A client that goes away is no concern of the server's.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The answer to a request; an error breaks the connection.
async fn answer(shared: &Shared, request: HttpRequest<Incoming>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let latency = shared.lock().behaviour.latency;
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let path = head.uri.path();
    let query = sas::pairs(head.uri.query().unwrap_or_default());
    let method = head.method.as_str();
    let header = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let kind = if method == "POST" { twirp::kind(path) } else { None }
        .or_else(|| data::kind(method, path, &query))
        .or_else(|| rest::kind(method, path));
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let mut state = shared.lock();
    let pause = state.behaviour.pause;
    let Some(kind) = kind else {
        state.counts.unknown += 1;
        return Ok(rest::message(404, "Not Found").response(None, pause));
    };
    *state.counts.requests.entry(kind).or_default() += 1;
    let fault = next_fault(&mut state, kind);
    if let Some(answer) = at_once(kind, fault)? {
        return Ok(answer.response(None, pause));
    }
    let answer = if kind.is_twirp() {
        let (content_type, authorization) = (header(CONTENT_TYPE.as_str()), header(AUTHORIZATION.as_str()));
        let call = twirp::Call {
            request: kind,
            content_type: &content_type,
            authorization: &authorization,
            body: &body,
            fault,
        };
        twirp::answer(shared, &mut state, &call)
    } else if kind.is_blob() {
        let call = data::Call { request: kind, path, query: &query, headers: &head.headers, body };
        data::answer(&mut state, call)
    } else {
        rest::answer(shared, &mut state, kind, path, &query, &header(AUTHORIZATION.as_str()))
    };
    drop(state);
    if fault == Some(Fault::AnswerLost) {
        return Err(io::Error::other("the answer is lost on purpose"));
    }
    Ok(answer.response(fault, pause))
}

fn next_fault(state: &mut State, kind: Request) -> Option<Fault> {
    let by_seed = state.behaviour.faults.clone();
    state.troubles.next(kind, by_seed.as_ref())
}

/// The answer where a fault keeps anything from being done.
fn at_once(kind: Request, fault: Option<Fault>) -> io::Result<Option<Answer>> {
    Ok(match fault {
        Some(Fault::Broken) => return Err(io::Error::other("broken on purpose")),
        Some(Fault::TooMany(seconds)) if kind.is_blob() => {
            let answer = data::refused(Refused(503, "ServerBusy"));
            Some(match seconds {
                Some(seconds) => answer.header("retry-after", seconds.to_string()),
                None => answer,
            })
        }
        Some(Fault::TooMany(seconds)) => Some(twirp::too_many(seconds)),
        Some(Fault::Status(status)) => Some(Answer::page(status)),
        Some(Fault::Strange) => Some(Answer::page(200)),
        Some(Fault::Expired) if kind.is_twirp() => Some(twirp::expired()),
        Some(Fault::Expired) if kind.is_blob() => Some(data::refused(Refused(403, "AuthenticationFailed"))),
        Some(Fault::Expired) => Some(rest::message(401, "Bad credentials")),
        _ => None,
    })
}
