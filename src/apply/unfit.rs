//! Streams whose next transaction the tables here don't take: held alone, and looked
//! at again every few seconds, so that a schema change that arrives here lets them go
//! on by itself. Also when what is known of the tables here is forgotten.

use std::time::{Duration, Instant};

use super::run::{Applier, halt};
use super::stream::StreamState;
use super::{ApplyError, Session};
use crate::change::{RegionId, Table};

/// How often a held stream's table is looked at.
const EVERY: Duration = Duration::from_secs(2);

impl Applier {
    /// Stops a stream at a transaction that can't be applied: until the table fits
    /// when that is what is wrong, until an operator resumes it otherwise.
    pub(super) fn stop(&mut self, origin: RegionId, error: &ApplyError, table: Option<Table>) {
        let (reason, advice) = (error.to_string(), error.advice());
        let stream = self.streams.get_mut(&origin);
        let (Some(stream), Some(table), true) = (stream, table, error.is_unfit()) else {
            return halt(&mut self.streams, origin, &reason, &advice);
        };
        tracing::warn!(origin = origin.get(), reason, advice, "stream held by a table here");
        stream.state = StreamState::Unfit { reason, advice };
        stream.unfit = Some((table, Instant::now() + EVERY));
    }

    /// Forgets the tables if one was altered here, and lets held streams go on whose
    /// table fits. The second session is the one without a transaction.
    pub(super) async fn look_again(&mut self, [first, session]: [&mut Session; 2]) {
        let schema = *self.gate.schema.borrow_and_update();
        if schema != self.schema {
            self.schema = schema;
            first.forget_tables();
            session.forget_tables();
        }
        for (origin, stream) in &mut self.streams {
            if !matches!(stream.state, StreamState::Unfit { .. }) {
                stream.unfit = None;
            }
            let Some((table, due)) = &mut stream.unfit else { continue };
            if Instant::now() < *due {
                continue;
            }
            *due = Instant::now() + EVERY;
            match session.fits(table).await {
                Ok(true) => {
                    tracing::info!(origin = origin.get(), "the table fits: the stream goes on");
                    session.forget_tables();
                    stream.state = StreamState::Running;
                    stream.unfit = None;
                    self.again |= self.reread.contains(origin);
                }
                Err(error) if error.is_unfit() => {
                    let (reason, advice) = (error.to_string(), error.advice());
                    stream.state = StreamState::Unfit { reason, advice };
                }
                Ok(false) | Err(_) => {}
            }
        }
    }
}
