//! What must be the same for a run to go on: settings, model, reward, prompts and references, named so that a difference can be
//! told.
use crate::config::Config;
use crate::machine::Machine;
use crate::settings::part::rows;
use crate::train::Setup;
use crate::{Error, Result};
use pentimento_runtime::fingerprint::Hash;
use serde_json::{Map, Value, json};

/// Settings that a run may go on with in another way: they say how long and how, not what is learnt.
const FREE: [&str; 6] =
    ["iterations", "recompute", "stream", "at_once.train", "at_once.sample", "at_once.describe"];

/// Names and hashes. Of large weights a few hundred bytes a tensor are looked at: any training changes those.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity(Map<String, Value>);

impl Identity {
    /// `config` as it was given.
    pub fn new(m: &Machine, setup: &Setup<'_>, config: &Config) -> Result<Self> {
        let bench = || m.bench.as_ref().map(|bench| bench.judge.fingerprint());
        let reward = m.critic.as_ref().map(|critic| critic.backbone.fingerprint()).or_else(bench);
        let mut all = Map::new();
        // Sizes of 0 mean the model's own.
        let own = Config { width: m.pixels.0, height: m.pixels.1, ..config.clone() };
        let held = rows(&own).filter(|(setting, _)| !FREE.contains(&setting.name));
        all.extend(held.map(|(setting, field)| (setting.name.into(), field.text().into())));
        for (part, hash) in m.pipeline.fingerprints() {
            all.insert(format!("the model's {part}"), hash.into());
        }
        all.insert("the reward's network".into(), reward.into());
        all.insert("prompts".into(), json!(setup.prompts));
        all.insert("references".into(), setup.references.len().into());
        for (i, reference) in setup.references.iter().enumerate() {
            let mut hash = Hash::new();
            hash.words(reference.pixels.iter().map(|v| v.to_bits()));
            let one = format!("{} {:?} {}", reference.name, reference.caption, hash.finish());
            all.insert(format!("reference {}", i + 1), one.into());
        }
        Ok(Identity(all))
    }
    /// As a file keeps it, an object of JSON.
    pub fn text(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }
    /// Refuses a run that was begun with something else.
    pub fn accept(&self, label: &str, text: &str) -> Result<()> {
        let began: Map<String, Value> = serde_json::from_str(text)
            .map_err(|e| Error::bad(label, "what the run was begun with, as JSON", e.to_string()))?;
        let names = began.keys().chain(self.0.keys());
        let Some(name) = names.into_iter().find(|name| began.get(*name) != self.0.get(*name)) else {
            return Ok(());
        };
        let say = |value: Option<&Value>| match value {
            None => "none".into(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let place = format!("{label}, of a run with other inputs: {name}");
        Err(Error::bad(place, say(began.get(name)), say(self.0.get(name)))
            .with_hint("Give what that run was begun with, or begin another."))
    }
}
