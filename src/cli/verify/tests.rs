//! What people read.

use std::collections::BTreeMap;
use std::time::Duration;

use super::progress::line;
use super::*;
use crate::compare::Class;

fn difference(class: Class, hashes: [Option<&str>; 3], columns: &[&str]) -> Difference {
    let regions = ["eu-west", "us-east", "ap-south"].map(str::to_owned).into_iter();
    Difference {
        class,
        key: vec![("id".to_owned(), "4711".to_owned())],
        regions: regions.zip(hashes.map(|hash| hash.map(str::to_owned))).collect(),
        row: Default::default(),
        columns: columns.iter().map(|&name| name.to_owned()).collect(),
        values: BTreeMap::new(),
    }
}

#[test]
fn a_report_says_what_differs_and_where() {
    let mut report = Report::new(["eu-west", "us-east", "ap-south"].map(str::to_owned).to_vec(), 1);
    report.finished_us = Some(2);
    let (a, b) = (Some("0a1b2c3d"), Some("ffffffff"));
    let mut values = difference(Class::PolicyViolated, [a, b, a], &["note"]);
    for (region, note) in [("eu-west", Some("a")), ("us-east", Some("a ")), ("ap-south", None)] {
        let columns = BTreeMap::from([("note".to_owned(), note.map(str::to_owned))]);
        values.values.insert(region.to_owned(), columns);
    }
    report.tables = vec![
        TableReport {
            table: "shop.orders".to_owned(),
            rows: 5_000_000,
            chunks: 60,
            elapsed_ms: 12_345,
            in_flight: 1_204,
            differences: vec![
                difference(Class::Lost, [a, None, a], &[]),
                difference(Class::Extra, [None, b, None], &[]),
                difference(Class::Lost, [a, None, b], &["amount", "note"]),
                values,
            ],
            ..TableReport::default()
        },
        TableReport { table: "shop.journal".to_owned(), rows: 12, ..TableReport::default() },
        TableReport {
            table: "shop.notes".to_owned(),
            not_compared: Some("no primary key".to_owned()),
            ..TableReport::default()
        },
    ];
    insta::assert_snapshot!(text(&report));
    report.finished_us = None;
    assert!(text(&report).ends_with(", stopped before its end\n"));
}

#[test]
fn the_line_shows_how_far_it_is_and_how_long_it_takes() {
    let mut progress = Progress {
        table: "shop.orders",
        rows: 1_250_000,
        rows_estimate: 5_000_000,
        elapsed: Duration::from_secs(3),
        rows_here: 1_250_000,
        unit: "rows",
        waits: None,
    };
    insta::assert_snapshot!(line(&progress), @"shop.orders [######------------------] 25 %  1,250,000 rows  416,666 rows/s  about 9 s left");
    progress.waits = Some("us-east is 12 s behind eu-west".to_owned());
    progress.rows = 6_000_000;
    insta::assert_snapshot!(line(&progress), @"shop.orders [########################] 100 %  6,000,000 rows  416,666 rows/s  us-east is 12 s behind eu-west");
}
