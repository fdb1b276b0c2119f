//! One property case: a row of the table with the choices that make it concrete. Its text form replays it.
use crate::cases::{Case, all};
use crate::check::Data;
use half::{bf16, f16};
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::{Executor, LeafData};
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id, Leaf, Op};
use pentimento_runtime::plan::Plan;
use pentimento_runtime::rng::Philox;
use pentimento_runtime::weights::DType;
use pentimento_wgsl::kernel::{BLOCKS, PLAIN, Plain};
use pentimento_wgsl::{Class, Stored};
use proptest::prelude::*;
use std::fmt;
use std::str::FromStr;

/// What the inputs are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Standard normal.
    Normal,
    /// 2^-149 to 2^-100, so subnormals too.
    Tiny,
    /// 2^30 to 2^62: products stay finite, higher powers do not.
    Huge,
    /// 2^-24 to 2^24 side by side.
    Mixed,
    /// Signed zeros and small numbers whose sums are exact.
    Zeros,
    /// Normal, with an infinity or NaN here and there in the first input.
    Special,
}

const VALUES: [(Values, &str); 6] = [
    (Values::Normal, "normal"),
    (Values::Tiny, "tiny"),
    (Values::Huge, "huge"),
    (Values::Mixed, "mixed"),
    (Values::Zeros, "zeros"),
    (Values::Special, "special"),
];
const CLASSES: [(Class, &str); 2] = [(Class::Gpu, "gpu"), (Class::Software, "software")];

/// A concrete case.
#[derive(Clone, Copy)]
pub struct Draw {
    /// Row of the table.
    pub case: Case,
    /// Which kernel bodies are planned.
    pub class: Class,
    /// How weight leaves are stored.
    pub weight: Stored,
    /// Sizes.
    pub n: [usize; 3],
    /// Numbers.
    pub values: Values,
    /// Where the numbers start.
    pub seed: u32,
    /// Lower the limit of a dispatch's side until the grid folds.
    pub fold: bool,
    /// Lower the limit of a binding until commands are cut into pieces, where they can be.
    pub split: bool,
    /// Lower the limit of a dispatch's work until commands become several dispatches, but for those of one workgroup.
    pub cut: bool,
    /// Textures are large enough for staging; only the software class asks.
    pub stage: bool,
}

fn word<T: Copy + PartialEq>(table: &[(T, &'static str)], value: T) -> &'static str {
    table.iter().find(|t| t.0 == value).map_or("?", |t| t.1)
}
fn find<T: Copy>(table: &[(T, &'static str)], text: &str) -> Result<T, String> {
    let known = || table.iter().map(|t| t.1).collect::<Vec<_>>().join(", ");
    table.iter().find(|t| t.1 == text).map(|t| t.0).ok_or_else(|| format!("`{text}` is none of {}", known()))
}

/// A way to store weights by its name.
fn stored(text: &str) -> Result<Stored, String> {
    let mut all = PLAIN.map(Stored::from).into_iter().chain(BLOCKS);
    all.find(|kind| kind.name() == text).ok_or_else(|| format!("`{text}` is no way to store weights"))
}

/// A row as it is explored, in the text form that begins its draws: `row:weight:class`.
pub fn label(case: Case, class: Class, weight: Stored) -> String {
    format!("{}:{}:{}", case.name, weight.name(), word(&CLASSES, class))
}

impl fmt::Display for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.n;
        let head = label(self.case, self.class, self.weight);
        write!(f, "{head}:{a},{b},{c}:{}:{}", word(&VALUES, self.values), self.seed)?;
        f.write_str(if self.fold { ":fold" } else { "" })?;
        f.write_str(if self.split { ":split" } else { "" })?;
        f.write_str(if self.cut { ":cut" } else { "" })?;
        f.write_str(if self.class == Class::Software && !self.stage { ":unstaged" } else { "" })
    }
}
impl fmt::Debug for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for Draw {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let parts: Vec<&str> = s.split(':').collect();
        let mut head = parts.as_slice();
        let mut flag = |name: &str| {
            let rest = head.split_last().filter(|(last, _)| **last == name).map(|(_, rest)| rest);
            head = rest.unwrap_or(head);
            rest.is_some()
        };
        let (unstaged, cut, split, fold) = (flag("unstaged"), flag("cut"), flag("split"), flag("fold"));
        let &[name, weight, class, n, values, seed] = head else {
            return Err(format!(
                "`{s}` is not ROW:WEIGHT:CLASS:A,B,C:VALUES:SEED[:fold][:split][:cut][:unstaged]"
            ));
        };
        let n: Result<Vec<usize>, _> = n.split(',').map(str::parse).collect();
        let n = n.ok().and_then(|n| <[usize; 3]>::try_from(n).ok());
        Ok(Draw {
            case: all().find(|c| c.name == name).ok_or_else(|| format!("no row is called `{name}`"))?,
            weight: stored(weight)?,
            class: find(&CLASSES, class)?,
            n: n.ok_or("three sizes are wanted, as 3,65,17")?,
            values: find(&VALUES, values)?,
            seed: seed.parse().map_err(|_| format!("`{seed}` is not a seed"))?,
            fold,
            split,
            cut,
            stage: !unstaged,
        })
    }
}

/// Edges of the tiles (12 x 16 register tiles, 16 deep and 64 wide workgroup tiles), primes, one, and anything.
fn side() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => proptest::sample::select(vec![1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 15, 16, 17, 23, 31, 32, 33]),
        2 => proptest::sample::select(vec![47, 48, 49, 61, 63, 64, 65, 101, 127, 128, 129]),
        3 => 1usize..=40,
    ]
}
/// The nearest half; they end at 65504.
fn half(x: f32) -> f16 {
    f16::from_f32(x.clamp(-60000.0, 60000.0))
}

