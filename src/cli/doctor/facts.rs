//! What is found of an installation. Plain data.

use jiff::Timestamp;

/// What was read, or why it could not be.
pub type Read<T> = Result<T, String>;

/// A custom resource definition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Definition {
    /// Such as `rollouts.rollouts.kruise.io`.
    pub name: String,
    /// It is there, and established.
    pub is_established: bool,
    /// Its schemas are those that this program prints.
    pub is_current: bool,
    /// Versions in which objects may be stored, beside the one that is written.
    pub older: Vec<String>,
}

/// A webhook configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Webhooks {
    /// Of its name there is one.
    pub is_there: bool,
    /// Webhooks without a `caBundle`.
    pub untrusted: Vec<String>,
}

/// The Lease of the leader.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Leader {
    /// Where.
    pub namespace: String,
    /// Who.
    pub holder: String,
    /// Seconds since it was renewed, and for how many that counts.
    pub age: i64,
    /// Seconds.
    pub lasts: i64,
}

/// A kind of object that Rollouts name.
#[derive(Clone, Debug, PartialEq)]
pub struct Used {
    /// `group/Kind`.
    pub kind: String,
    /// Rollouts and TrafficRoutings that name one, the first by name.
    pub by: String,
    /// A namespace in which the controller lacks what [`lacking`](Used::lacking) says; empty for all.
    pub place: String,
    /// The kind is served.
    pub is_served: bool,
    /// Verbs that the controller lacks, or why that is not known.
    pub lacking: Read<Vec<String>>,
    /// Of a kind that routes: whether there is a script, and whose.
    pub script: Option<Option<&'static str>>,
    /// Why that script is none; begins with the ConfigMap and its key.
    pub mistake: Option<String>,
}

/// Admission policies and their bindings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policies {
    /// That are there.
    pub there: usize,
    /// That this program prints.
    pub wanted: usize,
    /// Of those that are there, names of those that are not as this program prints them.
    pub other: Vec<String>,
}

/// Somebody else's object that rolls out the same workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Rival {
    /// Such as `Canary shop/web of Flagger`.
    pub who: String,
    /// The workload, such as `Deployment shop/web`.
    pub workload: String,
    /// The Rollout.
    pub by: String,
}

/// All that was found.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Now.
    pub now: Timestamp,
    /// Version of the API server.
    pub server: Read<String>,
    /// Ours.
    pub definitions: Read<Vec<Definition>>,
    /// The hold by the API server itself.
    pub policies: Read<Policies>,
    /// Versions of Tidegate whose controllers are there.
    pub controllers: Read<Vec<String>>,
    /// Whether Rollouts can be read in the old version; `None` where nothing converts them.
    pub conversion: Option<Read<()>>,
    /// Others that roll out what Rollouts name.
    pub rivals: Read<Vec<Rival>>,
    /// The holds by webhook.
    pub holding: Read<Webhooks>,
    /// The validation.
    pub validating: Read<Webhooks>,
    /// Who approves.
    pub approvers: Read<Webhooks>,
    /// What the validation said to a Rollout that it has to refuse, tried without being stored.
    pub answer: Read<()>,
    /// When the serving certificate ends; none where somebody else keeps it.
    pub certificate: Read<Option<Timestamp>>,
    /// All of the name.
    pub leaders: Read<Vec<Leader>>,
    /// Deployments of the original's manager that want pods.
    pub originals: Read<Vec<String>>,
    /// Workloads whose release the original has begun.
    pub begun: Read<Vec<String>>,
    /// Kinds in use.
    pub used: Read<Vec<Used>>,
    /// Namespaces that the controller watches; empty for all.
    pub namespaces: Read<Vec<String>>,
    /// Rollouts and TrafficRoutings elsewhere.
    pub unwatched: Read<Vec<String>>,
}
