//! Deliberate bugs, one at a time, that the simulator must find. In a build that is no
//! test none of them exists.

/// A deliberate bug of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// `latest` compares stamps alone: at equal ones each region keeps its own.
    EqualStampsKeepOwn,
    /// Deletes leave no tombstone.
    NoTombstones,
    /// Versions are forgotten once this region has them.
    CollectEarly,
    /// What is stable is forgotten while the last write that is concurrent with it stands
    /// in a batch that capture has not read back.
    CollectUnderBatch,
    /// The applier does not look again before it commits (R7).
    NoSecondLook,
    /// Transactions apply before what their authors had seen (R3).
    DepsIgnored,
    /// The stamp is the receiver's time.
    #[cfg(test)]
    StampAtApply,
    /// A peer's stamps do not move the clock.
    ClockIgnoresPeers,
    /// Batches that capture has not read back count for nothing.
    OverlayIgnored,
    /// A restart rebuilds no index.
    NoRebuild,
    /// A record that came before is taken again.
    DuplicatesTaken,
    /// A unique value is lost to the rows that hold it at the time only.
    NaiveUniqueEviction,
    /// When a write becomes void, its rows are worked out again whatever they show.
    VoidShowsAll,
    /// The two halves of a key change are decided each by itself.
    KeyChangeSplit,
    /// A priority region's old write beats one that had seen it.
    PriorityOverCausality,
    /// Of concurrent writes only the strongest is kept.
    PriorityWithoutSiblings,
    /// A sum is overwritten by the author's value.
    DeltaSets,
    /// A delete leaves what was added before it.
    DeltaIgnoresDeletes,
    /// What hid a row elsewhere is forgotten when its batch is written.
    HiddenForgotten,
    /// Of a parent that goes the rows that reference it are not looked for.
    OrphanOneWay,
    /// Of a row whose columns are resolved apart a write that lost them is told as an orphan.
    OrphanOfLoser,
    /// Who is said to have won columns is who wrote last.
    ContestByStamp,
    /// Each part of a transaction is judged by itself.
    PartsApart,
    /// A repair is shipped as a local write. It has a test of its own, `sim::repair`.
    #[cfg(test)]
    RepairFreshStamp,
}

#[cfg(test)]
thread_local! {
    static ON: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is on in this thread.
#[cfg(test)]
pub(crate) fn is(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}

/// No bug is on.
#[cfg(not(test))]
pub(crate) const fn is(_: Mutant) -> bool {
    false
}

/// Turns one bug on, or none.
#[cfg(test)]
pub(crate) fn set(mutant: Option<Mutant>) {
    ON.set(mutant);
}

#[cfg(test)]
impl Mutant {
    /// Every bug.
    pub(crate) const ALL: [Self; 23] = [
        Self::EqualStampsKeepOwn,
        Self::NoTombstones,
        Self::CollectEarly,
        Self::CollectUnderBatch,
        Self::NoSecondLook,
        Self::DepsIgnored,
        Self::StampAtApply,
        Self::ClockIgnoresPeers,
        Self::OverlayIgnored,
        Self::NoRebuild,
        Self::DuplicatesTaken,
        Self::NaiveUniqueEviction,
        Self::VoidShowsAll,
        Self::KeyChangeSplit,
        Self::PriorityOverCausality,
        Self::PriorityWithoutSiblings,
        Self::DeltaSets,
        Self::DeltaIgnoresDeletes,
        Self::HiddenForgotten,
        Self::OrphanOneWay,
        Self::OrphanOfLoser,
        Self::ContestByStamp,
        Self::PartsApart,
    ];
}
