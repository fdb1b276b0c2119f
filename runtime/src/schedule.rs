//! Flow-matching noise levels: which sigmas a sampling run visits.
//!
//! Follows diffusers 0.42 `FlowMatchEulerDiscreteScheduler.set_timesteps`, including its habit of shifting twice:
//! the end points come from the already shifted training table, and the line between them is shifted again.
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use crate::{Error, Result};

/// How dynamic shifting bends the line of sigmas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeShift {
    /// `exp(mu) / (exp(mu) + 1/t - 1)`.
    Exponential,
    /// `mu / (mu + 1/t - 1)`.
    Linear,
}

/// The shift that depends on the number of image tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DynamicShift {
    /// Formula.
    pub kind: TimeShift,
    /// mu at `base_image_seq_len` tokens.
    pub base_shift: f32,
    /// mu at `max_image_seq_len` tokens.
    pub max_shift: f32,
    /// Image tokens at which mu is `base_shift`.
    pub base_image_seq_len: u32,
    /// Image tokens at which mu is `max_shift`.
    pub max_image_seq_len: u32,
}

/// A scheduler configuration that this runtime can follow exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Length of the training table; time input of the transformer = sigma x this (1000 for SD3).
    pub num_train_timesteps: u32,
    /// Static shift `s` in `s u / (1 + (s - 1) u)`; 3.0 for SD3 and SD3.5. Unused when `dynamic` is set.
    pub shift: f32,
    /// Present when the configuration says `use_dynamic_shifting`.
    pub dynamic: Option<DynamicShift>,
    /// When set, sigmas are stretched so that the last non-zero one is this.
    pub shift_terminal: Option<f32>,
}

impl Schedule {
    /// The plain SD3 schedule: 1000 training steps, static `shift`.
    pub fn with_shift(shift: f32) -> Self {
        Schedule { num_train_timesteps: 1000, shift, dynamic: None, shift_terminal: None }
    }

