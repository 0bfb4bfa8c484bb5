//! Payloads inside of other answers.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A payload: its JSON as it is stored, or only its size if it is large.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PayloadView {
    /// The size of the stored JSON text in bytes.
    pub bytes: u64,
    /// Whether it is left out because of its size. It is at the path of its own, such as `/api/v1/runs/{id}/input`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub omitted: bool,
    /// The JSON, as it is stored. Integers of any size are exact.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<Value>)]
    pub json: Option<Box<RawValue>>,
}

impl PayloadView {
    /// A larger payload is left out of other answers.
    pub const MOST_BYTES: usize = 64 << 10;
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A value that is there, even if it is `null`: a missing one is another.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(deserializer).map(Some)
}
