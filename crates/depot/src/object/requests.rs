//! How requests are sent: what is read may not stall, and an upload ends on a condition.

use std::time::Duration;

use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, HeaderValue};

/// Lets requests of its own kinds be sent by clients of their own.
///
/// What is read ends as an error when nothing comes for some time, and is tried again by `object_store` from where it
/// was. What is sent may be long on its way until anything comes back, so that this would not do for it.
///
/// To the requests that end multipart uploads it adds `If-None-Match: *`, which `object_store` has no way to ask for.
/// It does so after they were signed, as `object_store` itself does where it copies: signatures of S3 cover
/// the headers that they name and no others. Those of Azure's account keys cover this one by their nature, so
/// requests with such a signature are left as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Requests {
    /// How long nothing may come of what is read.
    pub(super) stall: Duration,
    /// Whether uploads end on the condition that there is no object of that name yet.
    pub(super) conditional: bool,
}

impl HttpConnector for Requests {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let connect = |options: &ClientOptions| ReqwestConnector::default().connect(options);
        Ok(HttpClient::new(Service {
            reading: connect(&options.clone().with_read_timeout(self.stall))?,
            writing: connect(options)?,
            conditional: self.conditional,
        }))
    }
}

#[derive(Debug)]
struct Service {
    reading: HttpClient,
    writing: HttpClient,
    conditional: bool,
}

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if matches!(request.method().as_str(), "GET" | "HEAD") {
            return self.reading.execute(request).await;
        }
        if self.conditional
            && ends_upload(request.method().as_str(), request.uri().query().unwrap_or_default())
            && !is_signed_by_account_key(request.headers().get("authorization"))
        {
            request.headers_mut().insert("if-none-match", HeaderValue::from_static("*"));
        }
        self.writing.execute(request).await
    }
}

/// Whether a request ends an upload: `POST ?uploadId=…` in S3, `PUT ?comp=blocklist` in Azure.
fn ends_upload(method: &str, query: &str) -> bool {
    let mut pairs = query.split('&');
    match method {
        "POST" => pairs.any(|pair| pair.starts_with("uploadId=")),
        "PUT" => pairs.any(|pair| pair == "comp=blocklist"),
        _ => false,
    }
}

fn is_signed_by_account_key(authorization: Option<&HeaderValue>) -> bool {
    authorization.is_some_and(|value| value.as_bytes().starts_with(b"SharedKey"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_an_upload_is_conditional() {
        assert!(ends_upload("POST", "uploadId=abc"));
        assert!(ends_upload("PUT", "sig=x&comp=blocklist"));
        for (method, query) in [
            ("POST", "uploads"),
            ("POST", "uploads="),
            ("POST", "delete"),
            ("PUT", "partNumber=1&uploadId=abc"),
            ("PUT", "comp=block&blockid=x"),
            ("DELETE", "uploadId=abc"),
            ("GET", ""),
        ] {
            assert!(!ends_upload(method, query), "{method} {query}");
        }
        assert!(is_signed_by_account_key(Some(&HeaderValue::from_static("SharedKey a:b"))));
        assert!(!is_signed_by_account_key(Some(&HeaderValue::from_static("Bearer a"))));
        assert!(!is_signed_by_account_key(None));
    }
}
