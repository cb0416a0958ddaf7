//! Scripts from numbers.

use crate::sim::Rng;

use super::{
    Barriers,
    script::{ACTS, Act, Event, Gateway, Kind, Managed, Route, Row, Script, Setup, State, Step, Style, When},
};

/// The script of a number: always the same.
pub fn draw(seed: u64) -> Script {
    let mut dice = Dice(Rng::new(seed ^ 0x7e_4ea4));
    let mut setup = dice.setup();
    let mut events = vec![Event { when: When::At(dice.0.below(3000)), act: Act { kind: Kind::Template, arg: 2 } }];
    let steps = i64::try_from(setup.steps.len()).unwrap_or(1);
    for _ in 0..dice.pick(&[0, 1, 1, 2, 2, 3, 4]) {
        events.push(dice.event(false, steps));
    }
    if dice.0.chance(0.6) {
        for _ in 0..dice.pick(&[1, 1, 2, 3]) {
            events.push(dice.event(true, steps));
        }
    }
    vary_kind(seed, &mut setup);
    // v1alpha1 has none of them.
    if !setup.is_old_api {
        setup.barriers = Barriers::draw(seed);
    }
    Script { seed, setup, events }
}

/// Some of the kinds are played as others, or in another style. Their dice are their own, so that they change nothing else
/// that the number decides.
fn vary_kind(seed: u64, setup: &mut Setup) {
    let mut dice = Rng::new(seed ^ 0x6b_69_6e);
    match setup.workload {
        Managed::CloneSet if dice.chance(0.4) => {
            setup.style = Style::BlueGreen;
            setup.is_old_api = false;
            setup.steps.iter_mut().for_each(|step| "100%".clone_into(&mut step.replicas));
        }
        Managed::StatefulSet | Managed::AdvancedStatefulSet if dice.chance(0.3) => {
            setup.workload = Managed::StatefulSetLike;
        }
        _ => {}
    }
}

struct Dice(Rng);

impl Dice {
    fn pick<T: Clone + Default>(&mut self, all: &[T]) -> T {
        let at = usize::try_from(self.0.below(all.len() as u64)).unwrap_or_default();
        all.get(at).cloned().unwrap_or_default()
    }

    fn range(&mut self, low: i64, high: i64) -> i64 {
        let span = u64::try_from(high - low).unwrap_or_default() + 1;
        low + i64::try_from(self.0.below(span)).unwrap_or_default()
    }

    fn setup(&mut self) -> Setup {
        let (workload, style) = match self.0.below(20) {
            0..=6 => (Managed::Deployment, Style::Canary),
            7..=11 => (Managed::Deployment, Style::Partition),
            12..=14 => (Managed::Deployment, Style::BlueGreen),
            15 => (Managed::StatefulSet, Style::Partition),
            16 => (Managed::DaemonSet, Style::Partition),
            17 => (Managed::CloneSet, Style::Partition),
            18 => (Managed::AdvancedStatefulSet, Style::Partition),
            _ => (Managed::AdvancedDaemonSet, Style::Partition),
        };
        let gateway = match (self.0.below(8), style) {
            (0, _) => Gateway::None,
            (1..=3, Style::Canary) => Gateway::IstioSubset,
            (4 | 5, _) => Gateway::IstioService,
            (1 | 6, _) => Gateway::HttpRoute,
            (2 | 7, _) => Gateway::Ingress,
            _ => Gateway::None,
        };
        let replicas = self.pick(&[1, 2, 2, 3, 3, 4, 5, 7]);
        let (surge, unavailable) = self.pick(&[("25%", "25%"), ("1", "0"), ("0", "1"), ("100%", "0"), ("2", "1")]);
        // With one pod, none may be missing, or the user's own strategy fails requests.
        let (surge, unavailable) = if replicas == 1 { ("1", "0") } else { (surge, unavailable) };
        let steps = self.steps(style, gateway);
        let deadline = self.0.chance(0.2).then(|| self.pick(&[45, 90, 200]));
        Setup {
            workload,
            style,
            gateway,
            // v1alpha1 has no blue-green style.
            is_old_api: self.0.chance(0.4) && style != Style::BlueGreen,
            replicas,
            surge: surge.to_owned(),
            unavailable: unavailable.to_owned(),
            grace: self.pick(&[None, None, Some(0), Some(1), Some(5)]),
            lags: [(); 3].map(|()| self.pick(&[0, 0, 45, 95])),
            steps,
            threshold: self.0.chance(0.15).then(|| self.pick(&["1", "50%"]).to_owned()),
            is_slow: self.0.chance(0.1),
            deadline,
            rolls_back: deadline.is_some() && self.0.chance(0.5),
            keeps_history: self.0.chance(0.25),
            barriers: Barriers::default(),
        }
    }

    fn steps(&mut self, style: Style, gateway: Gateway) -> Vec<Step> {
        let count = self.pick(&[1, 2, 2, 3, 3, 4]);
        let mut weight = 0;
        let mut steps = Vec::new();
        for i in 0..count {
            weight = (weight + self.range(1, 60)).min(100);
            let last = i + 1 == count;
            let pause = match self.0.below(4) {
                0 => Some(self.pick(&[0, 5, 20])),
                _ => None,
            };
            let replicas = || format!("{}%", (weight + 9) / 10 * 10);
            let (replicas, route) = match (gateway, self.0.below(10)) {
                (Gateway::None, 0..=4) => (self.pick(&["1", "2"]).to_owned(), Route::None),
                (Gateway::None, _) => (replicas(), Route::None),
                (_, 0..=4) => (String::new(), Route::Weight(weight)),
                (_, 5) => (replicas(), Route::Weight(if last { 100 } else { weight })),
                (_, 6) => (replicas(), Route::None),
                (_, 7 | 8) => ("1".to_owned(), Route::Exact),
                _ => (replicas(), Route::Regex),
            };
            let replicas = match style {
                // The new set is whole before requests go there.
                Style::BlueGreen => "100%".to_owned(),
                Style::Canary | Style::Partition => replicas,
            };
            steps.push(Step { replicas, route, pause });
        }
        if self.0.chance(0.2)
            && let Some(last) = steps.last_mut()
        {
            "100%".clone_into(&mut last.replicas);
            if gateway != Gateway::None {
                last.route = Route::Weight(100);
            }
        }
        steps
    }

    fn event(&mut self, is_fault: bool, steps: i64) -> Event {
        let rows: Vec<&Row> = ACTS.iter().filter(|r| r.is_fault == is_fault).collect();
        let mut left = self.0.below(rows.iter().map(|r| r.weight).sum());
        let mut kind = Kind::Template;
        let mut range = (2, 4);
        for row in rows {
            if left < row.weight {
                (kind, range) = (row.kind, (row.low, row.high));
                break;
            }
            left -= row.weight;
        }
        let arg = match kind {
            // For good as often as for a while.
            Kind::Disable | Kind::Delete if self.0.chance(0.4) => 0,
            _ => self.range(range.0, range.1),
        };
        let when = if self.0.chance(0.45) {
            When::At(self.0.below(45_000))
        } else {
            let state = match self.0.below(12) {
                0 => State::Before,
                1 | 2 => State::Upgrade,
                3 => State::Routing,
                4..=7 => State::Paused,
                8 => State::Ready,
                9 | 10 => State::Finalising,
                _ => State::Idle,
            };
            let step = if matches!(state, State::Finalising | State::Idle) { 0 } else { self.range(1, steps) };
            let delay = self.pick(&[0, 0, 3, 700, 4000]);
            When::In(state, step, delay)
        };
        Event { when, act: Act { kind, arg } }
    }
}
