//! Transactions that the server compresses (MySQL from 8.0.20 on,
//! `binlog_transaction_compression`). No server that does so runs here, so a relay between
//! the reader and a real 8.0 server packs what it sends as such a server would.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const HEADER: usize = 19;
const SUM: usize = 4;
const QUERY: u8 = 2;
const FORMAT: u8 = 15;
const XID: u8 = 16;
const PAYLOAD: u8 = 40;
const COM_BINLOG_DUMP_GTID: u8 = 30;

/// What makes a payload of the events in it: a header and the packed bytes.
type Pack = fn(&[u8]) -> Vec<u8>;

/// A field of a payload's header: its type, its length and its value.
fn field(kind: u8, value: u64) -> Vec<u8> {
    [&[kind, 9, 0xfe][..], &value.to_le_bytes()].concat()
}

fn payload(algorithm: u8, size: u64, packed: &[u8]) -> Vec<u8> {
    let length = u64::try_from(packed.len()).unwrap();
    [&field(1, length)[..], &[2, 1, algorithm], &field(3, size), &[0], packed].concat()
}

fn length(events: &[u8]) -> u64 {
    u64::try_from(events.len()).unwrap()
}

fn zstd(events: &[u8]) -> Vec<u8> {
    payload(0, length(events), &zstd::encode_all(events, 3).unwrap())
}

fn plain(events: &[u8]) -> Vec<u8> {
    const NONE: u8 = 255;
    let length = length(events);
    let head = [&field(1, length)[..], &[2, 3, 0xfc, NONE, 0], &field(3, length), &[0]].concat();
    [&head, events].concat()
}

/// Passes a connection on; packs the transactions of a binlog dump.
struct Relay {
    opts: Opts,
    packed: Arc<AtomicUsize>,
    _running: JoinSet<()>,
}

impl Relay {
    async fn start(db: &Database, pack: Pack) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let opts = mysql_async::OptsBuilder::from_opts(db.opts()).tcp_port(port).into();
        let (packed, mut running) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
        let (count, to) = (Arc::clone(&packed), db.opts().tcp_port());
        running.spawn(async move {
            let mut ends = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let (dumps, asked) = watch::channel(false);
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                ends.spawn(requests(from_client, to_server, dumps));
                let count = Arc::clone(&count);
                ends.spawn(answers(from_server, to_client, asked, pack, count));
            }
        });
        Self { opts, packed, _running: running }
    }
}

/// A packet's number and its bytes; none at the connection's end.
async fn packet(from: &mut OwnedReadHalf) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 4];
    from.read_exact(&mut head).await.ok()?;
    let size = u32::from_le_bytes([head[0], head[1], head[2], 0]);
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    from.read_exact(&mut bytes).await.ok()?;
    Some((head[3], bytes))
}

