//! Several calls of one variant in one dispatch. Each has a bind group of its own, and the workgroups of one begin where those of the one
//! before end: a call's `first` is that place, subtracted from zero, so its code finds its own workgroups counted from 0, and every number
//! is computed as in a dispatch of its own.
//!
//! The source is rewritten as text: what touches bindings (functions, the bindings themselves) is there once for each call, under names of
//! its own; constants, types and workgroup memory are there once.
use crate::kernel::{Binding, Variant};
use crate::link::link;
use alloc::{collections::BTreeSet, format, string::String, vec::Vec};

/// Storage bindings of a call, where it can share a dispatch: none of its operands is a texture, and it packs nothing.
pub fn shareable(v: &Variant) -> Option<u32> {
    let plain = |kind: &Binding| matches!(kind, Binding::Storage | Binding::Packed(_));
    let bindings = v.bindings();
    bindings.iter().all(|(_, kind)| plain(kind)).then_some(bindings.len() as u32)
}

/// One WGSL source for `count` calls of a variant; the call's own for one. Bind group `i` belongs to call `i`.
pub fn link_together(v: &Variant, count: u32) -> String {
    let one = link(v);
    if count < 2 {
        return one;
    }
    // What does not parse is left to a compiler to refuse.
    several(&one, v.entry(), count).unwrap_or(format!("#error {} has no entry to share\n", v.entry()))
}

fn several(source: &str, entry: &str, count: u32) -> Option<String> {
    let source = without_comments(source);
    let (own, shared): (Vec<&str>, Vec<&str>) =
        declarations(&source).into_iter().partition(|d| function(d).is_some() || d.contains("@group("));
    let names: BTreeSet<&str> = own.iter().filter_map(|d| function(d).or_else(|| variable(d))).collect();
    let (heads, functions): (Vec<&str>, Vec<&str>) = own.iter().partition(|d| function(d) == Some(entry));
    let head = heads.first()?;
    let (signature, body) = head.split_at(head.find('{')?);
    let index = |call: u32| {
        let [wg, grid] = ["workgroup_id", "num_workgroups"].map(|builtin| parameter(signature, builtin));
        Some(format!("i32(p_of_{call}.first + {wg}.y * {grid}.x + {wg}.x) >= 0", wg = wg?, grid = grid?))
    };
    let mut out: String = shared.iter().flat_map(|d| [*d, "\n"]).collect();
    for call in 0..count {
        let group = format!("@group({call})");
        for d in &functions {
            out += &renamed(d, &names, call).replace("@group(0)", &group);
            out.push('\n');
        }
    }
    out += signature;
    out.push_str("{\n");
    for call in (0..count).rev() {
        if call > 0 {
            out += &format!("if {} ", index(call)?);
        }
        out += &renamed(body, &names, call);
        out += if call > 0 { "\nelse " } else { "\n}\n" };
    }
    Some(out)
}

fn without_comments(source: &str) -> String {
    source.lines().flat_map(|line| [line.split("//").next().unwrap_or_default(), "\n"]).collect()
}

/// Declarations and directives of a module, each to its semicolon or closing brace.
fn declarations(source: &str) -> Vec<&str> {
    let (mut all, mut depth, mut from) = (Vec::new(), 0i32, 0);
    for (at, c) in source.char_indices() {
        match c {
            '{' | '(' => depth += 1,
            '}' | ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 && (c == ';' || c == '}') {
            all.push(source[from..=at].trim());
            from = at + 1;
        }
    }
    all
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
fn name_at(text: &str) -> Option<&str> {
    let text = text.trim_start();
    Some(&text[..text.find(|c| !is_name(c))?])
}
/// The name of a function.
fn function(declaration: &str) -> Option<&str> {
    let at = declaration.find("fn ")?;
    let before = declaration[..at].chars().next_back();
    let begins = before.is_none_or(char::is_whitespace) && !declaration[..at].contains('{');
    name_at(&declaration[at + 3..]).filter(|_| begins)
}
/// The name of a variable in a bind group.
fn variable(declaration: &str) -> Option<&str> {
    let rest = declaration.split_once("var")?.1;
    name_at(if rest.starts_with('<') { rest.split_once('>')?.1 } else { rest })
}
/// The parameter with a builtin value.
fn parameter<'a>(signature: &'a str, builtin: &str) -> Option<&'a str> {
    name_at(signature.split_once(&format!("@builtin({builtin})"))?.1)
}

/// The text with `names` of one call; members of structures keep theirs.
fn renamed(text: &str, names: &BTreeSet<&str>, call: u32) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(is_name) {
        let (before, from) = rest.split_at(at);
        let (name, after) = from.split_at(from.find(|c| !is_name(c)).unwrap_or(from.len()));
        out += before;
        out += name;
        if names.contains(name) && !out[..out.len() - name.len()].ends_with('.') {
            out += &format!("_of_{call}");
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::variants;

    #[test]
    fn a_module_is_taken_apart() {
        let source = "enable f16;\nconst A = 1u; // fn no() {}\nstruct P { first: u32, n: u32 }\n@group(0) @binding(0) var<uniform> p: P;\n@group(0) @binding(1) var<storage, read_write> y: array<f32>;\nvar<workgroup> n: array<f32, 4>;\nfn f(n: u32) -> f32 { return y[n] * f32(p.n); }\n@compute @workgroup_size(4)\nfn main(@builtin(workgroup_id) wg: vec3<u32>,\n @builtin(num_workgroups) g: vec3<u32>) { if wg.x > p.n { return; } y[A] = f(p.first); }\n";
        let two = several(source, "main", 2).expect("two");
        for piece in [
            "enable f16;",
            "struct P { first: u32, n: u32 }",
            "@group(1) @binding(1) var<storage, read_write> y_of_1: array<f32>;",
            "fn f_of_0(n: u32) -> f32 { return y_of_0[n] * f32(p_of_0.n); }",
            "if i32(p_of_1.first + wg.y * g.x + wg.x) >= 0 { if wg.x > p_of_1.n { return; } y_of_1[A] = f_of_1(p_of_1.first); }",
            "else { if wg.x > p_of_0.n { return; } y_of_0[A] = f_of_0(p_of_0.first); }\n}",
        ] {
            assert_eq!(two.matches(piece).count(), 1, "{piece} in\n{two}");
        }
        assert_eq!(two.matches("fn main").count(), 1);
        assert!(
            several(source, "mian", 2).is_none()
                && several(&source.replace("workgroup_id", "x"), "main", 2).is_none()
        );
    }

    #[test]
    fn every_shareable_variant_has_an_entry_to_share() {
        let all: Vec<_> = variants().into_iter().filter(|v| shareable(v).is_some()).collect();
        assert!(all.len() > 800, "{}", all.len());
        for v in &all {
            let (one, three) = (link_together(v, 1), link_together(v, 3));
            assert_eq!(one, link(v));
            assert_eq!(three.matches("@group(2)").count(), one.matches("@group(0)").count(), "{v:?}");
            assert_eq!(three.matches("var<workgroup>").count(), one.matches("var<workgroup>").count());
        }
    }
}
