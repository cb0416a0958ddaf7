//! Where requests go: route → Service → EndpointSlice → pod.

use std::sync::Arc;

use serde_json::Value;

use super::Sight;
use crate::world::{CANARY, CANARY_SERVICE, Eyes, RULE, SERVICE, is_ready, version};

/// The grace time where pods are about to go and the user named none: 3 seconds.
const GRACE: f64 = 3.0;
/// Pods that each step of the story promises.
const CANARY_PODS: usize = 1;
/// The share of step 1.
const WEIGHT: i64 = 20;

/// One way that requests can take.
struct Way {
    /// Only requests with the canary's header take it.
    by_header: bool,
    share: i64,
    host: String,
    subset: Option<String>,
}

impl Way {
    fn to_canary(&self) -> bool {
        self.host == CANARY_SERVICE || self.subset.as_deref() == Some("canary")
    }
}

/// The ways of a VirtualService that lead to the story's Services and take any request.
fn ways(route: &Value) -> Vec<Way> {
    let mut ways = Vec::new();
    for rule in route["spec"]["http"].as_array().into_iter().flatten() {
        for to in rule["route"].as_array().into_iter().flatten() {
            let host = to["destination"]["host"].as_str().unwrap_or_default();
            if ![SERVICE, CANARY_SERVICE].contains(&host) {
                continue;
            }
            ways.push(Way {
                by_header: rule.get("match").is_some(),
                share: to["weight"].as_i64().unwrap_or(100),
                host: host.to_owned(),
                subset: to["destination"]["subset"].as_str().map(str::to_owned),
            });
        }
    }
    ways.retain(|w| w.share > 0);
    ways
}

/// Whether any request can reach the canary.
pub fn leads_to_canary(route: &Value) -> bool {
    ways(route).iter().any(Way::to_canary)
}

/// The pods that a way ends at, ready or not: those that the EndpointSlices call ready.
fn pods(eyes: &Eyes, way: &Way) -> Result<Vec<Arc<Value>>, String> {
    let mut labels = serde_json::Map::new();
    if let Some(subset) = &way.subset {
        let rule = eyes.rule().ok_or("the DestinationRule is gone")?;
        let found = rule["spec"]["subsets"].as_array().into_iter().flatten().find(|s| s["name"] == subset.as_str());
        let found =
            found.ok_or_else(|| format!("requests go to subset {subset} of {}, which is not there", way.host))?;
        labels = found["labels"].as_object().cloned().unwrap_or_default();
    }
    if eyes.service(&way.host).is_none() {
        return Err(format!("requests go to Service {}, which is not there", way.host));
    }
    let pods = eyes.pods();
    let mut found = Vec::new();
    for slice in eyes.slices() {
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != way.host.as_str() {
            continue;
        }
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if endpoint["conditions"]["ready"] == false {
                continue;
            }
            let name = &endpoint["targetRef"]["name"];
            found.extend(pods.iter().filter(|p| {
                p["metadata"]["name"] == *name && labels.iter().all(|(k, v)| p["metadata"]["labels"][k] == *v)
            }));
        }
    }
    Ok(found.into_iter().cloned().collect())
}

fn describe(way: &Way) -> String {
    let who = if way.by_header { "requests with the header" } else { "requests" };
    let subset = way.subset.as_deref().map(|s| format!(" subset {s}")).unwrap_or_default();
    format!("{} % of {who} go to {}{subset}", way.share, way.host)
}

fn concerns(sight: &Sight<'_>) -> bool {
    matches!(sight.resource(), "virtualservices" | "destinationrules" | "services" | "endpointslices" | "pods")
}

/// Every way ends at a pod that is ready; a way to the canary is opened only when all the step's pods are ready.
pub fn capacity(sight: &Sight<'_>) -> Result<(), String> {
    if !concerns(sight) {
        return Ok(());
    }
    let Some(route) = sight.eyes.route() else { return Err("the VirtualService is gone".to_owned()) };
    for way in ways(&route) {
        let ready = pods(sight.eyes, &way)?.iter().filter(|p| is_ready(p)).count();
        let needed = if way.to_canary() { CANARY_PODS } else { 1 };
        if ready < needed {
            return Err(format!("{}, where {ready} of {needed} pods are ready endpoints", describe(&way)));
        }
    }
    Ok(())
}

