//! Reads the cluster into a snapshot.
