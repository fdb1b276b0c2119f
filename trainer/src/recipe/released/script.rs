//! Where a released run's randomness comes from, and who watches it.
use crate::archive::kept;
use pentimento_runtime::rng::Philox;
use std::cell::RefCell;
use std::rc::Rc;

/// Supplies what is drawn and hears what is computed. Names are `e{epoch}.b{batch}.latents_init`,
/// `e{epoch}.b{batch}.s{step}.noise`, `e{epoch}.b{batch}.idx_gen`, `….idx_ref`, `e{epoch}.d.idx_real`, `….idx_fake`;
/// a recorded run can be replayed by answering with its numbers.
pub trait Script {
    /// Which of `prompts` prompts each batch of an epoch draws.
    fn order(&mut self, epoch: usize, batches: usize, prompts: usize) -> Vec<usize>;
    /// Standard normal numbers for latents, `[images, h, w, channels]`.
    fn noise(&mut self, name: &str, out: &mut [f32]);
    /// For each image, `count` of `patches` patches, with replacement.
    fn patches(&mut self, name: &str, images: usize, count: usize, patches: usize) -> Vec<Vec<u32>>;
    /// Something was computed: latents and images in the device's layout (channels last), the rest as it is.
    fn note(&mut self, name: &str, values: &[f32]) {
        let _ = (name, values);
    }
    /// The ordinary script, where it is that: only then can a run be saved.
    fn seeded(&mut self) -> Option<&mut Seeded> {
        None
    }
}

/// A script that its owner keeps an eye on.
impl<S: Script> Script for Rc<RefCell<S>> {
    fn order(&mut self, epoch: usize, batches: usize, prompts: usize) -> Vec<usize> {
        self.borrow_mut().order(epoch, batches, prompts)
    }
    fn noise(&mut self, name: &str, out: &mut [f32]) {
        self.borrow_mut().noise(name, out);
    }
    fn patches(&mut self, name: &str, images: usize, count: usize, patches: usize) -> Vec<Vec<u32>> {
        self.borrow_mut().patches(name, images, count, patches)
    }
    fn note(&mut self, name: &str, values: &[f32]) {
        self.borrow_mut().note(name, values);
    }
}

/// The ordinary script: everything from one seed, nothing noted.
#[derive(Clone, Debug)]
pub struct Seeded {
    pub(crate) rng: Philox,
    pub(crate) left: Vec<usize>,
}
kept!(Seeded { rng, left });
impl Default for Seeded {
    fn default() -> Self {
        Seeded::new(0)
    }
}

impl Seeded {
    /// Of a seed.
    pub fn new(seed: u64) -> Self {
        Seeded { rng: Philox::new(seed, 2), left: Vec::new() }
    }
}

impl Script for Seeded {
    fn seeded(&mut self) -> Option<&mut Seeded> {
        Some(self)
    }
    fn order(&mut self, _: usize, batches: usize, prompts: usize) -> Vec<usize> {
        while self.left.len() < batches && prompts > 0 {
            let mut more: Vec<usize> = (0..prompts).collect();
            self.rng.shuffle(&mut more);
            self.left.extend(more);
        }
        self.left.drain(..batches.min(self.left.len())).collect()
    }
    fn noise(&mut self, _: &str, out: &mut [f32]) {
        self.rng.normals(out);
    }
    fn patches(&mut self, _: &str, images: usize, count: usize, patches: usize) -> Vec<Vec<u32>> {
        let mut list = || (0..count).map(|_| self.rng.below(patches as u32)).collect();
        (0..images).map(|_| list()).collect()
    }
}
