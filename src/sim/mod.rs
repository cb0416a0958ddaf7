//! An in-memory Kubernetes API with a virtual clock, workload controllers and faults from a seed.
