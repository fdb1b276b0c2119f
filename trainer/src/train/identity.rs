//! What must be the same for a run to go on: settings, model, reward, prompts and references, named so that a difference can be
//! told.
use crate::config::Config;
use crate::machine::Machine;
use crate::train::Setup;
use crate::{Error, Result};
use pentimento::fingerprint::Hash;
use serde_json::{Map, Value, json};

/// Settings that a run may go on with in another way: they say how long and how, not what is learnt.
const FREE: [&str; 4] = ["iterations", "at_once.train", "at_once.sample", "at_once.describe"];

/// Names and hashes. Of large weights a few hundred bytes a tensor are looked at: any training changes those.
#[derive(Clone, Debug)]
pub(crate) struct Identity(Map<String, Value>);

impl Identity {
    /// `config` as it was given.
    pub fn new(m: &Machine, setup: &Setup<'_>, config: &Config) -> Result<Self> {
        let bench = || m.bench.as_ref().map(|bench| bench.judge.fingerprint());
        let reward = m.critic.as_ref().map(|critic| critic.backbone.fingerprint()).or_else(bench);
        let mut all = Map::new();
        flatten("", &settings(config)?, &mut all);
        FREE.iter().for_each(|name| drop(all.remove(*name)));
        // Sizes of 0 mean the model's own.
        (all["width"], all["height"]) = (m.pixels.0.into(), m.pixels.1.into());
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
    /// As a file keeps it.
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
        let say = |value: Option<&Value>| value.map_or("none".into(), Value::to_string);
        let place = format!("{label}, of a run with other inputs: {name}");
        Err(Error::bad(place, say(began.get(name)), say(self.0.get(name)))
            .with_hint("Give what that run was begun with, or begin another."))
    }
}

fn settings(config: &Config) -> Result<Value> {
    // Through text, where an f32 has the digits that it needs.
    serde_json::to_string(config)
        .and_then(|text| serde_json::from_str(&text))
        .map_err(|e| Error::bad("settings", "values that JSON has", e.to_string()))
}

/// `a.b.c` for what is nested.
fn flatten(at: &str, value: &Value, into: &mut Map<String, Value>) {
    match value {
        Value::Object(parts) => {
            for (name, part) in parts {
                let name = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                flatten(&name, part, into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            into.insert(at.into(), value.clone());
        }
    }
}
