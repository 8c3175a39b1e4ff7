//! Outbox, link and inbox on a real Kafka: nothing is lost, and what can't go on says so.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::sync::Arc;
use std::time::{Duration, Instant};

use causeway::change::{
    Dropped, Place, Position, Record, RecordBody, RegionId, Seq, Transaction, Vector, pb,
};
use causeway::clock::Hlc;
use causeway::ship::{
    Begin, Cluster, ErrorKind, Inbox, InboxConfig, LinkConfig, LinkStatus, Outbox, OutboxConfig,
    ShipError, Tail, TopicSettings, run_link,
};
use lab::kafka::{Kafka, PeerDoor};
use lab::link::Link;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const SETTINGS: TopicSettings =
    TopicSettings { retention_ms: 86_400_000, message_bytes_max: 2 << 20 };
/// Long: the machine may be slow, and nothing here measures time.
const GRACE: Duration = Duration::from_secs(60);
const PATIENCE: Duration = lab::PATIENCE;

fn origin() -> RegionId {
    RegionId::new(1).unwrap()
}

fn cluster(kafka: &Kafka) -> Cluster {
    Cluster { brokers: kafka.brokers(), ..Cluster::default() }
}

fn outbox(kafka: &Kafka, epoch: u64) -> OutboxConfig {
    OutboxConfig {
        cluster: cluster(kafka),
        topic: "out".to_owned(),
        origin: origin(),
        epoch,
        topology: 7,
        agreed: "region 1 r1".to_owned(),
        settings: SETTINGS,
        gathered: Duration::ZERO,
    }
}

/// Into the inbox `in`, without a detour.
fn link_config(here: &Kafka, source: Cluster) -> LinkConfig {
    LinkConfig {
        source,
        source_topic: "out".to_owned(),
        target: cluster(here),
        target_topic: "in".to_owned(),
        settings: SETTINGS,
        detours: Vec::new(),
    }
}

fn position() -> Position {
    Position("0-1-100".to_owned())
}

/// As a database that has never shipped.
fn fresh() -> Begin {
    Begin::Fresh(Tail { seq: Seq(0), hlc: Hlc(0), deps: Vector::default(), position: position() })
}

fn place(epoch: u64, seq: u64) -> Place {
    Place { epoch, seq: Seq(seq) }
}

/// As a database that knows this of its outbox.
fn after(epoch: u64, seq: u64) -> Begin {
    Begin::After(place(epoch, seq))
}

async fn refused(kafka: &Kafka, epoch: u64, begin: Begin) -> ShipError {
    match Outbox::open(outbox(kafka, epoch), begin.clone()).await {
        Ok((_, tail)) => panic!("{begin:?} went on from {tail:?}"),
        Err(error) => error,
    }
}

fn admin(kafka: &Kafka) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", kafka.brokers()).create().unwrap()
}

/// A whole transaction; `padding` bytes that lz4 can't shrink much.
fn txn(epoch: u64, seq: u64, padding: usize) -> Record {
    let mut state = seq | 1;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(33 + u8::try_from((state >> 33) % 90).unwrap())
    });
    let body = Transaction { last: true, ..Default::default() };
    Record {
        origin: origin(),
        epoch,
        seq: Seq(seq),
        hlc: Hlc(seq),
        deps: Vector::default(),
        gtid: noise.take(padding).collect(),
        position: Position(format!("0-1-{}", 100 + seq)),
        topology: 0,
        body: RecordBody::Transaction(body),
    }
}

async fn ship(outbox: &mut Outbox, epoch: u64, seqs: std::ops::RangeInclusive<u64>) {
    let last = Seq(*seqs.end());
    for seq in seqs {
        outbox.send(vec![txn(epoch, seq, 100)]).await.unwrap();
    }
    let mut acked = outbox.acked();
    tokio::time::timeout(PATIENCE, acked.wait_for(|&seq| seq >= last)).await.unwrap().unwrap();
}

/// (epoch, seq) of the transactions that count, up to and with `last`.
async fn read(kafka: &Kafka, topic: &str, after: Place, last: u64) -> Vec<(u64, u64)> {
    read_all(kafka, topic, after, last).await.0
}

