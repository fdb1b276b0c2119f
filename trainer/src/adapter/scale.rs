//! The scale alpha / r of each layer, from the two JSON forms that PEFT and diffusers write.
use pentimento::{Error, Result};
use serde_json::{Map, Value};

/// Where alpha and r are read from.
pub(super) struct Scales {
    place: String,
    /// Prefix of every field: diffusers' metadata writes `transformer.lora_alpha`.
    prefix: &'static str,
    fields: Map<String, Value>,
}

impl Scales {
    /// From diffusers' `lora_adapter_metadata` if there is one, else from PEFT's `adapter_config.json`.
    pub(super) fn read(label: &str, metadata: Option<&str>, config: Option<&str>) -> Result<Self> {
        let (place, prefix, text) = match (metadata, config) {
            (Some(text), _) => (format!("{label}: lora_adapter_metadata"), "transformer.", text),
            (None, Some(text)) => (format!("adapter_config.json beside {label}"), "", text),
            (None, None) => (String::new(), "", "{}"),
        };
        let fields = match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err(Error::bad(place, "a JSON object", "another JSON value")),
            Err(e) => {
                return Err(Error::bad(place, "a JSON object", format!("text that does not parse: {e}")));
            }
        };
        let scales = Scales { place, prefix, fields };
        for variant in ["use_dora", "use_qalora", "use_bdlora"] {
            if scales.flag(variant) {
                return Err(Error::bad(format!("{}: `{variant}`", scales.place), "false", "true")
                    .with_hint("Only plain LoRA is supported."));
            }
        }
        Ok(scales)
    }

    fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(&format!("{}{name}", self.prefix)).filter(|v| !v.is_null())
    }

    fn flag(&self, name: &str) -> bool {
        self.field(name).and_then(Value::as_bool).unwrap_or(false)
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
        Ok((alpha / if self.flag("use_rslora") { rank.sqrt() } else { rank }) as f32)
    }

    /// `field`, or what `pattern` says about this target. A pattern's key matches the end of a module name.
    fn number(&self, field: &str, pattern: &str, target: &str) -> Result<Option<f64>> {
        let bad = |name: &str, value: &Value| {
            Err(Error::bad(format!("{}: `{name}`", self.place), "a finite number", value.to_string()))
        };
        for (key, value) in self.field(pattern).and_then(Value::as_object).into_iter().flatten() {
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
        match self.field(field) {
            None => Ok(None),
            Some(value) => value.as_f64().map_or_else(|| bad(field, value), |v| Ok(Some(v))),
        }
    }
}
