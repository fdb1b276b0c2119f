//! A training on more than one machine.
use crate::guard::{bytes, exclusive, guard, place};
use crate::job::{begin, pmt_job};
use crate::trainer::{pmt_trainer, written};
use crate::types::{pmt_status, pmt_write};
use runtime::room::copied;
use std::ffi::c_void;
use std::ptr::null_mut;

/// Lets others make rollouts and gradients of a training's iterations, in up to so many pieces; to be called before it is started. Whenever
/// PMT_EVENT_WANTED comes, give what `pmt_trainer_write_shared` writes to other trainers of the same model, settings, prompts and references, in
/// this process or on other machines; let each make some of the pieces with `pmt_trainer_work`, and bring them to `pmt_trainer_give`. A
/// piece that is lost can be made again by any of them. The warm start, the head, optimiser steps and looks stay here. All must take
/// equally many images at once: where `memory` would make that differ, set `at_once.train`. 0: everything is made here. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_spread(trainer: *mut pmt_trainer, pieces: u32) -> pmt_status {
    guard!(trainer, {
        let mut session = exclusive(&trainer.session, "trainer")?;
        let brief = session.brief("pieces")?;
        pentimento_trainer::spread::check(brief.settings.config.recipe)?;
        brief.pieces = pieces as usize;
        Ok(())
    })
}

/// Gives what others must know to make the pieces that a training waits for: the adapter, and for gradients the pictures and the head.
/// PMT_STATUS_BAD_ARGUMENT while it waits for none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_write_shared(
    trainer: *mut pmt_trainer,
    write: pmt_write,
    user: *mut c_void,
) -> pmt_status {
    guard!(trainer, {
        let shared = exclusive(&trainer.session, "trainer")?.training()?.shared()?;
        // SAFETY: the rules in the header.
        unsafe { written(&shared, write, user) }
    })
}

/// Takes in a piece, from 0, that `pmt_trainer_write_made` of another trainer wrote. Copied. `missing` gets how many are still to come, and may
/// be NULL; with the last one the training goes on. One that was given already changes nothing. What is not that piece is refused with a
/// sentence, and the training waits on. Waits for the piece of work in progress; milliseconds.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_give(
    trainer: *mut pmt_trainer,
    piece: u32,
    made: *const u8,
    len: usize,
    missing: *mut u32,
) -> pmt_status {
    guard!(trainer, {
        // SAFETY: the rules in the header.
        let made = unsafe { bytes(made, len, "made")? };
        let training = exclusive(&trainer.session, "trainer")?;
        let left = training.training()?.give(piece as usize, copied(made, "a piece")?)?;
        if !missing.is_null() {
            // SAFETY: the rules in the header.
            unsafe { *place(missing, "missing", 0)? = left as u32 };
        }
        Ok(())
    })
}

/// Begins to make a piece, from 0, for another trainer: `shared` is what its `pmt_trainer_write_shared` gave. Copied. A trainer that works for
/// others trains nothing of its own; its first job also reads prompts and references. One job at a time, of any iteration, in any order.
/// What does not fit is told by the job. Returns at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_work(
    trainer: *mut pmt_trainer,
    shared: *const u8,
    len: usize,
    piece: u32,
    job: *mut *mut pmt_job,
) -> pmt_status {
    guard!(trainer => job, {
        // SAFETY: the rules in the header.
        let (job, shared) = unsafe { (place(job, "job", null_mut())?, bytes(shared, len, "shared")?) };
        let mut session = exclusive(&trainer.session, "trainer")?;
        *job = begin(&trainer.shared, session.placed(&trainer.shared)?.work(copied(shared, "what is shared")?, piece as usize)?);
        Ok(())
    })
}

/// Gives the piece that the last job of `pmt_trainer_work` made, once. PMT_STATUS_MISSING where there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pmt_trainer_write_made(
    trainer: *mut pmt_trainer,
    write: pmt_write,
    user: *mut c_void,
) -> pmt_status {
    guard!(trainer, {
        let made = exclusive(&trainer.session, "trainer")?.training()?.made()?;
        // SAFETY: the rules in the header.
        unsafe { written(&made, write, user) }
    })
}
