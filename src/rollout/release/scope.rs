//! What a Rollout reaches: its workload, and where requests for it are routed.

use super::{SpecError, wrong};
use crate::{
    api::{
        keys, object,
        v1alpha1::TrafficRouting,
        v1beta1::{IngressRef, NetworkRef, Rollout, TrafficRoutingRef, WorkloadRef},
    },
    traffic::{Names, ingress::LONGEST_NAME as LONGEST_INGRESS_NAME},
    workload::{self, Kind, Style},
};

/// What the Rollout reaches: known even when its steps are wrong, so that everything can always be put back.
#[derive(Clone, Debug, PartialEq)]
pub struct Scope {
    /// The workload.
    pub workload: WorkloadRef,
    /// Its kind.
    pub kind: &'static Kind,
    /// How the new version comes up.
    pub style: Style,
    /// Where requests are routed, if the Rollout routes any.
    pub traffic: Option<Traffic>,
    /// Name of the TrafficRouting that it shares with others.
    pub shared: Option<String>,
}

impl Scope {
    /// `Kind name` of the workload.
    pub fn workload_name(&self) -> String {
        format!("{} {}", self.workload.kind, self.workload.name)
    }
}

/// Where requests are routed.
#[derive(Clone, Debug, PartialEq)]
pub struct Traffic {
    /// Stable and canary Service; the same when no canary Service is made.
    pub names: Names,
    /// The objects that decide, each with its kind's script.
    pub networks: Vec<NetworkRef>,
    /// The Ingress that decides, by its class's script.
    pub ingress: Option<IngressRef>,
    /// The user's grace period in seconds.
    pub grace: Option<i64>,
}

impl Traffic {
    /// Whether the controller makes a canary Service.
    pub fn has_canary_service(&self) -> bool {
        self.names.canary_service != self.names.stable_service
    }
}

/// Reads which workload the Rollout names.
fn workload_ref(rollout: &Rollout) -> Result<(WorkloadRef, &'static Kind), SpecError> {
    let spec = &rollout.spec;
    let by_object_ref = spec.object_ref.as_ref().and_then(|o| o.workload_ref.as_ref());
    let workload = match (&spec.workload_ref, by_object_ref) {
        (Some(a), Some(b)) if a != b => {
            return wrong("spec.workloadRef", "differs from spec.objectRef.workloadRef; keep one of them");
        }
        (Some(workload), _) | (None, Some(workload)) => workload.clone(),
        (None, None) => return wrong("spec.workloadRef", "is missing; name the workload by apiVersion, kind and name"),
    };
    for (field, value) in [("apiVersion", &workload.api_version), ("kind", &workload.kind), ("name", &workload.name)] {
        if value.is_empty() {
            return wrong(format!("spec.workloadRef.{field}"), "is empty");
        }
    }
    let group = object::group(&workload.api_version);
    let Some(kind) = workload::kind(group, &workload.kind) else {
        return wrong(
            "spec.workloadRef",
            format!(
                "{} of {} cannot be released step by step; use {}",
                workload.kind,
                workload.api_version,
                workload::known()
            ),
        );
    };
    if kind.hold(&workload.api_version).is_none() {
        let known: Vec<String> = kind.holds.iter().map(|h| format!("{}/{}", h.group, h.version)).collect();
        let problem = format!("{} is not known for a {}; use {}", workload.api_version, kind.kind, known.join(" or "));
        return wrong("spec.workloadRef.apiVersion", problem);
    }
    Ok((workload, kind))
}

/// The workload alone: what is left to put in order when the rest of the spec is wrong.
///
/// # Errors
/// When no workload is named.
pub fn bare_scope(rollout: &Rollout) -> Result<Scope, SpecError> {
    let (workload, kind) = workload_ref(rollout)?;
    let style = kind.style(Style::Canary).unwrap_or(Style::Partition);
    Ok(Scope { workload, kind, style, traffic: None, shared: shared(rollout).unwrap_or_default() })
}

/// Reads what the Rollout reaches.
///
/// # Errors
/// When the workload, the style or the traffic part is wrong; names the field.
pub fn scope(rollout: &Rollout) -> Result<Scope, SpecError> {
    let (workload, kind) = workload_ref(rollout)?;
    let strategy = &rollout.spec.strategy;
    let (wanted, path, routings, no_service) = match (&strategy.canary, &strategy.blue_green) {
        (Some(canary), None) => {
            (canary_style(rollout)?, "canary", &canary.traffic_routings, canary.disable_generate_canary_service)
        }
        (None, Some(blue)) => {
            (Style::BlueGreen, "blueGreen", &blue.traffic_routings, blue.disable_generate_canary_service)
        }
        _ => return wrong("spec.strategy", "needs exactly one of canary and blueGreen"),
    };
    let field = format!("spec.strategy.{path}.trafficRoutings");
    let traffic = match routings.as_slice() {
        [] => None,
        [routing] => Some(traffic(rollout.metadata.namespace.clone(), &format!("{field}[0]"), routing, no_service)?),
        more => return wrong(field, format!("has {} entries; at most one is supported", more.len())),
    };
    let Some(style) = kind.style(wanted) else {
        return wrong(
            format!("spec.strategy.{path}"),
            format!("a {} cannot be released in this style; use canary", workload.kind),
        );
    };
    Ok(Scope { workload, kind, style, traffic, shared: shared(rollout)? })
}

