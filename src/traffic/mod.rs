//! From a step's strategy to the objects that route traffic. Pure.
