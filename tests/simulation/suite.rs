//! The tests.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use libtest_mimic::Failed;
use tidegate::{
    cli::simulate::{command, coverage, summary},
    rehearsal::{Audience, Manner, Mind, Script, Tally, Wrong, draw, rehearse, rehearse_all},
};

use crate::{
    mutants::Mutant,
    stories::{STORIES, Story},
};

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

/// Plays scripts; the report on those that went wrong.
fn play(scripts: impl Iterator<Item = Script> + Send) -> Result<Tally, Failed> {
    let mind = Mind::real();
    let manner = Manner { mind: &mind, jobs: jobs(), most_wrong: 3, tries: 60, command, audience: &() };
    let tally = rehearse_all(scripts, &manner);
    print!("{}", summary(&tally, manner.jobs));
    if tally.wrong.is_empty() {
        return Ok(tally);
    }
    let told: Vec<String> = tally
        .wrong
        .iter()
        .map(|Wrong { script, told, .. }| {
            let is_this = |s: &&Story| s.script(script.seed, "") == *script;
            format!("{}\n{told}", STORIES.iter().find(is_this).map_or("generated", |s| s.name))
        })
        .collect();
    Err(told.join("\n").into())
}

/// Every story, undisturbed.
pub fn stories() -> Result<(), Failed> {
    play(STORIES.iter().zip(100..).map(|(story, seed)| story.script(seed, ""))).map(|_| ())
}

/// What went wrong once, as it was found.
const FOUND: &[&str] = &[
    // Disabled while a version that was worse went back, requests met its pods again.
    "seed=157 cloneset partition ingress replicas=2 surge=1 unavailable=0 grace=0 lags=45/95/0 deadline=45 rolls-back \
     compared=worse steps=~5,~14,~58 405:template=2 finalising@0+0:disable=0 23994:freeze=47 finalising@0+3:watch-break",
    // Opened and half rolled when a crash kept the end from the status, it was shut again and waited for stable pods.
    "seed=10194 canary ingress v1alpha1 replicas=4 surge=1 unavailable=0 grace=0 lags=0/95/0 steps=1~exact,1~exact+5,100%~100 \
     1677:template=2 finalising@0+3:timeout-after=8 upgrade@3+0:crash=10",
    // A replica that had not heard yet restricted the stable Service once more while the release was being wound up.
    "seed=2354 canary istio-service v1alpha1 replicas=7 surge=100% unavailable=0 lags=95/0/95 \
     steps=~34,80%~71,1~exact,~100+0 2892:template=2 32949:jump=3 29506:approve-twice 18486:edit-routes=5 \
     upgrade@4+0:twins=17 10716:stale-cache=37",
    // Opened because scaling made the step the whole, the stable Service was never restricted again.
    "seed=1572 statefulset partition istio-service replicas=2 surge=1 unavailable=0 metric=down steps=~12+5 277:template=2 \
     13422:hpa=50",
    // Shut in the middle of rolling back, a paused Deployment shares out what it may surge.
    "seed=668 partition none replicas=2 surge=100% unavailable=0 metric=many steps=30% finalising@0+700:crash-loop=7 \
     16571:template=4 44011:rollback",
    // A CloneSet that keeps none of one pod keeps none of eight.
    "seed=1177 cloneset partition http-route slow-pods replicas=1 surge=1 unavailable=0 steps=1~exact 190:template=2 \
     39079:hpa=24",
    // Scaled to 0 and up again, a blue-green release has pods of the new version alone, and the stable Service had none.
    "seed=2017 blue-green istio-service replicas=1 surge=1 unavailable=0 grace=5 lags=0/0/45 \
     steps=100%~exact,100%~57,100%~exact+0,100%~100 2107:template=2 30805:route-gone=18 \
     finalising@0+0:rollback paused@1+700:scale=0 finalising@0+4000:rollback",
    // Scaled up after the last step, a CloneSet made no more pods beside both sets, and the release waited for them.
    "seed=745 cloneset blue-green istio-service replicas=2 surge=100% unavailable=0 lags=95/0/0 history \
     steps=100%~21,100%~29,100%~55 2579:template=2 ready@3+700:template=2 paused@3+3:scale=3 44034:flap=5",
    // What was made anew and never ready was opened as if it were the release's, and then held as another version of it.
    "seed=809 cloneset blue-green istio-service replicas=5 surge=0 unavailable=1 grace=0 lags=0/95/0 steps=100%~59 \
     33:template=2 routing@1+0:touch=3 28268:unready=5 41002:workload-gone=10 finalising@0+3:template=4 paused@1+3:away=74 \
     25015:duplicate-events=8",
    // Pods that were new before the partition were not counted for the step.
    "seed=1572 statefulset-like partition istio-service replicas=3 surge=100% unavailable=0 grace=1 lags=95/45/0 history \
     metric=down steps=~12+5,~28,~30 277:template=2 before@2+4000:touch=1 13422:hpa=50 26313:scale=7 \
     12686:approve-blindly 1816:crash=8",
    // A pod that somebody takes from an Advanced DaemonSet comes back as a new one, whatever its partition.
    "seed=2711 advanced-daemonset partition istio-service replicas=2 surge=1 unavailable=0 lags=0/0/95 history \
     steps=20%~regex+5,60%~55,1~exact 1525:template=2 7562:edit-routes=2 3430:edit-service=9 paused@1+3:evict 26255:crash=7 \
     23061:watch-gap=7",
    // Held late with a whole set of new pods, a paused Deployment scaled both sets down to what a step may surge.
    "seed=2358 partition http-route v1alpha1 replicas=4 surge=100% unavailable=0 grace=0 lags=0/0/45 steps=1~exact+0,~76 \
     173:template=2 16277:approve-blindly ready@2+700:approve-old upgrade@1+700:disable=60 27364:crash-loop=8 \
     paused@2+0:timeout-after=29 before@2+0:twins=27 42188:crash=4",
    // The version that was rolled back was pushed again while its pods were there, and the stable Service selected them.
    "seed=2686 blue-green http-route slow-pods replicas=1 surge=1 unavailable=0 lags=45/95/95 steps=100%~regex+0,100%~59 \
     2251:template=2 routing@1+4000:rollback 38341:template=2 30563:scale=4 19800:put",
    // An Advanced DaemonSet's own controller does not count what is missing on nodes that its partition does not choose.
    "seed=2908 advanced-daemonset partition istio-service replicas=2 surge=0 unavailable=1 grace=1 lags=95/0/45 threshold=1 \
     steps=~58,~67,~78 1852:template=2 finalising@0+3:scale=5 finalising@0+4000:crash-loop=7 paused@3+0:watch-break \
     4331:crash=6 34933:timeout-before=36",
    // So it is when a release begins, before its pods were read.
    "seed=3708 advanced-daemonset partition none replicas=3 surge=25% unavailable=25% grace=0 lags=45/45/0 \
     deadline=90 rolls-back steps=10%,2+0,70% 1979:template=2 18622:template=3 paused@2+700:timeout-before=9",
    // Scaled down in the moment that a step was opened, a Deployment's own controller waits for what its ReplicaSets say.
    "seed=3511 partition ingress v1alpha1 replicas=7 surge=25% unavailable=25% grace=5 lags=45/95/0 history steps=~5,~45 \
     136:template=2 paused@2+0:rollback upgrade@1+0:scale=4 39196:freeze=27 26059:duplicate-events=22",
    // A Rollout that was made while a DaemonSet rolled to a version that never became ready took that for the stable one.
    "seed=4692 daemonset partition istio-service replicas=2 surge=25% unavailable=25% lags=95/45/0 steps=60%~54+0,~98 \
     861:template=2 40423:crash-loop=7 paused@1+3:delete=33 23447:rollout-id=5 paused@2+3:approve-old",
    // A workload that went twice was to be made anew for ever.
    "seed=4981 partition none replicas=3 surge=1 unavailable=0 steps=100% 2016:template=2 29053:workload-gone=3 \
     28690:workload-gone=21",
    // Scaled down to the pods of a step, a StatefulSet forgets the version before, and makes new pods alone from then on.
    "seed=5957 advanced-statefulset partition http-route slow-pods replicas=4 surge=1 unavailable=0 steps=~38 276:template=2 \
     33891:hpa=38",
];

