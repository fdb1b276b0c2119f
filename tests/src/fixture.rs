//! Golden fixtures: inputs, expectations and tolerances of a folder in the layout of `PENTIMENTO_GOLDENS`.
//! Without that variable the small committed choice under `tests/fixtures` is read. Shapes and settings come from the
//! files, so any set of the same form will do.
use pentimento_runtime::weights::{DType, Weights};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Root of the golden folders. A variable that names no folder fails the test instead of skipping it.
pub fn root() -> PathBuf {
    let Some(path) = std::env::var_os("PENTIMENTO_GOLDENS").map(PathBuf::from) else {
        return Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    };
    assert!(
        path.is_dir(),
        "PENTIMENTO_GOLDENS: no folder {} (relative to {})",
        path.display(),
        env!("CARGO_MANIFEST_DIR")
    );
    path
}

/// Folders under `root()/group` (or that folder itself) whose `golden.json` exists and whose `config.json` has
/// `field` equal to `value`, in order of name. Says so when there are none.
pub fn folders(group: &str, field: &str, value: &str) -> Vec<PathBuf> {
    let top = root().join(group);
    let inside = fs::read_dir(&top).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> =
        inside.chain([top.clone()]).filter(|p| p.join("golden.json").is_file()).collect();
    found.retain(|p| {
        let config = fs::read_to_string(p.join("config.json")).ok();
        let config = config.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        config.is_some_and(|c| c[field] == value)
    });
    found.sort();
    if found.is_empty() {
        println!("SKIPPED: no golden folder with {field} {value} in {}", top.display());
    }
    found
}

/// Elements of a stored tensor.
enum Data {
    Floats(Vec<f32>),
    Ints(Vec<i64>),
}

/// How far a result may be from its expectation; both limits hold.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Of every element.
    pub max_abs: f64,
    /// Of the norm of the difference over the norm of the expectation.
    pub rel_l2: f64,
}

impl Tolerance {
    /// Where products round their operands to f16, `roundings` times the unit roundoff 2^-11: each product adds about one of them to what
    /// passes through it, at random, so that errors of a network's layers in a row add up as the root of their number, times what the
    /// layers after them make of it. An element may be ten deviations off, since elements differ in size.
    pub fn halves(want: &[f32], roundings: f64) -> Self {
        let rel_l2 = roundings / 2048.0;
        let norm = want.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
        Tolerance { max_abs: 10.0 * rel_l2 * norm / (want.len().max(1) as f64).sqrt(), rel_l2 }
    }
}

/// How far a result is from its expectation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Distance {
    /// Largest share of a limit that was used; at most 1.
    pub share: f64,
    /// Norm of the difference over the norm of the expectation.
    pub rel_l2: f64,
}

/// Accepts `got` if it is within `tol` of `want`; never rejects by `err > tol`, so NaN fails.
///
/// # Errors
/// A sentence with both errors and limits.
pub fn within(got: &[f32], want: &[f32], tol: Tolerance) -> Result<Distance, String> {
    if got.len() != want.len() {
        return Err(format!("{} numbers, {} expected", got.len(), want.len()));
    }
    let diff = || got.iter().zip(want).map(|(&g, &w)| (f64::from(g) - f64::from(w)).abs());
    let norm = want.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
    let (worst, l2) = (diff().fold(0.0, f64::max), diff().map(|d| d * d).sum::<f64>().sqrt());
    if diff().all(|d| d <= tol.max_abs) && l2 <= tol.rel_l2 * norm {
        let rel_l2 = if norm > 0.0 { l2 / norm } else { 0.0 };
        let part = |err: f64, limit: f64| if err > 0.0 { err / limit } else { 0.0 };
        return Ok(Distance { share: part(worst, tol.max_abs).max(part(rel_l2, tol.rel_l2)), rel_l2 });
    }
    let rel = l2 / norm;
    let (a, b) = (tol.max_abs, tol.rel_l2);
    Err(format!("max abs error {worst:.2e} (limit {a:.2e}), relative l2 error {rel:.2e} (limit {b:.2e})"))
}

