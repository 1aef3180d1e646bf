//! Bugs planted on purpose: the tests of whole clusters prove with them that they can fail.
//!
//! Only a build with the feature `plant` contains them, and only the package `tests` asks for that
//! feature, when told to. In any other build `is` is a constant, and its places fold away.

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A peer that has restarted is taken for the one it was: its acks and numbers go on.
    AcksKept,
    /// Whoever is heard confirms the lease.
    LeaseByHearing,
    /// Datagrams of nodes that are not members are stored and acked.
    NoFence,
    /// Of two records of a call the one with the greater version is newer, in whatever epoch.
    EpochNotCompared,
    /// Calls are adopted however many members are missing.
    GoneIgnored,
    /// What a node finds in its rings counts, whatever was settled without it.
    LeftoversKept,
    /// A copy goes from its former place as soon as that place has what is its own.
    ForgottenEarly,
}

#[cfg(feature = "plant")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Plant>> = const { std::cell::Cell::new(None) };
}

/// Leaves a rule out of everything that runs in this thread from now on, or none.
#[cfg(feature = "plant")]
pub fn set(plant: Option<Plant>) {
    PLANTED.set(plant);
}

#[cfg(feature = "plant")]
pub(crate) fn is(plant: Plant) -> bool {
    PLANTED.get() == Some(plant)
}

#[cfg(not(feature = "plant"))]
pub(crate) const fn is(_: Plant) -> bool {
    false
}
