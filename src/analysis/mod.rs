//! Verdicts on a release from measurements that were already fetched. Pure.

pub mod sequential;
