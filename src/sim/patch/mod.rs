//! The four patch languages of the API server.

pub(crate) mod apply;
pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod managed;
pub(crate) mod merge;
pub(crate) mod shape;
pub(crate) mod strategic;
