//! Orders of operators, from the HTTP API to the session.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::apply::Order;
use crate::command::{Command, Refusal};
use crate::status::Assigned;

/// What operators have ordered.
#[derive(Debug)]
pub(crate) struct Control {
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    released: watch::Sender<BTreeSet<String>>,
}

impl Default for Control {
    fn default() -> Self {
        Self { orders: Mutex::default(), released: watch::channel(BTreeSet::new()).0 }
    }
}

impl Control {
    /// The session's applier takes orders.
    pub(crate) fn take_orders(&self, orders: mpsc::Sender<Order>) {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(orders);
    }

    pub(crate) fn forget_orders(&self) {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Ids of schema changes that operators have released.
    pub(crate) fn released(&self) -> watch::Receiver<BTreeSet<String>> {
        self.released.subscribe()
    }

    fn order(&self, order: Order) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(orders) = orders
            && orders.try_send(order).is_err()
        {
            tracing::warn!("an order waits for the next session");
        }
    }

    /// Paused streams stay paused in a new session.
    pub(crate) fn repeat(&self, shared: &Shared) {
        let status = shared.board.snapshot(crate::clock::wall_us());
        for peer in shared.peers() {
            let paused = status.streams.get(&peer.name).map(|stream| stream.assigned);
            if paused == Some(Assigned::Paused) {
                self.order(Order::Pause(peer.id));
            }
        }
    }
}

/// Carries out the API's commands.
pub(crate) async fn obey(
    shared: Arc<Shared>,
    mut commands: mpsc::Receiver<Command>,
    cancel: CancellationToken,
) {
    loop {
        let command = tokio::select! {
            () = cancel.cancelled() => return,
            command = commands.recv() => command,
        };
        let Some(command) = command else { return };
        let (answer, reply) = match command {
            Command::Assign { origin, assigned, reason, reply } => {
                (assign(&shared, &origin, assigned, reason.as_deref()), reply)
            }
            Command::ReleaseDdl { id, reply } => (release(&shared, &id), reply),
        };
        if reply.send(answer).is_err() {
            tracing::debug!("the one who asked has gone");
        }
    }
}

fn assign(
    shared: &Shared,
    origin: &str,
    assigned: Assigned,
    reason: Option<&str>,
) -> Result<(), Refusal> {
    let Some(peer) = shared.peers().find(|peer| peer.name == origin) else {
        return Err(Refusal::NotFound(format!("there is no stream of `{origin}`")));
    };
    tracing::info!(origin, assigned = assigned.name(), reason, "stream assigned");
    shared.board.stream(origin, |stream| stream.assigned = assigned);
    shared.control.order(match assigned {
        Assigned::Running => Order::Resume(peer.id),
        Assigned::Paused => Order::Pause(peer.id),
    });
    Ok(())
}

fn release(shared: &Shared, id: &str) -> Result<(), Refusal> {
    let status = shared.board.snapshot(crate::clock::wall_us());
    if !status.ddl.iter().any(|hold| hold.id == id) {
        return Err(Refusal::NotFound(format!("no schema change `{id}` is held")));
    }
    tracing::info!(id, "schema change released");
    shared.control.released.send_modify(|released| {
        released.insert(id.to_owned());
    });
    Ok(())
}