/// Three sides; tall and flat ones too. The volume is bounded, because a twin is slow.
fn sides() -> impl Strategy<Value = [usize; 3]> {
    let volume = |mut n: [usize; 3]| {
        while n.iter().product::<usize>() > 150_000 {
            let largest = n.iter().copied().max().unwrap_or(1);
            n.iter_mut().filter(|s| **s == largest).for_each(|s| *s = *s / 2 + 1);
        }
        n
    };
    prop_oneof![
        8 => [side(), side(), side()].prop_map(volume),
        1 => (500usize..2000, 1usize..4, 1usize..4).prop_map(|(a, b, c)| [a, b, c]),
        1 => (1usize..4, 500usize..2000, 1usize..4).prop_map(|(a, b, c)| [a, b, c]),
        1 => (1usize..4, 1usize..4, 500usize..2000).prop_map(|(a, b, c)| [a, b, c]),
    ]
}

/// Draws for one row, class and weight type.
pub fn draws(case: Case, class: Class, weight: Stored) -> impl Strategy<Value = Draw> {
    let values = prop_oneof![
        4 => Just(Values::Normal),
        1 => Just(Values::Tiny),
        1 => Just(Values::Huge),
        2 => Just(Values::Mixed),
        1 => Just(Values::Zeros),
        1 => Just(Values::Special),
    ];
    let rarely = proptest::bool::weighted(0.2);
    let flags = (rarely, rarely, rarely, rarely);
    (sides(), values, 0u32..1000, flags).prop_map(move |(n, values, seed, (fold, split, cut, unstaged))| {
        Draw {
            case,
            class,
            weight,
            n,
            values,
            seed,
            fold,
            split,
            cut,
            stage: !unstaged || class == Class::Gpu,
        }
    })
}

/// Forward value, then the gradients of a random `dy`; with `recompute`, the row is one recomputed block.
pub fn with_gradients(case: &Case, n: [usize; 3], recompute: bool) -> (Graph, Vec<(String, Id)>) {
    let mut g = Graph::new();
    if recompute {
        g.begin_block();
    }
    let (y, wrt) = (case.build)(&mut g, n);
    g.end_block();
    let shape = g.shape(y).to_vec();
    let mut out = vec![("y".to_string(), y)];
    if !wrt.is_empty() {
        let dy = g.input("dy", &shape);
        let grads = gradients(&mut g, y, dy, &wrt, recompute).expect("gradients");
        out.extend(grads.into_iter().enumerate().map(|(i, d)| (format!("d{i}"), d)));
    }
    (g, out)
}

impl Draw {
    /// The limits of `base` as an adapter of this draw's class would have them.
    pub fn caps(&self, base: &Caps) -> Caps {
        // WebGPU guarantees 8192 rows of a texture; adapters planned for as GPUs stage nothing.
        let staged = self.class == Class::Software && self.stage;
        let texture_rows = if staged { base.texture_rows.max(8192) } else { 0 };
        let matrix = base.matrix.filter(|_| self.class == Class::Gpu);
        Caps { class: self.class, texture_rows, matrix, ..base.clone() }
    }

