//! Every column type, with its edges, as a value and as a key.

use super::*;

struct Case {
    name: &'static str,
    ddl: &'static str,
    column: Column,
    /// A value, and what a client would write for it.
    values: Vec<(Value, &'static str)>,
}

fn case(
    name: &'static str,
    ddl: &'static str,
    kind: ColumnType,
    values: Vec<(Value, &'static str)>,
) -> Case {
    Case { name, ddl, column: column(name, kind, 0), values }
}

fn collated(collation: &str, mut case: Case) -> Case {
    case.column.collation = collation.to_owned();
    case
}

fn uint(n: u64) -> Value {
    Value::new(Kind::Uint(n))
}

fn numbers() -> Vec<Case> {
    use ColumnType::{
        Bigint, Bit, Decimal, Double, Float, Int, Mediumint, Smallint, Tinyint, Year,
    };
    let float = |f| Value::new(Kind::Float(f));
    let double = |f| Value::new(Kind::Double(f));
    vec![
        case("ti", "TINYINT", Tinyint, vec![(int(-128), "-128"), (int(127), "127")]),
        case("tu", "TINYINT UNSIGNED", Tinyint, vec![(uint(255), "255"), (uint(0), "0")]),
        case("si", "SMALLINT", Smallint, vec![(int(-32768), "-32768")]),
        case("mi", "MEDIUMINT", Mediumint, vec![(int(-8_388_608), "-8388608")]),
        case("mu", "MEDIUMINT UNSIGNED", Mediumint, vec![(uint(16_777_215), "16777215")]),
        case("i", "INT", Int, vec![(int(-2_147_483_648), "-2147483648")]),
        case("bi", "BIGINT", Bigint, vec![(int(i64::MIN), "-9223372036854775808")]),
        case("bu", "BIGINT UNSIGNED", Bigint, vec![(uint(u64::MAX), "18446744073709551615")]),
        case(
            "d65",
            "DECIMAL(65,30)",
            Decimal,
            vec![
                (
                    literal("-99999999999999999999999999999999999.999999999999999999999999999999"),
                    "-99999999999999999999999999999999999.999999999999999999999999999999",
                ),
                (literal("0.000000000000000000000000000001"), "1e-30"),
            ],
        ),
        case(
            "f",
            "FLOAT",
            Float,
            vec![
                (float(0.1), "0.1"),
                (float(f32::MAX), "3.402823466e38"),
                (float(16_777_216.0), "16777216"),
                (float(1.175_494_4e-38), "1.175494351e-38"),
            ],
        ),
        case(
            "db",
            "DOUBLE",
            Double,
            vec![
                (double(0.1), "0.1"),
                (double(f64::MAX), "1.7976931348623157e308"),
                (double(2.225_073_858_507_201_4e-308), "2.2250738585072014e-308"),
                (double(-1.0 / 3.0), "-0.3333333333333333"),
            ],
        ),
        case("b1", "BIT(1)", Bit, vec![(uint(1), "b'1'"), (uint(0), "b'0'")]),
        case("b64", "BIT(64)", Bit, vec![(uint(u64::MAX), "0xFFFFFFFFFFFFFFFF"), (uint(0), "0")]),
        case("y", "YEAR", Year, vec![(uint(1901), "1901"), (uint(2155), "2155"), (uint(0), "0")]),
    ]
}

fn times() -> Vec<Case> {
    use ColumnType::{Date, Datetime, Time, Timestamp};
    let same = |texts: &[&'static str]| -> Vec<(Value, &'static str)> {
        texts
            .iter()
            .map(|text| (literal(text), &*Box::leak(format!("'{text}'").into_boxed_str())))
            .collect()
    };
    vec![
        case(
            "dt",
            "DATE",
            Date,
            same(&["0000-00-00", "9999-12-31", "2024-00-00", "2023-02-31", "0001-01-01"]),
        ),
        case(
            "t6",
            "TIME(6)",
            Time,
            same(&["-838:59:59.000000", "838:59:59.000000", "-00:00:00.000001"]),
        ),
        case("t0", "TIME", Time, same(&["-00:00:01", "00:00:00"])),
        case(
            "dt6",
            "DATETIME(6)",
            Datetime,
            same(&[
                "0000-00-00 00:00:00.000000",
                "9999-12-31 23:59:59.999999",
                "2024-02-00 01:02:03.000004",
            ]),
        ),
        case("dt0", "DATETIME", Datetime, same(&["0000-00-00 00:00:00", "1000-01-01 00:00:00"])),
        case(
            "ts6",
            "TIMESTAMP(6) NULL",
            Timestamp,
            same(&[
                "1970-01-01 00:00:01.000000",
                "2038-01-19 03:14:07.999999",
                "0000-00-00 00:00:00.000000",
                "2024-03-31 02:30:00.123456",
            ]),
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn strings(flavour: Flavour) -> Vec<Case> {
    use ColumnType::{Binary, Blob, Char, Enum, Geometry, Json, Set, Text};
    let all64: String = (0..64).map(|n| format!("m{n}")).collect::<Vec<_>>().join(",");
    let all64: &'static str = Box::leak(format!("'{all64}'").into_boxed_str());
    let set64: String = (0..64).map(|n| format!("'m{n}'")).collect::<Vec<_>>().join(",");
    let set64: &'static str = Box::leak(format!("SET({set64})").into_boxed_str());
    let utf8 = "utf8mb4_general_ci";
    let point = b"\0\0\0\0\x01\x01\0\0\0\0\0\0\0\0\0\xf0?\0\0\0\0\0\0\0@";
    let mut all = vec![
        collated(
            utf8,
            case(
                "vc",
                "VARCHAR(60)",
                Char,
                vec![
                    (
                        bytes("it's \\ \"q\" \u{1F4B6} Zürich \n\r\t\x1a".as_bytes()),
                        "0x69742773205C2022712220F09F92B6205AC3BC72696368200A0D091A",
                    ),
                    (bytes(b""), "''"),
                    (bytes(b"trail  "), "'trail  '"),
                    (bytes(b"nul\0in"), "0x6E756C00696E"),
                ],
            ),
        ),
        collated(utf8, case("ch", "CHAR(10)", Char, vec![(bytes(b"x"), "'x'")])),
        collated(
            "latin1_swedish_ci",
            case(
                "l1",
                "VARCHAR(20) CHARACTER SET latin1",
                Char,
                vec![(bytes(b"caf\xe9\x80"), "0x636166E980")],
            ),
        ),
        collated(
            "ucs2_general_ci",
            case(
                "u2",
                "VARCHAR(20) CHARACTER SET ucs2",
                Char,
                vec![(bytes(b"\0'\x20\xac"), "0x002720AC")],
            ),
        ),
        collated(
            "gbk_chinese_ci",
            case(
                "gb",
                "VARCHAR(20) CHARACTER SET gbk",
                Char,
                vec![(bytes(b"\x95\x5c'"), "0x955C27")],
            ),
        ),
        collated(
            "utf8_general_ci",
            case(
                "u3",
                "VARCHAR(20) CHARACTER SET utf8",
                Char,
                vec![(bytes("€".as_bytes()), "'€'")],
            ),
        ),
        collated(utf8, case("mt", "MEDIUMTEXT", Text, vec![(bytes("ß".as_bytes()), "'ß'")])),
        collated(
            "binary",
            case(
                "bn",
                "BINARY(6)",
                Binary,
                vec![(bytes(b"a\0\0\0\0\0"), "'a'"), (bytes(b"a"), "'a'")],
            ),
        ),
        collated(
            "binary",
            case("vb", "VARBINARY(9)", Binary, vec![(bytes(b"\0'\\\xff\0"), "0x00275CFF00")]),
        ),
        collated("binary", case("bl", "LONGBLOB", Blob, vec![(bytes(b"\x1a\0%_"), "0x1A00255F")])),
        case("en", "ENUM('a','b''c','')", Enum, vec![(uint(2), "'b''c'"), (uint(3), "''")]),
        case("st", set64, Set, vec![(uint(u64::MAX), all64), (uint(0), "''")]),
        case("gp", "GEOMETRY", Geometry, vec![(bytes(point), "ST_GeomFromText('POINT(1 2)')")]),
    ];
    if flavour == Flavour::MariaDb {
        let json = r#"{"k": ["é", "it's", 1.0, null]}"#;
        all.push(case(
            "js",
            "JSON",
            Json,
            vec![(bytes(json.as_bytes()), r#"'{"k": ["é", "it''s", 1.0, null]}'"#)],
        ));
        let uuid = b"\x12\x3e\x45\x67\xe8\x9b\x12\xd3\xa4\x56\x42\x66\x14\x17\x40\0";
        let seven = b"\x01\x89\x0a\x5d\xac\x96\x77\x4b\xbc\xce\xb3\x02\x09\x9a\x80\x57";
        let address = b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\0";
        for (name, ddl, kind, values) in [
            (
                "uu",
                "UUID",
                ColumnType::Uuid,
                vec![
                    (bytes(uuid), "'123e4567-e89b-12d3-a456-426614174000'"),
                    (bytes(seven), "'01890a5d-ac96-774b-bcce-b302099a8057'"),
                    (bytes(&[0; 16]), "'00000000-0000-0000-0000-000000000000'"),
                ],
            ),
            ("i6", "INET6", Binary, vec![(bytes(address), "'2001:db8::'")]),
            ("i4", "INET4", Binary, vec![(bytes(b"\xc0\0\x02\0"), "'192.0.2.0'")]),
        ] {
            all.push(collated("binary", case(name, ddl, kind, values)));
        }
    }
    all
}

/// What the applier writes is what the server stores for a client's own statement.
pub(super) async fn round_trip(flavour: Flavour) {
    let mut b = Bench::start(flavour, &[]).await;
    let mut cases = numbers();
    cases.extend(times());
    cases.extend(strings(flavour));
    for case in &mut cases {
        case.values.push((Value::NULL, "NULL"));
    }
    let columns: Vec<_> = cases.iter().map(|case| format!("{} {}", case.name, case.ddl)).collect();
    let columns = columns.join(",");
    let generated = if flavour == Flavour::MariaDb { ", g INT AS (ti + 1) STORED" } else { "" };
    let mut shape = table("zoo", vec![column("id", ColumnType::Int, 1)]);
    shape.columns.extend(cases.iter().map(|case| case.column.clone()));
    let length = cases.iter().map(|case| case.values.len()).max().unwrap();
    let mut script =
        String::from("SET NAMES utf8mb4, sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'");
    for name in ["zoo", "expected"] {
        script += &format!(";\nCREATE TABLE s.{name} (id INT PRIMARY KEY, {columns}{generated})");
    }
    let names: Vec<_> = cases.iter().map(|case| case.name).collect();
    let mut rows = Vec::new();
    for n in 0..length {
        let pick = |case: &Case| case.values[n % case.values.len()].clone();
        let literals: Vec<_> = cases.iter().map(|case| pick(case).1).collect();
        script += &format!(
            ";\nINSERT INTO s.expected (id, {}) VALUES ({n}, {})",
            names.join(","),
            literals.join(",")
        );
        let mut values = vec![int(i64::try_from(n).unwrap())];
        values.extend(cases.iter().map(|case| pick(case).0));
        if generated.is_empty() {
            rows.push(row(values));
        } else {
            values.push(int(0));
            rows.push(row(values));
        }
    }
    if !generated.is_empty() {
        shape.columns.push(Column { generated: true, ..column("g", ColumnType::Int, 0) });
    }
    b.db.exec(&script).await;
    for _ in 0..2 {
        b.apply(&[puts(&shape, rows.clone())]).await.unwrap();
        for name in &names {
            let wrong: Vec<i64> =
                b.db.rows(&format!(
                    "SELECT a.id FROM s.zoo a JOIN s.expected b USING (id) \
                     WHERE NOT (CAST(a.{name} AS BINARY) <=> CAST(b.{name} AS BINARY))"
                ))
                .await;
            assert!(wrong.is_empty(), "{name} differs in rows {wrong:?}");
        }
        let sums: Vec<(String, Option<u64>)> =
            b.db.rows("CHECKSUM TABLE s.zoo, s.expected EXTENDED").await;
        assert_eq!(sums[0].1, sums[1].1);
    }
    assert_eq!(b.db.number("SELECT COUNT(*) FROM s.zoo").await, i64::try_from(length).unwrap());
    b.apply(&[removes(&shape, rows)]).await.unwrap();
    assert_eq!(b.db.number("SELECT COUNT(*) FROM s.zoo").await, 0);
}

/// While another client holds every other row, the delete goes through: it found its
/// row by the index, in the column's own comparison.
#[expect(clippy::too_many_lines, reason = "a table of cases")]
pub(super) async fn keys(flavour: Flavour) {
    let mut b = Bench::start(flavour, &[]).await;
    let utf8 = "utf8mb4_general_ci";
    let cases = [
        case(
            "k",
            "BIGINT UNSIGNED",
            ColumnType::Bigint,
            vec![(uint(u64::MAX), "18446744073709551615"), (uint(1), "1")],
        ),
        case(
            "k",
            "DECIMAL(30,10)",
            ColumnType::Decimal,
            vec![
                (literal("12345678901234567890.0000000001"), "12345678901234567890.0000000001"),
                (literal("12345678901234567890.0000000002"), "12345678901234567890.0000000002"),
            ],
        ),
        case(
            "k",
            "DATE",
            ColumnType::Date,
            vec![(literal("0000-00-00"), "'0000-00-00'"), (literal("2024-01-02"), "'2024-01-02'")],
        ),
        case(
            "k",
            "DATETIME(6)",
            ColumnType::Datetime,
            vec![
                (literal("2024-01-02 03:04:05.000006"), "'2024-01-02 03:04:05.000006'"),
                (literal("2024-01-02 03:04:05.000007"), "'2024-01-02 03:04:05.000007'"),
            ],
        ),
        case(
            "k",
            "TIMESTAMP(6)",
            ColumnType::Timestamp,
            vec![
                (literal("2024-01-02 03:04:05.000006"), "'2024-01-02 03:04:05.000006'"),
                (literal("2024-01-02 03:04:05.000007"), "'2024-01-02 03:04:05.000007'"),
            ],
        ),
        case(
            "k",
            "TIME(3)",
            ColumnType::Time,
            vec![
                (literal("-01:00:00.001"), "'-01:00:00.001'"),
                (literal("01:00:00.000"), "'01:00:00'"),
            ],
        ),
        case(
            "k",
            "FLOAT",
            ColumnType::Float,
            vec![(Value::new(Kind::Float(0.1)), "0.1"), (Value::new(Kind::Float(0.2)), "0.2")],
        ),
        case("k", "BIT(9)", ColumnType::Bit, vec![(uint(257), "257"), (uint(1), "1")]),
        case("k", "YEAR", ColumnType::Year, vec![(uint(0), "0"), (uint(2024), "2024")]),
        case("k", "ENUM('a','b')", ColumnType::Enum, vec![(uint(2), "'b'"), (uint(1), "'a'")]),
        case("k", "SET('a','b')", ColumnType::Set, vec![(uint(3), "'a,b'"), (uint(1), "'a'")]),
        collated(
            utf8,
            case(
                "k",
                "VARCHAR(20) CHARACTER SET utf8mb4",
                ColumnType::Char,
                vec![(bytes("é'x".as_bytes()), "'É''X'"), (bytes(b"y"), "'y'")],
            ),
        ),
        collated(
            "utf8_bin",
            case(
                "k",
                "VARCHAR(20) CHARACTER SET utf8 COLLATE utf8_bin",
                ColumnType::Char,
                vec![(bytes(b"A"), "'A'"), (bytes(b"a"), "'a'")],
            ),
        ),
        collated(
            "latin1_swedish_ci",
            case(
                "k",
                "CHAR(9) CHARACTER SET latin1",
                ColumnType::Char,
                vec![(bytes(b"\xe9 "), "'é'"), (bytes(b"y"), "'y'")],
            ),
        ),
        collated(
            "latin1_bin",
            case(
                "k",
                "VARCHAR(9) CHARACTER SET utf8mb4",
                ColumnType::Char,
                vec![(bytes(b"\xe9"), "'é'"), (bytes(b"y"), "'y'")],
            ),
        ),
        collated(
            "binary",
            case(
                "k",
                "BINARY(4)",
                ColumnType::Binary,
                vec![(bytes(b"a"), "'a'"), (bytes(b"a\0\0\x01"), "0x61000001")],
            ),
        ),
        collated(
            "binary",
            case(
                "k",
                "VARBINARY(4)",
                ColumnType::Binary,
                vec![(bytes(b"a\0"), "0x6100"), (bytes(b"a"), "'a'")],
            ),
        ),
    ];
    for (n, case) in cases.iter().enumerate() {
        for composite in [false, true] {
            let name = format!("k{n}{composite}");
            let keys = if composite { "(k, n)" } else { "(k)" };
            let insert: Vec<_> =
                case.values.iter().map(|(_, literal)| format!("({literal}, 1)")).collect();
            b.db.exec(&format!(
                "SET NAMES utf8mb4, sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00';\n\
                 CREATE TABLE s.{name} (k {} NOT NULL, n INT NOT NULL, PRIMARY KEY {keys});\n\
                 INSERT INTO s.{name} VALUES {}",
                case.ddl,
                insert.join(",")
            ))
            .await;
            let mut shape =
                table(&name, vec![case.column.clone(), column("n", ColumnType::Int, 0)]);
            shape.columns[0].key = 1;
            shape.columns[1].key = if composite { 2 } else { 0 };
            let gone = || vec![row(vec![case.values[0].0.clone(), int(1)])];
            let mut other = b.db.conn().await;
            other.query_drop("SET NAMES utf8mb4, time_zone = '+00:00'").await.unwrap();
            other.query_drop("BEGIN").await.unwrap();
            let hold = format!("SELECT n FROM s.{name} WHERE k = {} FOR UPDATE", case.values[1].1);
            let held: Vec<i64> = other.query(hold).await.unwrap();
            let result =
                tokio::time::timeout(crate::lab::PATIENCE, b.apply(&[removes(&shape, gone())]))
                    .await
                    .unwrap();
            other.query_drop("ROLLBACK").await.unwrap();
            assert!(result.is_ok(), "{} {composite}: {result:?} {held:?}", case.ddl);
            let left = b.db.number(&format!("SELECT COUNT(*) FROM s.{name}")).await;
            assert_eq!(left, 1, "{} {composite}", case.ddl);
        }
    }
}
