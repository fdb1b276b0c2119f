//! How much of the device and of the processor a host gives at a time. A [`Pace`] is what the host holds, on whichever thread; the executor
//! asks it before it submits. Nothing here knows frames: a poll gives time, work takes it, and whoever gives nothing gets nothing done.
use alloc::sync::Arc;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What work may use. Clones are one and the same. A new one is without limits.
#[derive(Clone, Default)]
pub struct Pace(Arc<(Mutex<Left>, Condvar)>);

/// Nanoseconds.
#[derive(Default)]
struct Left {
    /// Of the last poll; `None` without limits.
    budget: Option<Budget>,
    /// Still to be used; negative where a piece of work took longer than there was, which later polls make good.
    gpu: i64,
    host: i64,
    /// Callers that wait for work to end, so that nothing may hold it back.
    hurries: usize,
    /// The last budget of the device that was not zero: pieces keep its size while nothing is given.
    piece: i64,
    /// The worker's clock when its time was last taken, and how long it only waited since, for clocks that do not know; `None` while it
    /// has nothing to do.
    since: Option<Duration>,
    away: Duration,
    used: Used,
}

/// What was used of the device under limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Pieces of work that are done, but for copies and first runs, which compile.
    pub pieces: u64,
    /// The device's time for them.
    pub time: Duration,
    /// For the longest of them.
    pub longest: Duration,
}

/// Time of the processor that this thread has used.
#[cfg(unix)]
fn clock() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut t) };
    Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_nsec).unwrap_or(0))
}
/// Time that has passed, waiting included.
#[cfg(not(unix))]
fn clock() -> Duration {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}