async fn send(to: &mut OwnedWriteHalf, number: u8, bytes: &[u8]) -> Option<()> {
    let [low, middle, high, _] = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    to.write_all(&[&[low, middle, high, number], bytes].concat()).await.ok()
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, dumps: watch::Sender<bool>) {
    while let Some((number, bytes)) = packet(&mut from).await {
        dumps.send_if_modified(|dumps| {
            *dumps |= bytes.first() == Some(&COM_BINLOG_DUMP_GTID);
            *dumps
        });
        if send(&mut to, number, &bytes).await.is_none() {
            return;
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    asked: watch::Receiver<bool>,
    pack: Pack,
    count: Arc<AtomicUsize>,
) {
    let (mut next, mut held) = (None, Vec::new());
    while let Some((number, bytes)) = packet(&mut from).await {
        if !*asked.borrow() {
            if send(&mut to, number, &bytes).await.is_none() {
                return;
            }
            continue;
        }
        // What ends a dump.
        if bytes[0] != 0 {
            send(&mut to, next.unwrap_or(number), &bytes).await;
            return;
        }
        let event = &bytes[1..];
        let kind = event[4];
        let begins = kind == QUERY && event[..event.len() - SUM].ends_with(b"BEGIN");
        let whole = if begins || !held.is_empty() {
            held.extend(unsummed(event));
            if kind != XID {
                continue;
            }
            count.fetch_add(1, Ordering::Relaxed);
            let body = pack(&std::mem::take(&mut held));
            [&[0][..], &framed(event, &body)].concat()
        } else {
            bytes
        };
        let number = next.unwrap_or(number);
        next = Some(number.wrapping_add(1));
        if send(&mut to, number, &whole).await.is_none() {
            return;
        }
    }
}

/// The event as it stands in a payload: without its checksum.
fn unsummed(event: &[u8]) -> Vec<u8> {
    assert_ne!(event[4], FORMAT);
    let mut bare = event[..event.len() - SUM].to_vec();
    let size = u32::try_from(bare.len()).unwrap();
    bare[9..13].copy_from_slice(&size.to_le_bytes());
    bare
}

/// A payload in the place of the transaction's last event.
fn framed(last: &[u8], body: &[u8]) -> Vec<u8> {
    let mut event = [&last[..HEADER], body].concat();
    event[4] = PAYLOAD;
    let size = u32::try_from(event.len() + SUM).unwrap();
    event[9..13].copy_from_slice(&size.to_le_bytes());
    let sum = crc32fast::hash(&event);
    event.extend(sum.to_le_bytes());
    event
}

#[tokio::test]
async fn every_type_in_a_compressed_transaction_is_what_the_server_selects() {
    for pack in [zstd as Pack, plain] {
        let (db, here) = start(Flavour::MySql80, &[], &zoo_with(MORE)).await;
        let relay = Relay::start(&db, pack).await;
        each_type(&db, Follow::with(relay.opts.clone(), here.position)).await;
        assert_eq!(relay.packed.load(Ordering::Relaxed), 3);
    }
}

/// What comes behind such a transaction is read, and from its position on.
#[tokio::test]
async fn a_stream_goes_on_behind_compressed_transactions() {
    let (db, here) = start(Flavour::MySql80, &[], SHOP).await;
    let relay = Relay::start(&db, zstd).await;
    let mut follow = Follow::with(relay.opts.clone(), here.position);
    db.exec("INSERT INTO shop.t VALUES (1, 'a');\nALTER TABLE shop.t ADD w INT").await;
    let (_, rows, first) = follow.rows().await;
    assert_eq!(decoded(rows[0].after.as_ref().unwrap())[0], "1");
    assert!(matches!(follow.next().await, CaptureEvent::Ddl { .. }));
    drop(follow);
    db.exec("INSERT INTO shop.t VALUES (2, 'b', 3)").await;
    let mut follow = Follow::with(relay.opts.clone(), first.position);
    assert!(matches!(follow.next().await, CaptureEvent::Ddl { .. }));
    let (_, rows, after) = follow.rows().await;
    assert_eq!(decoded(rows[0].after.as_ref().unwrap())[0], "2");
    assert_eq!(after, current(&mut db.conn().await).await.unwrap());
}

/// A payload that can't be unpacked halts the stream; its rows are not taken for none.
#[tokio::test]
async fn a_payload_that_cannot_be_read_halts_the_stream() {
    let unknown: Pack = |events| payload(7, length(events), events);
    let no_zstd: Pack = |events| payload(0, length(events), events);
    let too_long: Pack = |events| payload(0, u64::MAX, &zstd::encode_all(events, 3).unwrap());
    let cut: Pack = |events| zstd(&events[..events.len() - 40]);
    let short: Pack = |events| payload(0, 9, &zstd::encode_all(events, 3).unwrap());
    for pack in [unknown, no_zstd, too_long, short, cut] {
        let (db, here) = start(Flavour::MySql80, &[], SHOP).await;
        let relay = Relay::start(&db, pack).await;
        let follow = Follow::with(relay.opts.clone(), here.position.clone());
        db.exec("INSERT INTO shop.t VALUES (1, 'a')").await;
        let error = follow.error().await;
        assert_eq!(error.kind(), ErrorKind::Halt, "{error}");
        // A look ahead goes past it.
        db.exec("SET GLOBAL binlog_row_metadata = MINIMAL").await;
        let wanted = error;
        let error = Follow::with(relay.opts.clone(), here.position).error().await;
        assert_eq!(error, wanted);
        assert!(relay.packed.load(Ordering::Relaxed) > 2);
    }
}
