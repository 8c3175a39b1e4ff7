use super::*;
use crate::change::{Row, Seq};
use crate::version::Body;

fn dot(origin: u8, seq: u64) -> Dot {
    Dot { origin: RegionId::new(origin).unwrap(), seq: Seq(seq) }
}

fn write(origin: u8, seq: u64, deps: &[Dot]) -> Write {
    Write {
        key: RowKey(1),
        version: Version { dot: dot(origin, seq), hlc: Hlc(seq), action: Action::Update },
        deps: Arc::new(deps.iter().copied().collect()),
        body: None,
        foreign: None,
    }
}

/// The same, kept whole.
fn kept(write: Write, claims: &[RowKey]) -> Write {
    let body = Body {
        table: Arc::default(),
        before: None,
        after: Some(Row::default()),
        group: None,
        claims: SmallVec::from_slice(claims),
        adds_up: false,
    };
    Write { body: Some(Arc::new(body)), ..write }
}

fn dots(index: &Index) -> Vec<Dot> {
    index.seen(RowKey(1)).versions.iter().map(|v| v.dot).collect()
}

#[test]
fn a_write_replaces_what_its_author_had_seen_and_joins_the_rest() {
    let mut index = Index::default();
    index.enter_local(&write(1, 1, &[]));
    index.stage(BatchId(1), vec![dot(2, 1)], vec![write(2, 1, &[])]);
    assert_eq!(dots(&index), [dot(1, 1), dot(2, 1)]);
    index.marker(&[dot(2, 1)]);
    index.enter_local(&write(1, 2, &[dot(2, 1)]));
    assert_eq!(dots(&index), [dot(1, 2)]);
}

#[test]
fn a_row_written_often_keeps_its_last_write_and_what_that_does_not_stand_in_for() {
    let claimed = |origin, seq, key, deps: &[Dot]| {
        kept(Write { key: RowKey(key), ..write(origin, seq, deps) }, &[RowKey(99)])
    };
    let mut index = Index::default();
    for seq in 1..1_000 {
        index.enter_local(&claimed(1, seq, 1, &[]));
    }
    assert_eq!(index.seen(RowKey(1)).history.len(), 1);
    assert_eq!(index.seen(RowKey(99)).history.len(), 1);
    // Another row's claim, which the next write has seen and the last one had not.
    index.enter_local(&claimed(2, 1, 2, &[]));
    index.enter_local(&claimed(1, 1_000, 1, &[dot(2, 1)]));
    assert_eq!(index.seen(RowKey(99)).history.len(), 3);
}

/// One part of a transaction puts a row there, and a later one takes it away: a delete, of
/// a row that is known, or nobody could find it.
#[test]
fn what_one_part_put_there_and_another_took_away_is_a_delete() {
    let part = |before: Option<Row>, after: Option<Row>| {
        let action = Action::of(before.is_some(), after.is_some());
        let one = write(1, 1, &[]);
        let version = Version { action, ..one.version };
        let (group, claims) = (None, SmallVec::new());
        let body = Body { table: Arc::default(), before, after, group, claims, adds_up: true };
        Write { version, body: Some(Arc::new(body)), ..one }
    };
    let mut index = Index::default();
    index.enter_local(&part(None, Some(Row::default())));
    index.enter_local(&part(Some(Row::default()), None));
    let history = index.seen(RowKey(1)).history;
    assert_eq!((history.len(), history[0].version.action), (1, Action::Delete));
    let body = history[0].body.as_ref().unwrap();
    assert_eq!((&body.before, &body.after), (&Some(Row::default()), &None));
}

/// One change of its key, and then many writes of which nothing is kept.
#[test]
fn a_row_that_changed_its_key_keeps_few_of_the_writes_that_follow() {
    let mut index = Index::default();
    let moved = kept(write(1, 1, &[]), &[]);
    let body = moved.body.as_ref().unwrap();
    let group = Some(vec![RowKey(1), RowKey(2)].into());
    let body = Body {
        table: Arc::default(),
        before: None,
        after: body.after.clone(),
        group,
        claims: SmallVec::new(),
        adds_up: false,
    };
    index.enter_local(&Write { body: Some(Arc::new(body)), ..moved });
    for seq in 2..1_000 {
        index.enter_local(&write(1, seq, &[]));
    }
    assert_eq!(index.seen(RowKey(1)).history.len(), 2);
    // What one that the next has seen may have lost to stays.
    index.enter_local(&write(2, 1, &[]));
    index.enter_local(&write(1, 1_000, &[dot(2, 1)]));
    assert_eq!(index.seen(RowKey(1)).history.len(), 4);
}

