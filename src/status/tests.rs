use super::{AgentState, AgentStatus, Assigned, CaptureState, StatusBoard, StreamState};

const SECOND: u64 = 1_000_000;

#[test]
fn what_is_not_known_is_null() {
    let json = serde_json::to_value(AgentStatus::default()).unwrap();
    assert!(json["epoch"].is_null());
    assert!(json["outbox"]["acked_seq"].is_null());
    let board = StatusBoard::default();
    board.stream("eu", |_| {});
    let stream = serde_json::to_value(&board.snapshot(SECOND).streams["eu"]).unwrap();
    for field in ["lag", "rate_txns", "backlog", "applied_seq", "behind_us", "last_applied_us"] {
        assert!(stream[field].is_null(), "{field}");
    }
}

#[test]
fn lag_is_forgotten_after_its_window() {
    let board = StatusBoard::default();
    board.stream("eu", |_| {});
    for lag in 1..=100 {
        board.lag("eu", lag * 1000, 90 * SECOND);
    }
    let lag = board.snapshot(91 * SECOND).streams["eu"].lag.unwrap();
    assert_eq!(lag.samples, 100);
    assert!((49_000..=51_000).contains(&lag.p50_us), "{lag:?}");
    assert!((99_000..=102_000).contains(&lag.max_us), "{lag:?}");
    assert!(board.snapshot(121 * SECOND).streams["eu"].lag.is_some());
    assert!(board.snapshot(180 * SECOND).streams["eu"].lag.is_none());
}

#[test]
fn rate_covers_the_last_ten_whole_seconds() {
    let board = StatusBoard::default();
    for second in 100..110 {
        board.applied("eu", second, 50, second * SECOND);
    }
    let stream = |at: u64| board.snapshot(at * SECOND).streams["eu"].clone();
    assert_eq!(stream(110).rate_txns, Some(50.0));
    assert_eq!(stream(115).rate_txns, Some(25.0));
    assert_eq!(stream(200).rate_txns, Some(0.0));
    assert_eq!(stream(200).applied_seq, Some(109));
}

#[test]
fn backlog_is_worked_out_once_both_ends_are_known() {
    let board = StatusBoard::default();
    board.stream("eu", |s| s.inbox_seq = Some(10));
    assert_eq!(board.snapshot(0).streams["eu"].backlog, None);
    board.applied("eu", 7, 7, 0);
    assert_eq!(board.snapshot(0).streams["eu"].backlog, Some(3));
}

#[test]
fn readiness_names_what_is_missing() {
    let mut status = AgentStatus { state: AgentState::Running, ..AgentStatus::default() };
    status.capture.state = CaptureState::Running;
    assert_eq!(status.not_ready(), Vec::<String>::new());
    let stream = status.streams.entry("eu".to_owned()).or_default();
    stream.state = StreamState::Halted;
    stream.reason = Some("table shop.orders is missing".to_owned());
    assert_eq!(status.not_ready(), ["stream eu is halted: table shop.orders is missing"]);
    let stream = status.streams.entry("eu".to_owned()).or_default();
    (stream.assigned, stream.state) = (Assigned::Paused, StreamState::Paused);
    assert_eq!(status.not_ready(), Vec::<String>::new());
}

#[test]
fn the_document_reads_back() {
    let board = StatusBoard::default();
    board.applied("eu", 3, 3, SECOND);
    board.lag("eu", 1500, SECOND);
    let status = board.snapshot(SECOND);
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<AgentStatus>(&text).unwrap(), status);
}

#[test]
fn the_age_of_the_oldest_that_waits() {
    let board = StatusBoard::default();
    let behind = |at: u64| board.snapshot(at * SECOND).streams["eu"].behind_us;
    for seq in 1..=10 {
        board.arrived("eu", seq, seq * SECOND);
    }
    assert_eq!(behind(20), None);
    board.applied("eu", 4, 4, 20 * SECOND);
    assert_eq!(behind(20), Some(15 * SECOND));
    board.applied("eu", 10, 6, 20 * SECOND);
    assert_eq!(behind(20), Some(0));
    // Read again after a restart.
    board.arrived("eu", 9, 9 * SECOND);
    board.arrived("eu", 11, 30 * SECOND);
    assert_eq!(behind(33), Some(3 * SECOND));
}