#[derive(Clone, Copy)]
struct Budget {
    gpu: i64,
    host: i64,
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

impl Pace {
    /// Gives time of the device and of the thread that works for it. What an earlier poll gave and nobody used is lost, so that work never
    /// piles up; what was used beyond it is taken off. Zero pauses. Returns at once.
    pub fn poll(&self, gpu: Duration, host: Duration) {
        let budget = Budget { gpu: nanoseconds(gpu), host: nanoseconds(host) };
        let mut left = self.left();
        let refill = |left: i64, budget: i64| left.saturating_add(budget).min(budget);
        left.gpu = refill(left.gpu, budget.gpu);
        left.host = refill(left.host, budget.host);
        if budget.gpu > 0 {
            left.piece = budget.gpu;
        }
        left.budget = Some(budget);
        self.0.1.notify_all();
    }
    /// Lifts all limits until the next poll.
    pub fn free(&self) {
        let mut left = self.left();
        (left.budget, left.gpu, left.host) = (None, 0, 0);
        self.0.1.notify_all();
    }
    /// Whether there are limits.
    pub fn limited(&self) -> bool {
        self.left().budget.is_some()
    }
    /// Lets work go on without waiting for polls as long as what is returned lives; pieces keep their size.
    #[must_use]
    pub fn hurry(&self) -> Hurry {
        self.left().hurries += 1;
        self.0.1.notify_all();
        Hurry(self.clone())
    }
    /// What was used so far.
    pub fn used(&self) -> Used {
        self.left().used
    }
    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of the device that one piece of work should take: half of what a poll gives, so that one can wait while one runs.
    pub(super) fn piece(&self) -> Option<u64> {
        let left = self.left();
        left.budget.map(|_| (left.piece / 2).max(1) as u64)
    }
    /// Most that may be submitted and not done.
    pub(super) fn queued(&self) -> Option<u64> {
        let left = self.left();
        left.budget.map(|_| left.piece.max(1) as u64)
    }
    /// Waits until there is time of the device for a piece, or a whole poll's where the piece is longer than that, and takes it.
    pub(super) fn take(&self, gpu: u64) {
        let gpu = i64::try_from(gpu).unwrap_or(i64::MAX);
        let waits = |left: &mut Left| {
            let budget = left.budget.filter(|_| left.hurries == 0);
            budget.is_some_and(|b| left.gpu < gpu.min(b.gpu).max(1))
        };
        let before = Instant::now();
        let mut left = self.0.1.wait_while(self.left(), waits).unwrap_or_else(PoisonError::into_inner);
        left.away += before.elapsed();
        left.gpu = left.gpu.saturating_sub(gpu);
    }
    /// A piece took another time than was taken for it.
    pub(super) fn settle(&self, taken: u64, measured: u64) {
        let mut left = self.left();
        let back = i64::try_from(taken).unwrap_or(i64::MAX) - i64::try_from(measured).unwrap_or(i64::MAX);
        let (most, time) = (left.budget.map_or(i64::MAX, |b| b.gpu), Duration::from_nanos(measured));
        left.used.pieces += 1;
        left.used.time += time;
        left.used.longest = left.used.longest.max(time);
        left.gpu = left.gpu.saturating_add(back).min(most);
    }
    /// The worker begins to work: from now on its time counts.
    pub fn begin(&self) {
        let mut left = self.left();
        (left.since, left.away) = (Some(clock()), Duration::ZERO);
    }
    /// The worker is done: takes the time that it used.
    pub fn end(&self) {
        let mut left = self.left();
        left.worked();
        left.since = None;
    }
    /// Takes the time that the worker used so far; then waits until there is some left.
    pub(super) fn breathe(&self) {
        let mut left = self.left();
        left.worked();
        let waits = |left: &mut Left| left.hurries == 0 && left.budget.is_some() && left.host <= 0;
        let mut left = self.0.1.wait_while(left, waits).unwrap_or_else(PoisonError::into_inner);
        (left.since, left.away) = (left.since.map(|_| clock()), Duration::ZERO);
    }
    /// So long the worker only waited for the device.
    pub(super) fn away(&self, waited: Duration) {
        self.left().away += waited;
    }
}

impl Left {
    fn worked(&mut self) {
        let Some(since) = self.since else { return };
        let (now, away) = (clock(), core::mem::take(&mut self.away));
        let away = if cfg!(unix) { Duration::ZERO } else { away };
        self.host = self.host.saturating_sub(nanoseconds(now.saturating_sub(since).saturating_sub(away)));
        self.since = Some(now);
    }
}

/// See [`Pace::hurry`].
pub struct Hurry(Pace);

impl Drop for Hurry {
    fn drop(&mut self) {
        let mut left = self.0.left();
        left.hurries = left.hurries.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nothing_holds_back_what_has_no_limits() {
        let pace = Pace::default();
        assert_eq!((pace.piece(), pace.queued(), pace.limited()), (None, None, false));
        pace.begin();
        pace.take(u64::MAX);
        pace.breathe();
        pace.poll(MS, MS);
        pace.free();
        pace.take(u64::MAX);
        pace.breathe();
        pace.end();
    }

    #[test]
    fn a_poll_gives_its_time_once_and_unused_time_is_lost() {
        let pace = Pace::default();
        (0..5).for_each(|_| pace.poll(4 * MS, MS));
        assert_eq!((pace.piece(), pace.queued()), (Some(2_000_000), Some(4_000_000)));
        pace.take(2_000_000);
        pace.take(2_000_000);
        let waiting = thread::spawn({
            let pace = pace.clone();
            move || pace.take(2_000_000)
        });
        thread::sleep(20 * MS);
        assert!(!waiting.is_finished(), "more than a poll gave");
        pace.poll(4 * MS, MS);
        waiting.join().expect("it goes on");
    }

    #[test]
    fn a_long_piece_waits_for_a_whole_poll_and_later_ones_make_good_for_it() {
        let pace = Pace::default();
        pace.poll(2 * MS, MS);
        pace.take(10_000_000);
        let waiting = thread::spawn({
            let pace = pace.clone();
            move || pace.take(1_000_000)
        });
        let mut polls = 0;
        while !waiting.is_finished() {
            pace.poll(2 * MS, MS);
            polls += 1;
            thread::sleep(5 * MS);
        }
        assert!(polls >= 5, "{polls} polls of 2 ms for 11 ms");
        waiting.join().expect("it goes on");
    }

    #[test]
    fn what_took_less_is_given_back_and_what_took_more_is_taken() {
        let pace = Pace::default();
        pace.poll(4 * MS, MS);
        pace.take(4_000_000);
        pace.settle(4_000_000, 1_000_000);
        pace.take(3_000_000);
        pace.settle(3_000_000, 5_000_000);
        assert_eq!(pace.left().gpu, -2_000_000);
        pace.settle(u64::MAX, 0);
        assert_eq!(pace.left().gpu, 4_000_000, "no more than a poll gives");
    }

    #[test]
    fn the_workers_time_counts_while_it_works_and_not_while_it_waits() {
        let pace = Pace::default();
        let work = |time: Duration| {
            let until = clock() + time;
            while clock() < until {}
        };
        pace.poll(MS, 100 * MS);
        work(20 * MS);
        pace.breathe();
        assert_eq!(pace.left().host, 100_000_000, "nothing to do is no work");
        pace.begin();
        work(20 * MS);
        thread::sleep(60 * MS);
        pace.away(60 * MS);
        pace.end();
        let left = pace.left().host;
        assert!((60_000_000..=80_000_000).contains(&left), "{left}");
        let worker = thread::spawn({
            let pace = pace.clone();
            move || {
                pace.begin();
                work(120 * MS);
                pace.breathe();
            }
        });
        thread::sleep(60 * MS);
        assert!(!worker.is_finished());
        while !worker.is_finished() {
            assert!(pace.left().host <= 80_000_000);
            pace.poll(MS, 10 * MS);
            thread::sleep(MS);
        }
        worker.join().expect("it goes on");
    }

    #[test]
    fn zero_pauses_and_a_hurry_does_not_wait() {
        let pace = Pace::default();
        pace.poll(4 * MS, 4 * MS);
        pace.poll(Duration::ZERO, Duration::ZERO);
        assert_eq!(pace.piece(), Some(2_000_000), "pieces keep their size");
        let waiting = thread::spawn({
            let pace = pace.clone();
            move || {
                pace.breathe();
                pace.take(1);
            }
        });
        thread::sleep(20 * MS);
        assert!(!waiting.is_finished(), "paused");
        let hurry = pace.hurry();
        waiting.join().expect("it goes on");
        drop(hurry);
        assert_eq!(pace.left().hurries, 0);
    }
}