/// One golden folder.
pub struct Golden {
    /// The folder.
    pub path: PathBuf,
    /// `golden.json`.
    pub json: Value,
    tensors: BTreeMap<String, (Vec<usize>, Data)>,
}

impl Golden {
    /// Opens a folder that holds `golden.json` and `golden.safetensors`.
    pub fn open(path: &Path) -> Golden {
        let text = fs::read_to_string(path.join("golden.json")).expect("golden.json is readable");
        let bytes = fs::read(path.join("golden.safetensors")).expect("golden.safetensors is readable");
        let json = serde_json::from_str(&text).expect("golden.json is JSON");
        Golden { path: path.to_path_buf(), json, tensors: parse(&bytes) }
    }
    /// Opens `root()/name`; says so when it is not there.
    pub fn find(name: &str) -> Option<Golden> {
        let path = root().join(name);
        if path.join("golden.json").is_file() {
            return Some(Golden::open(&path));
        }
        println!("SKIPPED: no golden folder {}", path.display());
        None
    }
    /// Names of all tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }
    /// Names of all tensors that a result is compared with.
    pub fn expectations(&self) -> impl Iterator<Item = &str> {
        self.names().filter(|n| self.json["tensors"][*n]["role"] == "expect")
    }
    /// Whether a tensor is there.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
    fn tensor(&self, name: &str) -> &(Vec<usize>, Data) {
        self.tensors.get(name).unwrap_or_else(|| panic!("{} holds `{name}`", self.path.display()))
    }
    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.tensor(name).0
    }
    /// Elements of a float tensor.
    pub fn floats(&self, name: &str) -> &[f32] {
        match &self.tensor(name).1 {
            Data::Floats(data) => data,
            Data::Ints(_) => panic!("`{name}` holds floats"),
        }
    }
    /// Elements of any tensor as floats.
    pub fn numbers(&self, name: &str) -> Cow<'_, [f32]> {
        match &self.tensor(name).1 {
            Data::Floats(data) => Cow::Borrowed(data),
            Data::Ints(data) => data.iter().map(|&v| v as f32).collect(),
        }
    }
    /// Elements of an integer tensor.
    pub fn ints(&self, name: &str) -> &[i64] {
        match &self.tensor(name).1 {
            Data::Ints(data) => data,
            Data::Floats(_) => panic!("`{name}` holds integers"),
        }
    }
    /// The f32 tolerance of an expectation.
    pub fn tolerance(&self, name: &str) -> Tolerance {
        let tol = &self.json["tensors"][name]["tol"]["f32"];
        let limit = |key: &str| tol[key].as_f64().unwrap_or_else(|| panic!("`{name}` has tol.f32.{key}"));
        Tolerance { max_abs: limit("max_abs"), rel_l2: limit("rel_l2") }
    }
}

/// Compares results with one folder's expectations and keeps a list of what differs.
pub struct Check<'a> {
    golden: &'a Golden,
    exec: &'a str,
    roundings: Option<f64>,
    done: Vec<String>,
    worst: (Distance, Tolerance, String),
    wrong: Vec<String>,
}

