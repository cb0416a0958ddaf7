//! JSON patch (RFC 6902).

use json_patch::{PatchOperation, ReplaceOperation};
use kube::core::Status;
use serde_json::Value;

use super::super::status;

/// Applies all operations or none. Whatever is wrong with the patch is 422 without a reason, as the API server has it.
/// Unlike the standard, the server takes `replace` of a missing key for `add`.
pub(crate) fn patch(target: &Value, patch: &Value) -> Result<Value, Box<Status>> {
    let Some(operations) = patch.as_array() else {
        let why = "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp";
        return Err(status::bad_request(why));
    };
    let mut result = target.clone();
    for operation in operations {
        let operation: PatchOperation = serde_json::from_value(operation.clone()).map_err(|_| rejected())?;
        let operation = match operation {
            PatchOperation::Replace(ReplaceOperation { path, value }) if result.pointer(path.as_str()).is_none() => {
                let in_object = path
                    .as_str()
                    .rsplit_once('/')
                    .and_then(|(parent, _)| result.pointer(parent))
                    .is_some_and(Value::is_object);
                if !in_object {
                    return Err(rejected());
                }
                PatchOperation::Add(json_patch::AddOperation { path, value })
            }
            other => other,
        };
        json_patch::patch(&mut result, std::slice::from_ref(&operation)).map_err(|_| rejected())?;
    }
    Ok(result)
}

fn rejected() -> Box<Status> {
    let mut status = status::failure(422, "Invalid", "the server rejected our request due to an error in our request");
    status.details = Some(status::no_details());
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations() {
        let target = json!({"a": {"b": "1"}, "l": [1, 2]});
        for (change, expected) in [
            (
                json!([{"op": "test", "path": "/a/b", "value": "1"}, {"op": "add", "path": "/a/c", "value": 2}]),
                Some(json!({"a": {"b": "1", "c": 2}, "l": [1, 2]})),
            ),
            (json!([{"op": "add", "path": "/a/c", "value": 2}, {"op": "test", "path": "/a/b", "value": "2"}]), None),
            (
                json!([{"op": "replace", "path": "/a/x", "value": 2}]),
                Some(json!({"a": {"b": "1", "x": 2}, "l": [1, 2]})),
            ),
            (json!([{"op": "replace", "path": "/x/y", "value": 2}]), None),
            (json!([{"op": "replace", "path": "/l/7", "value": 2}]), None),
            (json!([{"op": "remove", "path": "/a/x"}]), None),
            (json!([{"op": "remove", "path": "/l/0"}]), Some(json!({"a": {"b": "1"}, "l": [2]}))),
            (json!([{"op": "add", "path": "/l/-", "value": 3}]), Some(json!({"a": {"b": "1"}, "l": [1, 2, 3]}))),
            (json!([{"op": "move", "from": "/a/b", "path": "/c"}]), Some(json!({"a": {}, "l": [1, 2], "c": "1"}))),
            (json!([{"op": "nonsense", "path": "/a"}]), None),
        ] {
            match (patch(&target, &change), expected) {
                (Ok(result), Some(expected)) => assert_eq!(result, expected, "{change}"),
                (Err(status), None) => assert_eq!(status.code, 422, "{change}"),
                (other, _) => panic!("{change}: {other:?}"),
            }
        }
        assert_eq!(patch(&target, &json!({})).unwrap_err().code, 400);
    }
}
