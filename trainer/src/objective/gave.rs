//! What a training run gives: read from this device, or made elsewhere (see [`crate::spread`]).
use crate::archive::{Item, kept};
use crate::machine::Machine;
use crate::{Error, Result};
use pentimento_runtime::exec::{PlanId, finite};

/// What an objective reads of a run.
pub(crate) struct Gives {
    /// Names, and how many numbers each has.
    pub named: Vec<(&'static str, usize)>,
    /// Whether it gives gradients, too.
    pub gradients: bool,
}

impl Gives {
    /// Gradients, and these.
    pub fn gradients(named: Vec<(&'static str, usize)>) -> Self {
        Gives { named, gradients: true }
    }
    /// These alone.
    pub fn only(named: Vec<(&'static str, usize)>) -> Self {
        Gives { named, gradients: false }
    }
}

/// What a run gave.
#[derive(Clone, Default)]
pub(crate) struct Outputs {
    names: Vec<String>,
    values: Vec<Vec<f32>>,
    /// In the order of [`super::Params::leaves`]; empty where it gives none.
    pub gradients: Vec<Vec<f32>>,
}
kept!(Outputs { names, values, gradients });
impl Item for Outputs {}

impl Outputs {
    /// Reads a finished run.
    pub fn read(m: &mut Machine, plan: PlanId, gives: &Gives) -> Result<Self> {
        let mut outputs = Outputs::default();
        for (name, _) in &gives.named {
            outputs.names.push((*name).into());
            outputs.values.push(m.pipeline.exec.read(plan, name)?);
        }
        if gives.gradients {
            outputs.gradients = m.params.gradients(&mut *m.pipeline.exec, plan)?;
        }
        Ok(outputs)
    }
    /// Refuses what is not what a run gives. `label` names where it comes from.
    pub fn check(&self, label: &str, m: &Machine, gives: &Gives) -> Result<()> {
        let own = self.names.iter().map(String::as_str).zip(self.values.iter().map(Vec::len));
        let fits = if gives.gradients { m.params.fit(&self.gradients) } else { self.gradients.is_empty() };
        if !(own.eq(gives.named.iter().copied()) && self.names.len() == self.values.len() && fits) {
            return Err(Error::bad(label, "the numbers that a run gives", "others"));
        }
        let mut all = self.values.iter().chain(&self.gradients);
        all.try_for_each(|values| finite(label, values))
    }
    /// Of that name.
    pub fn of(&self, name: &str) -> Result<&[f32]> {
        let at = self.names.iter().position(|own| own == name);
        let values = at.and_then(|at| self.values.get(at));
        values.map(Vec::as_slice).ok_or_else(|| Error::missing("a training run", format!("`{name}`")))
    }
}