/// Requests reach only versions that a person let them reach.
pub fn allowed(sight: &Sight<'_>) -> Result<(), String> {
    if !concerns(sight) || sight.record.is_native {
        return Ok(());
    }
    let Some(route) = sight.eyes.route() else { return Ok(()) };
    for way in ways(&route) {
        if way.to_canary() {
            if !way.by_header && way.share != WEIGHT {
                return Err(format!("{}; step 1 asks for {WEIGHT} %", describe(&way)));
            }
            let is_new = sight.resource() == "virtualservices"
                && !ways(sight.before()).iter().any(|w| w.to_canary() && w.by_header);
            if way.by_header
                && is_new
                && !sight.record.approvals.iter().any(|(r, _, s)| (*r, *s) == (sight.record.release, 1))
            {
                return Err(format!("{} although nobody approved step 1", describe(&way)));
            }
            continue;
        }
        for pod in pods(sight.eyes, &way)? {
            let version = version(&pod["spec"]);
            if !sight.record.may_run(version) {
                return Err(format!(
                    "{} and reach pod {} of version {version}, whose steps are not approved",
                    describe(&way),
                    pod["metadata"]["name"]
                ));
            }
        }
    }
    Ok(())
}

/// Where a rule has several destinations, their weights sum to 100.
pub fn sums(sight: &Sight<'_>) -> Result<(), String> {
    if sight.resource() != "virtualservices" {
        return Ok(());
    }
    for (i, rule) in sight.after()["spec"]["http"].as_array().into_iter().flatten().enumerate() {
        let routes = rule["route"].as_array().map(Vec::as_slice).unwrap_or_default();
        let sum: i64 = routes.iter().map(|r| r["weight"].as_i64().unwrap_or_default()).sum();
        if routes.len() > 1 && sum != 100 {
            return Err(format!("the weights of http[{i}] sum to {sum}"));
        }
    }
    Ok(())
}

/// Pods, Service and subset of the canary go only when no request could reach them for the grace time.
pub fn drained(sight: &Sight<'_>) -> Result<(), String> {
    let (before, after) = (sight.before(), sight.after());
    let going = |o: &Value| o.is_null() || o["metadata"].get("deletionTimestamp").is_some();
    let goes = !before.is_null() && going(after) && !going(before);
    let subset = |o: &Value| o["spec"]["subsets"].as_array().is_some_and(|s| s.iter().any(|s| s["name"] == "canary"));
    let pods_go = match (sight.resource(), sight.write.name.as_str()) {
        ("deployments", CANARY) => goes || after["spec"]["replicas"].as_i64() < before["spec"]["replicas"].as_i64(),
        ("pods", name) => goes && name.starts_with(CANARY),
        _ => false,
    };
    let service_goes = goes && (sight.resource(), sight.write.name.as_str()) == ("services", CANARY_SERVICE);
    let subset_goes =
        (sight.resource(), sight.write.name.as_str()) == ("destinationrules", RULE) && subset(before) && !subset(after);
    if !(pods_go || service_goes || subset_goes) {
        return Ok(());
    }
    let Some(route) = sight.eyes.route() else { return Ok(()) };
    if let Some(way) = ways(&route).iter().find(|w| w.to_canary()) {
        return Err(format!("{} goes while {}", sight.write.name, describe(way)));
    }
    let since = sight.record.last_routed.map(|t| sight.write.time.duration_since(t).as_secs_f64());
    match since {
        Some(seconds) if seconds < GRACE => Err(format!(
            "{} goes {seconds:.3} s after requests were led away; {GRACE} s are promised",
            sight.write.name
        )),
        _ => Ok(()),
    }
}
