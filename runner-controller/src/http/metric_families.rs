//! Families of metrics: one name, and a value for each set of labels.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Labels of one value.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Registers a gauge.
pub(super) fn gauge(registry: &mut Registry, name: &str, help: &str) -> Family<Labels, Gauge> {
    let family = Family::default();
    registry.register(name, help, Family::clone(&family));
    family
}

/// Registers a counter. The encoder adds `_total` to its name.
pub(super) fn counter(registry: &mut Registry, name: &str, help: &str) -> Family<Labels, Counter> {
    let family = Family::default();
    registry.register(name, help, Family::clone(&family));
    family
}

/// Sets the value of a gauge.
pub(super) fn set(family: &Family<Labels, Gauge>, labels: Labels, value: u64) {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    family.get_or_create(&labels).set(value);
}

/// Returns a label with its value escaped as `OpenMetrics` demands. The encoder does not escape.
pub(super) fn label(name: &'static str, value: &str) -> (&'static str, String) {
    let escaped = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    (name, escaped)
}
