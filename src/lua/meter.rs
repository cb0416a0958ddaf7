//! What one run has used, and the verdict once it used too much.

use std::{
    cell::{Cell, RefCell},
    time::Instant,
};

use super::Limits;

/// Which budget ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Fuel,
    Time,
    Memory,
}

/// Steps between two looks at the clock, as a power of two.
const CLOCK_SHIFT: u32 = 4;

/// Counts what one run uses. Once stopped it stays stopped: every later safepoint of the VM raises again, so a
/// script's `pcall` wins nothing.
pub(super) struct Meter {
    fuel: Cell<u64>,
    fuel_limit: u64,
    deadline: Cell<Option<Instant>>,
    stopped: Cell<Option<Stop>>,
    /// What the script raised and did not catch.
    pub raised: RefCell<Option<String>>,
    /// Traceback of the script where it was stopped or where it raised that error.
    pub site: RefCell<String>,
    pub prints: RefCell<Vec<String>>,
    print_bytes: Cell<usize>,
    print_limits: (usize, usize),
}

impl Meter {
    pub fn new(limits: &Limits) -> Self {
        Self {
            fuel: Cell::new(0),
            fuel_limit: limits.fuel,
            deadline: Cell::new(None),
            stopped: Cell::new(None),
            raised: RefCell::default(),
            site: RefCell::default(),
            prints: RefCell::default(),
            print_bytes: Cell::new(0),
            print_limits: (limits.print_lines, limits.print_bytes),
        }
    }

    /// Starts to count, from zero.
    pub fn start(&self, deadline: Instant) {
        self.fuel.set(0);
        self.deadline.set(Some(deadline));
    }

    /// Charges work in proportion to `units`; false once a budget has run out.
    pub fn charge(&self, units: u64) -> bool {
        if self.stopped.get().is_some() {
            return false;
        }
        let before = self.fuel.get();
        let now = before.saturating_add(units);
        self.fuel.set(now);
        if now > self.fuel_limit {
            self.stop(Stop::Fuel);
            return false;
        }
        if now >> CLOCK_SHIFT != before >> CLOCK_SHIFT
            && let Some(deadline) = self.deadline.get()
            && Instant::now() > deadline
        {
            self.stop(Stop::Time);
            return false;
        }
        true
    }

    /// Charges host work over this many bytes: about one unit for every 64.
    pub fn charge_bytes(&self, bytes: usize) -> bool {
        self.charge(bytes as u64 / 64 + 1)
    }

    /// Stops the run; the first reason stays.
    pub fn stop(&self, why: Stop) {
        if self.stopped.get().is_none() {
            self.stopped.set(Some(why));
        }
    }

    pub fn stopped(&self) -> Option<Stop> {
        self.stopped.get()
    }

    /// Steps used; never more than the budget, so that it is the same number however the run ended.
    pub fn used(&self) -> u64 {
        self.fuel.get().min(self.fuel_limit)
    }

    pub fn print(&self, line: &[u8]) {
        let (most_lines, most_bytes) = self.print_limits;
        let mut prints = self.prints.borrow_mut();
        if prints.len() > most_lines || self.print_bytes.get() > most_bytes {
            return;
        }
        let used = self.print_bytes.get() + line.len();
        self.print_bytes.set(used);
        if prints.len() == most_lines || used > most_bytes {
            self.print_bytes.set(usize::MAX / 2);
            prints.push("... (further output was dropped)".to_owned());
        } else {
            prints.push(String::from_utf8_lossy(line).into_owned());
        }
    }
}
