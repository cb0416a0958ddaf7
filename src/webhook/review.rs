//! The words in which the API server asks and is answered: `AdmissionReview` and `ConversionReview`, version `v1`.
//!
//! Objects stay raw: a typed object would drop the fields that it does not know.

use std::fmt;

use k8s_openapi::{ByteString, api::authentication::v1::UserInfo};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// `admission.k8s.io/v1`; `v1beta1` has the same fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionReview {
    /// Its version is that of the answer.
    pub api_version: String,
    /// The question.
    pub request: AdmissionRequest,
}

/// A write that the API server is about to store.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdmissionRequest {
    /// Copied into the answer.
    pub uid: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// Empty for the object itself.
    pub sub_resource: Option<String>,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object; may be absent on creation.
    pub name: String,
    /// Nothing is stored.
    pub dry_run: Option<bool>,
    /// Who writes.
    pub user_info: UserInfo,
    /// The new object.
    pub object: Option<Value>,
    /// The stored object.
    pub old_object: Option<Value>,
}

/// The answer to an [`AdmissionReview`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionAnswer {
    /// As asked.
    pub api_version: String,
    /// `AdmissionReview`.
    pub kind: &'static str,
    /// The verdict.
    pub response: AdmissionResponse,
}

/// A verdict.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionResponse {
    /// As asked.
    pub uid: String,
    /// Whether the write may be stored.
    pub allowed: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Refusal>,
    /// A JSON patch of the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<ByteString>,
    /// `JSONPatch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_type: Option<&'static str>,
    /// What kubectl shows beside success.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Why a write is refused.
#[derive(Debug, Serialize)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// One word.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

/// `apiextensions.k8s.io/v1`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversionReview<'a> {
    /// Its version is that of the answer.
    pub api_version: String,
    /// The question.
    #[serde(borrow)]
    pub request: ConversionRequest<'a>,
}

/// Objects that are wanted in another version.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversionRequest<'a> {
    /// Copied into the answer.
    pub uid: String,
    /// Such as `rollouts.kruise.io/v1beta1`.
    #[serde(rename = "desiredAPIVersion")]
    pub desired_api_version: String,
    /// Objects of any version, as they came: a list of many is never in memory as a whole.
    #[serde(borrow, deserialize_with = "at_most")]
    pub objects: Vec<&'a RawValue>,
}

/// More than any API server has of one kind.
const MOST: usize = 100_000;

fn at_most<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<&'de RawValue>, D::Error> {
    struct Objects;

    impl<'de> Visitor<'de> for Objects {
        type Value = Vec<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MOST} objects")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut objects = Vec::new();
            while let Some(object) = list.next_element()? {
                if objects.len() == MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                objects.push(object);
            }
            Ok(objects)
        }
    }

    deserializer.deserialize_seq(Objects)
}

/// The answer to a [`ConversionReview`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversionAnswer {
    /// As asked.
    pub api_version: String,
    /// `ConversionReview`.
    pub kind: &'static str,
    /// The objects.
    pub response: ConversionResponse,
}

/// Converted objects, or why not.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversionResponse {
    /// As asked.
    pub uid: String,
    /// In the order of the question.
    pub converted_objects: Vec<Box<RawValue>>,
    /// `status: Success`, or `Failed` with a message.
    pub result: Value,
}
