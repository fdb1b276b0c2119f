//! A training on more than one machine, see [`crate::spread`].
use super::Trainer;
use crate::spread::errand::Errand;
use crate::spread::{Share, What, name};
use crate::{Error, Result};

/// What a training waits for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What the pieces are of.
    pub what: What,
    /// What every trainer that makes a piece must be given.
    pub shared: &'a [u8],
    /// How many pieces there are.
    pub pieces: usize,
}

impl Trainer {
    /// From now on rollouts and gradients of iterations are made by others, in up to so many pieces; 0: here again. When a step brings
    /// [`super::Event::Wanted`], every piece of [`Trainer::wanted`] is to be made by [`Trainer::work`] of another trainer of the same files and
    /// settings, and given to [`Trainer::give`]. The warm start, the head and looks stay here.
    ///
    /// # Errors
    /// A recipe whose iterations have no such pieces.
    pub fn spread(&mut self, pieces: usize) -> Result<()> {
        crate::spread::check(self.machine.config.recipe)?;
        self.machine.spread = pieces;
        Ok(())
    }
    /// What is waited for.
    pub fn wanted(&self) -> Option<Wanted<'_>> {
        let away = self.machine.away.as_ref()?;
        Some(Wanted { what: away.what, shared: &away.shared, pieces: away.pieces() })
    }
    /// Takes in a piece that another trainer made; gives how many are still missing. Giving one twice changes nothing.
    ///
    /// # Errors
    /// Nothing is waited for; bytes that are not that piece, with a sentence that says why: the piece is still missing then.
    pub fn give(&mut self, piece: usize, bytes: &[u8]) -> Result<usize> {
        let none = || Error::call("piece", "none now: no step has asked for any", piece.to_string());
        let mut away = self.machine.away.take().ok_or_else(none)?;
        let given = away.give(&self.machine, piece, bytes);
        let left = away.missing().count();
        self.machine.away = Some(away);
        given.map(|()| left)
    }

    /// Begins a piece for another trainer, whose [`Wanted::shared`] is `shared`; steps make it, up to [`super::Event::Done`], after which
    /// [`Trainer::take_made`] has it. A trainer that works for another trains nothing of its own. One piece after the other, of any iteration, in
    /// any order; a piece in progress is given up. `label` names the bytes in errors.
    ///
    /// # Errors
    /// A training that has begun; bytes that are damaged, or of a training of other files or settings.
    pub fn work(&mut self, label: &str, shared: &[u8], piece: usize) -> Result<()> {
        crate::spread::check(self.machine.config.recipe)?;
        if !self.serves && (self.phase().is_some() || self.machine.spread > 0) {
            return Err(Error::call(
                "trainer that works for another",
                "one that trains nothing",
                "one that does",
            ));
        }
        let share = Share::read(label, shared, &self.machine)?;
        if piece >= share.pieces {
            return Err(Error::call("piece", format!("less than {}", share.pieces), piece.to_string()));
        }
        if self.errand.take().is_some_and(|errand| errand.begun()) {
            (self.stage, self.running) = (None, None);
        }
        (self.serves, self.failed, self.made) = (true, None, None);
        self.errand = Some(Errand::new(share, name(shared), piece));
        Ok(())
    }
    /// The piece that was made, once.
    pub fn take_made(&mut self) -> Option<Vec<u8>> {
        self.made.take()
    }
}