/// What was found ends well.
pub fn found() -> Result<(), Failed> {
    let scripts: Result<Vec<Script>, String> = FOUND.iter().map(|text| text.parse()).collect();
    play(scripts?.into_iter()).map(|_| ())
}

/// The same script gives the same story, write for write.
pub fn repeats() -> Result<(), Failed> {
    let faults = "1:stale-cache=30 2:timeout-after=30 3:crash=7 9000:crash=5 12000:twins=10";
    for (story, seed) in STORIES.iter().step_by(9).zip(0..) {
        let script = story.script(seed, faults);
        let (first, second) = (rehearse(&script, &Mind::real(), None)?, rehearse(&script, &Mind::real(), None)?);
        if first.hash != second.hash {
            return Err(format!("{script} differs from itself").into());
        }
    }
    Ok(())
}

/// The controller dies after each of its writes of the story, and some writes later again.
pub fn crashes() -> Result<(), Failed> {
    let story: &Story = &STORIES[0];
    let writes = rehearse(&story.script(0, ""), &Mind::real(), None)?.writes.1;
    let scripts = (1..=writes).map(|n| {
        let more = format!("2990:crash={n} {}:crash={} 30000:crash={}", 8000 + 97 * n, n % 6, n % 20);
        STORIES[0].script(n, &more)
    });
    let tally = play(scripts)?;
    let crashes = tally.exercised.get("crash").copied().unwrap_or_default();
    println!("{crashes} crashes, one after each of {writes} writes");
    if crashes < writes * 9 / 10 {
        return Err(format!("only {crashes} crashes in {writes} runs").into());
    }
    Ok(())
}

