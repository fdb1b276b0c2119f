//! Other names for the same bytes: checkpoints of one network come with the names of several libraries.
use super::Weights;
use crate::Result;
use alloc::string::String;
use alloc::vec::Vec;

/// A new name for a tensor, or for one of its equal parts along the first axis (fused projections).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The new name.
    pub name: String,
    /// Which part, from 0.
    pub index: usize,
    /// How many parts; 1 for the whole tensor.
    pub of: usize,
}

impl Part {
    /// The whole tensor.
    pub fn whole(name: impl Into<String>) -> Self {
        Part { name: name.into(), index: 0, of: 1 }
    }
    /// Equal parts along the first axis, in order.
    pub fn split(names: impl IntoIterator<Item = String>) -> Vec<Self> {
        let names: Vec<String> = names.into_iter().collect();
        let of = names.len();
        names.into_iter().enumerate().map(|(index, name)| Part { name, index, of }).collect()
    }
}

impl Weights {
    /// The same tensors under the names that `rename` gives for each old one; those it gives none for are left out.
    /// No bytes are copied.
    ///
    /// # Errors
    /// Two tensors with one new name; a first axis that cannot be parted.
    pub fn renamed(&self, rename: impl Fn(&str) -> Vec<Part>) -> Result<Weights> {
        let mut view = self.view();
        for old in self.names() {
            for part in rename(old) {
                view.present_part(part.name, self, old, [part.index, part.of])?;
            }
        }
        Ok(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};

    fn sample() -> Weights {
        let header = r#"{"qkv":{"dtype":"F32","shape":[3,1],"data_offsets":[0,12]},
            "norm":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        (1..=4).for_each(|v| bytes.extend((v as f32).to_le_bytes()));
        Weights::from_bytes("m", bytes).unwrap()
    }

    #[test]
    fn parts_are_rows() {
        let all = sample();
        let named = all.renamed(|old| match old {
            "qkv" => Part::split(["q", "k", "v"].map(String::from)),
            _ => vec![],
        });
        let named = named.unwrap();
        assert_eq!(named.names().collect::<Vec<_>>(), ["k", "q", "v"]);
        assert_eq!(named.expect("k", &[1, 1]).unwrap().to_f32().unwrap(), [2.0]);
        assert_eq!(named.get("v").unwrap().to_f32().unwrap(), [3.0]);
    }

    #[test]
    fn collisions_and_odd_rows_are_refused() {
        let text = |r: Result<Weights>| format!("{}", r.unwrap_err());
        assert!(text(sample().renamed(|_| vec![Part::whole("x")])).contains("a name used once"));
        let halves = |_: &str| Part::split(["a", "b"].map(String::from));
        assert!(text(sample().renamed(halves)).contains("2 equal parts"));
    }
}
