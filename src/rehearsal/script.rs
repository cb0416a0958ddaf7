//! What a rehearsal plays, and its text.

use std::{fmt, str::FromStr};

use super::{Barriers, draw};

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

            fn parse(text: &str) -> Result<Self, String> {
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| {
                    let known: Vec<&str> = Self::ALL.iter().map(|v| v.as_str()).collect();
                    format!("{text:?} is none of {}", known.join(", "))
                })
            }
        }
    };
}

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

/// When something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Milliseconds after the curtain.
    At(u64),
    /// Milliseconds after the Rollout was first stored in a state of a step.
    In(State, i64, u64),
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub when: When,
    /// What.
    pub act: Act,
}

/// What happens, with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// What.
    pub kind: Kind,
    /// How much, for how long, or which; the row of [`ACTS`] says.
    pub arg: i64,
}

/// What can happen: one row of [`ACTS`].
#[derive(Debug)]
pub struct Row {
    /// The kind.
    pub kind: Kind,
    /// How often it is drawn beside the others of its class.
    pub weight: u64,
    /// A fault, not a moment.
    pub is_fault: bool,
    /// The least number.
    pub low: i64,
    /// The greatest.
    pub high: i64,
}

macro_rules! acts {
    ($($(#[$doc:meta])* $kind:ident = $text:literal, $fault:literal, $weight:literal, $range:expr;)*) => {
        names! {
            /// What can happen; the documentation tells what the number means.
            Kind { $($(#[$doc])* $kind = $text,)* }
        }

        /// Every moment and every fault.
        pub const ACTS: &[Row] = &[$(Row {
            kind: Kind::$kind, weight: $weight, is_fault: $fault, low: *$range.start(), high: *$range.end(),
        },)*];
    };
}

acts! {
    /// A new version of the template is pushed: its number.
    Template = "template", false, 8, (2..=4);
    /// The template is touched by an annotation only: its number.
    Touch = "touch", false, 3, (1..=3);
    /// A version that never becomes ready is pushed: its number.
    Unready = "unready", false, 3, (5..=6);
    /// A version that crash-loops is pushed: its number.
    CrashLoop = "crash-loop", false, 2, (7..=8);
    /// The template goes back to the stable version.
    Rollback = "rollback", false, 9, (0..=0);
    /// The waiting step is approved twice at once.
    ApproveTwice = "approve-twice", false, 3, (0..=0);
    /// `StepReady` is written, whatever the state.
    ApproveBlindly = "approve-blindly", false, 3, (0..=0);
    /// The step before is approved by the plugin from an old read.
    ApproveOld = "approve-old", false, 3, (0..=0);
    /// `strategy.paused` for so many seconds.
    Freeze = "freeze", false, 4, (1..=60);
    /// `nextStepIndex` points to this step.
    Jump = "jump", false, 4, (1..=4);
    /// A step is put before the last one.
    AddStep = "add-step", false, 2, (0..=0);
    /// The last step is removed, if another is left.
    RemoveStep = "remove-step", false, 2, (0..=0);
    /// The weight or the replicas of this step are changed.
    EditStep = "edit-step", false, 3, (1..=4);
    /// The workload is scaled to so many pods.
    Scale = "scale", false, 6, (0..=9);
    /// An autoscaler writes every three seconds, for so many seconds.
    Hpa = "hpa", false, 3, (6..=60);
    /// Disabled, and enabled again after so many seconds; 0 is never.
    Disable = "disable", false, 4, (0..=60);
    /// The Rollout is deleted, and created again so many seconds after it has gone; 0 is never.
    Delete = "delete", false, 4, (0..=60);
    /// The workload is deleted, and created again after so many seconds.
    WorkloadGone = "workload-gone", false, 2, (1..=30);
    /// The Service is deleted, and created again after so many seconds.
    ServiceGone = "service-gone", false, 2, (1..=30);
    /// The route is deleted, and created again after so many seconds.
    RouteGone = "route-gone", false, 2, (1..=30);
    /// Somebody changes other fields of route and rule.
    EditRoutes = "edit-routes", false, 4, (1..=9);
    /// Somebody changes other fields of the Service.
    EditService = "edit-service", false, 2, (1..=9);
    /// A tool that knows nothing of us writes the whole Deployment.
    Put = "put", false, 4, (0..=0);
    /// A person deletes the canary Deployment.
    CanaryGone = "canary-gone", false, 2, (0..=0);
    /// The release gets an id.
    Id = "rollout-id", false, 2, (1..=9);

    /// Writes are refused with 409, for so many seconds.
    Conflict = "conflict", true, 3, (1..=40);
    /// Requests are refused with 429.
    TooManyRequests = "too-many-requests", true, 3, (1..=40);
    /// Requests fail with 500.
    InternalError = "internal-error", true, 3, (1..=40);
    /// Requests get lost.
    TimeoutBefore = "timeout-before", true, 3, (1..=40);
    /// Writes are done, but their answers get lost.
    TimeoutAfter = "timeout-after", true, 3, (1..=40);
    /// Answers take their time.
    Latency = "latency", true, 2, (1..=40);
    /// New watches break after some events, which are lost.
    WatchGap = "watch-gap", true, 3, (1..=40);
    /// All watches break now.
    WatchBreak = "watch-break", true, 3, (0..=0);
    /// Watches that begin now bring their events late.
    Stale = "stale-cache", true, 3, (1..=40);
    /// Watches that begin now bring events twice.
    Duplicate = "duplicate-events", true, 3, (1..=40);
    /// A pod becomes unready for so many seconds.
    Flap = "flap", true, 3, (1..=15);
    /// A pod is deleted.
    Evict = "evict", true, 2, (0..=0);
    /// The controller dies after so many more writes.
    Crash = "crash", true, 8, (0..=14);
    /// The controller is away for so many minutes.
    Away = "away", true, 2, (10..=180);
    /// A second controller runs for so many seconds.
    Twins = "twins", true, 3, (5..=30);
    /// The controller's clock jumps by so many seconds.
    Clock = "clock", true, 3, (-90..=90);
}

impl Row {
    /// The row of a kind.
    pub fn of(kind: Kind) -> Option<&'static Row> {
        ACTS.iter().find(|r| r.kind == kind)
    }
}

impl Kind {
    /// A fault, not a moment.
    pub fn is_fault(self) -> bool {
        Row::of(self).is_some_and(|r| r.is_fault)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.replicas)?;
        match self.route {
            Route::None => Ok(()),
            Route::Weight(w) => write!(f, "~{w}"),
            Route::Exact => f.write_str("~exact"),
            Route::Regex => f.write_str("~regex"),
        }?;
        match self.pause {
            None => Ok(()),
            Some(seconds) => write!(f, "+{seconds}"),
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Step, String> {
        let (text, pause) = match text.split_once('+') {
            Some((head, seconds)) => (head, Some(number(seconds)?)),
            None => (text, None),
        };
        let (replicas, route) = match text.split_once('~') {
            None => (text, Route::None),
            Some((head, "exact")) => (head, Route::Exact),
            Some((head, "regex")) => (head, Route::Regex),
            Some((head, weight)) => (head, Route::Weight(number(weight)?)),
        };
        Ok(Step { replicas: replicas.to_owned(), route, pause })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.when {
            When::At(ms) => write!(f, "{ms}:")?,
            When::In(state, step, ms) => write!(f, "{}@{step}+{ms}:", state.as_str())?,
        }
        f.write_str(self.act.kind.as_str())?;
        match Row::of(self.act.kind) {
            Some(row) if row.low == row.high => Ok(()),
            _ => write!(f, "={}", self.act.arg),
        }
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(text: &str) -> Result<Event, String> {
        let (when, act) = text.split_once(':').ok_or_else(|| format!("{text:?} is no `when:what`"))?;
        let when = match when.split_once('@') {
            None => When::At(number(when)?),
            Some((state, rest)) => {
                let (step, ms) = rest.split_once('+').unwrap_or((rest, "0"));
                When::In(State::parse(state)?, number(step)?, number(ms)?)
            }
        };
        let (kind, arg) = act.split_once('=').unwrap_or((act, "0"));
        Ok(Event { when, act: Act { kind: Kind::parse(kind)?, arg: number(arg)? } })
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = &self.setup;
        write!(f, "seed={}", self.seed)?;
        if s.workload != Managed::Deployment {
            write!(f, " {}", s.workload.as_str())?;
        }
        write!(f, " {} {}", s.style.as_str(), s.gateway.as_str())?;
        if s.is_old_api {
            f.write_str(" v1alpha1")?;
        }
        if s.is_slow {
            f.write_str(" slow-pods")?;
        }
        write!(f, " replicas={} surge={} unavailable={}", s.replicas, s.surge, s.unavailable)?;
        if let Some(grace) = s.grace {
            write!(f, " grace={grace}")?;
        }
        if s.lags != [0; 3] {
            let [routes, subsets, services] = s.lags;
            write!(f, " lags={routes}/{subsets}/{services}")?;
        }
        if let Some(threshold) = &s.threshold {
            write!(f, " threshold={threshold}")?;
        }
        if let Some(deadline) = s.deadline {
            write!(f, " deadline={deadline}")?;
        }
        if s.rolls_back {
            f.write_str(" rolls-back")?;
        }
        if s.keeps_history {
            f.write_str(" history")?;
        }
        write!(f, "{}", s.barriers)?;
        let steps: Vec<String> = s.steps.iter().map(Step::to_string).collect();
        write!(f, " steps={}", steps.join(","))?;
        for event in &self.events {
            write!(f, " {event}")?;
        }
        Ok(())
    }
}

pub(super) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

impl FromStr for Script {
    type Err = String;

    /// A number alone is the script that is drawn from it. What is not said is as in the plainest rehearsal.
    fn from_str(text: &str) -> Result<Script, String> {
        if let Ok(seed) = text.trim().parse() {
            return Ok(draw(seed));
        }
        let mut script = Script { seed: 0, setup: Setup::plain(), events: Vec::new() };
        let setup = &mut script.setup;
        for word in text.split_whitespace() {
            if word.contains(':') {
                script.events.push(word.parse().map_err(|e| format!("{word}: {e}"))?);
                continue;
            }
            let wrong = |e: String| format!("{word}: {e}");
            if let Some(read) = setup.barriers.read(word) {
                read.map_err(wrong)?;
                continue;
            }
            match word.split_once('=') {
                Some(("seed", value)) => script.seed = number(value).map_err(wrong)?,
                Some(("replicas", value)) => setup.replicas = number(value).map_err(wrong)?,
                Some(("surge", value)) => setup.surge = value.to_owned(),
                Some(("unavailable", value)) => setup.unavailable = value.to_owned(),
                Some(("grace", value)) => setup.grace = Some(number(value).map_err(wrong)?),
                Some(("lags", value)) => {
                    let lags: Vec<i64> = value.split('/').map(number).collect::<Result<_, _>>().map_err(wrong)?;
                    setup.lags = lags.try_into().map_err(|_| wrong("three numbers are needed".to_owned()))?;
                }
                Some(("threshold", value)) => setup.threshold = Some(value.to_owned()),
                Some(("deadline", value)) => setup.deadline = Some(number(value).map_err(wrong)?),
                Some(("steps", value)) => {
                    setup.steps = value.split(',').map(str::parse).collect::<Result<_, _>>().map_err(wrong)?;
                }
                None if word == "v1alpha1" => setup.is_old_api = true,
                None if word == "slow-pods" => setup.is_slow = true,
                None if word == "rolls-back" => setup.rolls_back = true,
                None if word == "history" => setup.keeps_history = true,
                None => match (Style::parse(word), Gateway::parse(word), Managed::parse(word)) {
                    (Ok(style), _, _) => setup.style = style,
                    (_, Ok(gateway), _) => setup.gateway = gateway,
                    (_, _, Ok(workload)) => setup.workload = workload,
                    (Err(style), Err(gateway), Err(workload)) => {
                        return Err(format!("{style}, and {gateway}, and {workload}"));
                    }
                },
                Some((key, _)) => return Err(format!("{key}: no such word")),
            }
        }
        Ok(script)
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
        }
    }

    /// One pod a node.
    pub fn is_on_nodes(self) -> bool {
        matches!(self, Managed::DaemonSet | Managed::AdvancedDaemonSet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_its_text() {
        for seed in 0..300 {
            let script = draw(seed);
            let text = script.to_string();
            assert_eq!(text.parse::<Script>().as_ref(), Ok(&script), "{text}");
        }
        assert_eq!("7".parse::<Script>(), Ok(draw(7)));
    }

    #[test]
    fn every_kind_has_its_row() {
        assert!(Kind::ALL.iter().all(|k| Row::of(*k).is_some()));
        assert_eq!(Kind::ALL.len(), ACTS.len());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("seed=x", "seed=x: \"x\" is no number"),
            ("cannary", "\"cannary\" is none of canary"),
            ("5:jumpp=1", "5:jumpp=1: \"jumpp\" is none of template"),
            ("colour=red", "colour: no such word"),
        ] {
            let error = text.parse::<Script>().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