/// A few generated releases; `make test` has `tidegate simulate` play 2,000.
pub fn generated(seeds: u64) -> Result<(), Failed> {
    let tally = play((0..seeds).map(draw))?;
    println!("{}", coverage(&tally));
    Ok(())
}

/// What `tidegate simulate` says of what never happened.
pub fn uncovered() -> Result<(), Failed> {
    let mut tally = Tally::default();
    tally.exercised.extend(Tally::expected().filter(|name| *name != "twins").map(|name| (name, 1)));
    let all = Tally::expected().count();
    assert_eq!(coverage(&tally), format!("never happened, of {all}: twins"));
    tally.exercised.insert("twins", 1);
    assert!(coverage(&tally).starts_with(&format!("covered: each of {all} ")));
    Ok(())
}

/// Generated releases in which a deliberate bug must show, from the one that is known to show it.
const TRIES: u64 = 12;

/// The right judge sees a deliberate bug: in one of the releases that are known to show it, or in a search.
pub fn mutant(mutant: &'static Mutant, search: Option<u64>) -> Result<(), Failed> {
    let mind = mutant.mind();
    let Some(seeds) = search else {
        let mut seen = Vec::new();
        for seed in mutant.seed..mutant.seed + TRIES {
            let Some(violation) = rehearse(&draw(seed), &mind, None)?.violation else { continue };
            if violation.judge == mutant.judge {
                println!("seed {seed}: {}: {}", violation.judge, violation.what);
                return Ok(());
            }
            seen.push(format!("{seed}: {}", violation.judge));
        }
        return Err(format!(
            "{} was not seen by {:?} in seeds {} to {}, but {seen:?}; search with MUTANTS=500",
            mutant.name,
            mutant.judge,
            mutant.seed,
            mutant.seed + TRIES - 1
        )
        .into());
    };
    let manner = Manner { mind: &mind, jobs: jobs(), most_wrong: 10, tries: 0, command, audience: &() };
    let tally = rehearse_all((0..seeds).map(draw), &manner);
    for Wrong { script, violation, .. } in &tally.wrong {
        let Some(violation) = violation else { continue };
        println!("{}: seed {}: {}: {}", mutant.name, script.seed, violation.judge, violation.what);
    }
    let is_seen = |wrong: &Wrong| wrong.violation.as_ref().is_some_and(|v| v.judge == mutant.judge);
    if tally.wrong.iter().any(is_seen) {
        return Ok(());
    }
    Err(format!("{} was not seen by {:?} in {} runs", mutant.name, mutant.judge, tally.runs).into())
}

/// Hears what is told while it goes on.
#[derive(Default)]
struct Listener {
    lines: Mutex<Vec<String>>,
    /// Leaves after so many.
    patience: Option<u64>,
    has_left: AtomicBool,
}

impl Audience for Listener {
    fn played(&self, sums: &Tally) {
        if self.patience.is_some_and(|patience| sums.runs >= patience) {
            self.has_left.store(true, Ordering::Relaxed);
        }
    }

    fn wrong(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }

    fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Relaxed)
    }
}

/// Who leaves gets the sums of what was played.
pub fn interrupted() -> Result<(), Failed> {
    let audience = Listener { patience: Some(3), ..Listener::default() };
    let mind = Mind::real();
    let manner = Manner { mind: &mind, jobs: 1, most_wrong: 1, tries: 60, command, audience: &audience };
    let tally = rehearse_all((0..u64::MAX).map(draw), &manner);
    if (tally.runs, tally.wrong.len()) != (3, 0) {
        return Err(summary(&tally, 1).into());
    }
    Ok(())
}

/// What a person reads: a line at once, and at the end the shortened script, the timeline, and the command.
pub fn told() -> Result<(), Failed> {
    let mutant = crate::mutants::find("loses-a-tenth");
    let mind = mutant.mind();
    let audience = Listener::default();
    let manner = Manner { mind: &mind, jobs: 1, most_wrong: 1, tries: 60, command, audience: &audience };
    let script = STORIES[0].script(7, "5000:scale=6 6000:edit-service=2 9000:duplicate-events=9");
    let tally = rehearse_all([script].into_iter(), &manner);
    let lines = audience.lines.into_inner()?;
    let [line] = lines.as_slice() else { return Err(format!("not one line was told at once, but {lines:?}").into()) };
    if !line.starts_with("seed 7: judge \"2 traffic adds up\" at 2026-01-01T00:00:") || line.contains('\n') {
        return Err(format!("told at once: {line:?}").into());
    }
    let told = tally.wrong.first().map(|wrong| wrong.told.clone()).unwrap_or_default();
    for part in
        ["judge: 2 traffic adds up", "template 2", "patch   virtualservices/web", "tidegate simulate --replay 'seed=7 "]
    {
        if !told.contains(part) {
            return Err(format!("{part:?} is missing in\n{told}").into());
        }
    }
    if ["scale", "edit-service", "duplicate"].iter().any(|noise| told.split("drawn:").next().unwrap().contains(noise)) {
        return Err(format!("it was not shortened:\n{told}").into());
    }
    Ok(())
}
