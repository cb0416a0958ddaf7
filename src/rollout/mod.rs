//! The state machine of a release. Pure.
