//! A gauge that is absent while its value is not known.

use prometheus::core::Collector;
use prometheus::{GaugeVec, Opts};

/// Gauges by label values; a series appears with its first value and can go away.
#[derive(Clone, Debug)]
pub struct KnownGauge(GaugeVec);

impl KnownGauge {
    pub(super) fn new(name: &str, help: &str, labels: &[&str]) -> Self {
        let vec = GaugeVec::new(Opts::new(name, help), labels);
        Self(vec.expect("the name and labels are constants"))
    }

    /// The value is known.
    pub fn set(&self, labels: &[&str], value: f64) {
        self.0.with_label_values(labels).set(value);
    }

    /// The value is `value`, or not known.
    pub fn set_option(&self, labels: &[&str], value: Option<f64>) {
        match value {
            Some(value) => self.set(labels, value),
            None => self.forget(labels),
        }
    }

    /// The value is not known any more: the series goes away.
    pub fn forget(&self, labels: &[&str]) {
        // An error says that the series is not there, which is what is wanted.
        drop(self.0.remove_label_values(labels));
    }

    /// No series is known any more.
    pub fn forget_all(&self) {
        self.0.reset();
    }

    pub(super) fn collector(&self) -> Box<dyn Collector> {
        Box::new(self.0.clone())
    }
}
