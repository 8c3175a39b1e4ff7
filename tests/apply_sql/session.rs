//! What one connection of the applier does, on the servers where it matters.

use causeway::apply::{ApplyError, ErrorKind, Flavor, Session, still_owns, take_epoch};
use causeway::change::{ColumnType, Row};
use causeway::resolve::{Found, TablePlan};
use mysql_async::prelude::Queryable as _;

use super::lab::db::Flavour;
use super::{Bench, ME, bytes, column, int, puts, row, table};

/// What an account may do beyond need only spares the binlog text.
#[tokio::test]
async fn an_account_without_admin_rights_applies() {
    let mut b = Bench::start(Flavour::MariaDb, &[]).await;
    b.db.exec(
        "CREATE TABLE s.t (id INT PRIMARY KEY);\n\
         CREATE USER plain@'%' IDENTIFIED BY 'pw';\n\
         GRANT BINLOG MONITOR ON *.* TO plain@'%';\n\
         GRANT ALL PRIVILEGES ON causeway.* TO plain@'%';\n\
         GRANT SELECT, INSERT, UPDATE, DELETE ON s.* TO plain@'%'",
    )
    .await;
    let epoch = take_epoch(&mut b.db.conn().await, ME, 0).await.unwrap();
    let opts = mysql_async::OptsBuilder::from_opts(b.db.opts());
    let opts = opts.user(Some("plain")).pass(Some("pw")).into();
    b.session = Session::connect(&opts, Flavor::MariaDb, epoch).await.unwrap();
    let shape = table("t", vec![column("id", ColumnType::Int, 1)]);
    b.apply(&[puts(&shape, vec![row(vec![int(1)])])]).await.unwrap();
    assert_eq!(b.db.number("SELECT COUNT(*) FROM s.t").await, 1);
    let events: Vec<(String, u64, String, u64, u64, String)> =
        b.db.rows("SHOW BINLOG EVENTS IN 'bin.000001'").await;
    let upserts = events.iter().filter(|event| event.5.contains("INSERT INTO `s`.`t`"));
    assert_eq!(upserts.count(), 1, "the server writes the text for whom it does not let choose");
}

/// Its first statements are sent before its last are written.
#[tokio::test]
async fn a_row_that_is_missing_shows_in_a_plan_of_many_packets() {
    const ROWS: i64 = 3_000;
    let mut b = Bench::start(Flavour::MariaDb, &[]).await;
    b.db.exec("CREATE TABLE s.t (id INT PRIMARY KEY, c LONGBLOB NOT NULL)").await;
    let shape =
        table("t", vec![column("id", ColumnType::Int, 1), column("c", ColumnType::Blob, 0)]);
    let rows = |byte: u8| -> Vec<Row> {
        (1..=ROWS).map(|id| row(vec![int(id), bytes(&[byte; 3_000])])).collect()
    };
    b.apply(&[puts(&shape, rows(b'a'))]).await.unwrap();
    let count = usize::try_from(ROWS).unwrap();
    let found = Found { removes: 0, puts: count, merges: 0 };
    let plan = TablePlan { found, ..puts(&shape, rows(b'b')) };
    for missing in [0, 1, ROWS / 2, ROWS] {
        b.db.exec(&format!("DELETE FROM s.t WHERE id = {missing}")).await;
        let (slot, mark) = (b.slot(), b.mark());
        b.session.begin(slot, &[mark]).await.unwrap();
        let (_, all) = b.session.write_and_count(std::slice::from_ref(&plan)).await.unwrap();
        assert_eq!(all, missing == 0, "row {missing} is missing");
        b.session.commit().await.unwrap();
        let written = "SELECT COUNT(*) FROM s.t WHERE c = REPEAT('b', 3000)";
        assert_eq!(b.db.number(written).await, ROWS);
    }
}

/// What was sent before is taken back, and nothing of it is left in the connection.
#[tokio::test]
async fn a_plan_that_collides_at_its_end_leaves_nothing() {
    const ROWS: i64 = 3_000;
    let mut b = Bench::start(Flavour::MariaDb, &[]).await;
    b.db.exec(
        "CREATE TABLE s.t (id INT PRIMARY KEY, u INT UNIQUE, c LONGBLOB);\n\
         INSERT INTO s.t VALUES (0, 3000, 'outside')",
    )
    .await;
    let unique = column("u", ColumnType::Int, 0);
    let blob = column("c", ColumnType::Blob, 0);
    let shape = table("t", vec![column("id", ColumnType::Int, 1), unique, blob]);
    let rows = (1..=ROWS).map(|id| row(vec![int(id), int(id), bytes(&[b'x'; 3_000])]));
    let plan = [puts(&shape, rows.collect())];
    let error = b.apply(&plan).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Row, "{error}");
    assert_eq!(b.db.number("SELECT COUNT(*) FROM s.t").await, 1);
    b.db.exec("UPDATE s.t SET u = 0").await;
    for _ in 0..2 {
        b.apply(&plan).await.unwrap();
        assert_eq!(b.db.number("SELECT COUNT(*) FROM s.t").await, ROWS + 1);
    }
}

/// A network that was cut without a word leaves the batch's locks with the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_holds_no_one_up() {
    let lost = |flavour: Flavour| async move {
        let mut bench = Bench::start(flavour, &[]).await;
        bench.begin(&[]).await.unwrap();
        let mut bystander = bench.db.conn().await;
        let mut conn = bench.db.conn().await;
        let epoch = take_epoch(&mut conn, ME, 0).await.unwrap();
        assert_eq!(epoch, 2, "the connection of the older agent, with its locks, was ended");
        assert!(bench.session.commit().await.is_err());
        bystander.ping().await.unwrap();
        still_owns(&mut conn, 2).await.unwrap();
        assert_eq!(still_owns(&mut conn, 1).await, Err(ApplyError::Fenced(1)));
    };
    tokio::join!(lost(Flavour::MariaDb), lost(Flavour::MySql56));
}
