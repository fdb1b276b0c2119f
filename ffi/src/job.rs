//! Jobs.
use crate::context::chars;
use crate::guard::{Failure, Handle, Result, given, guard, place, record, text_into};
use crate::handles::{forget, keep};
use crate::image;
use crate::shared::Shared;
use crate::types::{pmt_event, pmt_event_kind, pmt_image, pmt_metrics, pmt_phase, pmt_progress, pmt_status};
use pentimento_trainer::host::{Job, News, Outcome, Phase, Progress};
use pentimento_trainer::train::Metrics;
use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

/// Work of a context, under way or over.
pub struct pmt_job {
    pub shared: Arc<Shared>,
    pub job: Arc<Job>,
}

impl Handle for pmt_job {
    fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// A handle for a new job.
pub fn begin(shared: &Arc<Shared>, job: Job) -> *mut pmt_job {
    let job = Arc::new(job);
    shared.keep(&job);
    keep(pmt_job { shared: shared.clone(), job })
}

fn phase(phase: Phase) -> u32 {
    (match phase {
        Phase::Waiting => pmt_phase::Waiting,
        Phase::Opening => pmt_phase::Opening,
        Phase::Loading => pmt_phase::Loading,
        Phase::Encoding => pmt_phase::Encoding,
        Phase::Warm => pmt_phase::Warm,
        Phase::Iterating => pmt_phase::Iterating,
        Phase::Drawing => pmt_phase::Drawing,
        Phase::Over => pmt_phase::Over,
    }) as u32
}

/// A job's end as a call's.
fn ended(outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::Running => Err(Failure::Pending),
        Outcome::Done => Ok(()),
        Outcome::Cancelled => Err(runtime::Error::Cancelled.into()),
        Outcome::Failed(error) => Err(error.into()),
    }
}
fn status(outcome: Outcome) -> pmt_status {
    ended(outcome).map_or_else(|failure| failure.status(), |()| pmt_status::Ok)
}

impl From<&Metrics> for pmt_metrics {
    fn from(m: &Metrics) -> Self {
        pmt_metrics {
            reward_generated: m.reward_generated,
            reward_reference: m.reward_reference,
            reward_spread: m.reward_spread,
            head_loss: m.head_loss,
            head_accuracy: m.head_accuracy,
            clip_fraction: m.clip_fraction,
            gradient_norm: m.gradient_norm,
            agreement: m.agreement.unwrap_or(-2.0),
            rate: m.rate,
            anchor_loss: m.anchor_loss,
            supervised_loss: m.supervised_loss,
            seconds: m.seconds as f32,
        }
    }
}

/// Tells how far a job is. `size` is `sizeof(pmt_progress)`. For every thread. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_job_progress(
    job: *const pmt_job,
    progress: *mut pmt_progress,
    size: usize,
) -> pmt_status {
    guard!(job, {
        // SAFETY: the rules in the header.
        let progress = unsafe { record(progress, size, "progress")? };
        progress.fill(&seen(&job.job.progress(), job.job.outcome()));
        Ok(())
    })
}

fn seen(p: &Progress, outcome: Outcome) -> pmt_progress {
    let look = p.look.as_ref();
    pmt_progress {
        phase: phase(p.phase),
        status: status(outcome) as u32,
        done: p.done as u32,
        total: p.total as u32,
        iteration: p.iteration as u32,
        iterations: p.iterations as u32,
        seconds_left: p.seconds_left.map_or(-1.0, |s| s as f32),
        warm_loss: p.warm_loss,
        silhouettes: look.and_then(|l| l.silhouettes).unwrap_or(-1.0),
        distance: look.map_or(-1.0, |l| l.distance),
        best_iteration: look.and_then(|l| l.best).unwrap_or(0) as u32,
        metrics: p.metrics.as_ref().map(pmt_metrics::from).unwrap_or_default(),
    }
}

/// Fetches the oldest event that was not fetched yet; PMT_STATUS_PENDING where there is none. 4096 are kept, the oldest lost first. `size` is
/// `sizeof(pmt_event)`. For every thread. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_job_event(
    job: *const pmt_job,
    event: *mut pmt_event,
    size: usize,
) -> pmt_status {
    guard!(job, {
        // SAFETY: the rules in the header.
        let event = unsafe { record(event, size, "event")? };
        event.fill(&told(job.job.news().ok_or(Failure::Pending)?));
        Ok(())
    })
}

