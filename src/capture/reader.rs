//! Capture's reading: in bursts, from the server or from its files.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Wake};
use std::thread::{self, Thread};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use mysql_async::BinlogStream;
use mysql_async::binlog::events::Event;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::frame::RawEvent;
use super::pace::Pace;
use super::search::Search;
use super::stream::{SILENCE_MAX, broken, is_sound};
use super::tail::Tail;
use super::{Assembler, CaptureConfig, CaptureError, CaptureEvent, ErrorKind};

/// What one burst holds at most, but for its last event.
const BURST_EVENTS_MAX: usize = 64;
/// The same in bytes of the binlog.
const BURST_BYTES_MAX: usize = 256 << 10;

/// What was read and is not handed over yet.
pub(super) struct Burst {
    pub(super) events: Vec<CaptureEvent>,
    /// Of the binlog's events in it.
    pub(super) bytes: usize,
    bursts: mpsc::Sender<Vec<CaptureEvent>>,
}

impl Burst {
    pub(super) const fn new(bursts: mpsc::Sender<Vec<CaptureEvent>>) -> Self {
        Self { events: Vec::new(), bytes: 0, bursts }
    }

    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= BURST_EVENTS_MAX || self.bytes >= BURST_BYTES_MAX
    }

    /// Whether anyone takes them.
    pub(super) async fn hand_over(&mut self) -> bool {
        if self.events.is_empty() {
            return true;
        }
        self.bytes = 0;
        self.bursts.send(std::mem::take(&mut self.events)).await.is_ok()
    }

    /// Waits until all that was read is taken, or no one takes it any more.
    pub(super) async fn all_taken(&mut self) {
        if self.hand_over().await {
            drop(self.bursts.reserve_many(self.bursts.max_capacity()).await);
        }
    }
}

/// Where events come from.
enum Input {
    Server(Box<Stream>),
    Files(Box<Tail>),
}

/// What the server sends.
struct Stream {
    packets: BinlogStream,
    search: Search,
}

/// Reads on, in bursts.
pub(super) struct Reader<'a> {
    config: &'a CaptureConfig,
    input: Input,
    pub(super) pace: Pace,
    awaited: watch::Receiver<u32>,
    pub(super) burst: &'a mut Burst,
}

impl<'a> Reader<'a> {
    pub(super) fn new(
        config: &'a CaptureConfig,
        packets: BinlogStream,
        awaited: watch::Receiver<u32>,
        burst: &'a mut Burst,
    ) -> Self {
        // Still set: the reading of before ended there, and would so again.
        let went_wrong = config.files.as_ref().map(|files| files.in_use.swap(false, Relaxed));
        let search = Search::new(went_wrong == Some(true));
        let input = Input::Server(Box::new(Stream { packets, search }));
        let pace = Pace::new(Instant::now(), config.rest_max);
        Self { config, input, pace, awaited, burst }
    }

    /// The next event; `None` when no one takes it any more. What is there already is
    /// taken at once; only before it waits it hands over what it has, and rests.
    ///
    /// # Errors
    /// [`CaptureError`], also of a silent connection.
    pub(super) async fn next(
        &mut self,
        assembler: &Assembler,
    ) -> Result<Option<RawEvent>, CaptureError> {
        loop {
            // What is at hand is taken without a wait, and a transaction may be huge.
            tokio::task::consume_budget().await;
            let ready = match &mut self.input {
                Input::Server(stream) => stream.ready(assembler, self.config),
                Input::Files(tail) => tail.event(),
            };
            if let Some(event) = ready.map_err(|error| self.meant(error))? {
                return Ok(Some(event));
            }
            if !self.burst.hand_over().await {
                return Ok(None);
            }
            if self.config.files.is_some() {
                Box::pin(self.turn_to_files(assembler)).await;
            }
            if let Some(rest) = self.pace.rest(Instant::now()) {
                sleep(rest, self.awaited.wait_for(|waiting| *waiting > 0));
            }
            match &mut self.input {
                Input::Server(stream) => {
                    return stream.next(assembler, self.config).await.map(Some);
                }
                Input::Files(tail) => tail.more().await?,
            }
        }
    }

