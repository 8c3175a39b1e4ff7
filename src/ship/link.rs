//! The link: copies a peer's outbox into the inbox here, byte for byte and in order.
//!
//! It keeps no state: each copy carries its source offset in a header, and the
//! inbox's last record says where to go on. Copies that a restart makes twice are
//! dropped by every reader. While the outbox can't be reached and somebody waits for
//! what it holds, the link copies from another region's inbox of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{Consumer as _, StreamConsumer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::copy::{Copying, Last};
use super::detour::{IDLE_MAX_US, SHUN_US, best, is_due};
use super::kafka::{ASK, Cluster, TopicSettings};
use super::reader::is_silent;
use super::{ErrorKind, ShipError};
use crate::clock::wall_us;
use crate::failpoint;

/// What a link copies.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The peer's Kafka.
    pub source: Cluster,
    /// The peer's outbox.
    pub source_topic: String,
    /// The Kafka here.
    pub target: Cluster,
    /// The inbox here.
    pub target_topic: String,
    /// How the inbox is made.
    pub settings: TopicSettings,
    /// Other regions' inboxes of the same outbox.
    pub detours: Vec<Detour>,
}

/// Another region's inbox of the outbox.
#[derive(Clone, Debug)]
pub struct Detour {
    /// The region.
    pub through: String,
    /// Its Kafka.
    pub cluster: Cluster,
    /// The topic.
    pub topic: String,
}

/// What a link says of itself. Set by the link, read by the status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkReport {
    /// It copies, or has nothing to copy.
    pub running: bool,
    /// Someone must act.
    pub halted: bool,
    /// Why it does not run.
    pub reason: Option<String>,
    /// Records acknowledged here since the start.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Those of them that came from another region's inbox.
    pub detoured: u64,
    /// The last source offset acknowledged here.
    pub source_offset: Option<i64>,
    /// Records at the source that are not copied.
    pub backlog: Option<u64>,
    /// Since when the peer's Kafka has not answered.
    pub silent_since_us: Option<u64>,
    /// The region from whose inbox it copies meanwhile.
    pub through: Option<String>,
    /// When it last went round its loop.
    pub beat_us: u64,
}

/// A shared [`LinkReport`].
#[derive(Debug, Default)]
pub struct LinkStatus(Mutex<LinkReport>);

impl LinkStatus {
    /// A copy.
    #[must_use]
    pub fn get(&self) -> LinkReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut LinkReport)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Copies until cancelled. What passes is waited out, for days if need be. `needed` says
