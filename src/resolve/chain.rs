//! The conflict log as a chain: each entry carries the hash of the one before and itself,
//! so that a missing or altered one shows.
//!
//! Whoever appends to it runs [`Chain::READ`], whose lock gives the entries one order, then
//! the statements that the chain gives, and commits.

use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use crate::database::quoted;

/// What a statement holds beside an entry's text, at most.
const ENTRY_ROOM: usize = 4 << 10;
const INSERT: &str = "INSERT INTO causeway.conflicts\
    (id,at_us,table_name,kind,policy,winner,entry,hash,bytes_total)VALUES";

/// The end of the conflict log, and what is to come behind it.
#[derive(Debug)]
pub struct Chain {
    last_id: u64,
    hash: String,
    /// Of the texts of all entries since the first.
    bytes_total: u64,
    row_bytes_max: usize,
    packet_bytes_max: usize,
    insert: String,
}

impl Chain {
    /// Reads its end, and locks it.
    pub const READ: &'static str =
        "SELECT last_id, hash, bytes_total FROM causeway.conflict_head WHERE id = 1 FOR UPDATE";

    /// Goes on behind what [`Self::READ`] gave. A statement has at most `packet_bytes_max`
    /// bytes, or one row, which has at most `row_bytes_max`.
    #[must_use]
    pub fn after(
        head: Option<(u64, String, u64)>,
        row_bytes_max: usize,
        packet_bytes_max: usize,
    ) -> Self {
        let (last_id, hash, bytes_total) = head.unwrap_or_default();
        let insert = String::new();
        Self { last_id, hash, bytes_total, row_bytes_max, packet_bytes_max, insert }
    }

    /// Appends an entry; gives the statement to be run before more come. Of one that is too
    /// long to be written rows are left out, that of the write that lost last.
    #[must_use]
    pub fn append(&mut self, mut entry: Json) -> Option<String> {
        let mut text = entry.to_string();
        // Quoting doubles a text at most.
        let most = (self.row_bytes_max / 2).saturating_sub(ENTRY_ROOM);
        if text.len() > most {
            shorten(&mut entry, text.len(), most);
            text = entry.to_string();
        }
        self.hash = chained(&self.hash, &text);
        self.last_id += 1;
        self.bytes_total += text.len() as u64;
        let full = self.insert.len() + 2 * text.len() > self.packet_bytes_max;
        let before = (full && !self.insert.is_empty()).then(|| std::mem::take(&mut self.insert));
        self.insert.push_str(if self.insert.is_empty() { INSERT } else { "," });
        let word = |name: &str| literal(entry[name].as_str().unwrap_or_default());
        self.insert.push_str(&format!(
            "({},{},{},{},{},{},{},'{}',{})",
            self.last_id,
            entry["at_us"].as_u64().unwrap_or(0),
            word("table"),
            word("kind"),
            word("policy"),
            word("winner"),
            literal(&text),
            self.hash,
            self.bytes_total,
        ));
        before
    }

    /// The statements that end it, after at least one entry.
    #[must_use]
    pub fn finish(self) -> [String; 2] {
        let Self { last_id, hash, bytes_total, insert, .. } = self;
        let head = format!(
            "INSERT INTO causeway.conflict_head(id,last_id,hash,bytes_total)\
             VALUES(1,{last_id},'{hash}',{bytes_total}) ON DUPLICATE KEY UPDATE \
             last_id=VALUES(last_id),hash=VALUES(hash),bytes_total=VALUES(bytes_total)"
        );
        [insert, head]
    }
}

/// The hash of an entry that comes after one with hash `before`: SHA-256 over the two,
/// as 64 hexadecimal digits. The first entry comes after the empty text.
#[must_use]
pub fn chained(before: &str, entry: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(before.as_bytes());
    hash.update(entry.as_bytes());
    super::entry::digits(&hash.finalize())
}