impl<'a> Check<'a> {
    /// `exec` names the executor in messages.
    pub fn new(golden: &'a Golden, exec: &'a str) -> Self {
        Check {
            golden,
            exec,
            roundings: None,
            done: Vec::new(),
            worst: (Distance::default(), Tolerance { max_abs: 0.0, rel_l2: 0.0 }, String::new()),
            wrong: Vec::new(),
        }
    }
    /// Where `half` is true, limits are those of [`Tolerance::halves`].
    pub fn halves(self, half: bool, roundings: f64) -> Self {
        Check { roundings: half.then_some(roundings), ..self }
    }
    /// One result against the expectation of that name.
    pub fn tensor(&mut self, name: &str, got: &[f32]) {
        let want = self.golden.numbers(name);
        let own = || self.golden.tolerance(name);
        let tol = self.roundings.map_or_else(own, |n| Tolerance::halves(&want, n));
        self.against(name, got, &want, tol);
    }
    /// One result against an expectation and a limit from elsewhere.
    pub fn against(&mut self, name: &str, got: &[f32], want: &[f32], tol: Tolerance) {
        self.done.push(name.to_string());
        match within(got, want, tol) {
            Ok(d) if d.share >= self.worst.0.share => self.worst = (d, tol, name.to_string()),
            Ok(_) => {}
            Err(e) => self.wrong.push(format!("{name}: {e}")),
        }
    }
    /// Numbers that must be equal, such as token ids.
    pub fn exact<T: PartialEq + std::fmt::Debug>(&mut self, name: &str, got: &[T], want: &[T]) {
        self.done.push(name.to_string());
        if got != want {
            let at = got.iter().zip(want).position(|(g, w)| g != w).unwrap_or(got.len().min(want.len()));
            let (g, w) = (got.get(at), want.get(at));
            self.wrong.push(format!(
                "{name}: {g:?} at {at}, expected {w:?} ({} and {} long)",
                got.len(),
                want.len()
            ));
        }
    }
    /// As [`Check::tensor`], where the folder may lack the expectation.
    pub fn optional(&mut self, name: &str, got: &[f32]) {
        if self.golden.has(name) {
            self.tensor(name, got);
        }
    }
    /// Fails the test unless every expectation of the folder was compared or `omitted` (with the reason beside it).
    pub fn complete(&mut self, omitted: &[(&str, &str)]) {
        let tensors = self.golden.json["tensors"].as_object().expect("golden.json lists tensors");
        for (name, _) in tensors.iter().filter(|(_, info)| info["role"] == "expect") {
            if !self.done.contains(name) && omitted.iter().all(|(left, _)| left != name) {
                self.wrong.push(format!("{name}: never compared"));
            }
        }
    }
    /// Fails the test, naming every tensor that differs.
    pub fn finish(self) {
        let place = format!("{} on {}", self.golden.path.display(), self.exec);
        assert!(!self.done.is_empty(), "{place}: nothing was compared");
        assert!(self.wrong.is_empty(), "{place}:\n  {}", self.wrong.join("\n  "));
        let (distance, tol, name) = self.worst;
        if name.is_empty() {
            return println!("{place}: {} agree exactly", self.done.len());
        }
        println!(
            "{place}: {} agree; worst {name}: relative error {:.1e} (limit {:.1e}), {:.0} % of its limits",
            self.done.len(),
            distance.rel_l2,
            tol.rel_l2,
            distance.share * 100.0,
        );
    }
}

/// The same checkpoint rounded to half precision.
pub fn to_f16(weights: &Weights) -> Weights {
    let rounded =
        rewritten(weights, "F16", |n| Some(n.into()), |v| half::f16::from_f32(v).to_le_bytes().to_vec());
    assert!(rounded.names().all(|n| rounded.get(n).is_ok_and(|t| t.dtype == DType::F16)));
    rounded
}

/// A checkpoint written anew as safetensors: `rename` chooses and names, `bytes` stores an element as `dtype`.
pub fn rewritten(
    weights: &Weights,
    dtype: &str,
    rename: impl Fn(&str) -> Option<String>,
    bytes: impl Fn(f32) -> Vec<u8>,
) -> Weights {
    let tensors = weights.names().filter_map(|name| Some((rename(name)?, name)));
    let tensors = tensors.map(|(new, name)| {
        let view = weights.get(name).expect("a float tensor");
        (new, view.shape.to_vec(), view.to_f32().expect("room").into_iter().flat_map(&bytes).collect())
    });
    let file = safetensors(dtype, tensors);
    Weights::from_bytes(format!("rewritten as {dtype}"), file).expect("a safetensors file")
}

