//! Linking: a generated prelude of directives and constants, then the parts, as one WGSL source. Module-scope
//! declarations may stand in any order, so a missing or doubled part is an ordinary compiler error.
use crate::expand::expand;
use crate::kernel::Variant;
use alloc::{borrow::Cow, format, string::String, vec::Vec};

/// File name and text of every part of a variant, written out, in linking order.
pub fn parts(v: &Variant) -> Vec<(&'static str, Cow<'static, str>)> {
    let index = ("shared/index.wgsl", include_str!("../shader/shared/index.wgsl"));
    let mut constants = v.constants();
    constants.push(("WORKGROUP", v.needs().invocations));
    let all = core::iter::once(index).chain(v.parts());
    all.map(|(name, text)| (name, expand(text, &constants))).collect()
}

fn prelude(v: &Variant) -> String {
    let needs = v.needs();
    let mut s: String = needs.features.names().map(|name| format!("enable {name};\n")).collect();
    if needs.features.matrix {
        // naga takes every variable for one that differs among invocations; that ours do not is up to us.
        s += "diagnostic(off, derivative_uniformity);\n";
    }
    s += &format!("const WORKGROUP = {}u;\n", needs.invocations);
    for (name, value) in v.constants() {
        s += &format!("const {name} = {value}u;\n");
    }
    s
}

/// One WGSL source for a variant.
pub fn link(v: &Variant) -> String {
    let mut s = prelude(v);
    for (_, text) in parts(v) {
        s += &text;
    }
    s
}

/// The part and line (from 1) behind a line (from 1) of the linked source, for error messages.
pub fn origin(v: &Variant, line: usize) -> (&'static str, usize) {
    let mut left = line.saturating_sub(prelude(v).lines().count());
    if left == 0 {
        return ("prelude", line);
    }
    for (name, text) in parts(v) {
        let n = text.lines().count();
        if left <= n {
            return (name, left);
        }
        left -= n;
    }
    ("past the end", left)
}
