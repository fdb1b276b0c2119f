//! Driver bugs that are known: rows of the table that are expected to fail on some adapter. A row that passes all the same is
//! an error too, so that a repaired driver is noticed. What the WGSL specification allows (flushed subnormals, a
//! division 2.5 ULP off) is no bug and never belongs here: the bounds contain it.

/// A row that is expected to fail.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Part of the adapter's name.
    pub adapter: &'static str,
    /// Part of the driver's description, with its version where that matters.
    pub driver: &'static str,
    /// Beginning of the draws it concerns, in their text form: `row`, `row:weight` or `row:weight:class`.
    pub draws: &'static str,
    /// What is wrong, and where it is reported.
    pub reason: &'static str,
}

/// All of them.
pub const KNOWN: &[Known] = &[];

/// The entry that concerns a row, by its text form, on an adapter.
pub fn find(list: &'static [Known], adapter: &str, driver: &str, row: &str) -> Option<&'static Known> {
    let concerns = |k: &&Known| {
        let rest = row.strip_prefix(k.draws);
        adapter.contains(k.adapter)
            && driver.contains(k.driver)
            && rest.is_some_and(|r| r.is_empty() || r.starts_with(':'))
    };
    list.iter().find(concerns)
}

/// Turns a row's result round where it is expected to fail: `Ok` carries a line to print.
///
/// # Errors
/// An unexpected failure, or an expected one that did not happen.
pub fn verdict(known: Option<&Known>, result: Result<(), String>) -> Result<Option<String>, String> {
    match (known, result) {
        (None, result) => result.map(|()| None),
        (Some(k), Err(e)) => Ok(Some(format!("expected to fail ({}): {e}", k.reason))),
        (Some(k), Ok(())) => Err(format!(
            "passes, but is listed in tests/src/known.rs ({}); take it off the list if the driver is repaired",
            k.reason
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[Known] =
        &[Known { adapter: "llvm", driver: "Mesa 1", draws: "gelu:f32", reason: "an invented bug" }];

    #[test]
    fn an_entry_concerns_its_rows_only() {
        let found = |adapter, driver, row| find(LIST, adapter, driver, row).is_some();
        assert!(found("llvmpipe", "Mesa 1.2", "gelu:f32:gpu"));
        assert!(!found("llvmpipe", "Mesa 1.2", "gelu:f16:gpu"));
        assert!(!found("llvmpipe", "Mesa 1.2", "gelu:f32x"));
        assert!(!found("llvmpipe", "Mesa 2", "gelu:f32:gpu"));
        assert!(!found("SwiftShader", "Mesa 1.2", "gelu:f32:gpu"));
    }
    #[test]
    fn a_repaired_bug_is_reported() {
        let known = LIST.first();
        assert!(verdict(known, Ok(())).is_err_and(|e| e.contains("take it off")));
        assert!(verdict(known, Err("x".into())).is_ok_and(|line| line.is_some()));
        assert!(verdict(None, Err("x".into())).is_err());
        assert!(verdict(None, Ok(())).is_ok_and(|line| line.is_none()));
    }
}
