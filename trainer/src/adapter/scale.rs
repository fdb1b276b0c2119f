//! The scale alpha / r of each layer, from the two JSON forms that PEFT and diffusers write.
use super::encoder;
use pentimento_runtime::{Error, Result};
use serde_json::{Map, Value};

/// Where alpha and r are read from.
pub(super) struct Scales {
    place: String,
    /// Whether every field begins with its component: diffusers' metadata writes `transformer.lora_alpha`.
    by_component: bool,
    fields: Map<String, Value>,
}

impl Scales {
    /// From diffusers' `lora_adapter_metadata` if there is one, else from PEFT's `adapter_config.json`.
    pub(super) fn read(label: &str, metadata: Option<&str>, config: Option<&str>) -> Result<Self> {
        let (place, by_component, text) = match (metadata, config) {
            (Some(text), _) => (format!("{label}: lora_adapter_metadata"), true, text),
            (None, Some(text)) => (format!("adapter_config.json beside {label}"), false, text),
            (None, None) => (String::new(), false, "{}"),
        };
        let fields = match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(Error::bad(place, "a JSON object", "another JSON value")),
            Err(e) => {
                return Err(Error::bad(place, "a JSON object", format!("text that does not parse: {e}")));
            }
        };
        for (field, value) in &fields {
            let name = field.rsplit_once('.').map_or(field.as_str(), |(_, name)| name);
            if ["use_dora", "use_qalora", "use_bdlora"].contains(&name) && value.as_bool() == Some(true) {
                return Err(Error::bad(format!("{place}: `{field}`"), "false", "true")
                    .with_hint("Only plain LoRA is supported."));
            }
        }
        Ok(Scales { place, by_component, fields })
    }

    /// What is said about the component of this target.
    fn field(&self, name: &str, target: &str) -> Option<&Value> {
        let component = encoder(target).unwrap_or("transformer");
        let field = if self.by_component { format!("{component}.{name}") } else { name.to_string() };
        self.fields.get(&field).filter(|v| !v.is_null())
    }

    /// The factor of `B A` for a layer whose factors have rank `rank`: alpha / r, or alpha / sqrt(r) for rank-stabilised
    /// LoRA; 1 when nothing is said.
    pub(super) fn scale(&self, target: &str, rank: usize) -> Result<f32> {
        if let Some(r) = self.number("r", "rank_pattern", target)?
            && r != rank as f64
        {
            return Err(Error::bad(
                format!("{}: `{target}`", self.place),
                format!("rank {r}"),
                rank.to_string(),
            )
            .with_hint("Does this configuration belong to this adapter?"));
        }
        let Some(alpha) = self.number("lora_alpha", "alpha_pattern", target)? else { return Ok(1.0) };
        let rank = rank as f64;
        let rslora = self.field("use_rslora", target).and_then(Value::as_bool).unwrap_or(false);
        let scale = (alpha / if rslora { rank.sqrt() } else { rank }) as f32;
        if scale.is_finite() {
            return Ok(scale);
        }
        let place = format!("{}: `{target}`", self.place);
        Err(Error::bad(place, "a scale alpha / rank within f32", format!("{alpha} / {rank}")))
    }

    /// `field`, or what `pattern` says about this target. A pattern's key matches the end of a module name.
    fn number(&self, field: &str, pattern: &str, target: &str) -> Result<Option<f64>> {
        let bad = |name: &str, value: &Value| {
            Err(Error::bad(format!("{}: `{name}`", self.place), "a finite number", value.to_string()))
        };
        for (key, value) in self.field(pattern, target).and_then(Value::as_object).into_iter().flatten() {
            if key.contains(['^', '$', '*', '+', '?', '\\', '|', '[', '(', '{']) {
                return Err(Error::bad(
                    format!("{}: `{pattern}`", self.place),
                    "module names",
                    format!("`{key}`"),
                )
                .with_hint("Regular expressions are not supported here."));
            }
            let matches =
                target.strip_suffix(key.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            if matches {
                return value.as_f64().map_or_else(|| bad(pattern, value), |v| Ok(Some(v)));
            }
        }
        match self.field(field, target) {
            None => Ok(None),
            Some(value) => value.as_f64().map_or_else(|| bad(field, value), |v| Ok(Some(v))),
        }
    }
}
