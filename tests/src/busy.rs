//! Time that a thread has worked, whatever else the machine does.
use std::time::Duration;

/// Time on a processor so far; 0 where the system does not tell (then limits of time say nothing).
pub fn worked() -> Duration {
    #[cfg(unix)]
    {
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a place for the result. The scheduler's own files are only up to date at its ticks.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut t) };
        Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
    }
    #[cfg(not(unix))]
    Duration::ZERO
}
