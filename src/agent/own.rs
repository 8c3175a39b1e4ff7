//! Takes a region over: its database's epoch, then its outbox.
//!
//! The database says what its outbox holds, and only what agrees with that is gone on
//! from. A database that was seeded from a peer holds, as of any origin, what of its own
//! region is applied in it; the outbox goes on behind that, and capture begins at the
//! end of the seeded binlog. That end is kept in the database until the outbox holds it.

use std::collections::BTreeMap;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use super::{AgentError, Shared, fit};
use crate::apply::{self, ApplyError, Flavor, Shipped};
use crate::capture;
use crate::change::{Place, RegionId, Seq, Vector};
use crate::clock::{Hlc, wall_us};
use crate::ship::{Begin, Outbox, OutboxConfig, ShipError, Tail};

/// Sessions that peers may have read of in an outbox that is lost: were the epoch not
/// above theirs, they would drop what a seeded region writes as a fenced agent's.
const SEED_EPOCHS: u64 = 1_000_000;

/// What the session knows of its database.
pub(super) struct Owned {
    pub(super) opts: mysql_async::Opts,
    pub(super) flavor: Flavor,
    pub(super) epoch: u64,
    /// Of the peers.
    pub(super) applied: BTreeMap<RegionId, (Place, Hlc)>,
}

/// Takes both; the outbox's tail is where capture goes on.
pub(super) async fn own(shared: &Shared) -> Result<(Owned, Outbox, Tail), AgentError> {
    let (opts, flavor) = find(shared).await?;
    let mut conn = Conn::new(opts.clone()).await.map_err(away)?;
    fit::first_look(shared, &mut conn).await?;
    apply::bootstrap(&mut conn).await?;
    if let Some(epoch) = shared.board.snapshot(wall_us()).epoch {
        apply::still_owns(&mut conn, epoch).await?;
    }
    let me = shared.setup.region.id;
    let mut above = 0;
    loop {
        let (epoch, applied, begin) = Box::pin(take(&mut conn, me, above)).await?;
        shared.board.update(|status| status.epoch = Some(epoch));
        let topic = shared.setup.topology.outbox(&shared.setup.region);
        let config = OutboxConfig {
            cluster: shared.cluster(&topic),
            topic: topic.name,
            origin: me,
            epoch,
            topology: shared.setup.topology.fingerprint(),
            agreed: shared.setup.topology.agreed(),
            settings: shared.topic_settings(),
            gathered: shared.setup.topology.limits.capture_wait.get(),
        };
        match Box::pin(Outbox::open(config, begin)).await {
            Ok((outbox, tail)) => {
                // In this order: what a seed said counts until the outbox holds it.
                apply::forget_own(&mut conn, me).await?;
                let shipped = Shipped { place: Place { epoch, seq: tail.seq }, seeded: None };
                apply::set_shipped(&mut conn, me, epoch, &shipped).await?;
                conn.disconnect().await.map_err(away)?;
                return Ok((Owned { opts, flavor, epoch, applied }, outbox, tail));
            }
            Err(ShipError::Epoch { found, .. }) if found > above => above = found,
            Err(error) => return Err(error.into()),
        }
    }
}

/// How long a record that nothing waits for may take: it is tried again, or missed.
pub(super) const RECORD_MAX: Duration = Duration::from_secs(5);

/// A connection to the writable database, for such a record.
pub(super) async fn connect(shared: &Shared) -> Result<Conn, AgentError> {
    let (opts, ..) = apply::find_writable(&shared.setup.databases).await?;
    let mut conn = Conn::new(opts).await.map_err(away)?;
    conn.query_drop("SET NAMES utf8mb4").await.map_err(away)?;
    Ok(conn)
}

/// Finds the writable database.
async fn find(shared: &Shared) -> Result<(mysql_async::Opts, Flavor), AgentError> {
    let found = apply::find_writable(&shared.setup.databases).await;
    if found.is_err() {
        shared.board.update(|status| status.database.reachable = Some(false));
    }
    let (opts, flavor, version) = found?;
    let address = format!("{}:{}", opts.ip_or_hostname(), opts.tcp_port());
    shared.board.update(|status| {
        status.database.flavor = Some(match flavor {
            Flavor::MariaDb => "mariadb".to_owned(),
            Flavor::MySql(..) => "mysql".to_owned(),
        });
        status.database.version = Some(version);
        status.database.address = Some(address);
        status.database.reachable = Some(true);
    });
    Ok((opts, flavor))
}

/// Takes the next epoch, and reads what the database says of itself.
async fn take(
    conn: &mut Conn,
    me: RegionId,
    above: u64,
) -> Result<(u64, BTreeMap<RegionId, (Place, Hlc)>, Begin), AgentError> {
    let shipped = apply::shipped(conn, me).await?;
    let lost = match &shipped {
        Some(shipped) => shipped.place.epoch,
        None => {
            apply::applied(conn).await?.get(&me).map_or(0, |(place, _)| place.epoch + SEED_EPOCHS)
        }
    };
    let epoch = apply::take_epoch(conn, me, above.max(lost)).await?;
    // Only now no batch of an older agent can commit any more.
    let mut applied = apply::applied(conn).await?;
    let here = capture::current(conn).await?.position;
    let own = applied.remove(&me);
    // What is written here is later than all that it holds.
    let hlc = applied.values().map(|&(_, hlc)| hlc).max().unwrap_or(Hlc(0));
    let deps: Vector = applied.iter().map(|(&origin, &(place, _))| (origin, place)).collect();
    let begin = match (own, shipped) {
        (Some((place, own_hlc)), shipped) => {
            let begun = shipped.filter(|shipped| shipped.seeded.is_some());
            let first = Shipped { place: Place { epoch, seq: place.seq }, seeded: Some(here) };
            let shipped = match begun {
                Some(shipped) => shipped,
                None => {
                    apply::set_shipped(conn, me, epoch, &first).await?;
                    first
                }
            };
            let position = shipped.seeded.unwrap_or_default();
            let tail = Tail { seq: place.seq, hlc: hlc.max(own_hlc), deps, position };
            Begin::Seeded { place, epoch: shipped.place.epoch, tail }
        }
        (None, Some(shipped)) => Begin::After(shipped.place),
        (None, None) => Begin::Fresh(Tail { seq: Seq(0), hlc, deps, position: here }),
    };
    Ok((epoch, applied, begin))
}

pub(super) fn away(error: mysql_async::Error) -> AgentError {
    AgentError::Apply(ApplyError::from_driver(&error, "causeway"))
}
