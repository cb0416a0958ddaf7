//! What people told, as scripts: the release of `examples/istio`, and what they did in the middle of it.

/// The plan of `examples/istio`: with subsets, and with a generated canary Service.
const SUBSET: &str = "istio-subset v1alpha1 replicas=5 surge=25% unavailable=25% steps=~20,1~exact 3000:template=2";
const SERVICE: &str = "istio-service v1alpha1 replicas=5 surge=25% unavailable=25% steps=~20,1~exact 3000:template=2";

const PAUSES: &str = "istio-service replicas=2 steps=~11+5,1~exact 1988:template=2";

const IN_PLACE: &str = "partition istio-service replicas=4 grace=2 lags=95/0/0 steps=50%~50,100% 3000:template=2";
const BOTH_SETS: &str = "blue-green istio-service replicas=2 grace=2 lags=0/0/95 steps=100%~14,100% 3000:template=2";

/// A story: its name, where it plays, and what is done.
pub struct Story {
    pub name: &'static str,
    stage: &'static str,
    deeds: &'static str,
}

impl Story {
    /// Its script with a seed and further events.
    pub fn script(&self, seed: u64, more: &str) -> tidegate::rehearsal::Script {
        format!("seed={seed} {} {} {more}", self.stage, self.deeds).parse().expect("a script")
    }
}

macro_rules! stories {
    ($($name:literal, $stage:expr, $deeds:literal;)*) => {
        /// All of them; the first is the story itself.
        pub static STORIES: &[Story] = &[$(Story { name: $name, stage: $stage, deeds: $deeds }),*];
    };
}

stories! {
    "story", SUBSET, "";
    "generated-service", SERVICE, "";
    "rollback-at-1", SUBSET, "paused@1+500:rollback";
    "rollback-at-2", SUBSET, "paused@2+500:rollback";
    "rollback-early", SUBSET, "7000:rollback";
    "rollback-late", SUBSET, "finalising@0+6000:rollback";
    "generated-rollback-at-1", SERVICE, "paused@1+500:rollback";
    "generated-rollback-at-2", SERVICE, "paused@2+500:rollback";
    "generated-rollback-early", SERVICE, "8000:rollback";
    "generated-rollback-late", SERVICE, "finalising@0+6000:rollback";
    "delete-at-1", SUBSET, "paused@1+500:delete";
    "delete-early", SUBSET, "6000:delete";
    "delete-late", SUBSET, "finalising@0+5000:delete";
    "generated-delete-at-2", SERVICE, "paused@2+500:delete";
    "disable-at-1", SUBSET, "paused@1+500:disable";
    "disable-at-2", SUBSET, "paused@2+500:disable";
    "disable-early", SUBSET, "6000:disable";
    "generated-disable-at-1", SERVICE, "paused@1+500:disable";
    "third-at-1", SUBSET, "paused@1+500:template=3";
    "third-at-2", SUBSET, "paused@2+500:template=3";
    "third-early", SUBSET, "6000:template=3";
    "third-late", SUBSET, "finalising@0+6000:template=3";
    "third-with-late-approval", SUBSET, "paused@1+500:template=3 paused@1+500:approve-blindly";
    "third-and-back", SUBSET, "paused@2+500:template=3 paused@2+9000:rollback";
    "third-and-second", SUBSET, "paused@1+500:template=3 paused@1+5000:template=2";
    "generated-third-at-2", SERVICE, "paused@2+500:template=3";
    "generated-third-late", SERVICE, "finalising@0+6000:template=3";
    "edited-routes", SUBSET, "paused@1+500:edit-routes=1";
    "edited-routes-rollback", SUBSET, "paused@1+500:edit-routes=1 paused@2+500:rollback";
    "put-manifest", SUBSET, "paused@1+500:put paused@1+2500:put";
    // What generated releases have found.
    "deleted-while-it-rolls-back", SERVICE, "paused@1+500:rollback finalising@0+10:delete=53";
    "disabled-while-it-rolls-back", SERVICE, "paused@1+500:rollback finalising@0+10:disable";
    "a-status-lost-at-the-end-of-a-pause", PAUSES, "2780:timeout-after=19";
    "approved-after-the-end", SUBSET, "idle@0+4000:approve-blindly";
    "some-pods-may-be-unready", "partition none replicas=2 threshold=1 steps=2,60%,100%", "3000:template=2";
    "deleted-in-place", IN_PLACE, "paused@1+500:delete";
    "disabled-in-place", IN_PLACE, "paused@1+500:disable";
    "deleted-with-both-sets", BOTH_SETS, "paused@1+500:delete";
    "third-when-all-are-new", "partition none replicas=2 steps=50%,100%+600 3000:template=2",
        "paused@2+500:unready=5 paused@2+9000:template=3";
    "third-in-place", IN_PLACE, "paused@1+500:template=3";
    "ingress-learns-late", "canary ingress replicas=3 lags=0/0/95 steps=~20 3000:template=2", "";
    "made-again-at-the-end", BOTH_SETS, "";
}