/// The same, and what was dropped on the way.
async fn read_all(
    kafka: &Kafka,
    topic: &str,
    after: Place,
    last: u64,
) -> (Vec<(u64, u64)>, Vec<Dropped>) {
    let config =
        InboxConfig { cluster: cluster(kafka), topic: topic.to_owned(), origin: origin(), after };
    let mut inbox = Inbox::open(&config).await.unwrap();
    let mut got = Vec::new();
    while got.last().is_none_or(|&(_, seq)| seq < last) {
        let item = tokio::time::timeout(PATIENCE, inbox.next()).await.unwrap().unwrap();
        if matches!(item.record.body, RecordBody::Transaction(_)) {
            got.push((item.record.epoch, item.record.seq.0));
        }
    }
    (got, inbox.take_fenced())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_goes_on_from_its_tail_and_drops_a_writer_that_lost_it() {
    let kafka = Kafka::start("a", &[]).await;
    let (mut first, tail) = Outbox::open(outbox(&kafka, 1), fresh()).await.unwrap();
    assert_eq!(tail.position, position());
    ship(&mut first, 1, 1..=700).await;
    let (mut second, tail) = Outbox::open(outbox(&kafka, 2), after(1, 0)).await.unwrap();
    assert_eq!((tail.seq, tail.position), (Seq(700), Position("0-1-800".to_owned())));
    ship(&mut first, 1, 701..=705).await;
    ship(&mut second, 2, 701..=702).await;
    let wanted: Vec<_> = (651..=700).map(|seq| (1, seq)).chain([(2, 701), (2, 702)]).collect();
    let (got, dropped) = read_all(&kafka, "out", place(1, 650), 702).await;
    assert_eq!(got, wanted);
    let fenced = Dropped { ended: 1, begun: 2, first: Seq(701), last: Seq(705), records: 5 };
    assert_eq!(dropped, [fenced]);
    for known in [after(1, 0), after(1, 400), after(1, 700), after(2, 700), after(2, 702)] {
        let error = refused(&kafka, 2, known.clone()).await;
        assert!(matches!(error, ShipError::Epoch { found: 2, .. }), "{known:?}: {error}");
    }
    let (_, tail) = Outbox::open(outbox(&kafka, 3), after(2, 700)).await.unwrap();
    assert_eq!(tail.seq, Seq(702), "not where the writer that lost it was");
}

/// The writer before had come further than what the new one read before it began.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_just_before_a_start_record_is_not_numbered_again() {
    let kafka = Kafka::start("b", &[]).await;
    let (mut first, _) = Outbox::open(outbox(&kafka, 1), fresh()).await.unwrap();
    ship(&mut first, 1, 1..=5).await;
    let body = RecordBody::Start(pb::Start::default());
    let start = Record { hlc: Hlc(40), body, ..txn(2, 4, 0) };
    first.send(vec![start]).await.unwrap();
    first.close(GRACE).await;
    let (_, tail) = Outbox::open(outbox(&kafka, 3), after(1, 2)).await.unwrap();
    assert_eq!((tail.seq, tail.hlc), (Seq(5), Hlc(40)));
    assert_eq!(tail.position, Position("0-1-105".to_owned()));
}