    /// Plan within the limits of `base`, and numbers for its inputs and leaves. Leaves are set on `exec`.
    ///
    /// # Errors
    /// The planner's or the executor's, as text.
    pub fn plan(&self, exec: &mut dyn Executor, base: &Caps) -> Result<(Plan, Data), String> {
        let (g, out) = with_gradients(&self.case, self.n, false);
        let out: Vec<(&str, Id)> = out.iter().map(|(s, i)| (s.as_str(), *i)).collect();
        let kind = |_: &str| self.weight;
        let mut caps = self.caps(base);
        let new = |caps: &Caps| Plan::new(g.clone(), &out, caps, &kind).map_err(|e| e.to_string());
        let mut plan = new(&caps)?;
        if self.split {
            // Half of the largest operand: some plans can be cut so, the others are left whole.
            let largest = plan.commands.iter().flat_map(|c| &c.args).map(|s| 4 * s.len as u64).max();
            let most = (largest.unwrap_or(0) / 2).next_multiple_of(256);
            let whole = core::mem::replace(&mut caps.max_binding, most);
            match new(&caps) {
                Ok(cut) => plan = cut,
                Err(_) => caps.max_binding = whole,
            }
        }
        if self.cut {
            let most = plan.commands.iter().map(|c| c.flops).max().unwrap_or(0);
            caps.longest = most / 3 + 1;
            plan = new(&caps)?;
        }
        if self.fold {
            // Commands have at most count groups; a square of this side holds them, a row does not.
            let count = plan.commands.iter().map(|c| c.groups[0] * c.groups[1]).max().unwrap_or(1);
            caps.max_groups = f64::from(count).sqrt().ceil() as u32;
            plan = new(&caps)?;
        }
        let mut data = Data::new();
        for (i, node) in g.nodes().iter().enumerate() {
            let Op::Leaf { kind, name } = &node.op else { continue };
            let numbers = self.numbers(i, name, node.shape.iter().product());
            let numbers = if *kind == Leaf::Input { numbers } else { self.store(exec, name, &numbers)? };
            data.insert(name.clone(), numbers);
        }
        Ok((plan, data))
    }

    /// Sets a leaf in the draw's storage type; returns the numbers that it then holds.
    fn store(&self, exec: &mut dyn Executor, name: &str, numbers: &[f32]) -> Result<Vec<f32>, String> {
        let bytes: Vec<u8> = match self.weight.plain() {
            Some(Plain::F32) => {
                exec.set_leaf(name, LeafData::F32(numbers)).map_err(|e| e.to_string())?;
                return Ok(numbers.to_vec());
            }
            Some(Plain::F16) => numbers.iter().flat_map(|x| half(*x).to_le_bytes()).collect(),
            Some(Plain::BF16) => numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
            None => self.blocks(numbers),
        };
        exec.set_leaf(name, LeafData::Packed(self.weight, &bytes)).map_err(|e| e.to_string())?;
        DType::from(self.weight).decode(&bytes).map_err(|e| e.to_string())
    }

    /// Random blocks, whose scales and minima are the first of the numbers of each.
    fn blocks(&self, numbers: &[f32]) -> Vec<u8> {
        let mut rng = Philox::new(self.seed.into(), 1 << 32);
        let (per, size) = self.weight.block();
        let scales: &[usize] = match self.weight {
            Stored::Q6_K => &[208],
            Stored::Q8_0 | Stored::Q4_0 | Stored::Q5_0 => &[0],
            _ => &[0, 2],
        };
        let mut out = Vec::new();
        for numbers in numbers.chunks_exact(per) {
            let mut block: Vec<u8> = (0..size).map(|_| rng.below(256) as u8).collect();
            for (at, number) in scales.iter().zip(numbers) {
                block[*at..at + 2].copy_from_slice(&half(*number).to_le_bytes());
            }
            out.extend(block);
        }
        out
    }

    /// Numbers of the input with this index.
    pub fn numbers(&self, index: usize, name: &str, len: usize) -> Vec<f32> {
        let mut rng = Philox::new(self.seed.into(), index as u64);
        let mut data = vec![0.0; len];
        if name == "zero" {
            return data;
        }
        let power = |rng: &mut Philox, from: f32, to: f32| {
            let x = (from + (to - from) * rng.uniform()).exp2() * (1.0 + rng.uniform());
            if rng.below(2) == 0 { x } else { -x }
        };
        match self.values {
            Values::Normal | Values::Special => rng.normals(&mut data),
            Values::Tiny => data.iter_mut().for_each(|x| *x = power(&mut rng, -149.0, -100.0)),
            Values::Huge => data.iter_mut().for_each(|x| *x = power(&mut rng, 30.0, 61.0)),
            Values::Mixed => data.iter_mut().for_each(|x| *x = power(&mut rng, -24.0, 23.0)),
            Values::Zeros => {
                let choice = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0];
                data.iter_mut().for_each(|x| *x = choice[rng.below(choice.len() as u32) as usize]);
            }
        }
        if self.values == Values::Special && index == 0 && len > 0 {
            for special in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
                if rng.below(2) == 0 {
                    data[rng.below(len as u32) as usize] = special;
                }
            }
        }
        data
    }
}
