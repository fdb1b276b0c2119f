//! What is known to be wrong on some adapter: draws that are expected to fail there. Each entry has a witness that must go on
//! failing, so that a repaired driver is noticed. Roundings that the WGSL specification allows (flushed subnormals, a
//! division 2.5 ULP off) never belong here: the bounds contain them.
use crate::draw::{Draw, Values};

/// Draws that are expected to fail.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Part of the adapter's name.
    pub adapter: &'static str,
    /// Part of the driver's description, with its version where that matters.
    pub driver: &'static str,
    /// Beginning of the rows it concerns.
    pub rows: &'static str,
    /// Values it needs; `None` for any.
    pub values: Option<Values>,
    /// A draw, in its text form, that fails.
    pub witness: &'static str,
    /// What is wrong, and where it is reported.
    pub reason: &'static str,
}

/// All of them.
pub const KNOWN: &[Known] = &[
    Known {
        adapter: "SwiftShader",
        driver: "",
        rows: "attention",
        values: Some(Values::Special),
        witness: "attention_4:f32:gpu:2,1,1:special:189",
        reason: "exp of NaN is 0, so a row of NaN logits has a finite sum; WGSL 15.7.2 lets drivers assume there is none",
    },
    Known {
        adapter: "SwiftShader",
        driver: "",
        rows: "softmax",
        values: Some(Values::Special),
        witness: "softmax:f32:gpu:5,2,1:special:304",
        reason: "exp of NaN is 0, so a row of NaN logits has a finite sum; WGSL 15.7.2 lets drivers assume there is none",
    },
];

impl Known {
    /// Whether an adapter has it.
    pub fn on(&self, adapter: &str, driver: &str) -> bool {
        adapter.contains(self.adapter) && driver.contains(self.driver)
    }
    /// Whether a draw is expected to fail because of it.
    pub fn concerns(&self, draw: &Draw) -> bool {
        draw.case.name.starts_with(self.rows) && self.values.is_none_or(|v| v == draw.values)
    }
    /// Judges the witness: a line to print when it failed.
    ///
    /// # Errors
    /// It passed.
    pub fn verdict(&self, witness: Result<(), String>) -> Result<String, String> {
        match witness {
            Err(e) => Ok(format!("expected to fail ({}): {}: {e}", self.reason, self.witness)),
            Ok(()) => Err(format!(
                "{} passes, but is listed in tests/src/known.rs ({}); take it off the list if the driver is repaired",
                self.witness, self.reason
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVENTED: Known = Known {
        adapter: "llvm",
        driver: "Mesa 1",
        rows: "gelu",
        values: Some(Values::Special),
        witness: "gelu:f32:gpu:1,1,1:special:0",
        reason: "an invented bug",
    };

    #[test]
    fn an_entry_concerns_its_draws_only() {
        assert!(INVENTED.on("llvmpipe", "Mesa 1.2"));
        assert!(!INVENTED.on("llvmpipe", "Mesa 2"));
        assert!(!INVENTED.on("SwiftShader", "Mesa 1.2"));
        let concerns = |text: &str| INVENTED.concerns(&text.parse().expect("a draw"));
        assert!(concerns("gelu:f32:gpu:1,1,1:special:3"));
        assert!(!concerns("gelu:f32:gpu:1,1,1:normal:3"));
        assert!(!concerns("silu:f32:gpu:1,1,1:special:3"));
    }
    #[test]
    fn witnesses_are_draws_they_concern() {
        for k in KNOWN.iter().chain([&INVENTED]) {
            let witness: Draw = k.witness.parse().unwrap_or_else(|e| panic!("{}: {e}", k.witness));
            assert!(k.concerns(&witness), "{}", k.witness);
        }
    }
    #[test]
    fn a_repaired_bug_is_reported() {
        assert!(INVENTED.verdict(Ok(())).is_err_and(|e| e.contains("take it off")));
        assert!(INVENTED.verdict(Err("x".into())).is_ok_and(|line| line.contains("an invented bug")));
    }
}
