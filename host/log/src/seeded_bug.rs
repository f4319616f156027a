//! Bugs that a test build can have, so that the tests of a cluster prove that they would see them.
//!
//! They exist only with the feature `seeded-bugs`. [`VARIABLE`] chooses one when the process starts. Without the
//! feature [`is`] is the constant `false`, and nothing of them is compiled.

#[cfg(all(feature = "seeded-bugs", not(debug_assertions)))]
compile_error!("the feature seeded-bugs loses records: it is for test builds, never for a release");

/// The environment variable that chooses a bug.
pub const VARIABLE: &str = "MILLSTREAM_SEEDED_BUG";

/// A bug that loses, repeats or changes acknowledged records or offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A write with acks=all waits for the leader's own log only.
    AcknowledgeBeforeReplicating,
    /// A sync of a log does not sync its segments.
    SkipFsync,
    /// A follower begins with a truncation to its high watermark, and does not send the epoch of its last record.
    TruncateToHighWatermark,
    /// A leader serves followers of any epoch, and does not compare their logs with its own.
    IgnoreEpoch,
    /// A follower does not track the producers of what it appends.
    DropProducerState,
    /// A group coordinator responds to a commit of offsets when it has appended the record.
    RespondAtAppend,
    /// Readers of committed records see all that is committed to the log.
    StableIsHighWatermark,
    /// A transaction coordinator does not compare epochs of producers.
    UnfencedZombie,
    /// The offsets of a transaction count, however it ends.
    OffsetsByThemselves,
    /// Dead letters are not part of the transaction of their records.
    LettersByThemselves,
}

/// Returns whether the process has a bug.
#[cfg(not(feature = "seeded-bugs"))]
#[inline]
#[must_use]
pub const fn is(_: Bug) -> bool {
    false
}

#[cfg(feature = "seeded-bugs")]
pub use chosen::{chosen, is};

#[cfg(feature = "seeded-bugs")]
mod chosen {
    use std::sync::LazyLock;

    use super::{Bug, VARIABLE};

    const NAMES: [(&str, Bug); 10] = [
        ("acknowledge-before-replicating", Bug::AcknowledgeBeforeReplicating),
        ("skip-fsync", Bug::SkipFsync),
        ("truncate-to-high-watermark", Bug::TruncateToHighWatermark),
        ("ignore-epoch", Bug::IgnoreEpoch),
        ("drop-producer-state", Bug::DropProducerState),
        ("respond-at-append", Bug::RespondAtAppend),
        ("stable-is-high-watermark", Bug::StableIsHighWatermark),
        ("unfenced-zombie", Bug::UnfencedZombie),
        ("offsets-by-themselves", Bug::OffsetsByThemselves),
        ("letters-by-themselves", Bug::LettersByThemselves),
    ];

    static CHOSEN: LazyLock<Result<Option<Bug>, String>> = LazyLock::new(|| {
        let Some(name) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let found = NAMES.iter().find(|(known, _)| name == *known);
        let known = || NAMES.map(|(name, _)| name).join(", ");
        found.map(|(_, bug)| Some(*bug)).ok_or_else(|| format!("{VARIABLE}={name:?} is unknown: use {}", known()))
    });

    /// Returns the bug that the environment chooses.
    ///
    /// # Errors
    /// The variable names no bug.
    pub fn chosen() -> Result<Option<Bug>, String> {
        CHOSEN.clone()
    }

    /// Returns whether the process has a bug.
    #[must_use]
    pub fn is(bug: Bug) -> bool {
        *CHOSEN == Ok(Some(bug))
    }
}
