//! Freeing what is not needed for a while. All of it comes back, from the mapped files, when it is needed again.
use super::Pipeline;
use crate::Result;
use crate::model::vae;
use alloc::{collections::BTreeMap, format, vec::Vec};

impl Pipeline {
    /// Frees the text encoders' plans and weights until a prompt is encoded that no cache has. Texts that are under way
    /// ([`super::Texts`]) go on afterwards, if none was launched and not collected.
    ///
    /// # Errors
    /// The device failed.
    pub fn forget_texts(&mut self) -> Result<()> {
        let exec = &mut *self.exec;
        self.encoders.as_mut().map_or(Ok(()), |encoders| encoders.forget(exec))
    }

    /// Frees the plans of [`Pipeline::image_encoder`], and the weights that only they read.
    ///
    /// # Errors
    /// Another plan that encodes images; the device failed.
    pub fn forget_image_encoder(&mut self) -> Result<()> {
        for plan in core::mem::take(&mut self.image_encoders).into_values() {
            self.exec.forget(plan)?;
        }
        let component = vae::COMPONENT;
        vae::ENCODER.iter().try_for_each(|part| self.exec.forget_leaves(&format!("{component}/{part}.")))
    }

    /// Frees the plans of [`Pipeline::velocity`] and [`Pipeline::decoder`] whose batch and latent height and width `keep` does not want; their
    /// ids mean nothing from then on. Weights stay.
    ///
    /// # Errors
    /// The device failed.
    pub fn forget_plans(&mut self, keep: &dyn Fn(usize, [usize; 2]) -> bool) -> Result<()> {
        let gone = |key: &(usize, usize, usize)| !keep(key.0, [key.1, key.2]);
        let velocities = taken(&mut self.velocities, &gone).into_iter().map(|velocity| velocity.plan);
        let plans: Vec<_> = velocities.chain(taken(&mut self.decoders, &gone)).collect();
        plans.into_iter().try_for_each(|plan| self.exec.forget(plan))
    }
}

/// The values of a map whose keys are `gone`, taken out.
fn taken<K: Ord, V>(map: &mut BTreeMap<K, V>, gone: &dyn Fn(&K) -> bool) -> Vec<V> {
    map.extract_if(.., |key, _| gone(key)).map(|(_, value)| value).collect()
}
