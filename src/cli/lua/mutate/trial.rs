//! Running cases with changed scripts.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use super::{
    changes::Change,
    subjects::{Subject, Subjects},
};
use crate::lua::{Engine, Limits, Script, testcase::Verdict};

pub(super) struct Trial<'s> {
    all: &'s Subjects,
    engine: Engine,
    jobs: usize,
}

impl<'s> Trial<'s> {
    pub fn new(all: &'s Subjects, jobs: usize) -> Self {
        Trial { all, engine: Engine::with_shared(jobs, limits(), &all.prelude), jobs }
    }

    /// Paths of the cases that fail as things are.
    pub fn failing_unchanged(&self) -> Vec<String> {
        let needed: Vec<bool> = {
            let runs = self.all.subjects.iter().flat_map(|s| &s.runs);
            let mut needed = vec![false; self.all.runs.len()];
            runs.for_each(|i| needed.get_mut(*i).into_iter().for_each(|n| *n = true));
            needed
        };
        let passes = self.parallel(self.all.runs.len(), |i| {
            let run = self.all.runs.get(i).filter(|_| needed.get(i) == Some(&true));
            run.is_none_or(|run| self.passes(&self.engine, i, &run.script))
        });
        let failing = self.all.runs.iter().zip(passes).filter(|(_, passes)| !passes);
        failing.map(|(run, _)| run.case.path().display().to_string()).collect()
    }

    /// For each change of each subject, whether a case notices it.
    pub fn run(&self, changes: &[Vec<Change>]) -> Vec<Vec<bool>> {
        // The case that noticed a change is likely to notice the next one as well.
        let orders: Vec<Mutex<Vec<usize>>> = self.all.subjects.iter().map(|s| Mutex::new(s.runs.clone())).collect();
        let all: Vec<(usize, &Change)> =
            changes.iter().enumerate().flat_map(|(i, of)| of.iter().map(move |c| (i, c))).collect();
        let mut noticed = self
            .parallel(all.len(), |i| {
                let Some((subject, change)) = all.get(i) else { return false };
                let (Some(subject), Some(order)) = (self.all.subjects.get(*subject), orders.get(*subject)) else {
                    return false;
                };
                self.notices(subject, change, order)
            })
            .into_iter();
        changes.iter().map(|of| noticed.by_ref().take(of.len()).collect()).collect()
    }

    fn notices(&self, subject: &Subject, change: &Change, order: &Mutex<Vec<usize>>) -> bool {
        let of = &subject.script;
        let script = Script::new(of.name.clone(), change.apply(&of.source), of.origin.clone());
        let runs = lock(order).clone();
        let found = match subject.part {
            None => runs.into_iter().find(|i| !self.passes(&self.engine, *i, &script)),
            Some(part) => {
                let mut prelude = self.all.prelude.clone();
                prelude.get_mut(part).into_iter().for_each(|p| *p = script.clone());
                let engine = Engine::with_shared(1, limits(), &prelude);
                let own = |i: &usize| self.all.runs.get(*i).is_some_and(|run| !self.passes(&engine, *i, &run.script));
                runs.into_iter().find(own)
            }
        };
        if let Some(case) = found {
            let mut order = lock(order);
            if let Some(at) = order.iter().position(|i| *i == case) {
                order.get_mut(..=at).into_iter().for_each(|front| front.rotate_right(1));
            }
        }
        found.is_some()
    }

    fn passes(&self, engine: &Engine, run: usize, script: &Script) -> bool {
        let run = self.all.runs.get(run);
        run.is_none_or(|run| run.case.steps(engine, script).all(|step| step.verdict == Verdict::Passed))
    }

    /// The results of `work` on 0 to `count` − 1, in that order.
    fn parallel(&self, count: usize, work: impl Fn(usize) -> bool + Sync) -> Vec<bool> {
        let next = AtomicUsize::new(0);
        let results = Mutex::new(vec![false; count]);
        let worker = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return;
                }
                let result = work(i);
                lock(&results).get_mut(i).into_iter().for_each(|r| *r = result);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.jobs.min(count) {
                scope.spawn(worker);
            }
            worker();
        });
        results.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Production's; results are not kept, as no input comes twice with the same script.
fn limits() -> Limits {
    Limits { results: 0, ..Limits::default() }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
