//! What an object of ours reaches: all that may be written on its behalf.

use crate::{
    api::{keys, object::ObjectRef, v1alpha1::TrafficRouting, v1beta1::Rollout},
    apply,
    gather::collect::TRAFFIC_ROUTING,
    rollout::{
        release::{self, Traffic},
        traffic_routing::reference,
    },
    traffic::{Names, ingress},
};

/// What may be written on behalf of one object of ours.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The object itself.
    pub owner: ObjectRef,
    /// Its uid.
    pub uid: String,
    /// The workload that it names.
    pub workload: Option<ObjectRef>,
    /// The workload that it named before.
    pub former_workload: Option<ObjectRef>,
    /// The Services that it names.
    pub names: Names,
    /// The objects that route which it names.
    pub networks: Vec<ObjectRef>,
    /// Finalizers that it may add and remove, each with its object; one that ends in `/` stands for all that begin so.
    pub finalizers: Vec<(ObjectRef, Vec<String>)>,
}

impl Reach {
    /// What a Rollout names.
    pub fn of(rollout: &Rollout) -> Reach {
        let owner = apply::rollout_ref(rollout);
        let mut reach = Reach {
            uid: rollout.metadata.uid.clone().unwrap_or_default(),
            workload: None,
            former_workload: None,
            names: Names::default(),
            networks: Vec::new(),
            finalizers: vec![(owner.clone(), vec![keys::ROLLOUT_FINALIZER.to_owned()])],
            owner,
        };
        let Ok(scope) = release::scope(rollout).or_else(|_| release::bare_scope(rollout)) else { return reach };
        let namespace = reach.owner.namespace.clone();
        let name = |api_version: &str, kind: &str, name: &str| ObjectRef::new(api_version, kind, &namespace, name);
        reach.workload = Some(name(&scope.workload.api_version, &scope.workload.kind, &scope.workload.name));
        let former = rollout.status.as_ref().and_then(|s| s.workload_ref.as_ref());
        reach.former_workload = former.map(|f| name(&f.api_version, &f.kind, &f.name));
        if let Some(shared) = &scope.shared {
            let own = format!("{}{}", keys::PROGRESSING_FINALIZER, reach.owner.name);
            reach.finalizers.push((name(TRAFFIC_ROUTING.0, TRAFFIC_ROUTING.1, shared), vec![own]));
        }
        reach.routes(scope.traffic);
        reach
    }

    /// What a TrafficRouting names.
    pub fn of_routing(routing: &TrafficRouting) -> Reach {
        let owner = reference(routing);
        let finalizers = [keys::TRAFFIC_ROUTING_FINALIZER, keys::PROGRESSING_FINALIZER].map(str::to_owned);
        let mut reach = Reach {
            uid: routing.metadata.uid.clone().unwrap_or_default(),
            workload: None,
            former_workload: None,
            names: Names::default(),
            networks: Vec::new(),
            finalizers: vec![(owner.clone(), finalizers.to_vec())],
            owner,
        };
        reach.routes(release::routing_traffic(routing).ok());
        // Its pods are those of its Rollouts: the Service stays as it is.
        reach
    }

    fn routes(&mut self, traffic: Option<Traffic>) {
        let Some(traffic) = traffic else { return };
        let name =
            |api_version: &str, kind: &str, name: &str| ObjectRef::new(api_version, kind, &self.owner.namespace, name);
        let networks = traffic.networks.iter().map(|n| name(&n.api_version, &n.kind, &n.name));
        let ingress = traffic.ingress.iter().map(|i| name(ingress::API_VERSION, ingress::KIND, &i.name));
        self.networks = networks.chain(ingress).collect();
        self.names = traffic.names;
    }
}