/// whether somebody waits for what is in the outbox and not in the inbox.
///
/// # Errors
/// [`ShipError`] when someone must act.
pub async fn run_link(
    config: LinkConfig,
    status: Arc<LinkStatus>,
    needed: watch::Receiver<bool>,
    cancel: CancellationToken,
) -> Result<(), ShipError> {
    let shunned = vec![None; config.detours.len()];
    let (looked_us, in_vain) = (None, None);
    let (config, status) = (&config, &*status);
    let mut link = Link { config, status, needed, shunned, looked_us, in_vain };
    let mut pause = Duration::from_millis(100);
    loop {
        let copied = status.get().copied;
        let round = Box::pin(link.round());
        let error = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            ended = round => match ended {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        let halted = error.kind() == ErrorKind::Halt;
        status.set(|report| {
            report.running = false;
            report.halted = halted;
            let in_vain = link.in_vain.iter().map(|why| format!("; {why}"));
            report.reason = Some(format!("{error}{}", in_vain.collect::<String>()));
            report.backlog = None;
            if halted {
                report.source_offset = None;
            }
        });
        if halted {
            return Err(error);
        }
        tracing::debug!(%error, topic = config.target_topic, "link waits");
        pause = if status.get().copied > copied { Duration::from_millis(100) } else { pause * 2 };
        pause = pause.min(Duration::from_secs(2));
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Link<'a> {
    config: &'a LinkConfig,
    status: &'a LinkStatus,
    needed: watch::Receiver<bool>,
    /// Until when each detour is left alone, and why.
    shunned: Vec<Option<(u64, String)>>,
    /// When the detours were last looked at.
    looked_us: Option<u64>,
    /// Why none of them was taken.
    in_vain: Option<String>,
}

impl Link<'_> {
    /// From the outbox, or from another inbox until the outbox answers.
    async fn round(&mut self) -> Result<(), ShipError> {
        let Self { config, status, .. } = *self;
        if config.target.ensure_topic(&config.target_topic, config.settings).await? {
            failpoint::hit("link.topic_created");
        }
        let last = Last::of(&config.target, &config.target_topic).await?;
        if self.is_due() {
            self.looked_us = Some(wall_us());
            match self.choose(last.as_ref().map(|last| last.offset)).await {
                Ok(n) => {
                    self.in_vain = None;
                    self.detour(n, last).await;
                    return Ok(());
                }
                Err(why) => self.in_vain = Some(why),
            }
        }
        let source = Arc::new(config.source.consumer()?);
        let held = self.ask(&source).await?;
        self.in_vain = None;
        let until = self.watch_outbox(Arc::clone(&source), held.0);
        Copying::of_outbox((config, status), source, held, last)?.run(until).await
    }

    fn is_due(&self) -> bool {
        let silent = self.status.get().silent_since_us;
        !self.shunned.is_empty() && is_due(*self.needed.borrow(), silent, self.looked_us, wall_us())
    }

    /// Asks every second where the outbox ends. Ends when a detour is due.
    async fn watch_outbox(&self, source: Arc<StreamConsumer>, low: i64) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        while !self.is_due() {
            tick.tick().await;
            let held = self.ask(&source).await;
            self.status.set(|report| {
                // Before the first copy it stands where it began.
                let next = report.source_offset.map_or(low, |copied| copied + 1);
                report.backlog = held.ok().and_then(|(_, high)| u64::try_from(high - next).ok());
            });
        }
        self.status.set(|report| {
            report.running = false;
            report.reason = Some("the outbox does not answer".to_owned());
        });
    }

    /// What the outbox holds; on a thread that may wait, since the client has no other
    /// way to ask. A Kafka that says no is not silent.
    async fn ask(&self, source: &Arc<StreamConsumer>) -> Result<(i64, i64), ShipError> {
        let (source, topic) = (Arc::clone(source), self.config.source_topic.clone());
        let asked_us = wall_us();
        let ask = move || source.fetch_watermarks(&topic, 0, ASK);
        let Ok(held) = tokio::task::spawn_blocking(ask).await else {
            return Err(ShipError::Away("the question was given up".to_owned()));
        };
        let is_silent = held.as_ref().is_err_and(is_silent);
        self.status.set(|report| {
            report.beat_us = wall_us();
            let since = report.silent_since_us.unwrap_or(asked_us);
            report.silent_since_us = is_silent.then_some(since);
        });
        held.map_err(|error| ShipError::from_kafka(&error))
    }

    /// The detour to take, if one has more than the inbox here; else why none.
    async fn choose(&self, last: Option<i64>) -> Result<usize, String> {
        let (mut ends, mut why) = (Vec::new(), Vec::new());
        for (detour, shunned) in self.config.detours.iter().zip(&self.shunned) {
            let end = match shunned {
                Some((until, why)) if wall_us() < *until => Err(why.clone()),
                Some(_) | None => Last::of(&detour.cluster, &detour.topic)
                    .await
                    .map_err(|error| error.to_string()),
            };
            if let Err(error) = &end {
                why.push(format!("{}'s inbox can't be copied: {error}", detour.through));
            }
            ends.push(end.ok().flatten().map(|last| last.offset));
        }
        let none = "no other region's inbox holds more".to_owned();
        best(last, &ends).ok_or(if why.is_empty() { none } else { why.join("; ") })
    }

    /// Copies from that inbox until the outbox answers, the inbox can't be copied, or
    /// gives nothing while somebody waits.
    async fn detour(&mut self, n: usize, last: Option<Last>) {
        let Self { config, status, .. } = *self;
        let detour = &config.detours[n];
        let (topic, through) = (&config.source_topic, &detour.through);
        let from = last.as_ref().map(|last| last.offset);
        tracing::warn!(topic, through, from, "outbox is silent: copying from another inbox");
        status.set(|report| report.through = Some(through.clone()));
        let copying = async {
            let source = (&detour.cluster, detour.topic.as_str());
            let copying = Copying::of_inbox((config, status), source, last).await?;
            copying.run(self.watch_detour()).await
        };
        let ended = Box::pin(copying).await;
        let report = status.get();
        let until = report.source_offset;
        match ended {
            Ok(()) => tracing::info!(topic, through, until, "copied from another inbox"),
            Err(error) => {
                tracing::warn!(topic, through, until, %error, "inbox can't be copied further");
                self.shunned[n] = Some((wall_us() + SHUN_US, error.to_string()));
            }
        }
        status.set(|report| {
            report.through = None;
            report.running = false;
        });
    }

    /// Ends when the outbox answers, or when nothing comes and somebody waits.
    async fn watch_detour(&self) {
        let Ok(source) = self.config.source.consumer().map(Arc::new) else { return };
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let (mut came_us, mut copied) = (wall_us(), self.status.get().copied);
        loop {
            tick.tick().await;
            // What it says is for the link to hear.
            drop(self.ask(&source).await);
            let (report, now_us) = (self.status.get(), wall_us());
            if report.silent_since_us.is_none() {
                return;
            }
            if report.copied > copied {
                (came_us, copied) = (now_us, report.copied);
            }
            if *self.needed.borrow() && now_us.saturating_sub(came_us) > IDLE_MAX_US {
                return;
            }
        }
    }
}
