//! Nothing that is said holds a token or a signed URL.

use phoenix_depot::testing::{body, bytes};
use phoenix_depot::{Blob, Depot};
use phoenix_github::{Cache, Settings};
use phoenix_testkit::github::{Fault, Permission, Request};

use super::{MAIN, access, have, name, rest, settings, start};

#[tokio::test]
async fn neither_tokens_nor_signatures_are_ever_shown() {
    let github = start();
    let token = github.token(&[(MAIN, Permission::Both)]);
    let access = access(&github, &token).with_rest(rest(&github));
    let settings = Settings { first_wait: std::time::Duration::from_millis(1), ..settings() };
    let cache = Cache::new(access.clone(), settings).unwrap();
    let blob = have(&cache, "kept", &bytes(1, 1000)).await;
    let mut said = vec![format!("{cache:?}"), format!("{cache:#?}"), format!("{access:?}")];
    let twirp = [Request::Create, Request::Finalize, Request::Lookup, Request::List, Request::Delete];
    let data =
        [Request::PutBlob, Request::PutBlock, Request::PutBlockList, Request::GetBlob, Request::HeadBlob];
    for fault in [Fault::Status(500), Fault::Status(418), Fault::Expired, Fault::Broken, Fault::Strange] {
        for kind in twirp.into_iter().chain(data) {
            if !fault.befalls(kind) {
                continue;
            }
            github.fault(kind, fault, 40);
            let called = name(&format!("x/{kind:?}/{fault:?}").replace(['(', ')'], "-"));
            let large = Blob { size: 1000, name: blob.name.clone(), created: None };
            let size = if kind == Request::PutBlob { 10 } else { 200_000 };
            said.extend(
                cache.create(&called, body(bytes(2, size))).await.err().map(|e| format!("{e} {e:?}")),
            );
            said.extend(cache.find(&blob.name).await.err().map(|e| format!("{e} {e:?}")));
            said.extend(cache.read(&large, 0..1000).await.err().map(|e| format!("{e} {e:?}")));
            said.extend(cache.list("").await.err().map(|e| format!("{e} {e:?}")));
            if kind == Request::Delete {
                said.extend(cache.remove(&called).await.err().map(|e| format!("{e} {e:?}")));
            }
            github.clear_faults();
        }
    }
    assert!(said.len() > 40, "{} errors", said.len());
    let signature = token.split('.').nth(1).unwrap();
    for text in &said {
        for secret in
            [token.as_str(), signature, github.rest_token(), "sig=", "sig%3D", "productionresultssa"]
        {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
