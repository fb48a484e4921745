//! What goes over the wire of the cache service: each message once, as protobuf and as JSON.
//!
//! JSON is taken in snake_case and camelCase, 64-bit numbers as numbers and as strings; what goes out is
//! snake_case with strings, as the official client expects it. Fields that are not here, such as the metadata
//! that no client fills in, are skipped.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Asks for an entry to be reserved.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CreateRequest {
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(string, tag = "3")]
    pub(super) version: String,
}

/// Where the bytes go, if `ok`.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct CreateResponse {
    #[prost(bool, tag = "1")]
    pub(super) ok: bool,
    #[prost(string, tag = "2")]
    pub(super) signed_upload_url: String,
    #[prost(string, tag = "3")]
    pub(super) message: String,
}

/// Says that the bytes are there.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct FinalizeRequest {
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(int64, tag = "3")]
    #[serde(alias = "sizeBytes", deserialize_with = "any_int64", serialize_with = "int64")]
    pub(super) size_bytes: i64,
    #[prost(string, tag = "4")]
    pub(super) version: String,
}

/// Which entry it became, if `ok`.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct FinalizeResponse {
    #[prost(bool, tag = "1")]
    pub(super) ok: bool,
    #[prost(int64, tag = "2")]
    #[serde(deserialize_with = "any_int64", serialize_with = "int64")]
    pub(super) entry_id: i64,
    #[prost(string, tag = "3")]
    pub(super) message: String,
}

/// Asks where the bytes of an entry are.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LookupRequest {
    #[prost(string, tag = "2")]
    pub(super) key: String,
    #[prost(string, repeated, tag = "3")]
    #[serde(alias = "restoreKeys")]
    pub(super) restore_keys: Vec<String>,
    #[prost(string, tag = "4")]
    pub(super) version: String,
}

/// Where they are, and whose they are; `ok` is false when there is no such entry.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LookupResponse {
    #[prost(bool, tag = "1")]
    pub(super) ok: bool,
    #[prost(string, tag = "2")]
    pub(super) signed_download_url: String,
    #[prost(string, tag = "3")]
    pub(super) matched_key: String,
}

/// The language of a request; the answer is in the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    Json,
    Protobuf,
}

impl Language {
    /// By the `Content-Type`; none for one that the service does not speak.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json" => Some(Self::Json),
            "application/protobuf" => Some(Self::Protobuf),
            _ => None,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/protobuf",
        }
    }

    pub(super) fn read<M>(self, body: &[u8]) -> Result<M, String>
    where
        M: prost::Message + Default + for<'a> Deserialize<'a>,
    {
        match self {
            Self::Json => serde_json::from_slice(body).map_err(|error| error.to_string()),
            Self::Protobuf => M::decode(body).map_err(|error| error.to_string()),
        }
    }

    pub(super) fn write<M: prost::Message + Serialize>(self, message: &M) -> Vec<u8> {
        match self {
            Self::Json => serde_json::to_vec(message).unwrap_or_default(),
            Self::Protobuf => message.encode_to_vec(),
        }
    }
}

pub(super) fn any_int64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Any {
        Number(i64),
        Text(String),
    }
    match Any::deserialize(deserializer)? {
        Any::Number(number) => Ok(number),
        Any::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn int64<S: Serializer>(number: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&number.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_taken_as_every_client_writes_it() {
        let expected = FinalizeRequest { key: "k".into(), size_bytes: 7, version: "v".into() };
        for text in [
            r#"{"key":"k","size_bytes":"7","version":"v"}"#,
            r#"{"key":"k","size_bytes":7,"version":"v","metadata":null}"#,
            r#"{"key":"k","sizeBytes":7,"version":"v"}"#,
        ] {
            assert_eq!(
                Language::Json.read::<FinalizeRequest>(text.as_bytes()),
                Ok(expected.clone()),
                "{text}"
            );
        }
        let bad = Language::Json.read::<FinalizeRequest>(br#"{"size_bytes":"seven"}"#);
        assert!(bad.is_err());
        for keys in [r#"{"restore_keys":["a"]}"#, r#"{"restoreKeys":["a"]}"#] {
            let read: LookupRequest = Language::Json.read(keys.as_bytes()).unwrap();
            assert_eq!(read.restore_keys, ["a"]);
        }
    }

    #[test]
    fn numbers_go_out_as_strings() {
        let response = FinalizeResponse { ok: true, entry_id: 12, message: String::new() };
        let text = String::from_utf8(Language::Json.write(&response)).unwrap();
        assert_eq!(text, r#"{"ok":true,"entry_id":"12","message":""}"#);
    }

    #[test]
    fn protobuf_has_the_field_numbers_of_the_service() {
        let request = FinalizeRequest { key: "k".into(), size_bytes: 7, version: "v".into() };
        let bytes = Language::Protobuf.write(&request);
        assert_eq!(bytes, [0x12, 1, b'k', 0x18, 7, 0x22, 1, b'v']);
        assert_eq!(Language::Protobuf.read::<FinalizeRequest>(&bytes), Ok(request));
        // Metadata, which is field 1, is skipped.
        let with_metadata = [&[0x0a, 2, 8, 1][..], &bytes].concat();
        assert!(Language::Protobuf.read::<FinalizeRequest>(&with_metadata).is_ok());
        assert_eq!(Language::of("application/json; charset=utf-8"), Some(Language::Json));
        assert_eq!(Language::of("text/plain"), None);
    }
}
