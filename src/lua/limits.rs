//! The budgets of one run.

use std::time::Duration;

/// The budgets of one run and the sizes of the caches. A script can neither catch nor extend a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest script, in bytes.
    pub source_bytes: usize,
    /// Longest text that the script itself may compile (`loadstring`, `load`), in bytes.
    pub chunk_bytes: usize,
    /// Largest input, in bytes of JSON text (roughly).
    pub input_bytes: usize,
    /// Deepest nesting of input and output.
    pub depth: usize,
    /// Steps: calls, returns, loop turns, pattern steps and units of work of the host functions.
    pub fuel: u64,
    /// Wall-clock time of the script itself. A backstop: fuel is what ends an endless loop on an idle machine.
    pub wall: Duration,
    /// How long a call waits for a free worker.
    pub queue: Duration,
    /// Memory the script may allocate beyond its input, in bytes.
    pub memory_bytes: usize,
    /// Longest text that `json.decode` takes, in bytes.
    pub decode_bytes: usize,
    /// Most values in the result.
    pub output_values: usize,
    /// Largest result, in bytes of JSON text (roughly); also the longest text that `json.encode` makes.
    pub output_bytes: usize,
    /// Most lines kept of what the script prints.
    pub print_lines: usize,
    /// Most bytes kept of what the script prints.
    pub print_bytes: usize,
    /// Longest error message, in bytes.
    pub error_bytes: usize,
    /// Compiled scripts kept, syntax errors included.
    pub compiled: usize,
    /// Results kept, errors included unless they are of [`ErrorKind::Time`](super::ErrorKind::Time); 0 keeps none.
    pub results: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            source_bytes: 256 << 10,
            chunk_bytes: 64 << 10,
            input_bytes: 2 << 20,
            depth: 128,
            fuel: 20_000_000,
            wall: Duration::from_secs(1),
            queue: Duration::from_secs(10),
            memory_bytes: 64 << 20,
            decode_bytes: 1 << 20,
            output_values: 100_000,
            output_bytes: 2 << 20,
            print_lines: 100,
            print_bytes: 16 << 10,
            error_bytes: 4 << 10,
            compiled: 256,
            results: 256,
        }
    }
}
