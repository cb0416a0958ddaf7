//! The objects that route, each with its script.

use std::collections::BTreeMap;

use super::{
    Lookup, Objects, Settings,
    config::{scripts, scripts_of},
    optional,
};
use crate::{
    api::{
        object::{self, ObjectRef},
        v1beta1::{IngressRef, NetworkRef},
    },
    lua::{Library, NotFound, OfNamespace, Script, library},
    rollout::release::Traffic,
    traffic::{
        ingress::{self, Ingress},
        routes::Network,
    },
};

/// Where scripts come from beside those built in.
struct Scripts {
    /// The administrator's.
    cluster: Option<BTreeMap<String, String>>,
    /// The namespace's own.
    own: Option<OfNamespace>,
    config_map_wins: bool,
}

impl Scripts {
    fn or_own(&self, found: Result<Script, NotFound>) -> Result<Script, NotFound> {
        match &self.own {
            Some(own) => own.or_own(found),
            None => found,
        }
    }
}

/// The objects that route, with their scripts, and the Ingress beside which a canary stands.
pub(in crate::gather) fn routes(
    objects: &impl Objects,
    traffic: &Traffic,
    namespace: &str,
    settings: &Settings,
) -> Option<(Vec<Network>, Option<Ingress>)> {
    let scripts = Scripts {
        cluster: scripts(objects, settings)?,
        own: scripts_of(objects, namespace, settings)?,
        config_map_wins: settings.config_map_wins,
    };
    let mut networks = Vec::new();
    for reference in &traffic.networks {
        networks.push(network(objects, reference, namespace, &scripts)?);
    }
    let Some(reference) = &traffic.ingress else { return Some((networks, None)) };
    match ingress(objects, reference, namespace, &scripts)? {
        Route::InPlace(network) => {
            networks.push(network);
            Some((networks, None))
        }
        Route::Beside(ingress) => Some((networks, Some(ingress))),
    }
}

fn network(objects: &impl Objects, reference: &NetworkRef, namespace: &str, scripts: &Scripts) -> Option<Network> {
    let target = ObjectRef::new(&reference.api_version, &reference.kind, namespace, &reference.name);
    let object = match objects.get(&target) {
        Err(Lookup::Pending) => return None,
        Err(Lookup::Missing(missing)) => Err(missing),
        Ok(object) => Ok(object),
    };
    let group = object::group(&reference.api_version);
    let (cluster, kind) = (scripts.cluster.as_ref(), &reference.kind);
    let script = scripts.or_own(library::resolve(group, kind, cluster, scripts.config_map_wins));
    let acceptance = library::resolve_accepted(group, kind, cluster, scripts.config_map_wins)
        .or_else(|| scripts.own.as_ref()?.script(&Library::accepted_key(group, kind)));
    Some(Network {
        reference: reference.clone(),
        namespace: namespace.to_owned(),
        object,
        script,
        working: None,
        acceptance,
    })
}

/// How an Ingress routes during a release.
enum Route {
    /// It is changed itself.
    InPlace(Network),
    /// A canary Ingress stands beside it.
    Beside(Ingress),
}

fn ingress(objects: &impl Objects, reference: &IngressRef, namespace: &str, scripts: &Scripts) -> Option<Route> {
    let get = |name: &str| match objects.get(&ObjectRef::new(ingress::API_VERSION, ingress::KIND, namespace, name)) {
        Err(Lookup::Pending) => None,
        Err(Lookup::Missing(missing)) => Some(Err(missing)),
        Ok(object) => Some(Ok(object)),
    };
    let stable = get(&reference.name)?;
    let script = scripts.or_own(library::resolve_ingress(&reference.class_type, scripts.cluster.as_ref()));
    let in_place = Network {
        reference: NetworkRef {
            api_version: ingress::API_VERSION.to_owned(),
            kind: ingress::KIND.to_owned(),
            name: reference.name.clone(),
        },
        namespace: namespace.to_owned(),
        object: stable.clone(),
        script: script.clone(),
        working: None,
        // What an Ingress reports are addresses.
        acceptance: None,
    };
    // Without its script, what it has changed must still be put back.
    if in_place.is_changed() || script.as_ref().is_ok_and(ingress::is_in_place) {
        return Some(Route::InPlace(in_place));
    }
    let canary = get(&ingress::canary_name(&reference.name))?;
    let class = stable.as_ref().map(|s| object::text(s, &["spec", "ingressClassName"])).unwrap_or_default();
    let controller = match class {
        "" => None,
        class => optional(objects.get(&ObjectRef::new(ingress::API_VERSION, ingress::CLASS_KIND, "", class)))?,
    };
    let controller = controller.map(|c| object::text(&c, &["spec", "controller"]).to_owned()).filter(|c| !c.is_empty());
    Some(Route::Beside(Ingress {
        name: reference.name.clone(),
        namespace: namespace.to_owned(),
        stable,
        canary,
        script,
        working: None,
        controller,
    }))
}