#[test]
fn a_row_written_often_takes_no_more_while_a_peer_is_away() {
    let mut index = Index::default();
    for seq in 1..=10_000 {
        index.enter_local(&write(1, seq, &[]));
    }
    assert!(index.unstable.len() <= 128);
    index.collect(&[dot(1, 9_999)].into_iter().collect());
    assert_eq!(dots(&index), [dot(1, 10_000)]);
    index.collect(&[dot(1, 10_000)].into_iter().collect());
    assert!(index.is_empty());
}

#[test]
fn a_batch_takes_its_place_at_its_marker() {
    let mut index = Index::default();
    index.stage(BatchId(1), vec![dot(2, 1)], vec![write(2, 1, &[])]);
    index.marker(&[dot(2, 1)]);
    assert_eq!(dots(&index), [dot(2, 1)]);
    index.stage(BatchId(2), vec![dot(2, 2)], vec![write(2, 2, &[])]);
    index.abandon(BatchId(2));
    assert_eq!(dots(&index), [dot(2, 1)]);
}

#[test]
fn what_is_stable_stays_while_a_concurrent_write_is_in_flight() {
    for bare in [true, false] {
        let mut index = Index::default();
        let other = write(3, 1, &[]);
        index.enter_local(&if bare { other } else { kept(other, &[]) });
        // Its author had not seen that one; its next transaction, in the same batch, had.
        index.stage(BatchId(1), vec![dot(2, 2)], vec![kept(write(2, 1, &[]), &[])]);
        index.collect(&[dot(3, 1)].into_iter().collect());
        index.marker(&[dot(2, 2)]);
        assert_eq!(dots(&index), [dot(3, 1), dot(2, 1)]);
        assert_eq!(index.seen(RowKey(1)).history.len(), 2);
    }
}

#[test]
fn stable_versions_are_forgotten() {
    let mut index = Index::default();
    index.enter_local(&write(1, 1, &[]));
    index.enter_local(&write(1, 2, &[]));
    index.collect(&[dot(1, 1)].into_iter().collect());
    assert_eq!(dots(&index), [dot(1, 2)]);
    index.collect(&[dot(1, 2)].into_iter().collect());
    assert!(index.is_empty());
}

#[test]
fn what_won_is_known_as_long_as_what_it_won_over() {
    let mut index = Index::default();
    for write in [write(1, 1, &[]), write(2, 2, &[]), write(3, 3, &[])] {
        index.enter_local(&write);
    }
    index.collect(&[dot(1, 1), dot(3, 3)].into_iter().collect());
    assert_eq!(dots(&index), [dot(2, 2), dot(3, 3)]);
    index.collect(&[dot(2, 2)].into_iter().collect());
    assert!(index.is_empty());
    // Also where it takes its place when it is stable already.
    index.enter_local(&write(1, 4, &[]));
    index.stage(BatchId(1), vec![dot(2, 5)], vec![write(2, 5, &[])]);
    index.collect(&[dot(2, 5)].into_iter().collect());
    index.marker(&[dot(2, 5)]);
    assert_eq!(dots(&index), [dot(1, 4), dot(2, 5)]);
    index.collect(&[dot(1, 4)].into_iter().collect());
    assert!(index.is_empty());
}

#[test]
fn writes_that_are_kept_are_counted_until_they_are_forgotten() {
    let mut index = Index::default();
    let sum = |seq, deps: &[Dot]| {
        let mut write = kept(write(1, seq, deps), &[]);
        Arc::get_mut(write.body.as_mut().unwrap()).unwrap().adds_up = true;
        write
    };
    index.enter_local(&sum(1, &[]));
    index.enter_local(&sum(2, &[]));
    assert_eq!((index.len(), index.kept_writes()), (1, 2));
    index.stage(BatchId(1), vec![dot(2, 1)], vec![kept(write(2, 1, &[]), &[RowKey(9)])]);
    assert_eq!(index.kept_writes(), 2);
    index.marker(&[dot(2, 1)]);
    assert_eq!(index.kept_writes(), 4, "the row's, and the value's");
    index.collect(&[dot(1, 2), dot(2, 1)].into_iter().collect());
    assert!(index.is_empty());
    assert_eq!(index.kept_writes(), 0);
}
