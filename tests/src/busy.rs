//! Time that a thread has worked, whatever else the machine does.
use std::time::Duration;

/// Time on a processor so far; 0 where the system does not tell (then limits of time say nothing).
pub fn worked() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0))
}
