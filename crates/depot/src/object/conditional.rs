//! The end of a multipart upload, on the condition that there is no object of that name yet.

use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, HeaderValue};

/// Adds `If-None-Match: *` to the requests that end multipart uploads; `object_store` has no way to ask for it.
///
/// It does so after they were signed, as `object_store` itself does where it copies: signatures of S3 cover
/// the headers that they name and no others. Those of Azure's account keys cover this one by their nature, so
/// requests with such a signature are left as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditional;

impl HttpConnector for Conditional {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Service(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Service(HttpClient);

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if ends_upload(request.method().as_str(), request.uri().query().unwrap_or_default())
            && !is_signed_by_account_key(request.headers().get("authorization"))
        {
            request.headers_mut().insert("if-none-match", HeaderValue::from_static("*"));
        }
        self.0.execute(request).await
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
