//! A reward that the host computes, in place of the head: nothing is described and no head is trained.
use crate::{Error, Result};

/// An image to judge.
#[derive(Clone, Copy, Debug)]
pub struct Drawn<'a> {
    /// What it was drawn for.
    pub prompt: &'a str,
    /// Values in 0 to 1, H x W x 3.
    pub pixels: &'a [f32],
    /// Width and height.
    pub size: (usize, usize),
}

/// The reward of an image, then those of a square grid of its patches, row by row; larger is better. With
/// [`crate::objective::grpo::Credit::Image`] the patches may be missing: then the first number alone counts, else
/// [`crate::reward::head::Settings::class_weight`] weighs it against their mean.
pub type HostReward = Box<dyn FnMut(&Drawn<'_>) -> Vec<f32>>;

/// Accepts the rewards of an image: finite, with a square grid of patches, or none where they are not `needed`.
pub(crate) fn checked(rewards: Vec<f32>, needed: bool) -> Result<Vec<f32>> {
    let patches = rewards.len().saturating_sub(1);
    let square = patches.isqrt().pow(2) == patches && (patches > 0 || !needed);
    if !rewards.is_empty() && square && rewards.iter().all(|r| r.is_finite()) {
        return Ok(rewards);
    }
    let grid = if needed { "a square grid of patches" } else { "a square grid of patches or none" };
    let found = format!("{} numbers, {:?} and so on", rewards.len(), &rewards[..rewards.len().min(4)]);
    Err(Error::bad("the host's reward", format!("finite numbers for an image and {grid}"), found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_that_mean_nothing_are_refused() {
        assert!(checked(vec![1.0], false).is_ok() && checked(vec![0.0; 5], true).is_ok());
        for (rewards, needed) in
            [(vec![], false), (vec![1.0], true), (vec![0.0; 4], false), (vec![f32::NAN], false)]
        {
            assert!(checked(rewards.clone(), needed).is_err(), "{rewards:?}");
        }
    }
}
