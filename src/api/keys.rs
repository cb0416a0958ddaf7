//! Labels, annotations, finalizers and names that are part of the contract with users and other tools.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

/// Finalizer on a Rollout: traffic and workload are put back before the object goes.
pub const ROLLOUT_FINALIZER: &str = "rollouts.kruise.io/rollout";

/// Label on the workload: the switch of the hold. Value: `deployment`, `statefulset`, `daemonset`, `cloneset`.
///
/// On a workload of a kind that is not known by name it is its owner's: `statefulset` says that it behaves as one. The
/// switch of its hold is [`MANAGED`].
pub const WORKLOAD_TYPE: &str = "rollouts.kruise.io/workload-type";

/// Label on a workload of a kind that is not known by name: the switch of the hold. Value: `statefulset`.
pub const MANAGED: &str = "rollouts.kruise.io/managed-as";

/// Annotation on the workload while a release is captured: a JSON [`InProgressing`].
pub const IN_PROGRESSING: &str = "rollouts.kruise.io/in-progressing";

/// Annotation on a workload that is held by its `partition`: what the user wants that to be; empty for none.
pub const ORIGINAL_PARTITION: &str = "rollouts.kruise.io/original-partition";

/// Annotation on a DaemonSet that is held by the `type` of its strategy: what the user wants that to be.
pub const ORIGINAL_STRATEGY_TYPE: &str = "rollouts.kruise.io/daemonset-original-update-strategy";

/// Annotation on a Deployment that is kept at a step: what somebody has written meanwhile into the fields that keep it
/// there, a JSON [`OriginalFields`]. The user gets it in the end.
pub const WANTED_FIELDS: &str = "rollouts.kruise.io/wanted-fields";

/// Label, or else annotation, on the workload: the user's own id of the release. Label on the pods that it brought.
pub const ROLLOUT_ID: &str = "rollouts.kruise.io/rollout-id";

/// Label on a pod that a release with an id of the user's brought: the step, from 1.
pub const ROLLOUT_BATCH_ID: &str = "rollouts.kruise.io/rollout-batch-id";

/// Label on a RolloutHistory: the name of its Rollout.
pub const ROLLOUT_NAME: &str = "rollouts.kruise.io/rollout-name";

/// Label on a Job that was made for a release; value: what for, `gate`.
pub const JOB_OF: &str = "rollouts.kruise.io/job-of";

/// Label on the extra Deployment of canary style; value: the name of the stable Deployment.
pub const CANARY_DEPLOYMENT: &str = "rollouts.kruise.io/canary-deployment";

/// Annotation on the extra Deployment of canary style: a digest of the template that it was made with. What admission
/// added to it later is not taken for another version.
pub const CANARY_TEMPLATE: &str = "rollouts.kruise.io/canary-template";

/// Annotation on the canary Ingress: a digest of what was applied last, so that it is applied again when a part of it is
/// no longer wanted.
pub const CANARY_INGRESS: &str = "rollouts.kruise.io/canary-ingress";

/// Annotation on a Rollout: `canary` or `partition`, any case.
pub const ROLLING_STYLE: &str = "rollouts.kruise.io/rolling-style";

/// Finalizer on a TrafficRouting: its routes are put back before the object goes.
pub const TRAFFIC_ROUTING_FINALIZER: &str = "rollouts.kruise.io/trafficrouting";

/// Finalizers on a TrafficRouting, each followed by the name of a Rollout: while there is one, the routes are changed.
pub const PROGRESSING_FINALIZER: &str = "progressing.rollouts.kruise.io/";

/// Annotation on a Rollout: with `true`, a release without traffic that is rolled back goes back step by step.
pub const ROLLBACK_IN_BATCH: &str = "rollouts.kruise.io/rollback-in-batch";

/// Label on a pod that had the stable template when its release began to go back in batches; value: the release's id.
pub const NO_NEED_UPDATE: &str = "rollouts.kruise.io/no-need-update";

/// Annotation on a Rollout: name of the TrafficRouting it shares.
pub const TRAFFIC_ROUTING: &str = "rollouts.kruise.io/trafficrouting";

