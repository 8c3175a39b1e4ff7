use super::{Metrics, Stage};
use crate::status::{AgentStatus, StreamState};

#[test]
fn what_is_not_known_has_no_series() {
    let text = Metrics::new().render(&AgentStatus::default()).unwrap();
    for absent in ["heartbeat", "outbox_acked", "index_keys", "database_up", "apply_lag"] {
        assert!(!text.contains(absent), "{absent} in {text}");
    }
    assert!(text.contains("causeway_capture_txns_total 0\n"));
}

#[test]
fn a_value_that_becomes_unknown_goes_away() {
    let metrics = Metrics::new();
    let mut status = AgentStatus::default();
    status.streams.entry("eu".to_owned()).or_default().backlog = Some(5);
    let text = metrics.render(&status).unwrap();
    assert!(text.contains("causeway_inbox_backlog_txns{origin=\"eu\"} 5\n"), "{text}");
    status.streams.entry("eu".to_owned()).or_default().backlog = None;
    assert!(!metrics.render(&status).unwrap().contains("inbox_backlog"));
}

#[test]
fn each_state_has_a_series_of_0_or_1() {
    let metrics = Metrics::new();
    let mut status = AgentStatus::default();
    status.streams.entry("eu".to_owned()).or_default().state = StreamState::Halted;
    let text = metrics.render(&status).unwrap();
    assert!(text.contains("causeway_stream_state{origin=\"eu\",state=\"halted\"} 1\n"));
    assert!(text.contains("causeway_stream_state{origin=\"eu\",state=\"running\"} 0\n"));
}

#[test]
fn heartbeats_are_seconds_with_microseconds() {
    let metrics = Metrics::new();
    metrics.heartbeat(Stage::Capture, "", 1_700_000_000_250_000);
    metrics.heartbeat(Stage::Apply, "eu", 1_700_000_001_000_000);
    metrics.lag("eu", 3_000);
    let text = metrics.render(&AgentStatus::default()).unwrap();
    assert!(text.contains("causeway_capture_heartbeat_timestamp_seconds 1700000000.25\n"));
    assert!(
        text.contains("causeway_apply_heartbeat_timestamp_seconds{origin=\"eu\"} 1700000001\n")
    );
    assert!(text.contains("causeway_apply_lag_seconds_bucket{origin=\"eu\",le=\"0.004\"} 1\n"));
}

#[test]
fn every_series_names_its_region() {
    let metrics = Metrics::for_region("eu");
    metrics.lag("us", 3_000);
    let text = metrics.render(&AgentStatus::default()).unwrap();
    let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(series.iter().all(|line| line.contains("region=\"eu\"")), "{text}");
}

#[test]
fn an_expected_origin_counts_from_zero() {
    let metrics = Metrics::new();
    metrics.expect("us");
    let text = metrics.render(&AgentStatus::default()).unwrap();
    assert!(text.contains("causeway_apply_txns_total{origin=\"us\"} 0\n"), "{text}");
}
