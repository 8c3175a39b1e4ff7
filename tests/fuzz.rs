//! No bytes from outside panic, whatever they claim to be: the targets of `fuzz/`, on
//! mutations of sound input. `CAUSEWAY_FUZZ_SECONDS` says how long each runs (`make
//! fuzz`: a minute); without it a fixed number of inputs, the same each time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fuzz/targets.rs"]
mod targets;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use causeway::change::{
    Column, ColumnType, Dot, Kind, Position, Record, RecordBody, RegionId, Row, RowChange, Seq,
    Table, TableChange, Tables, Transaction, Value, Vector, pb,
};
use causeway::clock::Hlc;

/// Inputs of a run without a time.
const INPUTS: u32 = 1_500;
const LENGTH_MAX: usize = 16 * 1024;

/// xorshift64*: all that choosing bytes needs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        const EDGES: [u8; 10] = [0, 1, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];
        if self.below(2) == 0 {
            EDGES[self.below(EDGES.len())]
        } else {
            self.next().to_be_bytes()[0]
        }
    }

    /// A few changes of bytes, or a piece of another input.
    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let (at, byte) = (self.below(bytes.len()), self.byte());
            let end = (at + self.below(16)).min(bytes.len());
            match self.below(6) {
                0 | 1 if !bytes.is_empty() => bytes[at] = byte,
                2 => bytes.insert(at, byte),
                3 => drop(bytes.drain(at..end)),
                4 => bytes.extend_from_within(at..end),
                _ => {
                    let from = self.below(other.len());
                    let to = (from + self.below(32)).min(other.len());
                    bytes.splice(at..end, other[from..to].iter().copied());
                }
            }
        }
        bytes.truncate(LENGTH_MAX);
    }
}

/// Keeps the input of a target that panics.
struct Keep<'a>(&'static str, &'a [u8]);

impl Drop for Keep<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".run").join(self.0);
            eprintln!("the input is {}: {:?}", path.display(), std::fs::write(&path, self.1));
        }
    }
}

fn run(name: &'static str, target: fn(&[u8]), mut input: impl FnMut(&mut Random) -> Vec<u8>) {
    let seconds: Option<u64> =
        std::env::var("CAUSEWAY_FUZZ_SECONDS").ok().map(|text| text.parse().unwrap());
    let seed = seconds.map_or(1, |_| u64::from(std::process::id()));
    let (mut random, start, mut count) = (Random(seed), Instant::now(), 0_u32);
    loop {
        match seconds {
            Some(seconds) if start.elapsed() >= Duration::from_secs(seconds) => break,
            None if count >= INPUTS => break,
            _ => {}
        }
        let bytes = input(&mut random);
        let keep = Keep(name, &bytes);
        target(&bytes);
        drop(keep);
        count += 1;
    }
    eprintln!("{name}: {count} inputs in {:?}", start.elapsed());
}

fn from_seeds(seeds: Vec<Vec<u8>>) -> impl FnMut(&mut Random) -> Vec<u8> {
    move |random| {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        let other = random.below(seeds.len());
        random.mutate(&mut bytes, &seeds[other]);
        bytes
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn no_topology_panics() {
    let files = std::fs::read_dir(root().join("topology")).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    let seeds = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    run("fuzz.topology", targets::topology, from_seeds(seeds));
}

#[test]
fn no_record_panics() {
    let region = |id| RegionId::new(id).unwrap();
    let record = |body| Record {
        origin: region(3),
        epoch: 7,
        seq: Seq(u64::MAX - 1),
        hlc: Hlc(1_700_000_000_000_000),
        deps: [Dot { origin: region(1), seq: Seq(5) }].into_iter().collect::<Vector>(),
        gtid: "3-3-9".to_owned(),
        position: Position("3-3-9".to_owned()),
        topology: 0,
        body,
    };
    let kinds = [
        Kind::Int(-1),
        Kind::Uint(1),
        Kind::Float(0.1),
        Kind::Double(0.2),
        Kind::Literal("1.5".into()),
        Kind::Bytes("x".into()),
    ];
    let mut values: Vec<_> = kinds.into_iter().map(Value::new).collect();
    values.push(Value::NULL);
    let columns = (0..values.len()).map(|n| Column {
        name: format!("c{n}"),
        r#type: ColumnType::Enum.into(),
        key: u32::from(n == 0),
        labels: vec!["a".into(), "b".into()],
        ..Column::default()
    });
    let (schema, name) = ("s".to_owned(), "t".to_owned());
    let columns = columns.collect();
    let table = std::sync::Arc::new(Table { schema, name, columns, ..Table::default() });
    let row = Some(Row { values });
    let rows = vec![
        RowChange { before: None, after: row.clone() },
        RowChange { before: row.clone(), after: row.clone() },
        RowChange { before: row, after: None },
    ];
    let transaction = Transaction {
        last: true,
        commit_us: 5,
        changes: vec![TableChange { table, rows }],
        ..Transaction::default()
    };
    let seeds = vec![
        record(RecordBody::Start(pb::Start {
            agent: "1".to_owned(),
            topology: "region 1 eu".to_owned(),
        }))
        .encode(&mut Tables::default()),
        record(RecordBody::Heartbeat(pb::Heartbeat { sent_us: 9, delays: vec![] }))
            .encode(&mut Tables::default()),
        record(RecordBody::Transaction(transaction)).encode(&mut Tables::default()),
    ];
    run("fuzz.record", targets::record, from_seeds(seeds));
}

/// The events of a file: type and body, without header and checksum.
fn events(file: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut rest, mut events) = (&file[4..], Vec::new());
    while rest.len() > 19 {
        let size = u32::from_le_bytes(rest[9..13].try_into().unwrap());
        let (event, after) = rest.split_at(usize::try_from(size).unwrap());
        events.push((event[4], event[19..event.len() - 4].to_vec()));
        rest = after;
    }
    events
}

/// What is changed below has rows that are read.
#[test]
fn the_rows_of_the_seeds_are_read() {
    for path in ["fuzz/seeds/mariadb.binlog", "fuzz/seeds/mysql.binlog"] {
        let file = std::fs::read(root().join(path)).unwrap();
        let rows = targets::rows(&file[4..]);
        assert!(rows > 3, "{path}: {rows} rows");
    }
}

/// The events of a file changed, then framed again: a wrong length would hide all that
/// comes behind it.
#[test]
fn no_binlog_panics() {
    let files = ["fuzz/seeds/mariadb.binlog", "fuzz/seeds/mysql.binlog"]
        .map(|path| events(&std::fs::read(root().join(path)).unwrap()));
    assert!(files.iter().all(|events| events.len() > 10));
    run("fuzz.events", targets::events, move |random| {
        let events = &files[random.below(2)];
        let mut file = Vec::new();
        for (n, (kind, body)) in events.iter().enumerate() {
            let (mut kind, mut body) = (*kind, body.clone());
            if n == 0 {
                // No checksums.
                *body.last_mut().unwrap() = 0;
            } else if random.below(4) == 0 {
                let other = random.below(events.len());
                random.mutate(&mut body, &events[other].1);
            } else if random.below(16) == 0 {
                kind = random.byte();
            }
            let size = u32::try_from(body.len() + 19).unwrap();
            file.extend([1, 0, 0, 0, kind, 1, 0, 0, 0]);
            file.extend(size.to_le_bytes());
            file.extend([random.byte(), 1, 0, 0, 0, 0]);
            file.extend(body);
        }
        if random.below(4) == 0 {
            let copy = file.clone();
            random.mutate(&mut file, &copy);
        }
        file
    });
}
