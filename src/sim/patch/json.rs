//! JSON patch (RFC 6902).

use kube::core::Status;
use serde_json::Value;

use super::super::registry::Kind;
use super::super::status;

/// Applies all operations or none. A failed `test` and a missing path are 422, a malformed patch is 400.
pub(crate) fn patch(kind: &Kind, name: &str, target: &Value, patch: &Value) -> Result<Value, Box<Status>> {
    let patch: json_patch::Patch =
        serde_json::from_value(patch.clone()).map_err(|e| status::bad_request(format!("error decoding patch: {e}")))?;
    let mut result = target.clone();
    json_patch::patch(&mut result, &patch).map_err(|e| {
        let why = match e.kind {
            json_patch::PatchErrorKind::TestFailed => format!("testing value {} failed: test failed", e.path),
            json_patch::PatchErrorKind::InvalidPointer => {
                format!("operation does not apply: doc is missing path: \"{}\": missing value", e.path)
            }
            _ => format!("operation on \"{}\" does not apply: {}", e.path, e.kind),
        };
        status::failure(
            422,
            "Invalid",
            format!(
                "the server rejected our request due to an error in our request: {} \"{name}\": {why}",
                kind.qualified()
            ),
        )
    })?;
    Ok(result)
}
