//! What a rehearsal plays: its setup, and what happens when.

use super::Barriers;
use crate::api::keys;

mod acts;
mod text;

pub use self::acts::{ACTS, Act, Event, Kind, Row, When};
pub(super) use self::text::number;

/// Everything about one rehearsal.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Of names, delays, thinking times and faults.
    pub seed: u64,
    /// What is there at the start.
    pub setup: Setup,
    /// What happens, in no particular order.
    pub events: Vec<Event>,
}

/// What is there at the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// What is released.
    pub workload: Managed,
    /// How the new version comes up.
    pub style: Style,
    /// What routes requests.
    pub gateway: Gateway,
    /// The Rollout is written as `v1alpha1`.
    pub is_old_api: bool,
    /// Pods of the workload.
    pub replicas: i64,
    /// `maxSurge` and `maxUnavailable`, as the Deployment spells them.
    pub surge: String,
    /// See `surge`.
    pub unavailable: String,
    /// The user's grace period in seconds.
    pub grace: Option<i64>,
    /// How late the gateway learns of routes, of subsets and of Services, in percent of the grace period.
    pub lags: [i64; 3],
    /// The plan.
    pub steps: Vec<Step>,
    /// Tolerated unready pods of the new version.
    pub threshold: Option<String>,
    /// Pods take up to 40 seconds to become ready.
    pub is_slow: bool,
    /// Seconds in which a step has to be in place.
    pub deadline: Option<i64>,
    /// A step that is not is rolled back.
    pub rolls_back: bool,
    /// Releases are recorded.
    pub keeps_history: bool,
    /// What stands between a release and its next step beside people.
    pub barriers: Barriers,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// `2` or `40%`; empty follows the weight.
    pub replicas: String,
    /// What is routed.
    pub route: Route,
    /// Seconds; `None` waits for approval.
    pub pause: Option<i64>,
}

/// What a step asks of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Nothing.
    None,
    /// A share of all requests, in percent.
    Weight(i64),
    /// Requests with the header `version: canary`.
    Exact,
    /// Requests whose header `version` matches `^canary.*$`.
    Regex,
}

macro_rules! names {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// As a script spells it.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }

            pub(super) fn parse(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| {
                    let known: Vec<&str> = Self::ALL.iter().map(|v| v.as_str()).collect();
                    format!("{text:?} is none of {}", known.join(", "))
                })
            }
        }
    };
}
use names;

names! {
    /// What is released.
    Managed {
        /// `apps/v1` Deployment.
        Deployment = "deployment",
        /// `apps/v1` StatefulSet.
        StatefulSet = "statefulset",
        /// `apps/v1` DaemonSet; its pods are as many as there are nodes.
        DaemonSet = "daemonset",
        /// OpenKruise's CloneSet.
        CloneSet = "cloneset",
        /// OpenKruise's StatefulSet.
        AdvancedStatefulSet = "advanced-statefulset",
        /// OpenKruise's DaemonSet.
        AdvancedDaemonSet = "advanced-daemonset",
        /// A kind that nobody knows by name, whose owner says that it behaves as a StatefulSet.
        StatefulSetLike = "statefulset-like",
    }
}

names! {
    /// How the new version comes up.
    Style {
        /// An extra Deployment.
        Canary = "canary",
        /// In place, batch by batch.
        Partition = "partition",
        /// A full new set beside the old one.
        BlueGreen = "blue-green",
    }
}

names! {
    /// What routes requests.
    Gateway {
        /// The Service alone.
        None = "none",
        /// A VirtualService with subsets of a DestinationRule.
        IstioSubset = "istio-subset",
        /// A VirtualService and a generated canary Service.
        IstioService = "istio-service",
        /// A Gateway API HTTPRoute.
        HttpRoute = "http-route",
        /// An Ingress of ingress-nginx, with a canary Ingress beside it.
        Ingress = "ingress",
    }
}

names! {
    /// Where a release stands when something happens.
    State {
        /// `BeforeStepUpgrade`.
        Before = "before",
        /// `StepUpgrade`.
        Upgrade = "upgrade",
        /// `StepTrafficRouting` and `StepMetricsAnalysis`.
        Routing = "routing",
        /// `StepPaused`.
        Paused = "paused",
        /// `StepReady`.
        Ready = "ready",
        /// Winding up, whatever the reason.
        Finalising = "finalising",
        /// No release.
        Idle = "idle",
    }
}

impl Setup {
    /// The plainest: two steps of a canary behind an Istio subset.
    pub fn plain() -> Setup {
        Setup {
            workload: Managed::Deployment,
            style: Style::Canary,
            gateway: Gateway::IstioSubset,
            is_old_api: false,
            replicas: 3,
            surge: "1".to_owned(),
            unavailable: "0".to_owned(),
            grace: None,
            lags: [0; 3],
            steps: vec![
                Step { replicas: String::new(), route: Route::Weight(20), pause: None },
                Step { replicas: "1".to_owned(), route: Route::Exact, pause: None },
            ],
            threshold: None,
            is_slow: false,
            deadline: None,
            rolls_back: false,
            keeps_history: false,
            barriers: Barriers::default(),
        }
    }

    /// The part of a status that tells of the release.
    pub fn status_key(&self) -> &'static str {
        if self.style == Style::BlueGreen { "blueGreenStatus" } else { "canaryStatus" }
    }

    /// The part of a strategy that has the plan.
    pub fn strategy_key(&self) -> &'static str {
        if self.style == Style::BlueGreen { "blueGreen" } else { "canary" }
    }

    /// A Service of its own leads to the pods of the new version.
    pub fn has_canary_service(&self) -> bool {
        !matches!(self.gateway, Gateway::None | Gateway::IstioSubset)
    }
}

impl Managed {
    /// API version, kind and plural.
    pub fn resource(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Managed::Deployment => ("apps/v1", "Deployment", "deployments"),
            Managed::StatefulSet => ("apps/v1", "StatefulSet", "statefulsets"),
            Managed::DaemonSet => ("apps/v1", "DaemonSet", "daemonsets"),
            Managed::CloneSet => ("apps.kruise.io/v1beta1", "CloneSet", "clonesets"),
            Managed::AdvancedStatefulSet => ("apps.kruise.io/v1beta1", "StatefulSet", "statefulsets"),
            Managed::AdvancedDaemonSet => ("apps.kruise.io/v1beta1", "DaemonSet", "daemonsets"),
            Managed::StatefulSetLike => ("games.example.com/v1beta1", "GameServerSet", "gameserversets"),
        }
    }

    /// Its pods have numbers, and come and go in their order.
    pub fn is_numbered(self) -> bool {
        matches!(self, Managed::StatefulSet | Managed::AdvancedStatefulSet | Managed::StatefulSetLike)
    }

    /// The label that switches the hold on.
    pub fn switch(self) -> &'static str {
        if self == Managed::StatefulSetLike { keys::MANAGED } else { keys::WORKLOAD_TYPE }
    }

    /// One pod a node.
    pub fn is_on_nodes(self) -> bool {
        matches!(self, Managed::DaemonSet | Managed::AdvancedDaemonSet)
    }
}