    /// Reads `scheduler_config.json`. `label` names the file in errors.
    ///
    /// # Errors
    /// Text that is not JSON, values out of range, and settings whose sampling this runtime does not reproduce
    /// (another scheduler class, Karras, exponential or beta sigmas, inverted sigmas, stochastic sampling).
    pub fn from_json(text: &str, label: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text)
            .map_err(|e| Error::bad(label, "a JSON object", format!("text that does not parse: {e}")))?;
        Self::from_value(&json, label)
    }

    /// As [`Schedule::from_json`], from parsed JSON.
    ///
    /// # Errors
    /// As [`Schedule::from_json`].
    pub fn from_value(json: &Value, label: &str) -> Result<Self> {
        let fields = Fields { json, label };
        if !json.is_object() {
            return Err(Error::bad(label, "a JSON object", json.to_string()));
        }
        let class = json.get("_class_name").and_then(Value::as_str);
        if let Some(class) = class.filter(|c| *c != "FlowMatchEulerDiscreteScheduler") {
            return Err(fields.bad("_class_name", "FlowMatchEulerDiscreteScheduler", class).with_hint(
                "Only flow-matching models (SD3 family) are supported; is this another model's scheduler?",
            ));
        }
        for flag in [
            "use_karras_sigmas",
            "use_exponential_sigmas",
            "use_beta_sigmas",
            "invert_sigmas",
            "stochastic_sampling",
        ] {
            if fields.flag(flag)? {
                return Err(fields
                    .bad(flag, "false", "true")
                    .with_hint("This sampling variant is not implemented; set the field to false."));
            }
        }
        let num_train_timesteps = fields.whole("num_train_timesteps", 1000)?;
        if num_train_timesteps > 1_000_000 {
            let found = num_train_timesteps.to_string();
            return Err(fields.bad("num_train_timesteps", "at most 1000000", &found));
        }
        let shift = fields.positive("shift", 1.0)?;
        let kind = match json.get("time_shift_type").and_then(Value::as_str).unwrap_or("exponential") {
            "exponential" => TimeShift::Exponential,
            "linear" => TimeShift::Linear,
            other => return Err(fields.bad("time_shift_type", "exponential or linear", other)),
        };
        let dynamic = DynamicShift {
            kind,
            base_shift: fields.number("base_shift", 0.5)?,
            max_shift: fields.number("max_shift", 1.15)?,
            base_image_seq_len: fields.whole("base_image_seq_len", 256)?,
            max_image_seq_len: fields.whole("max_image_seq_len", 4096)?,
        };
        let dynamic = fields.flag("use_dynamic_shifting")?.then_some(dynamic);
        if dynamic.is_some_and(|d| d.base_image_seq_len == d.max_image_seq_len) {
            return Err(fields.bad("max_image_seq_len", "more than base_image_seq_len", "the same number"));
        }
        // diffusers tests `if shift_terminal:`, so 0 means "off".
        let shift_terminal = fields.number("shift_terminal", 0.0)?;
        if !(0.0..1.0).contains(&shift_terminal) {
            return Err(fields.bad("shift_terminal", "null or in [0, 1)", &shift_terminal.to_string()));
        }
        let shift_terminal = Some(shift_terminal).filter(|&t| t > 0.0);
        Ok(Schedule { num_train_timesteps, shift, dynamic, shift_terminal })
    }

    /// mu for an image of `image_tokens` latent patches: linear between the two configured points
    /// (diffusers `calculate_shift`). `None` when shifting is not dynamic.
    pub fn mu(&self, image_tokens: u32) -> Option<f32> {
        let d = self.dynamic?;
        let (x0, x1) = (f64::from(d.base_image_seq_len), f64::from(d.max_image_seq_len));
        let slope = (f64::from(d.max_shift) - f64::from(d.base_shift)) / (x1 - x0);
        Some((f64::from(image_tokens) * slope + f64::from(d.base_shift) - slope * x0) as f32)
    }

    /// The `steps + 1` sigmas of a run, from noise (about 1) down to a final 0.
    ///
    /// `mu` is needed when shifting is dynamic ([`Schedule::mu`]) and ignored otherwise.
    ///
    /// # Errors
    /// `steps` outside 1..=100000, or dynamic shifting without a finite `mu` (positive for the linear kind).
    pub fn sigmas(&self, steps: usize, mu: Option<f32>) -> Result<Vec<f32>> {
        if !(1..=100_000).contains(&steps) {
            return Err(Error::bad("sampling steps", "1 to 100000", steps.to_string()));
        }
        let n = f64::from(self.num_train_timesteps);
        let (max, min) = (self.table_sigma(self.num_train_timesteps), self.table_sigma(1));
        let (start, end) = (f64::from(max) * n, f64::from(min) * n);
        let step = if steps > 1 { (end - start) / (steps - 1) as f64 } else { 0.0 };
        let line = (0..steps).map(|i| {
            let t = if i > 0 && i + 1 == steps { end } else { start + step * i as f64 };
            t / n
        });
        self.shifted(line.collect(), mu)
    }

    /// As [`Schedule::sigmas`] for a caller's own unshifted sigmas, each in (0, 1], falling.
    ///
    /// # Errors
    /// An empty list, a sigma outside (0, 1], sigmas that do not fall, or a missing `mu`.
    pub fn sigmas_from(&self, unshifted: &[f32], mu: Option<f32>) -> Result<Vec<f32>> {
        let in_range = unshifted.iter().all(|&s| s > 0.0 && s <= 1.0);
        if unshifted.is_empty() || !in_range || unshifted.windows(2).any(|w| w[1] >= w[0]) {
            let found = format!("{unshifted:?}");
            return Err(Error::bad("sigmas", "falling values in (0, 1]", found));
        }
        self.shifted(unshifted.iter().map(|&s| f64::from(s)).collect(), mu)
    }

    /// Time input of the transformer at `sigma`: `num_train_timesteps * sigma`.
    pub fn timestep(&self, sigma: f32) -> f32 {
        sigma * self.num_train_timesteps as f32
    }

    /// Entry `t` (1..=num_train_timesteps) of the training table, in f32 as diffusers builds it.
    fn table_sigma(&self, t: u32) -> f32 {
        let u = t as f32 / self.num_train_timesteps as f32;
        if self.dynamic.is_some() { u } else { self.shift * u / (1.0 + (self.shift - 1.0) * u) }
    }

    fn shifted(&self, mut sigmas: Vec<f64>, mu: Option<f32>) -> Result<Vec<f32>> {
        if let Some(dynamic) = self.dynamic {
            let mu = mu.filter(|m| m.is_finite() && (dynamic.kind == TimeShift::Exponential || *m > 0.0));
            let mu = f64::from(mu.ok_or_else(|| {
                Error::bad("mu", "a finite (for linear shifting positive) number", "none that can be used")
                    .with_hint("This scheduler shifts dynamically: pass `Schedule::mu(image tokens)`.")
            })?);
            let m = if dynamic.kind == TimeShift::Exponential { libm::exp(mu) } else { mu };
            sigmas.iter_mut().for_each(|t| *t = m / (m + (1.0 / *t - 1.0)));
        } else {
            let s = f64::from(self.shift);
            sigmas.iter_mut().for_each(|t| *t = s * *t / (1.0 + (s - 1.0) * *t));
        }
        if let (Some(terminal), Some(&last)) = (self.shift_terminal, sigmas.last()) {
            let scale = (1.0 - last) / (1.0 - f64::from(terminal));
            if scale > 0.0 {
                sigmas.iter_mut().for_each(|t| *t = 1.0 - (1.0 - *t) / scale);
            }
        }
        Ok(sigmas.iter().map(|&s| s as f32).chain([0.0]).collect())
    }
}

