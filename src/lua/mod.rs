//! Scripts: the engine and its limits, JSON conversion, the library of scripts, and the test-case runner.