/// The bytes of a safetensors file; tensors as (name, shape, bytes) of one element type.
pub fn safetensors(dtype: &str, tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<u8>)>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data: Vec<u8> = Vec::new();
    for (name, shape, bytes) in tensors {
        let start = data.len();
        data.extend(bytes);
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name, entry);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// A safetensors file with floats and integers.
fn parse(bytes: &[u8]) -> BTreeMap<String, (Vec<usize>, Data)> {
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a header length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: BTreeMap<String, Value> = serde_json::from_slice(header).expect("a JSON header");
    let whole = |v: &Value| v.as_u64().expect("a whole number") as usize;
    let tensor = |info: &Value| {
        let shape = info["shape"].as_array().expect("a shape").iter().map(whole).collect();
        let at = &info["data_offsets"];
        let bytes = &data[whole(&at[0])..whole(&at[1])];
        let ints =
            |size: usize, read: fn(&[u8]) -> i64| Data::Ints(bytes.chunks_exact(size).map(read).collect());
        let data = match info["dtype"].as_str() {
            Some("F32") => Data::Floats(
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            ),
            Some("I64") => ints(8, |b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])),
            Some("I32") => ints(4, |b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]).into()),
            Some("U8" | "BOOL") => ints(1, |b| b[0].into()),
            other => panic!("element type {other:?} of a golden tensor"),
        };
        (shape, data)
    };
    header.iter().filter(|(name, _)| *name != "__metadata__").map(|(n, i)| (n.clone(), tensor(i))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOL: Tolerance = Tolerance { max_abs: 1e-3, rel_l2: 1e-3 };

    #[test]
    fn the_comparer_accepts_what_is_close() {
        assert!(within(&[1.0, 2.0005], &[1.0, 2.0], TOL).is_ok());
        assert!(within(&[0.0; 3], &[0.0; 3], TOL).is_ok());
        assert!(within(&[], &[], TOL).is_ok());
    }

    #[test]
    fn the_comparer_fails_where_it_must() {
        let want = [1.0, 2.0, -3.0];
        assert!(within(&[1.0, 2.0, -3.01], &want, TOL).is_err(), "one element off");
        assert!(within(&[1.0, 2.0, f32::NAN], &want, TOL).is_err(), "NaN");
        assert!(within(&[1.0, 2.0, f32::INFINITY], &want, TOL).is_err(), "infinity");
        assert!(within(&[1.0, 2.0], &want, TOL).is_err(), "too short");
        // Small gradients are measured against themselves: zeros are wrong though every element is near.
        assert!(within(&[0.0; 3], &[1e-5, -1e-5, 2e-5], TOL).is_err(), "all zero");
        assert!(within(&[1e-9], &[0.0], TOL).is_err(), "an exact zero");
        let nan = Tolerance { max_abs: f64::NAN, rel_l2: 1.0 };
        assert!(within(&want, &want, nan).is_err(), "a limit that is no number");
    }

    #[test]
    #[should_panic(expected = "y: never compared")]
    fn a_forgotten_tensor_fails_the_check() {
        let json = serde_json::json!({"tensors": {
            "x": {"role": "expect"}, "y": {"role": "expect"}, "z": {"role": "input"}, "w": {"role": "expect"}}});
        let golden = Golden { path: "golden".into(), json, tensors: BTreeMap::new() };
        let mut check = Check::new(&golden, "nothing");
        check.exact("x", &[1], &[1]);
        check.complete(&[("w", "not computed")]);
        check.finish();
    }

    #[test]
    #[should_panic(expected = "x: max abs error")]
    fn a_wrong_tensor_fails_the_check() {
        let json = serde_json::json!({"tensors": {"x": {"tol": {"f32": {"max_abs": 0.1, "rel_l2": 0.1}}}}});
        let tensors = BTreeMap::from([("x".to_string(), (vec![1], Data::Floats(vec![1.0])))]);
        let golden = Golden { path: "golden".into(), json, tensors };
        let mut check = Check::new(&golden, "nothing");
        check.tensor("x", &[2.0]);
        check.finish();
    }
}
