use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ByteSize, Span, Spanned, read};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[schemars(with = "u8", range(min = 1, max = 63))]
    id: Spanned<u64>,
    #[serde(default)]
    brokers: Vec<String>,
    #[serde(default)]
    every: Option<Span>,
    #[serde(default)]
    size: Option<ByteSize>,
    #[serde(default)]
    count: Option<u32>,
    #[serde(default)]
    tls: bool,
    #[serde(default)]
    colour: Option<Colour>,
    #[serde(default)]
    secret: Option<Secret>,
    #[serde(default)]
    more: BTreeMap<String, Part>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Part {
    size: ByteSize,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Colour {
    /// Red.
    Red,
    /// Green.
    Green,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Secret {
    /// A file.
    File(String),
    /// A variable.
    Env(String),
}

const GOOD: &str = "name: a
id: 7
brokers: [x, y]
every: 250ms
size: 1MiB
count: 3
tls: true
colour: green
secret: { env: PASSWORD }
more: { one: { size: 1KiB } }
";

/// Everything said of a text, one line each: place, message, help.
fn said(text: &str) -> Vec<String> {
    let problems = match read::<File>(text) {
        Ok((_, problems)) => problems.none_or(()).err().unwrap_or_default(),
        Err(problem) => vec![problem],
    };
    let line = |p: &super::Problem| format!("{p} | {}", p.help.as_deref().unwrap_or_default());
    problems.iter().map(line).collect()
}

#[track_caller]
fn check(text: &str, wanted: &[&str]) {
    assert_eq!(said(text), wanted, "of\n{text}");
}

/// One line of the good file replaced.
#[track_caller]
fn check_line(from: &str, to: &str, wanted: &[&str]) {
    assert!(GOOD.contains(from), "{from:?}");
    check(&GOOD.replacen(from, to, 1), wanted);
}

#[test]
fn what_is_right_is_read() {
    let (file, problems) = read::<File>(GOOD).unwrap();
    problems.none_or(()).unwrap();
    assert_eq!((file.name.as_str(), file.id.value, file.id.at.line), ("a", 7, 2));
    assert_eq!(file.brokers, ["x", "y"]);
    assert_eq!(file.every, Some(Span::from_millis(250)));
    assert_eq!(file.size, Some(ByteSize(1 << 20)));
    assert_eq!((file.count, file.tls), (Some(3), true));
    assert_eq!(file.colour, Some(Colour::Green));
    assert_eq!(file.secret, Some(Secret::Env("PASSWORD".to_owned())));
    assert_eq!(file.more["one"].size, ByteSize(1 << 10));
}

#[test]
fn fields_are_known_by_name() {
    check_line("brokers:", "borkers:", &["3:1: unknown field `borkers` | did you mean `brokers`?"]);
    check_line("size: 1KiB", "siez: 1KiB", &["10:16: unknown field `siez` | did you mean `size`?"]);
    check_line(
        "size: 1KiB",
        "zzzzz: 1KiB",
        &[
            "10:14: one lacks the field `size` | ",
            "10:16: unknown field `zzzzz` | fields of one are size",
        ],
    );
    check_line("name: a\n", "", &["1:1: the file lacks the field `name` | "]);
    check_line("env:", "evn:", &["9:11: unknown field `evn` | did you mean `env`?"]);
    check_line(
        "{ env: PASSWORD }",
        "{}",
        &["9:9: secret has no field | fields of secret are file, env"],
    );
}

#[test]
fn types_are_told_with_an_example() {
    check_line(
        "250ms",
        "12",
        &[
            "4:8: every: expected a duration such as 250ms, found `12` | a whole number with its unit: ms, s, m, h or d",
        ],
    );
    check_line(
        "1MiB",
        "[1]",
        &[
            "5:7: size: expected a size such as 64MiB, found a list | a whole number with its unit: B, KiB, MiB or GiB",
        ],
    );
    check_line("[x, y]", "x", &["3:10: brokers: expected a list, found `x` | write `[x]`"]);
    check_line("[x, y]", "[x, [y]]", &["3:14: brokers: expected text, found a list | "]);
    check_line("id: 7", "id: seven", &["2:5: id: expected a whole number, found `seven` | "]);
    check_line("id: 7", "id: '7'", &["2:5: id: expected a whole number, found the text `7` | "]);
    check_line("id: 7", "id: 64", &["2:5: id 64 is out of range | 1 to 63"]);
    check_line(
        "count: 3",
        "count: 4294967296",
        &["6:8: count 4294967296 is out of range | 0 to 4294967295"],
    );
    check_line("tls: true", "tls: yes", &["7:6: tls: expected true or false, found `yes` | "]);
    check_line("green", "gren", &["8:9: unknown colour `gren` | did you mean `green`?"]);
    check_line("green", "blue", &["8:9: unknown colour `blue` | it is one of red, green"]);
    check_line(
        "{ env: PASSWORD }",
        "abc",
        &["9:9: secret: expected `file: …` or `env: …`, found `abc` | "],
    );
    check_line("name: a", "name:", &["1:5: name: expected text, found nothing | "]);
    check_line(
        "{ one: { size: 1KiB } }",
        "{ one: }",
        &["10:12: one: expected fields, found nothing | they are size"],
    );
}

#[test]
fn all_is_told_at_once_in_the_order_of_the_file() {
    check(
        "borkers: []\nid: 99\nevery: 12\nid: 7\ntls: [\n  ]\n",
        &[
            "1:1: unknown field `borkers` | did you mean `brokers`?",
            "1:1: the file lacks the field `name` | ",
            "2:5: id 99 is out of range | 1 to 63",
            "3:8: every: expected a duration such as 250ms, found `12` | a whole number with its unit: ms, s, m, h or d",
            "4:1: `id` stands twice | it stands in line 2 already",
            "5:6: tls: expected true or false, found a list | ",
        ],
    );
}

#[test]
fn what_is_no_settings_at_all_is_told_alone() {
    check("", &["1:1: the file is empty | "]);
    check("- a\n", &["1:1: expected fields, found a list | write `name: value`"]);
    check(
        "name: a\nid: 7\n---\nname: b\n",
        &["4:1: a second document begins here | leave out what follows `---`"],
    );
    assert!(said("name: [a\nid: 7\n")[0].starts_with("2:"), "{:?}", said("name: [a\nid: 7\n"));
    check(
        "name: !text a\nid: 7\n",
        &["1:13: `!text` is a tag | leave the tag out: the field says of what type its value is"],
    );
}

#[test]
fn anchors_and_merges_are_read() {
    let text =
        "name: a\nid: 7\nmore:\n  one: &one { size: 1KiB }\n  two: *one\n  three: { <<: *one }\n";
    let (file, problems) = read::<File>(text).unwrap();
    problems.none_or(()).unwrap();
    assert_eq!(file.more["two"].size, ByteSize(1 << 10));
    assert_eq!(file.more["three"].size, ByteSize(1 << 10));
}

#[test]
fn aliases_of_aliases_do_not_fill_the_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..40 {
        let before = format!("*a{}, ", i - 1).repeat(10);
        text += &format!("a{i}: &a{i} [{before}]\n");
    }
    assert!(said(&text)[0].contains("more than 100000 values"));
    let mut text = "a0: &a0 [x]\n".to_owned();
    for i in 1..2000 {
        text += &format!("a{i}: &a{i} [*a{}]\n", i - 1);
    }
    assert!(said(&text)[0].contains("nested more than 64 deep"));
    let deep = |n| "[".repeat(n) + &"]".repeat(n);
    assert!(said(&deep(70))[0].contains("nested more than 64 deep"));
    assert_eq!(said(&deep(50_000)).len(), 1);
    assert_eq!(said(&"[".repeat(100_000)).len(), 1);
}
