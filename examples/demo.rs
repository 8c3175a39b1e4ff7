//! `make demo`: three regions on this machine, from the first row to the comparison of
//! all tables after kills. Real servers; nothing is simulated and nothing is left behind.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a demonstration, run by hand")]

#[expect(dead_code, reason = "each user uses a part of the harness")]
#[path = "../tests/lab/lab.rs"]
mod lab;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::compare::differences;
use lab::db::{Database, Flavour};
use lab::load::{Load, SCHEMA, TABLES, Written};
use lab::region::Lab;
use lab::wait_until;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

const CITIES: [&str; 3] = ["Frankfurt", "Virginia", "Singapore"];
const PATIENCE: Duration = Duration::from_secs(60);
const LAG_ROWS: u64 = 60;

const DEMO_TABLES: &str = "CREATE TABLE shop.colour (id INT NOT NULL PRIMARY KEY,
  name VARCHAR(20) NOT NULL) ENGINE=InnoDB;
CREATE TABLE shop.ping (id BIGINT NOT NULL PRIMARY KEY) ENGINE=InnoDB;
";

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    // Taken before anything is started, and until everything is stopped again.
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let [mut interrupt, mut terminate, mut hangup] = kinds.map(|kind| signal(kind).unwrap());
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
        () = demo() => return ExitCode::SUCCESS,
    }
    // The terminal itself may be gone.
    let said = writeln!(std::io::stdout(), "\nStopped, and every server of the demo with it.");
    drop(said);
    ExitCode::from(130)
}

async fn demo() {
    let start = Instant::now();
    println!("Causeway: three regions that all take writes, here on one machine.");
    println!("Each has its own MariaDB, its own Apache Kafka and its own agent.\n");
    let mut lab = begin().await;
    arrival(&lab).await;
    conflict(&lab).await;
    let (written, ends) = kills(&mut lab).await;
    let rows = comparison(&lab, &written).await;
    println!("\nWhat you saw, in {:.0} s:", start.elapsed().as_secs_f64());
    println!("  - rows written in any region showed up in the two others by themselves;");
    println!("  - the same row written in three regions at once became one row, everywhere;");
    println!(
        "  - an agent and a database were killed with kill -9 under load and caught up \
         ({:.1} s and {:.1} s);",
        ends[0].as_secs_f64(),
        ends[1].as_secs_f64()
    );
    println!(
        "  - all {rows} rows are equal in all regions; of {} acknowledged journal entries \
         none is lost and none doubled.",
        written.acked.len()
    );
    println!("The servers stop now. To check far more of this: make test, make soak.");
}

fn step(number: u8, text: &str) {
    println!("[{number}/5] {text}");
    // What stands on the screen is what is under way.
    std::io::stdout().flush().unwrap();
}

async fn begin() -> Lab {
    step(1, "Starting three databases, three Kafkas, three agents");
    let start = Instant::now();
    let mut lab = Lab::start(&[Flavour::MariaDb; 3]).await;
    lab.exec_everywhere(SCHEMA).await;
    lab.exec_everywhere(DEMO_TABLES).await;
    lab.start_agents().await;
    for (region, city) in lab.regions.iter().zip(CITIES) {
        println!(
            "      {city:<10} MariaDB {}   Kafka {}   agent http://{}",
            region.db.address(),
            region.kafka.brokers(),
            region.agent.as_ref().unwrap().address()
        );
    }
    println!("      ready after {:.1} s\n", start.elapsed().as_secs_f64());
    lab
}

/// Writes rows in each region and measures when each is visible in the others.
async fn arrival(lab: &Lab) {
    step(2, &format!("{LAG_ROWS} rows written in each region: commit to visible in the others"));
    println!("      {:<12}{:>24}{:>24}{:>24}", "written in", CITIES[0], CITIES[1], CITIES[2]);
    for (source, city) in CITIES.iter().enumerate() {
        let mut lags = vec![Vec::new(); 3];
        for n in 0..LAG_ROWS {
            let id = 1_000_000 * (source as u64 + 1) + n;
            let mut readers = JoinSet::new();
            for (target, region) in lab.regions.iter().enumerate() {
                if target != source {
                    let conn = region.db.conn().await;
                    readers.spawn(async move { (target, seen(conn, id).await) });
                }
            }
            let mut writer = lab.regions[source].db.conn().await;
            writer.query_drop(format!("INSERT INTO shop.ping VALUES ({id})")).await.unwrap();
            let committed = Instant::now();
            while let Some(done) = readers.join_next().await {
                let (target, at) = done.unwrap();
                lags[target].push(at.saturating_duration_since(committed));
            }
            writer.disconnect().await.unwrap();
        }
        let cells: Vec<_> = lags.into_iter().map(cell).collect();
        println!("      {city:<12}{:>24}{:>24}{:>24}", cells[0], cells[1], cells[2]);
    }
    println!();
}