/// Takes rows out of an entry of `len` bytes until it has at most so many, and says so. What
/// can't be read anywhere else goes last: the row that lost.
fn shorten(entry: &mut Json, mut len: usize, most: usize) {
    let (winner, loser) = match entry["winner"].as_str() {
        Some("existing") => ("existing", "incoming"),
        _ => ("incoming", "existing"),
    };
    // A delete that lost is known by the row that it found.
    let (spare, last) = match entry[loser]["after"].is_null() {
        true => ("after", "before"),
        false => ("before", "after"),
    };
    for (side, image) in [(winner, "before"), (loser, spare), (winner, "after"), (loser, last)] {
        // A row that is missing has no other side.
        let held = entry[side].get_mut(image).filter(|held| !held.is_null());
        if let Some(held) = held.filter(|_| len > most) {
            let bytes = held.to_string().len();
            *held = json!({ "omitted_bytes": bytes });
            len = len.saturating_sub(bytes) + held.to_string().len();
        }
    }
}

/// A text, whatever the connection's character set is.
fn literal(text: &str) -> String {
    let mut out = b"_utf8mb4".to_vec();
    quoted(&mut out, text.as_bytes());
    String::from_utf8(out).expect("quoting adds ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_too_long_to_be_written_says_what_it_left_out() {
        let row = || json!({"v": "x".repeat(5_000)});
        let entry = json!({
            "key": {"id": 1},
            "winner": "existing",
            "incoming": {"before": row(), "after": row()},
            "existing": {"before": row(), "after": row()},
        });
        let kept = |entry: &Json, most: usize| {
            let mut entry = entry.clone();
            let len = entry.to_string().len();
            shorten(&mut entry, len, most);
            assert!(entry.to_string().len() <= most && entry["key"] == json!({"id": 1}));
            let sides = ["incoming", "existing"].into_iter();
            let images = sides.flat_map(|side| ["before", "after"].map(|image| (side, image)));
            let whole = images.filter(|(side, image)| entry[side][image].get("v").is_some());
            whole.collect::<Vec<_>>()
        };
        assert_eq!(
            kept(&entry, 16_000),
            [("incoming", "before"), ("incoming", "after"), ("existing", "after"),]
        );
        assert_eq!(kept(&entry, 11_000), [("incoming", "after"), ("existing", "after")]);
        assert_eq!(kept(&entry, 6_000), [("incoming", "after")]);
        assert_eq!(kept(&entry, 300), []);
        let mut deleted = entry.clone();
        deleted["incoming"]["after"].take();
        assert_eq!(kept(&deleted, 6_000), [("incoming", "before")]);
        let mut missing = entry;
        missing["existing"].take();
        missing["winner"] = json!("incoming");
        let len = missing.to_string().len();
        shorten(&mut missing, len, 300);
        let after = json!({"omitted_bytes": 5_008});
        assert_eq!((&missing["incoming"]["after"], &missing["existing"]), (&after, &Json::Null));
    }

    #[test]
    fn a_chain_depends_on_all_before() {
        let second = chained(&chained("", "a"), "b");
        assert_ne!(second, chained(&chained("", "x"), "b"));
        assert_eq!(second.len(), 64);
    }

    #[test]
    fn entries_go_into_as_few_statements_as_fit() {
        let entry = |n: u64| json!({ "at_us": n, "table": "s.t", "kind": "it's" });
        let mut chain = Chain::after(Some((7, "h".to_owned(), 1_000)), 1 << 20, 400);
        assert_eq!(chain.append(entry(1)), None);
        let first = chain.append(entry(2)).or_else(|| chain.append(entry(3))).unwrap();
        assert!(first.starts_with(&format!("{INSERT}(8,1,_utf8mb4's.t',_utf8mb4'it\\'s',")));
        let [rest, head] = chain.finish();
        let hash = chained(&chained("h", &entry(1).to_string()), &entry(2).to_string());
        assert!(first.contains(&hash) || rest.contains(&hash));
        let rows = |sql: &str| sql.matches("s.t',_utf8mb4").count();
        let last = 7 + rows(&first) + rows(&rest);
        assert!(rest.starts_with(INSERT) && head.contains(&format!("VALUES(1,{last},'")));
        let bytes = 1_000 + (last - 7) * entry(1).to_string().len();
        assert!(rest.ends_with(&format!(",{bytes})")) && head.contains(&format!("',{bytes})")));
    }
}
