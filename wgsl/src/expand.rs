//! Unrolling: drivers keep arrays of matrices in slow memory unless every loop over them is unrolled, and WGSL has no word for
//! that, so parts may write loops out themselves. `//@ for x in A..B`, `//@ if E`, `//@ else`, `//@ end` stand on lines of their
//! own; `$x` and `$(E)` become numbers. Expressions: integers, names, `+ - * / %`, comparisons, `&& ||`, parentheses.
//!
//! What does not parse becomes a line that no WGSL compiler takes, with the reason in it.
use alloc::{borrow::Cow, collections::BTreeMap, format, string::String, string::ToString, vec::Vec};

/// Constants of a variant, and variables of the loops around a line.
type Names = BTreeMap<String, i64>;
type Result<T> = core::result::Result<T, String>;

/// The text with everything written out; `constants` are what names mean.
pub fn expand<'a>(text: &'a str, constants: &[(&'static str, u32)]) -> Cow<'a, str> {
    if !text.contains(MARK) {
        return Cow::Borrowed(text);
    }
    let mut names: Names = constants.iter().map(|&(n, v)| (n.to_string(), i64::from(v))).collect();
    let lines: Vec<&str> = text.lines().collect();
    let mut out = String::new();
    if let Err(why) = block(&lines, &mut names, &mut out) {
        out += &format!("#error {why}\n");
    }
    Cow::Owned(out)
}

const MARK: &str = "//@ ";

fn directive(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix(MARK).map(str::trim_end)
}

fn block(lines: &[&str], names: &mut Names, out: &mut String) -> Result<()> {
    let mut i = 0;
    while let Some(line) = lines.get(i) {
        let Some(d) = directive(line) else {
            *out += &fill(line, names)?;
            out.push('\n');
            i += 1;
            continue;
        };
        if let Some(rest) = d.strip_prefix("for ") {
            let end = close(lines, i + 1, false)?;
            for_each(rest, &lines[i + 1..end], names, out)?;
            i = end + 1;
        } else if let Some(e) = d.strip_prefix("if ") {
            let middle = close(lines, i + 1, true)?;
            let both = directive(lines[middle]) == Some("else");
            let end = if both { close(lines, middle + 1, false)? } else { middle };
            if eval(e, names)? != 0 {
                block(&lines[i + 1..middle], names, out)?;
            } else if both {
                block(&lines[middle + 1..end], names, out)?;
            }
            i = end + 1;
        } else {
            return Err(format!("`{d}` is no directive"));
        }
    }
    Ok(())
}

fn for_each(head: &str, body: &[&str], names: &mut Names, out: &mut String) -> Result<()> {
    let bounds = head.split_once(" in ").and_then(|(x, range)| Some((x, range.split_once("..")?)));
    let (x, (from, to)) = bounds.ok_or_else(|| format!("`{head}` is no loop"))?;
    let (from, to) = (eval(&fill(from, names)?, names)?, eval(&fill(to, names)?, names)?);
    let outer = names.get(x).copied();
    for v in from..to {
        names.insert(x.to_string(), v);
        block(body, names, out)?;
    }
    match outer {
        Some(v) => names.insert(x.to_string(), v),
        None => names.remove(x),
    };
    Ok(())
}

/// The line that closes the block beginning at `from`: its `end`, or its `else` when that is asked for.
fn close(lines: &[&str], from: usize, or_else: bool) -> Result<usize> {
    let mut depth = 0;
    for (i, line) in lines.iter().enumerate().skip(from) {
        match directive(line) {
            Some(d) if d.starts_with("for ") || d.starts_with("if ") => depth += 1,
            Some("else") if depth == 0 && or_else => return Ok(i),
            Some("end") if depth == 0 => return Ok(i),
            Some("end") => depth -= 1,
            _ => {}
        }
    }
    Err("a block without an end".into())
}

/// A line with numbers for what begins with `$`.
fn fill(line: &str, names: &Names) -> Result<String> {
    let mut out = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('$') {
        out += before;
        let (value, left) = if after.starts_with('(') {
            let end = matching(after).ok_or_else(|| format!("`${after}` is not closed"))?;
            (eval(&after[1..end], names)?, &after[end + 1..])
        } else {
            let word = after.len() - after.trim_start_matches(in_word).len();
            // The longest name that is one: `$i_$j` is two.
            let n = (1..=word).rev().find(|&n| names.contains_key(&after[..n]));
            let n = n.ok_or_else(|| format!("`${after}` begins with no name"))?;
            (names[&after[..n]], &after[n..])
        };
        out += &value.to_string();
        rest = left;
    }
    Ok(out + rest)
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Where the parenthesis that `text` begins with closes.
fn matching(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(i),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn eval(text: &str, names: &Names) -> Result<i64> {
    let mut p = Parser { rest: text, names };
    let value = p.level(0)?;
    if p.rest.trim().is_empty() { Ok(value) } else { Err(format!("`{}` is left of `{text}`", p.rest)) }
}

/// Binary operators by strength, weakest first; of two that begin alike, the longer one stands first.
const LEVELS: [&[&str]; 5] =
    [&["||"], &["&&"], &["==", "!=", "<=", ">=", "<", ">"], &["+", "-"], &["*", "/", "%"]];

struct Parser<'a> {
    rest: &'a str,
    names: &'a Names,
}

impl Parser<'_> {
    fn level(&mut self, level: usize) -> Result<i64> {
        let Some(operators) = LEVELS.get(level) else { return self.atom() };
        let mut left = self.level(level + 1)?;
        while let Some(op) = operators.iter().find(|op| self.rest.trim_start().starts_with(**op)) {
            self.rest = &self.rest.trim_start()[op.len()..];
            let right = self.level(level + 1)?;
            left = apply(op, left, right).ok_or_else(|| format!("{left} {op} {right} has no value"))?;
        }
        Ok(left)
    }
    fn atom(&mut self) -> Result<i64> {
        self.rest = self.rest.trim_start();
        if let Some(inner) = self.rest.strip_prefix('(') {
            self.rest = inner;
            let value = self.level(0)?;
            self.rest = self.rest.trim_start().strip_prefix(')').ok_or("a parenthesis is not closed")?;
            return Ok(value);
        }
        let n = self.rest.len() - self.rest.trim_start_matches(in_word).len();
        let (word, rest) = self.rest.split_at(n);
        self.rest = rest;
        let value = word.parse().ok().or_else(|| self.names.get(word).copied());
        value.ok_or_else(|| format!("`{word}` is no number and no name"))
    }
}

fn apply(op: &str, a: i64, b: i64) -> Option<i64> {
    match op {
        "||" => Some((a != 0 || b != 0).into()),
        "&&" => Some((a != 0 && b != 0).into()),
        "==" => Some((a == b).into()),
        "!=" => Some((a != b).into()),
        "<=" => Some((a <= b).into()),
        ">=" => Some((a >= b).into()),
        "<" => Some((a < b).into()),
        ">" => Some((a > b).into()),
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "/" => a.checked_div(b),
        "%" => a.checked_rem(b),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_conditions_and_numbers_are_written_out() {
        let text = "//@ for i in 0..N\n//@ if i % 2 == 0 && i < 9\nx$i_$(i*4+1) = $iu;\n//@ else\n-\n//@ end\n//@ end\nlast";
        assert_eq!(expand(text, &[("N", 3)]), "x0_1 = 0u;\n-\nx2_9 = 2u;\nlast\n");
        assert_eq!(expand("a $x", &[]), "a $x"); // without a directive, nothing is touched
    }

    #[test]
    fn bounds_may_depend_on_outer_loops() {
        let text = "//@ for i in 0..2\n//@ for j in i..N_$i\n$i$j\n//@ end\n//@ end";
        assert_eq!(expand(text, &[("N_0", 2), ("N_1", 2)]), "00\n01\n11\n");
    }

    #[test]
    fn what_does_not_parse_cannot_compile() {
        for text in [
            "//@ for i in 0..2\n",
            "//@ for i of 3\n//@ end",
            "//@ unless 1",
            "//@ if X\n//@ end",
            "//@ if (1\n//@ end",
            "//@ if 1/0\n//@ end",
            "//@ if 1\n$(1\n//@ end",
            "//@ if 1\n$?\n//@ end",
            "//@ if 1 2\n//@ end",
        ] {
            assert!(expand(text, &[]).contains("#error"), "{text}");
        }
    }
}
