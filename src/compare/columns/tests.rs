//! The SQL of a comparison, and what is refused.

use super::*;
use crate::compare::Image;

fn column(name: &str, column_type: &str, key: Option<u32>) -> Column {
    let data_type = column_type.split(['(', ' ']).next().unwrap().to_owned();
    let text = family(&data_type) == Some(Family::Text);
    Column {
        name: name.to_owned(),
        data_type,
        column_type: column_type.to_owned(),
        charset: text.then(|| "utf8mb4".to_owned()),
        collation: text.then(|| "utf8mb4_general_ci".to_owned()),
        generated: false,
        key,
    }
}

fn shape(columns: &[Column]) -> Shape {
    Shape { columns: columns.to_vec(), rows_estimate: 1 }
}

fn plan(shapes: &[Shape]) -> Result<Plan, String> {
    let names = ["r1", "r2", "r3"];
    let named: Vec<_> = names.into_iter().zip(shapes).collect();
    Plan::new(TableName { schema: "shop".into(), name: "t".into() }, &named)
}

fn key(values: &[&str]) -> Option<Key> {
    Some(Key(values.iter().map(|value| value.as_bytes().to_vec()).collect()))
}

fn two_columns() -> Plan {
    let id = column("id", "int(11)", Some(2));
    let tenant = column("tenant", "varchar(20)", Some(1));
    plan(&[shape(&[id, tenant])]).unwrap()
}

#[test]
fn a_hash_tells_values_nulls_and_empty_strings_apart() {
    let columns = [
        column("id", "bigint(20)", Some(1)),
        column("n", "float", None),
        column("state", "enum('a','b')", None),
        column("note", "varchar(9)", None),
        column("text", "longtext", None),
    ];
    let sql = plan(&[shape(&columns)]).unwrap().list(&Range::default());
    assert_eq!(
        sql,
        "SELECT MD5(CONCAT_WS('#',IFNULL(`id`,'N'),IFNULL(`n`*1e0,'N'),IFNULL(`state`|0,'N'),\
         IFNULL(LENGTH(CAST(`note` AS BINARY)),'N'),IFNULL(LENGTH(CAST(`text` AS BINARY)),'N'),\
         IFNULL(CAST(`note` AS BINARY),''),IFNULL(MD5(CAST(`text` AS BINARY)),''))), `id` \
         FROM `shop`.`t` FORCE INDEX (PRIMARY) WHERE 1"
    );
}

#[track_caller]
fn check(after: Option<Key>, through: Option<Key>, wanted: &str) {
    assert_eq!(two_columns().within(&Range { after, through }), wanted);
}

#[test]
fn ranges_are_conditions_that_an_index_serves() {
    check(None, None, "1");
    check(
        key(&["a", "5"]),
        None,
        "`tenant` >= _utf8mb4 X'61' AND (`tenant` > _utf8mb4 X'61' OR `id` > 5)",
    );
    check(
        key(&["a", "5"]),
        key(&["a", "9"]),
        "`tenant` = _utf8mb4 X'61' AND `id` > 5 AND `id` <= 9",
    );
    check(
        key(&["a", "5"]),
        key(&["b", "2"]),
        "`tenant` >= _utf8mb4 X'61' AND (`tenant` > _utf8mb4 X'61' OR `id` > 5) AND \
         `tenant` <= _utf8mb4 X'62' AND (`tenant` < _utf8mb4 X'62' OR `id` <= 2)",
    );
}

#[test]
fn no_value_ends_its_literal() {
    let part = |literal| KeyPart { name: "k".into(), value: "k".into(), literal };
    let text = "1' OR 1";
    for (literal, wanted) in [
        (Literal::Number, "k = X'3127204f522031'"),
        (Literal::Quoted, "k = X'3127204f522031'"),
        (Literal::Real, "k = X'3127204f522031'"),
        (Literal::Text("latin1".into()), "k = _latin1 X'3127204f522031'"),
    ] {
        assert_eq!(part(literal).compare("=", text.as_bytes()), wanted);
    }
    assert_eq!(part(Literal::Real).compare(">", b"1.5"), "k > 1.5e0");
    assert_eq!(part(Literal::Quoted).compare(">", b"2024-01-01"), "k > '2024-01-01'");
}

#[test]
fn what_the_regions_do_not_share_is_told() {
    let id = column("id", "int", Some(1));
    let mut twice = column("twice", "int", None);
    twice.generated = true;
    let full = shape(&[id.clone(), column("a", "int", None), twice]);
    let less = shape(&[column("ID", "bigint", Some(1)), column("own", "int", None)]);
    let plan = plan(&[full, less]).unwrap();
    assert_eq!(plan.names().collect::<Vec<_>>(), ["id"]);
    assert_eq!(
        plan.left_out,
        [
            "column a is missing in r2",
            "column twice is missing in r2",
            "column own is missing in r1"
        ]
    );
}

