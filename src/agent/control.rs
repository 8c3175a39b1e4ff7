//! Orders of operators, from the HTTP API to the session.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Shared, pause};
use crate::apply::Order;
use crate::command::{By, Command, PAUSE, Refusal};
use crate::status::Assigned;

/// What operators have ordered.
#[derive(Debug)]
pub(crate) struct Control {
    orders: Mutex<Option<mpsc::Sender<Order>>>,
    /// Whether the pauses in the database were read.
    recalled: AtomicBool,
    /// By the change's id who has released it, and why.
    released: watch::Sender<BTreeMap<String, (String, String)>>,
}

impl Default for Control {
    fn default() -> Self {
        let recalled = AtomicBool::new(false);
        Self { orders: Mutex::default(), recalled, released: watch::channel(BTreeMap::new()).0 }
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

    /// True once: what the board says later stands above the database.
    pub(super) fn recalls_first(&self) -> bool {
        !self.recalled.swap(true, Ordering::Relaxed)
    }

    /// Ids of schema changes that operators have released.
    pub(crate) fn released(&self) -> watch::Receiver<BTreeMap<String, (String, String)>> {
        self.released.subscribe()
    }

    pub(super) fn order(&self, order: Order) {
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
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        let command = tokio::select! {
            () = cancel.cancelled() => return,
            command = commands.recv() => command,
            _ = look.tick() => {
                pause::end(&shared).await;
                continue;
            }
        };
        let Some(command) = command else { return };
        let (answer, reply) = match command {
            Command::Assign { origin, assigned: Assigned::Paused, by, span, reply } => {
                (pause::begin(&shared, &origin, &by, span.unwrap_or(PAUSE)).await, reply)
            }
            Command::Assign { origin, assigned: Assigned::Running, by, reply, .. } => {
                (pause::over(&shared, &origin, &by).await, reply)
            }
            Command::ReleaseDdl { id, by, reply } => (release(&shared, &id, &by), reply),
        };
        if reply.send(answer).is_err() {
            tracing::debug!("the one who asked has gone");
        }
    }
}

fn release(shared: &Shared, id: &str, by: &By) -> Result<(), Refusal> {
    let status = shared.board.snapshot(crate::clock::wall_us());
    if !status.ddl.iter().any(|hold| hold.id == id) {
        return Err(Refusal::NotFound(format!("no schema change `{id}` is held")));
    }
    shared.control.released.send_modify(|released| {
        released.insert(id.to_owned(), (by.name().to_owned(), by.reason().to_owned()));
    });
    Ok(())
}