    /// Goes on in the files, if all that the server has sent makes whole transactions.
    async fn turn_to_files(&mut self, assembler: &Assembler) {
        let Input::Server(stream) = &mut self.input else { return };
        let Some(files) = &self.config.files else { return };
        if !assembler.is_mariadb() || assembler.is_open() {
            return;
        }
        if let Some(tail) = stream.search.turn(&files.dir, self.config).await {
            tracing::info!(at = %tail.at(), "the binlog is read from its files");
            files.in_use.store(true, Relaxed);
            self.input = Input::Files(Box::new(tail));
        }
    }

    /// What an error of an event that was read means: of one in the files, the server will
    /// say whether it is so.
    pub(super) fn meant(&self, error: CaptureError) -> CaptureError {
        match (&self.input, error.kind()) {
            (Input::Files(tail), ErrorKind::Halt) => {
                CaptureError::Away(format!("{}: {error}", tail.at()))
            }
            (Input::Files(_) | Input::Server(_), _) => error,
        }
    }
}

impl Stream {
    /// What is there already.
    fn ready(
        &mut self,
        assembler: &Assembler,
        config: &CaptureConfig,
    ) -> Result<Option<RawEvent>, CaptureError> {
        // Unconstrained: a task's spent budget must not pass for an empty connection.
        let packet = tokio::task::unconstrained(self.packets.next()).now_or_never();
        packet.map(|packet| self.take(packet, assembler, config)).transpose()
    }

    async fn next(
        &mut self,
        assembler: &Assembler,
        config: &CaptureConfig,
    ) -> Result<RawEvent, CaptureError> {
        let packet = tokio::time::timeout(SILENCE_MAX, self.packets.next()).await;
        let packet = packet.map_err(|_| CaptureError::Away("silent for 10 s".to_owned()))?;
        self.take(packet, assembler, config)
    }

    fn take(
        &mut self,
        packet: Option<Result<Event, mysql_async::Error>>,
        assembler: &Assembler,
        config: &CaptureConfig,
    ) -> Result<RawEvent, CaptureError> {
        let event = packet.ok_or_else(|| CaptureError::Away("the stream has ended".to_owned()))?;
        let event = event.map_err(|error| broken(&error, assembler, &config.from))?;
        if !is_sound(&event, assembler) {
            return Err(CaptureError::Checksum);
        }
        let header = event.header();
        let raw = RawEvent {
            kind: header.event_type_raw(),
            timestamp: header.timestamp(),
            server: header.server_id(),
            log_pos: header.log_pos(),
            flags: header.flags_raw(),
            data: Bytes::copy_from_slice(event.data()),
        };
        if config.files.is_some() {
            self.search.sent(&raw, &event);
        }
        Ok(raw)
    }
}

/// Lets the thread sleep, until `hurry` is there at most.
fn sleep(rest: Duration, hurry: impl Future) {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Arc::new(Unpark(thread::current())).into();
    let mut hurry = pin!(hurry);
    let until = Instant::now() + rest;
    while hurry.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_ends_when_someone_waits() {
        let (awaited, mut waiting) = watch::channel(0);
        let waits = thread::spawn(move || {
            thread::park_timeout(Duration::from_millis(20));
            awaited.send_replace(1);
            awaited
        });
        let start = Instant::now();
        sleep(Duration::from_secs(60), waiting.wait_for(|waiting| *waiting > 0));
        assert!(start.elapsed() < Duration::from_secs(30));
        drop(waits.join());
    }

    #[test]
    fn a_rest_is_slept_through_when_no_one_waits() {
        let start = Instant::now();
        sleep(Duration::from_millis(20), std::future::pending::<()>());
        assert!(start.elapsed() >= Duration::from_millis(20));
    }
}