/// When a reader first saw the row.
async fn seen(mut conn: Conn, id: u64) -> Instant {
    let sql = format!("SELECT 1 FROM shop.ping WHERE id = {id}");
    let start = Instant::now();
    loop {
        let found: Option<u8> = conn.query_first(&sql).await.unwrap();
        if found.is_some() {
            let at = Instant::now();
            conn.disconnect().await.unwrap();
            return at;
        }
        assert!(start.elapsed() < PATIENCE, "row {id} did not arrive");
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
}

fn cell(mut lags: Vec<Duration>) -> String {
    lags.sort_unstable();
    let (Some(middle), Some(last)) = (lags.get(lags.len() / 2), lags.last()) else {
        return "-".to_owned();
    };
    format!("median {:.1}, max {:.0} ms", ms(middle), ms(last))
}

async fn colour(database: &Database) -> String {
    let rows = database.rows::<(String,)>("SELECT name FROM shop.colour WHERE id = 1").await;
    rows.into_iter().next().map_or_else(|| "nothing".to_owned(), |(name,)| name)
}

fn links(lab: &Lab, cut: bool) {
    for reader in 0..3 {
        for source in (0..3).filter(|&source| source != reader) {
            let link = lab.link(reader, source);
            if cut { link.cut() } else { link.heal() }
        }
    }
}

async fn conflict(lab: &Lab) {
    step(3, "A conflict: the network between the regions is cut, all write the same row");
    links(lab, true);
    for (region, name) in lab.regions.iter().zip(["blue", "green", "red"]) {
        let sql = format!("INSERT INTO shop.colour VALUES (1, '{name}')");
        region.db.exec(&sql).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (region, city) in lab.regions.iter().zip(CITIES) {
        println!("      {city:<10} shows {}", colour(&region.db).await);
    }
    links(lab, false);
    let start = Instant::now();
    wait_until("the regions agree", PATIENCE, || async {
        let databases = lab.databases();
        let [a, b, c] = [databases[0], databases[1], databases[2]];
        let first = colour(a).await;
        first == colour(b).await && first == colour(c).await
    })
    .await;
    println!(
        "      the network is back: after {:.1} s all three show {}, the latest commit\n",
        start.elapsed().as_secs_f64(),
        colour(&lab.regions[0].db).await
    );
}

/// Kills an agent and a database under load; gives how long each took to catch up.
async fn kills(lab: &mut Lab) -> (Written, [Duration; 2]) {
    step(4, "Kills: writers in all regions insert, update and delete, also the same rows");
    let load = Load::start(&lab.databases(), 2, 1, Duration::from_millis(5));
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!("      {:.0} transactions a second", load.committed() as f64 / 3.0);

    load.slowest();
    println!("      kill -9 of the agent of {}, for 4 s", CITIES[1]);
    lab.regions[1].agent().proc.kill();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let missing = behind(&lab.regions[0].db, &lab.regions[1].db).await;
    println!(
        "      {} goes on taking writes, and is {missing} journal entries behind {}",
        CITIES[1], CITIES[0]
    );
    lab.regions[1].agent().proc.again();
    let agent = caught_up(lab, 0, 1).await;
    println!("      started again: caught up after {:.1} s", agent.as_secs_f64());
    println!("      {}", slowest(&load));

    println!("      kill -9 of the database of {}, for 3 s", CITIES[2]);
    lab.regions[2].db.proc.kill();
    tokio::time::sleep(Duration::from_secs(3)).await;
    lab.regions[2].db.proc.again();
    let start = Instant::now();
    lab.regions[2].db.ready().await;
    caught_up(lab, 0, 2).await;
    let database = start.elapsed();
    println!("      started again: caught up after {:.1} s", database.as_secs_f64());
    println!("      {}", slowest(&load));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let written = load.finish().await;
    println!("      {} transactions written in all\n", written.transactions);
    (written, [agent, database])
}

fn slowest(load: &Load) -> String {
    format!("the slowest write of an application meanwhile took {:.0} ms", ms(&load.slowest()))
}

fn ms(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

const JOURNAL_OF_1: &str = "SELECT COUNT(*) FROM shop.journal WHERE region = 1";

async fn behind(source: &Database, target: &Database) -> i64 {
    source.number(JOURNAL_OF_1).await - target.number(JOURNAL_OF_1).await
}

/// Waits until `target` holds what `source` holds now.
async fn caught_up(lab: &Lab, source: usize, target: usize) -> Duration {
    let start = Instant::now();
    let wanted = lab.regions[source].db.number(JOURNAL_OF_1).await;
    let database = &lab.regions[target].db;
    wait_until("it catches up", PATIENCE, || async {
        database.number(JOURNAL_OF_1).await >= wanted
    })
    .await;
    start.elapsed()
}

/// Compares all rows of all tables; gives how many rows each region has.
async fn comparison(lab: &Lab, written: &Written) -> i64 {
    step(5, "Comparing every row of every table in all regions");
    let mut tables = TABLES.to_vec();
    tables.extend(["shop.colour", "shop.ping"]);
    let start = Instant::now();
    loop {
        let found = differences(&lab.databases(), &tables).await;
        if found.is_empty() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "the regions differ:\n{}", found.join("\n"));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut all = 0;
    for table in tables {
        let count = lab.regions[0].db.number(&format!("SELECT COUNT(*) FROM {table}")).await;
        println!("      {table:<14}{count:>8} rows, equal in all three");
        all += count;
    }
    for region in &lab.regions {
        let rows: Vec<_> = region.db.rows("SELECT region, worker, n FROM shop.journal").await;
        let found = rows.iter().copied().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(found.len(), rows.len(), "entries are doubled");
        assert!(written.acked.is_subset(&found), "acknowledged entries are lost");
    }
    all
}