/// Peers would take the numbers that begin anew for duplicates, and the writes since
/// the last record would be in no outbox.
#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_lost_its_records_is_not_begun_anew() {
    let kafka = Kafka::start("p", &[]).await;
    let (mut first, _) = Outbox::open(outbox(&kafka, 1), fresh()).await.unwrap();
    ship(&mut first, 1, 1..=5).await;
    first.close(GRACE).await;
    let admin = admin(&kafka);
    let mut all = TopicPartitionList::new();
    all.add_partition_offset("out", 0, Offset::End).unwrap();
    admin.delete_records(&all, &AdminOptions::new()).await.unwrap();
    for known in [after(1, 0), after(1, 5)] {
        let error = refused(&kafka, 2, known).await;
        assert!(matches!(error, ShipError::Purged { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Halt);
    }
    let error = refused(&kafka, 2, fresh()).await;
    assert!(matches!(error, ShipError::Foreign { .. }), "{error}");

    admin.delete_topics(&["out"], &AdminOptions::new()).await.unwrap();
    // Looking for it does not make it.
    for _ in 0..2 {
        let error = refused(&kafka, 2, after(1, 0)).await;
        assert!(matches!(error, ShipError::Lost { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Halt);
    }
    let new = NewTopic::new("out", 1, TopicReplication::Fixed(1));
    admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    let error = refused(&kafka, 2, after(1, 0)).await;
    assert!(matches!(error, ShipError::Lost { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_goes_on_only_from_a_database_that_fits_it() {
    let kafka = Kafka::start("f", &[]).await;
    let seeded = |epoch, seq| Begin::Seeded {
        place: place(1, seq),
        epoch,
        tail: Tail {
            seq: Seq(seq),
            hlc: Hlc(5_000),
            deps: Vector::default(),
            position: Position("0-9-7".to_owned()),
        },
    };
    let (mut first, _) = Outbox::open(outbox(&kafka, 1), fresh()).await.unwrap();
    ship(&mut first, 1, 1..=20).await;
    let error = refused(&kafka, 2, fresh()).await;
    assert!(matches!(error, ShipError::Foreign { seq: Seq(20), .. }), "{error}");
    let error = refused(&kafka, 2, seeded(2, 19)).await;
    assert!(matches!(error, ShipError::Behind { found: Seq(20), .. }), "{error}");
    let (mut second, tail) = Outbox::open(outbox(&kafka, 2), seeded(2, 20)).await.unwrap();
    assert_eq!((tail.seq, tail.position), (Seq(20), Position("0-9-7".to_owned())));
    ship(&mut second, 2, 21..=25).await;
    // Its database still says that it is seeded: the outbox knows better.
    let (_, tail) = Outbox::open(outbox(&kafka, 3), seeded(2, 20)).await.unwrap();
    assert_eq!((tail.seq, tail.position), (Seq(25), Position("0-1-125".to_owned())));
    // The outbox is gone, and the seed says what peers have of it.
    let config = OutboxConfig { topic: "new".to_owned(), ..outbox(&kafka, 4) };
    let (_, tail) = Outbox::open(config.clone(), seeded(4, 25)).await.unwrap();
    assert_eq!((tail.seq, tail.hlc), (Seq(25), Hlc(5_000)));
    let config = OutboxConfig { epoch: 5, ..config };
    let (_, tail) = Outbox::open(config, after(4, 25)).await.unwrap();
    assert_eq!((tail.seq, tail.position), (Seq(25), Position("0-9-7".to_owned())));
}

/// A hole in the outbox can't be closed any more: peers stop at it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shipped_past_a_record_that_kafka_refused() {
    let kafka = Kafka::start("g", &[]).await;
    for round in 0..5 {
        let config = OutboxConfig { topic: format!("out{round}"), ..outbox(&kafka, 1) };
        let (mut first, _) = Outbox::open(config.clone(), fresh()).await.unwrap();
        ship(&mut first, 1, 1..=1).await;
        first.send(vec![txn(1, 2, 4 << 20)]).await.unwrap();
        for seq in 3..2_000 {
            if first.send(vec![txn(1, seq, 100)]).await.is_err() {
                break;
            }
        }
        let error = tokio::time::timeout(PATIENCE, first.failure()).await.unwrap();
        assert!(matches!(error, ShipError::TooLarge(_)), "{error}");
        assert_eq!(error.kind(), ErrorKind::Halt);
        first.close(GRACE).await;
        let (_, tail) =
            Outbox::open(OutboxConfig { epoch: 2, ..config }, after(1, 0)).await.unwrap();
        assert_eq!(tail.seq, Seq(1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_wait_a_fiftieth_of_what_capture_gathers_for() {
    let kafka = Kafka::start("w", &[]).await;
    let config = OutboxConfig { gathered: Duration::from_secs(25), ..outbox(&kafka, 1) };
    let (mut first, _) = Outbox::open(config, fresh()).await.unwrap();
    let given = Instant::now();
    ship(&mut first, 1, 1..=100).await;
    assert!(given.elapsed() >= Duration::from_millis(500), "{:?}", given.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_goes_on_where_its_inbox_ends() {
    let (here, there) = (Kafka::start("h", &[]).await, Kafka::start("t", &[]).await);
    let (mut first, _) = Outbox::open(outbox(&there, 1), fresh()).await.unwrap();
    let config = link_config(&here, cluster(&there));
    for (from, to) in [(1, 300), (301, 600), (601, 900)] {
        ship(&mut first, 1, from..=to).await;
        let (status, cancel) = (Arc::new(LinkStatus::default()), CancellationToken::new());
        let link =
            run_link(config.clone(), Arc::clone(&status), watch::channel(false).1, cancel.clone());
        let copied = async {
            lab::wait_until("the inbox has all", lab::PATIENCE, || {
                let offset = status.get().source_offset;
                async move { offset >= i64::try_from(to).ok() }
            })
            .await;
            cancel.cancel();
        };
        tokio::join!(async { link.await.unwrap() }, copied);
    }
    let wanted: Vec<_> = (1..=900).map(|seq| (1, seq)).collect();
    assert_eq!(read(&here, "in", place(0, 0), 900).await, wanted);
    assert_eq!(read(&here, "in", place(1, 850), 900).await, wanted[850..]);
}

/// The Kafka here stands still: copies in flight are bounded by their bytes, and the link
/// goes on telling.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_holds_few_large_copies_that_nobody_acknowledges() {
    const BYTES: usize = 500_000;
    let (here, there) = (Kafka::start("h", &[]).await, Kafka::start("t", &[]).await);
    let (mut first, _) = Outbox::open(outbox(&there, 1), fresh()).await.unwrap();
    let config = link_config(&here, cluster(&there));
    let (status, cancel) = (Arc::new(LinkStatus::default()), CancellationToken::new());
    let link = run_link(config, Arc::clone(&status), watch::channel(false).1, cancel.clone());
    let reached = |offset: i64| {
        let status = &status;
        lab::wait_until("the link has copied all", PATIENCE, move || async move {
            status.get().source_offset == Some(offset)
        })
    };
    let story = async {
        ship(&mut first, 1, 1..=10).await;
        reached(10).await;
        here.proc.signal("STOP");
        for seq in 11..=50 {
            first.send(vec![txn(1, seq, BYTES)]).await.unwrap();
        }
        // 12 MiB, and the one that came when there was room.
        let wanted = format!("the Kafka here does not acknowledge {}", (12 << 20) / BYTES + 1);
        let told = || status.get().reason == Some(wanted.clone());
        lab::wait_until(&wanted, PATIENCE, || async { told() }).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(told(), "it took more: {:?}", status.get());
        here.proc.signal("CONT");
        reached(50).await;
        cancel.cancel();
    };
    tokio::join!(async { link.await.unwrap() }, story);
    let wanted: Vec<_> = (1..=50).map(|seq| (1, seq)).collect();
    assert_eq!(read(&here, "in", place(0, 0), 50).await, wanted);
}

/// Offset at the source, trace context and payload of a record.
type Copied = (i64, String, Vec<u8>);

/// The records in the target's order. A link that starts anew may copy again what came
/// before, never skip.
fn copies(kafka: &Kafka, topic: &str) -> Vec<Copied> {
    let mut copies: Vec<Copied> = Vec::new();
    for record in kafka.records(topic) {
        let at = record.copied.unwrap();
        if copies.last().is_none_or(|&(last, ..)| at > last) {
            copies.push((at, record.trace.unwrap(), record.payload));
        }
    }
    copies
}

/// `00`, trace id, parent id and flags, as W3C's Trace Context has them (2.2): neither id
/// is all zeros.
#[track_caller]
fn is_trace_context(text: &str) {
    let parts: Vec<_> = text.split('-').collect();
    let widths: Vec<_> = parts.iter().map(|part| part.len()).collect();
    assert_eq!((parts[0], &widths[..]), ("00", &[2, 32, 16, 2][..]), "{text}");
    let lower = |c: char| matches!(c, '0'..='9' | 'a'..='f');
    assert!(parts.concat().chars().all(lower), "{text}");
    assert!(parts[1..3].iter().all(|id| id.chars().any(|c| c != '0')), "{text}");
}

/// The peer's datacenter is cut off and its Kafka dies; when both are back, it has more.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_peer_that_was_away_goes_on_byte_for_byte() {
    let door = PeerDoor { inner: lab::proc::free_port(), outer: lab::proc::free_port() };
    let (here, mut there) = (Kafka::start("h", &[]).await, Kafka::start("t", &[door]).await);
    let way = Link::open(door.outer, door.inner).await;
    let (mut first, _) = Outbox::open(outbox(&there, 1), fresh()).await.unwrap();
    ship(&mut first, 1, 1..=300).await;
    let config = link_config(&here, Cluster { brokers: way.address(), ..Cluster::default() });
    let (status, cancel) = (Arc::new(LinkStatus::default()), CancellationToken::new());
    let link = run_link(config, Arc::clone(&status), watch::channel(false).1, cancel.clone());
    // Of a Start record and the transactions: the last offset is the last seq.
    let reached = |offset: i64| {
        let status = &status;
        lab::wait_until("the link has copied all", PATIENCE, move || async move {
            let told = status.get();
            told.running && told.source_offset == Some(offset) && told.backlog == Some(0)
        })
    };
    let story = async {
        reached(300).await;
        way.cut();
        ship(&mut first, 1, 301..=400).await;
        lab::wait_until("the link says that the peer is away", PATIENCE, || async {
            let told = status.get();
            !told.running && told.reason.is_some() && !told.halted && told.backlog.is_none()
        })
        .await;
        assert_eq!(status.get().source_offset, Some(300), "it says where it stands");
        there.crash().await;
        ship(&mut first, 1, 401..=700).await;
        way.heal();
        reached(700).await;
        assert_eq!(status.get().reason, None);
        cancel.cancel();
    };
    tokio::join!(async { link.await.unwrap() }, story);
    let shipped = there.records("out").into_iter();
    let shipped: Vec<Copied> = shipped
        .map(|record| (record.offset, record.trace.unwrap(), record.payload))
        .inspect(|(_, trace, _)| is_trace_context(trace))
        .collect();
    let traces: std::collections::BTreeSet<_> = shipped.iter().map(|(_, trace, _)| trace).collect();
    assert_eq!(traces.len(), shipped.len(), "each transaction has its own");
    assert_eq!(copies(&here, "in"), shipped);
}

/// However many records it is, and wherever a reader begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_a_writer_that_lost_the_outbox_is_never_taken() {
    let kafka = Kafka::start("z", &[]).await;
    let (mut first, _) = Outbox::open(outbox(&kafka, 1), fresh()).await.unwrap();
    ship(&mut first, 1, 1..=700).await;
    let (mut second, _) = Outbox::open(outbox(&kafka, 2), after(1, 0)).await.unwrap();
    ship(&mut first, 1, 701..=6_000).await;
    ship(&mut second, 2, 701..=720).await;
    second.close(GRACE).await;
    ship(&mut first, 1, 6_001..=6_500).await;
    let (mut third, tail) = Outbox::open(outbox(&kafka, 3), after(2, 700)).await.unwrap();
    assert_eq!(tail.seq, Seq(720));
    ship(&mut first, 1, 6_501..=7_000).await;
    ship(&mut third, 3, 721..=2_000).await;
    let wrote = |seq| match seq {
        0..=700 => 1,
        701..=720 => 2,
        _ => 3,
    };
    for seq in [0, 650, 700, 719, 720, 721, 1_500] {
        let after = if seq == 0 { Place::default() } else { place(wrote(seq), seq) };
        let (got, dropped) = read_all(&kafka, "out", after, seq + 100).await;
        let wanted = (seq + 1..=seq + 100).map(|seq| (wrote(seq), seq));
        assert!(got.into_iter().eq(wanted), "after {seq}");
        // Nothing that counts is told as dropped, though a reader may begin before its place.
        let fenced = |run: &Dropped| run.ended == 1 && run.first > Seq(700);
        assert!(dropped.iter().all(fenced), "after {seq}: {dropped:?}");
        let behind = (650..=720).contains(&seq);
        assert_eq!(!dropped.is_empty(), behind, "after {seq}: {dropped:?}");
    }
    let known = [after(1, 10), after(2, 720), after(3, 1_900)];
    for (epoch, known) in (4..).zip(known) {
        let (_, tail) = Outbox::open(outbox(&kafka, epoch), known).await.unwrap();
        assert_eq!(tail.seq, Seq(2_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_kafka_is_waited_out_without_a_gap() {
    let mut kafka = Kafka::start("k", &[]).await;
    let (mut first, _) = Outbox::open(outbox(&kafka, 1), fresh()).await.unwrap();
    ship(&mut first, 1, 1..=10).await;
    kafka.proc.kill();
    for seq in 11..=500 {
        first.send(vec![txn(1, seq, 100)]).await.unwrap();
    }
    kafka.proc.again();
    kafka.ready().await;
    ship(&mut first, 1, 501..=510).await;
    assert_eq!(read(&kafka, "out", place(0, 0), 510).await.len(), 510);
}