/// Field access with errors that name the file and the field.
struct Fields<'a> {
    json: &'a Value,
    label: &'a str,
}

impl Fields<'_> {
    fn bad(&self, field: &str, expected: &str, found: &str) -> Error {
        Error::bad(format!("{}: `{field}`", self.label), expected, found)
    }

    fn present(&self, field: &str) -> Option<&Value> {
        self.json.get(field).filter(|v| !v.is_null())
    }

    fn flag(&self, field: &str) -> Result<bool> {
        let Some(value) = self.present(field) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.bad(field, "true or false", &value.to_string()))
    }

    fn number(&self, field: &str, default: f32) -> Result<f32> {
        let Some(value) = self.present(field) else { return Ok(default) };
        let number = value.as_f64().map(|v| v as f32).filter(|v| v.is_finite());
        number.ok_or_else(|| self.bad(field, "a finite number", &value.to_string()))
    }

    fn positive(&self, field: &str, default: f32) -> Result<f32> {
        let value = self.number(field, default)?;
        if value > 0.0 { Ok(value) } else { Err(self.bad(field, "a positive number", &value.to_string())) }
    }

    fn whole(&self, field: &str, default: u32) -> Result<u32> {
        let Some(value) = self.present(field) else { return Ok(default) };
        let number = value.as_u64().and_then(|v| u32::try_from(v).ok()).filter(|&v| v > 0);
        let found: String = value.to_string();
        number.ok_or_else(|| self.bad(field, "a positive whole number", &found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str) -> String {
        format!(r#"{{"_class_name":"FlowMatchEulerDiscreteScheduler","num_train_timesteps":1000{extra}}}"#)
    }

    fn parse(extra: &str) -> Result<Schedule> {
        Schedule::from_json(&config(extra), "s.json")
    }

    fn close(name: &str, got: &[f32], want: &[f32], tol: f32) {
        assert_eq!(got.len(), want.len(), "{name}");
        for (i, (a, b)) in got.iter().zip(want).enumerate() {
            assert!((a - b).abs() <= tol, "{name}[{i}]: {a} against {b}");
        }
    }

    #[test]
    fn ten_steps_with_shift_three() {
        // Values of diffusers 0.42 (sampler golden).
        let sigmas = Schedule::with_shift(3.0).sigmas(10, None).unwrap();
        assert_eq!((sigmas.len(), sigmas[0], sigmas[10]), (11, 1.0, 0.0));
        assert!((sigmas[9] - 0.008_928_57).abs() <= 2e-7, "{}", sigmas[9]);
        assert!(sigmas.windows(2).all(|w| w[1] < w[0]));
        assert_eq!(Schedule::with_shift(3.0).sigmas(1, None).unwrap(), [1.0, 0.0]);
    }

    #[test]
    fn mu_is_linear_in_tokens() {
        let s = parse(r#","use_dynamic_shifting":true"#).unwrap();
        close(
            "mu",
            &[s.mu(256).unwrap(), s.mu(4096).unwrap(), s.mu(2176).unwrap()],
            &[0.5, 1.15, 0.825],
            1e-6,
        );
        assert_eq!(Schedule::with_shift(3.0).mu(256), None);
        assert!(s.sigmas(4, None).unwrap_err().to_string().contains("Schedule::mu"));
        assert!(s.sigmas(4, Some(f32::NAN)).is_err());
        let linear = parse(r#","use_dynamic_shifting":true,"time_shift_type":"linear""#).unwrap();
        assert!(linear.sigmas(4, Some(-0.5)).is_err());
    }

    #[test]
    fn terminal_shift_ends_where_asked() {
        let s = parse(r#","shift":3.0,"shift_terminal":0.1"#).unwrap().sigmas(8, None).unwrap();
        close("terminal", &[s[0], s[7], s[8]], &[1.0, 0.1, 0.0], 1e-6);
        assert_eq!(parse(r#","shift_terminal":null"#).unwrap().shift_terminal, None);
    }

    #[test]
    fn bad_configurations_name_the_field() {
        for (extra, field) in [
            (r#","use_karras_sigmas":true"#, "use_karras_sigmas"),
            (r#","use_beta_sigmas":true"#, "use_beta_sigmas"),
            (r#","use_exponential_sigmas":true"#, "use_exponential_sigmas"),
            (r#","invert_sigmas":true"#, "invert_sigmas"),
            (r#","stochastic_sampling":true"#, "stochastic_sampling"),
            (r#","invert_sigmas":"yes""#, "invert_sigmas"),
            (r#","shift":0"#, "shift"),
            (r#","shift":"three""#, "shift"),
            (r#","shift":1e300"#, "shift"),
            (r#","num_train_timesteps":0"#, "num_train_timesteps"),
            (r#","num_train_timesteps":1e9"#, "num_train_timesteps"),
            (r#","num_train_timesteps":4000000000"#, "num_train_timesteps"),
            (r#","time_shift_type":"cubic""#, "time_shift_type"),
            (r#","shift_terminal":1.5"#, "shift_terminal"),
            (r#","use_dynamic_shifting":true,"max_image_seq_len":256"#, "max_image_seq_len"),
            (r#","_class_name":"DDIMScheduler""#, "_class_name"),
        ] {
            let text = parse(extra).unwrap_err().to_string();
            assert!(text.starts_with("s.json: `") && text.contains(field), "{extra}: {text}");
        }
        for text in ["", "[]", "{"] {
            assert!(Schedule::from_json(text, "s.json").unwrap_err().to_string().starts_with("s.json"));
        }
    }

    #[test]
    fn bad_requests_are_refused() {
        let s = Schedule::with_shift(3.0);
        assert!(s.sigmas(0, None).is_err() && s.sigmas(usize::MAX, None).is_err());
        for list in [&[][..], &[0.5, 0.6], &[1.1, 0.5], &[1.0, f32::NAN], &[1.0, 0.0]] {
            assert!(s.sigmas_from(list, None).is_err(), "{list:?}");
        }
    }
}
