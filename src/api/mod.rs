//! Custom resources of the group `rollouts.kruise.io`, their keys, conditions and reasons. No logic beyond defaults and parsing.
