//! Mutating admission: functions that see a write before it is stored.

use kube::core::Status;
use serde_json::Value;

use super::registry::Gvr;

/// What a write wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object.
    Create,
    /// A changed object, by update or patch.
    Update,
    /// A removed object.
    Delete,
}

/// A write as admission sees it: complete, defaulted, not yet stored.
#[derive(Debug)]
pub struct AdmissionRequest<'a> {
    /// What is done.
    pub operation: Operation,
    /// The resource, in the version of the request.
    pub gvr: &'a Gvr,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: &'a str,
    /// Name of the object.
    pub name: &'a str,
    /// The new object; null for a deletion.
    pub object: &'a Value,
    /// The stored object; `None` for a creation.
    pub old_object: Option<&'a Value>,
    /// `status` or `scale`.
    pub subresource: Option<&'static str>,
    /// True if nothing will be stored.
    pub dry_run: bool,
}

/// Gives the object to store, if it is not the request's own, or refuses the write.
pub type Mutator = Box<dyn Fn(&AdmissionRequest<'_>) -> Result<Option<Value>, Box<Status>> + Send + Sync>;

/// The hold of managed workloads, as the admission policies of `tidegate policy` do it: see [`crate::workload::hold`].
///
/// # Errors
/// Never: the hold refuses no write.
pub fn hold_workloads(request: &AdmissionRequest<'_>) -> Result<Option<Value>, Box<Status>> {
    let old = match request.old_object {
        Some(old) if request.operation == Operation::Update && request.subresource.is_none() => old,
        _ => return Ok(None),
    };
    let Gvr { group, version, resource } = request.gvr;
    let rule = crate::workload::hold::rule(group, version, resource);
    Ok(rule.and_then(|rule| rule.hold(old, request.object)))
}
