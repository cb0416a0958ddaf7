//! Wiring: watches, queue, backoff and shutdown around gather → decide → apply.
