//! What is said of collations is what the servers do: each that is known by name is asked
//! which of many short texts it holds equal.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use causeway::change::Equality;
use lab::db::{Database, Flavour, Settings};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

/// All of one and two printable characters, and of three of the letters that some
/// languages hold to be one: `ch`, `dzs`, `lj`. None ends in a blank: whether that counts
/// is another matter.
fn texts() -> Vec<String> {
    let printable: Vec<char> = (' '..='~').collect();
    let letters: Vec<char> = "cdhjlszCDHJLSZ".chars().collect();
    let mut texts = Vec::new();
    for &a in &printable {
        texts.push(a.to_string());
        texts.extend(printable.iter().map(|b| format!("{a}{b}")));
    }
    for (a, b) in letters.iter().flat_map(|a| letters.iter().map(move |b| (a, b))) {
        texts.extend(letters.iter().map(|c| format!("{a}{b}{c}")));
    }
    texts.retain(|text| !text.ends_with(' '));
    texts
}

async fn fill(conn: &mut Conn) -> (i64, i64) {
    let column = "VARCHAR(3) CHARACTER SET latin1 COLLATE latin1_bin NOT NULL";
    let create = format!("CREATE TABLE x.texts (t {column}, folded {column})");
    conn.query_drop("CREATE DATABASE x").await.unwrap();
    conn.query_drop(create).await.unwrap();
    let hex = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let row = |text: &String| format!("(X'{}',X'{}')", hex(text), hex(&text.to_ascii_uppercase()));
    for piece in texts().chunks(4_000) {
        let rows: Vec<String> = piece.iter().map(row).collect();
        conn.query_drop(format!("INSERT INTO x.texts VALUES {}", rows.join(","))).await.unwrap();
    }
    let count = "SELECT COUNT(*), COUNT(DISTINCT folded) FROM x.texts";
    conn.query_first(count).await.unwrap().unwrap()
}

/// Asks the server about each collation that it has and Causeway knows: how many.
async fn check(flavour: Flavour) -> usize {
    let db = Database::start(&Settings::small(flavour, 1)).await;
    let mut conn = Conn::new(db.opts()).await.unwrap();
    let (all, folded) = fill(&mut conn).await;
    let list = "SELECT COLLATION_NAME, CHARACTER_SET_NAME FROM information_schema.COLLATIONS";
    let list: Vec<(String, Option<String>)> = conn.query(list).await.unwrap();
    let mut known = 0;
    for (name, charset) in list {
        // Those of all character sets are named without one.
        let collation = if charset.is_some() { name } else { format!("utf8mb4_{name}") };
        let charset = charset.unwrap_or_else(|| "utf8mb4".to_owned());
        let equality = Equality::of(&collation);
        if matches!(equality, Equality::Bytes | Equality::Unknown) {
            continue;
        }
        known += 1;
        let sql = format!(
            "SELECT COUNT(*), CAST(SUM(foldings > 1) AS SIGNED) FROM \
             (SELECT COUNT(DISTINCT folded) foldings FROM x.texts \
             GROUP BY CONVERT(t USING {charset}) COLLATE {collation}) classes"
        );
        let (classes, mixed): (i64, i64) = conn.query_first(sql).await.unwrap().unwrap();
        assert_eq!(mixed, 0, "{flavour:?}: {collation} holds more equal than case");
        let wanted = if equality == Equality::AsciiFolded { folded } else { all };
        assert_eq!(classes, wanted, "{flavour:?}: {collation} is {equality:?}");
    }
    known
}

#[tokio::test]
async fn every_known_collation_holds_equal_what_is_said_of_it() {
    for flavour in [Flavour::MariaDb, Flavour::MySql56, Flavour::MySql57, Flavour::MySql80] {
        let known = check(flavour).await;
        eprintln!("{flavour:?}: {known} collations");
        assert!(known > 60, "{flavour:?}: {known}");
    }
}
