//! Rows that a batch had to find and did not: told with the write that came to them.

use std::sync::Arc;

use hashbrown::HashSet;

use super::{Conflict, ConflictKind, Incoming, Outcome, Rulebook, Side, Touched, touched};
use crate::version::{KeyError, RowKey};

/// What is told of the `missing` rows that these transactions, in the order in which they
/// apply, came to: of each its first write.
///
/// # Errors
/// [`KeyError`] for a row without an exact identity.
pub fn missing<'a>(
    book: &Rulebook,
    txns: impl IntoIterator<Item = Incoming<'a>>,
    mut missing: HashSet<RowKey>,
) -> Result<Vec<Conflict>, KeyError> {
    let mut found = Vec::new();
    for txn in txns {
        let writes = touched(book, &txn)?;
        let came = writes.iter().filter(|one| missing.remove(&one.write.key));
        found.extend(came.map(|one| told(one, txn.gtid)));
    }
    Ok(found)
}

fn told(one: &Touched<'_>, gtid: &str) -> Conflict {
    let version = one.write.version;
    Conflict {
        table: Arc::clone(&one.table),
        kind: ConflictKind::RowMissing,
        policy: one.policy.name(),
        incoming: Side {
            version,
            gtid: Some(gtid.to_owned()),
            before: one.before.cloned(),
            after: one.after.cloned(),
        },
        existing: Side { version, gtid: None, before: None, after: None },
        shows: false,
        outcome: Outcome::Incoming,
        orphan: None,
    }
}