fn canary_style(rollout: &Rollout) -> Result<Style, SpecError> {
    let field = rollout.spec.strategy.canary.as_ref().and_then(|c| c.enable_extra_workload_for_canary);
    let annotation = rollout.metadata.annotations.iter().flatten().find(|(k, _)| *k == keys::ROLLING_STYLE);
    Ok(match (field, annotation.map(|(_, v)| v.to_ascii_lowercase()).as_deref()) {
        (Some(true), _) | (None, Some("canary")) => Style::Canary,
        (Some(false), _) | (None, Some("partition")) => Style::Partition,
        // The two API versions have opposite defaults; the spelling tells which one the author wrote.
        (None, None | Some("")) if rollout.spec.workload_ref.is_some() => Style::Partition,
        (None, None | Some("")) => Style::Canary,
        (None, Some(other)) => {
            return wrong(
                format!("metadata.annotations[{}]", keys::ROLLING_STYLE),
                format!("is {other:?}; use canary or partition"),
            );
        }
    })
}

/// The TrafficRouting that a Rollout shares: by the field, or by the annotation that came before it (D-30).
///
/// # Errors
/// When both are there and differ.
pub fn shared(rollout: &Rollout) -> Result<Option<String>, SpecError> {
    let strategy = &rollout.spec.strategy;
    let (path, by_field) = match (&strategy.canary, &strategy.blue_green) {
        (Some(canary), _) => ("canary", canary.traffic_routing_ref.as_ref()),
        (None, Some(blue)) => ("blueGreen", blue.traffic_routing_ref.as_ref()),
        (None, None) => ("", None),
    };
    let by_annotation = rollout.metadata.annotations.as_ref().and_then(|a| a.get(keys::TRAFFIC_ROUTING));
    match (by_field.filter(|n| !n.is_empty()), by_annotation.filter(|n| !n.is_empty())) {
        (Some(a), Some(b)) if a != b => wrong(
            format!("spec.strategy.{path}.trafficRoutingRef"),
            format!("is {a:?}, but annotation {} is {b:?}; keep one of them", keys::TRAFFIC_ROUTING),
        ),
        (field, annotation) => Ok(field.or(annotation).cloned()),
    }
}

/// Where a TrafficRouting routes: no canary Service is made, as none of its Rollouts is more its own than another.
///
/// # Errors
/// When its spec is wrong; names the field.
pub fn routing_traffic(routing: &TrafficRouting) -> Result<Traffic, SpecError> {
    let Some(reference) = routing.spec.object_ref.first() else {
        return wrong("spec.objectRef", "is empty; name the Service and the objects that route to it");
    };
    let reference = TrafficRoutingRef { create_canary_service: Some(false), ..reference.clone() };
    traffic(routing.metadata.namespace.clone(), "spec.objectRef[0]", &reference, None)
}

fn traffic(
    namespace: Option<String>,
    field: &str,
    routing: &TrafficRoutingRef,
    disable_canary_service: Option<bool>,
) -> Result<Traffic, SpecError> {
    if routing.service.is_empty() {
        return wrong(format!("{field}.service"), "is empty; name the Service that selects the workload's pods");
    }
    if routing.create_canary_service == Some(true) && disable_canary_service == Some(true) {
        return wrong(format!("{field}.createCanaryService"), "contradicts disableGenerateCanaryService; keep one");
    }
    if let Some(ingress) = &routing.ingress {
        let problem = match ingress.name.len() {
            0 => "is empty; name the Ingress".to_owned(),
            1..=LONGEST_INGRESS_NAME => String::new(),
            _ => format!(
                "is longer than {LONGEST_INGRESS_NAME} characters, so that none are left for the canary Ingress"
            ),
        };
        if !problem.is_empty() {
            return wrong(format!("{field}.ingress.name"), problem);
        }
    }
    if routing.grace_period_seconds.is_some_and(|s| s < 0) {
        return wrong(format!("{field}.gracePeriodSeconds"), "is negative");
    }
    let mut networks: Vec<NetworkRef> = Vec::new();
    if let Some(gateway) = &routing.gateway {
        match gateway.http_route_name.as_deref() {
            None | Some("") => return wrong(format!("{field}.gateway.httpRouteName"), "is empty"),
            Some(name) => networks.push(NetworkRef {
                api_version: "gateway.networking.k8s.io/v1".to_owned(),
                kind: "HTTPRoute".to_owned(),
                name: name.to_owned(),
            }),
        }
    }
    for reference in routing.network_refs.iter().chain(&routing.custom_network_refs) {
        if reference.api_version.is_empty() || reference.kind.is_empty() || reference.name.is_empty() {
            return wrong(format!("{field}.networkRefs"), "every entry needs apiVersion, kind and name");
        }
        let same = |other: &NetworkRef| {
            object::group(&other.api_version) == object::group(&reference.api_version)
                && (&other.kind, &other.name) == (&reference.kind, &reference.name)
        };
        if !networks.iter().any(same) {
            networks.push(reference.clone());
        }
    }
    if networks.is_empty() && routing.ingress.is_none() {
        return wrong(field, "names no object that routes; add networkRefs, ingress or gateway");
    }
    let makes_service = routing.create_canary_service != Some(false) && disable_canary_service != Some(true);
    let stable = routing.service.clone();
    Ok(Traffic {
        names: Names {
            canary_service: if makes_service { format!("{stable}-canary") } else { stable.clone() },
            stable_service: stable,
            namespace,
        },
        networks,
        ingress: routing.ingress.clone(),
        grace: routing.grace_period_seconds.map(i64::from),
    })
}
