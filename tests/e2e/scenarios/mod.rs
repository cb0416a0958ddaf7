//! What is proved, one file a subject.

pub mod plane;
