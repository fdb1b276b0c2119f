//! Rewards: frozen networks, what learns on top of them, and who judges whom.
pub mod dino;
pub mod head;
pub mod judge;
pub mod pickscore;

/// What a step of a reward that learns reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadStep {
    /// Hinge loss: class token plus weighted patches.
    pub loss: f32,
    /// Part of class logits on the right side of zero, before the step.
    pub accuracy: f32,
}