#[test]
fn a_character_set_that_differs_is_converted() {
    let id = column("id", "int", Some(1));
    let mut old = column("note", "varchar(9)", None);
    old.charset = Some("latin1".into());
    let new = column("note", "varchar(9)", None);
    let plan = plan(&[shape(&[id.clone(), new]), shape(&[id, old])]).unwrap();
    assert!(plan.hash().contains("CAST(CONVERT(`note` USING utf8mb4) AS BINARY)"));
}

#[track_caller]
fn refused(shapes: &[Shape], why: &str) {
    assert_eq!(plan(shapes).unwrap_err(), why);
}

#[test]
fn tables_that_can_not_be_compared_are_refused() {
    refused(&[shape(&[column("a", "int", None)])], "no primary key");
    let id = column("id", "int", Some(1));
    let other = column("other", "int", Some(1));
    let plain = |name: &str| column(name, "int", None);
    refused(
        &[shape(&[id.clone(), plain("other")]), shape(&[other, plain("id")])],
        "another primary key in r2",
    );
    refused(&[shape(&[id]), shape(&[column("b", "int", Some(1))])], "column id is missing in r2");
    let mut exact = column("id", "varchar(9)", Some(1));
    let blurred = exact.clone();
    exact.collation = Some("utf8mb4_bin".into());
    refused(
        &[shape(&[exact]), shape(&[blurred])],
        "key column id has another collation in each region",
    );
    let set = |count: usize| {
        let members: Vec<_> = (1..=count).map(|n| format!("'m{n}'")).collect();
        shape(&[column("id", &format!("set({})", members.join(",")), Some(1))])
    };
    refused(&[set(53), set(54)], "key column id has more than 53 members");
    assert!(plan(&[set(53), set(53)]).is_ok());
}

#[test]
fn the_two_names_of_one_character_set_are_one() {
    let name = |charset: &str| {
        let mut id = column("id", "varchar(9)", Some(1));
        id.charset = Some(charset.to_owned());
        id.collation = Some(format!("{charset}_bin"));
        shape(&[id])
    };
    let plan = plan(&[name("utf8mb3"), name("utf8")]).unwrap();
    let sql = plan.row(&key(&["x"]).unwrap());
    assert!(sql.ends_with("WHERE `id` = _utf8 X'78'"), "{sql}");
}

/// What a statement of a repair writes, of every kind of value.
#[track_caller]
fn writes(literal: &Literal, value: &[u8], wanted: &str) {
    assert_eq!(literal.write(value), wanted);
}

#[test]
fn values_are_written_as_they_were_read() {
    writes(&Literal::Number, b"-12.50", "-12.50");
    writes(&Literal::Number, b"1);DROP", "X'31293b44524f50'");
    writes(
        &Literal::Number,
        b"5.764607523034235e17",
        "X'352e373634363037353233303334323335653137'",
    );
    writes(&Literal::Real, b"0.1", "0.1e0");
    writes(&Literal::Real, b"1e-300", "1e-300");
    writes(&Literal::Quoted, b"0000-00-00", "'0000-00-00'");
    writes(&Literal::Text("latin1".into()), b"\xe9'", "_latin1 X'e927'");
    writes(&Literal::Text("utf8mb4".into()), b"", "_utf8mb4 X''");
    writes(&Literal::Binary, b"\0\xff", "X'00ff'");
}

#[test]
fn a_repair_inserts_updates_and_deletes() {
    let columns = [column("id", "int", Some(1)), column("note", "varchar(9)", None)];
    let plan = plan(&[shape(&columns)]).unwrap();
    let key = key(&["7"]).unwrap();
    let image = Image { hash: vec![], values: vec![Some(b"7".to_vec()), None] };
    let sql = plan.write(&key, true, Some(&image));
    assert_eq!(sql, "UPDATE `shop`.`t` SET `id` = 7, `note` = NULL WHERE `id` = 7");
    let sql = plan.write(&key, false, Some(&image));
    assert_eq!(sql, "INSERT INTO `shop`.`t` (`id`, `note`) VALUES (7, NULL)");
    assert_eq!(plan.write(&key, true, None), "DELETE FROM `shop`.`t` WHERE `id` = 7");
    let text = |value: &str| Some(value.to_owned());
    let changes = plan.changes(None, Some(&image));
    assert_eq!(changes, [("id".into(), None, text("7")), ("note".into(), None, text("NULL"))]);
}