/// Annotation on a networkRef during a release: JSON `{spec, labels, annotations}` of the object before it, and
/// under `written` what we changed since.
pub const ORIGINAL_SPEC: &str = "rollouts.kruise.io/original-spec-configuration";

/// Label that a Deployment's pods carry for their revision.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Label that pods of a StatefulSet or DaemonSet carry for their revision.
pub const CONTROLLER_REVISION_HASH: &str = "controller-revision-hash";

/// The labels by which pods of one revision are told from others.
pub const REVISION_LABELS: [&str; 2] = [POD_TEMPLATE_HASH, CONTROLLER_REVISION_HASH];

/// Annotation of a pod: those of lower cost are deleted first.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Annotation of a ReplicaSet: its revision number within the Deployment.
pub const DEPLOYMENT_REVISION: &str = "deployment.kubernetes.io/revision";

/// Annotation of a ReplicaSet: `spec.replicas` of its Deployment when this one's controller last gave it a size.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";

/// Label of an EndpointSlice: the Service it belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// ConfigMap with the administrator's scripts, in the controller's namespace.
pub const SCRIPT_CONFIG_MAP: &str = "kruise-rollout-configuration";

/// Key in that ConfigMap: the change windows of all Rollouts, as YAML.
pub const CHANGE_WINDOWS: &str = "change-windows.yaml";

/// Key in that ConfigMap: who is told of releases, as YAML.
pub const NOTIFICATIONS: &str = "notifications.yaml";

/// Secret of the controller's namespace with addresses and logins of receivers.
pub const NOTIFICATION_SECRET: &str = "tidegate-notifications";

/// Annotation on a Rollout: receivers beside the default ones, as `name` or `name=channel`; `none`: not the default ones.
pub const NOTIFY: &str = "rollouts.kruise.io/notify";

/// Annotation on a Rollout: why the release that is going on may begin steps outside its change windows.
pub const OVERRIDE_WINDOWS: &str = "rollouts.kruise.io/change-window-override";
/// On a Rollout: who wrote that reason. Ours: the webhook writes it, and takes away what anybody else wrote.
pub const OVERRIDE_WINDOWS_BY: &str = "rollouts.kruise.io/change-window-override-by";
/// Annotation of OpenKruise Rollouts on a workload whose release it has begun. Nobody else touches it until `tidegate
/// adopt` has taken the release over.
pub const CONTROL_INFO: &str = "batchrelease.rollouts.kruise.io/control-info";

/// Lease of the one process that decides: the original's, so that both never act at the same time.
pub const LEASE: &str = "71ddec2c.kruise.io";

/// Field manager of every write of ours.
pub const FIELD_MANAGER: &str = "tidegate";

/// Value of [`IN_PROGRESSING`].
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InProgressing {
    /// The Rollout that controls the release; empty when the hold was set by the admission policy, which knows no
    /// Rollouts.
    #[serde(default)]
    pub rollout_name: String,
    /// What the user wants `spec.paused` to be after the release.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// The controller's word that the held template may roll out: whoever unpauses the workload must say it in the
    /// same write, else the hold stays. See [`crate::workload::hold`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
    /// How far the controller has opened a workload that rolls in place: the fields that it wrote last. Whoever changes
    /// those fields must change this in the same write, else the workload is held again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Opening>,
    /// What [`open`](Self::open) was when somebody else's write was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Opening>,
    /// The user's own fields, to be given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<OriginalFields>,
}

impl InProgressing {
    /// What the controller wrote last, whether it still is in force or not.
    pub fn written(&self) -> Option<&Opening> {
        self.open.as_ref().or(self.was.as_ref())
    }
}

/// Values of the fields by which a workload is opened, as the controller wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Opening {
    /// `maxSurge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_surge: Option<IntOrString>,
    /// `maxUnavailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrString>,
    /// `partition`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<IntOrString>,
}

/// The user's own values of the fields by which a workload is held and opened.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginalFields {
    /// `spec.strategy`, whole.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub strategy: Value,
    /// `spec.minReadySeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i64>,
    /// `spec.progressDeadlineSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline_seconds: Option<i64>,
}
