//! The only writer: executes a plan's effects in order.