fn told(news: News) -> pmt_event {
    use pmt_event_kind as kind;
    let none = pmt_event {
        kind: 0,
        phase: 0,
        status: 0,
        done: 0,
        total: 0,
        iteration: 0,
        loss: 0.0,
        silhouettes: 0.0,
        distance: 0.0,
        metrics: pmt_metrics::default(),
        text: [0; 256],
    };
    let of = |kind: pmt_event_kind| pmt_event { kind: kind as u32, ..none };
    match news {
        News::Opened(name) => pmt_event { text: chars(&name), ..of(kind::Opened) },
        News::Phase(p) => pmt_event { phase: phase(p), ..of(kind::Phase) },
        News::Step(done, total) => pmt_event { done: done as u32, total: total as u32, ..of(kind::Step) },
        News::Warm(done, loss) => pmt_event { done: done as u32, loss, ..of(kind::Warm) },
        News::Iteration(m) => {
            pmt_event { iteration: m.iteration as u32, metrics: (&*m).into(), ..of(kind::Iteration) }
        }
        News::Look(look) => pmt_event {
            iteration: look.iteration as u32,
            silhouettes: look.silhouettes.unwrap_or(-1.0),
            distance: look.distance,
            text: chars(look.stop.as_deref().unwrap_or("")),
            ..of(kind::Look)
        },
        News::Wanted(what, pieces) => {
            pmt_event { total: pieces as u32, text: chars(what.name()), ..of(kind::Wanted) }
        }
        News::Preview(step) => pmt_event { done: step as u32, ..of(kind::Preview) },
        News::Note(text) => pmt_event { text: chars(&text), ..of(kind::Note) },
        News::Over(outcome) => {
            let text = if let Outcome::Failed(error) = &outcome { error.to_string() } else { String::new() };
            pmt_event { status: status(outcome) as u32, text: chars(&text), ..of(kind::Over) }
        }
    }
}

/// Waits until a job is over, at most so many milliseconds, UINT32_MAX for as long as it takes: gives its status, and PMT_STATUS_PENDING
/// where time ran out. The context's budgets are not kept meanwhile. For every thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_job_wait(job: *const pmt_job, milliseconds: u32) -> pmt_status {
    guard!(job, {
        let most = (milliseconds != u32::MAX).then(|| Duration::from_millis(milliseconds.into()));
        ended(job.job.wait(most))
    })
}

/// Pauses a job after the piece of work in progress, or with `paused` 0 goes on. Other jobs of the context go on meanwhile, but for later
/// drawings of the same pipeline or trainer. For every thread. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_job_pause(job: *const pmt_job, paused: u32) -> pmt_status {
    guard!(job, {
        job.job.pause(paused != 0);
        Ok(())
    })
}

/// Ends a job after the piece of work in progress. A training keeps what it has learnt and can be started again. For every thread.
/// Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_job_cancel(job: *const pmt_job) -> pmt_status {
    guard!(job, {
        job.job.cancel();
        Ok(())
    })
}

/// Copies the sentence of a job that failed, as `pmt_error_message` does, and gives its length; 0 for any other job. For every thread. Returns at
/// once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_job_message(job: *const pmt_job, buffer: *mut c_char, len: usize) -> usize {
    let mut whole = 0;
    guard!(job, {
        let message =
            if let Outcome::Failed(error) = job.job.outcome() { error.to_string() } else { String::new() };
        // SAFETY: the rules in the header.
        whole = unsafe { text_into(&message, buffer, len, "buffer")? };
        Ok(())
    });
    whole
}

/// The size of the images that a drawing gives, or of its preview; PMT_STATUS_PENDING before the first one is there. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_job_image_size(
    job: *const pmt_job,
    width: *mut u32,
    height: *mut u32,
) -> pmt_status {
    guard!(job, {
        // SAFETY: the rules in the header.
        let (width, height) = unsafe { (place(width, "width", 0)?, place(height, "height", 0)?) };
        let picture = job.job.picture(0).or_else(|| job.job.preview()).ok_or(Failure::Pending)?;
        (*width, *height) = (picture.width as u32, picture.height as u32);
        Ok(())
    })
}

/// Writes the image of an index, from 0, of a drawing into the program's memory; PMT_STATUS_PENDING before it is there. Every image can be
/// fetched as often as one likes until the job is freed. For every thread. Milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_job_image(
    job: *const pmt_job,
    index: u32,
    image: *const pmt_image,
) -> pmt_status {
    guard!(job, {
        let picture = job.job.picture(index as usize).ok_or(Failure::Pending)?;
        // SAFETY: the rules in the header.
        unsafe { image::write(&picture, given(image, "image")?) }
    })
}

/// Writes the last preview of a drawing, as `pmt_job_image` does an image: what the first image under way would be if its last step's
/// direction held.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_job_preview(job: *const pmt_job, image: *const pmt_image) -> pmt_status {
    guard!(job, {
        let picture = job.job.preview().ok_or(Failure::Pending)?;
        // SAFETY: the rules in the header.
        unsafe { image::write(&picture, given(image, "image")?) }
    })
}

/// Frees a job, which is cancelled if it is not over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_job_free(job: *mut pmt_job) {
    guard!(_, {
        if let Some(found) = crate::handles::find(job) {
            found.job.cancel();
        }
        forget(job);
        Ok(())
    });
}
