//! How a release with a deed in its middle has to end.

use std::time::Duration;

use serde_json::Value;
use tidegate::api::keys::{MANAGED, WORKLOAD_TYPE};

use super::{Play, plain};
use crate::{
    deeds::{
        Deed::{self, *},
        End,
    },
    stage::{NAMESPACE, gvr, is_ready, pods, version},
};

impl Play {
    pub(super) fn is_over(&self, deed: Deed) -> Result<(), String> {
        let rollout = self.stage.rollout();
        let phase = rollout["status"]["phase"].as_str().unwrap_or_default();
        let sub = self.stage.sub();
        let reached = match deed.end() {
            End::Healthy => phase == "Healthy" && sub["currentStepState"] == "Completed",
            End::Disabled => phase == "Disabled",
            End::Gone => rollout.is_null(),
            End::Waiting => phase == "Initial",
        };
        if !reached || self.then.is_some() {
            return Err(format!("it is {phase}: {}", rollout["status"]["message"]));
        }
        if deed.end() == End::Waiting {
            return Ok(());
        }
        let replicas = self.stage.wanted();
        let pods = pods(&self.stage.view);
        let wanted = deed.wanted();
        match pods.iter().find(|p| !is_ready(p) || version(&p["spec"]) != wanted) {
            Some(pod) => Err(format!("pod {} is of {}", pod["metadata"]["name"], version(&pod["spec"]))),
            None if pods.len() != replicas => Err(format!("{} pods instead of {replicas}", pods.len())),
            None => Ok(()),
        }
    }

    pub(super) async fn follow(&mut self, deed: Deed) -> Result<(), String> {
        for _ in 0..1500 {
            if self.is_over(deed).is_ok() {
                break;
            }
            self.approve_what_waits().await;
            if let Some(then) = self.then
                && self.stage.rollout()["status"]["phase"] == "Healthy"
                && self.stage.sub()["currentStepState"] == "Completed"
                && self.released == self.to_roll_back_to()
                && self.stage.deployment()["metadata"]["annotations"].get("rollouts.kruise.io/in-progressing").is_none()
            {
                self.then = None;
                if deed == TouchTemplate {
                    self.touch(true).await;
                }
                if deed.wanted() == then {
                    self.push(then).await;
                }
            }
            let _ = tokio::time::timeout(Duration::from_secs(1), self.bell.notified()).await;
        }
        self.is_over(deed)
    }

    /// Everything is as it was, and only the template is new.
    pub(super) fn judge(&self, deed: Deed, at: &str) -> Result<(), String> {
        let same = |what: &str, now: Value, before: Value| {
            if now == before { Ok(()) } else { Err(format!("{what} is {now}\ninstead of {before}")) }
        };
        let log = self.log.lock().unwrap();
        if let Some(wrong) = &log.wrong {
            return Err(wrong.clone());
        }
        let route = self.object("networking.istio.io", "virtualservices", "nginx-vs");
        same("the route", plain(&route), plain(&self.route))?;
        let service = self.object("", "services", "nginx-service");
        same("the selector", service["spec"]["selector"].clone(), self.service["spec"]["selector"].clone())?;
        for (group, plural, name) in
            [("apps", "deployments", "nginx-deployment-canary"), ("", "services", "nginx-service-canary")]
        {
            if !self.object(group, plural, name).is_null() {
                return Err(format!("{name} is left"));
            }
        }
        if deed.end() != End::Waiting {
            same("the workload", plain(&self.stage.deployment()), plain(&self.deployment))?;
            let sets = self.stage.view.list(&gvr("apps", "replicasets"), Some(NAMESPACE));
            if let Some(set) = sets.iter().find(|s| s["spec"]["minReadySeconds"].as_i64().unwrap_or(0) != 0) {
                return Err(format!("minReadySeconds is left on {}", set["metadata"]["name"]));
            }
        }
        let switch = if self.way.row.behaves_as.is_some() { MANAGED } else { WORKLOAD_TYPE };
        if deed.end() == End::Healthy && self.stage.deployment()["metadata"]["labels"][switch].is_null() {
            return Err("the switch of the hold is off".to_owned());
        }
        if !deed.may_lack_pods(self.style) && !self.way.may_lack_pods(deed, at) && self.stage.seen().0 < self.way.least
        {
            return Err(format!("only {} pods were ready at a time", self.stage.seen().0));
        }
        // A person's word is for one step: each step that waits was asked for.
        if deed.end() == End::Healthy && deed.wanted() == "canary" && !deed.opens() && !log.asked.contains(&2) {
            return Err(format!("only steps {:?} waited for a person", log.asked));
        }
        Ok(())
    }
}
