//! Plain data as the named tensors of a safetensors file and back. A type says once which parts it has ([`kept!`]); writing and
//! reading both follow that. Every number keeps its bits, NaN too.
use crate::{Error, Result};
use pentimento_runtime::rng::Philox;
use safetensors::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Data that a file can keep, under a name and names that begin with it and a dot.
pub(crate) trait Kept {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>);
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()>;
}

/// Parts of lists that are kept one by one.
pub(crate) trait Item: Kept + Default {}

/// A struct of these fields, each under its own name.
macro_rules! kept {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl $crate::archive::Kept for $type {
            fn put<'a>(&'a self, at: &str, file: &mut $crate::archive::Written<'a>) {
                $(self.$field.put(&$crate::archive::join(at, stringify!($field)), file);)*
            }
            fn fill(&mut self, at: &str, file: &$crate::archive::Read<'_>) -> $crate::Result<()> {
                $(self.$field.fill(&$crate::archive::join(at, stringify!($field)), file)?;)*
                Ok(())
            }
        }
    };
}
pub(crate) use kept;

/// A part's name.
pub(crate) fn join(at: &str, part: &str) -> String {
    if at.is_empty() { part.into() } else { format!("{at}.{part}") }
}

/// A tensor on its way into a file.
pub(crate) struct Tensor<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl View for &Tensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// What a file will hold.
#[derive(Default)]
pub(crate) struct Written<'a>(BTreeMap<String, Tensor<'a>>);

impl<'a> Written<'a> {
    fn add(&mut self, at: &str, dtype: Dtype, shape: Vec<usize>, bytes: impl Into<Cow<'a, [u8]>>) {
        self.0.insert(at.into(), Tensor { dtype, shape, bytes: bytes.into() });
    }
    /// The file, with one entry of metadata: the order of several would not be fixed.
    pub fn finish(self, key: &str, text: String) -> Result<Vec<u8>> {
        let metadata = [(key.to_string(), text)].into_iter().collect();
        safetensors::serialize(&self.0, Some(metadata))
            .map_err(|e| Error::bad("state", "tensors that fit the safetensors format", format!("{e}")))
    }
}

/// A file that is read.
pub(crate) struct Read<'a> {
    label: &'a str,
    file: SafeTensors<'a>,
    taken: RefCell<BTreeSet<String>>,
}

impl<'a> Read<'a> {
    pub fn new(label: &'a str, bytes: &'a [u8]) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| {
            Error::bad(label, "a safetensors file", format!("{e}")).with_hint("Is it damaged, or cut off?")
        })?;
        Ok(Read { label, file, taken: RefCell::default() })
    }
    /// An entry of the metadata of a file.
    pub fn metadata(&self, bytes: &[u8], key: &str) -> Result<Option<String>> {
        let (_, header) = SafeTensors::read_metadata(bytes)
            .map_err(|e| Error::bad(self.label, "a safetensors file", format!("{e}")))?;
        Ok(header.metadata().as_ref().and_then(|m| m.get(key)).cloned())
    }
    fn bytes(&self, at: &str, dtype: Dtype) -> Result<&'a [u8]> {
        let place = || format!("{}: `{at}`", self.label);
        let view = self.file.tensor(at).map_err(|_| Error::missing(self.label, format!("`{at}`")))?;
        if view.dtype() != dtype {
            return Err(Error::bad(place(), format!("{dtype:?}"), format!("{:?}", view.dtype())));
        }
        self.taken.borrow_mut().insert(at.into());
        Ok(view.data())
    }
    /// Numbers of `N` bytes each.
    fn numbers<const N: usize>(
        &self,
        at: &str,
        dtype: Dtype,
    ) -> Result<impl ExactSizeIterator<Item = [u8; N]>> {
        let bytes = self.bytes(at, dtype)?;
        Ok(bytes.as_chunks::<N>().0.iter().copied())
    }
    fn scalar<const N: usize>(&self, at: &str, dtype: Dtype) -> Result<[u8; N]> {
        let mut all = self.numbers(at, dtype)?;
        match (all.next(), all.len()) {
            (Some(one), 0) => Ok(one),
            (_, rest) => {
                Err(Error::bad(format!("{}: `{at}`", self.label), "one number", format!("{rest} more")))
            }
        }
    }
    /// Whether there is anything of that name.
    fn has(&self, at: &str) -> bool {
        let inside = |name: &str| name.strip_prefix(at).is_some_and(|n| n.is_empty() || n.starts_with('.'));
        self.file.names().into_iter().any(inside)
    }
    /// Refuses what nobody took.
    pub fn finish(self) -> Result<()> {
        let taken = self.taken.borrow();
        match self.file.names().into_iter().filter(|n| !taken.contains(*n)).min() {
            Some(name) => Err(Error::bad(self.label, "the parts of a state", format!("`{name}` besides"))),
            None => Ok(()),
        }
    }
}

macro_rules! scalar {
    ($($type:ty as $wide:ty: $dtype:ident),*) => { $(
        impl Kept for $type {
            fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
                let bytes = (*self as $wide).to_le_bytes().to_vec();
                file.add(at, Dtype::$dtype, Vec::new(), bytes);
            }
            fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
                let wide = <$wide>::from_le_bytes(file.scalar(at, Dtype::$dtype)?);
                let narrow = <$type>::try_from(wide);
                *self = narrow.map_err(|_| Error::bad(at, "a smaller number", wide.to_string()))?;
                Ok(())
            }
        }
    )* };
}
scalar!(f32 as f32: F32, f64 as f64: F64, u32 as u32: U32, i32 as i32: I32, u64 as u64: U64, usize as u64: U64);

impl Kept for bool {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
        file.add(at, Dtype::U8, Vec::new(), vec![u8::from(*self)]);
    }
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
        let [byte] = file.scalar(at, Dtype::U8)?;
        *self = byte != 0;
        Ok(())
    }
}

impl Kept for Vec<f32> {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
        let bytes: Cow<'a, [u8]> = if cfg!(target_endian = "little") {
            bytemuck::cast_slice(self).into()
        } else {
            self.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()
        };
        file.add(at, Dtype::F32, vec![self.len()], bytes);
    }
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
        *self = file.numbers(at, Dtype::F32)?.map(f32::from_le_bytes).collect();
        Ok(())
    }
}

impl Kept for Vec<usize> {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
        let bytes: Vec<u8> = self.iter().flat_map(|&v| (v as u64).to_le_bytes()).collect();
        file.add(at, Dtype::U64, vec![self.len()], bytes);
    }
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
        let narrow =
            |v: u64| usize::try_from(v).map_err(|_| Error::bad(at, "smaller numbers", v.to_string()));
        *self =
            file.numbers(at, Dtype::U64)?.map(|b| narrow(u64::from_le_bytes(b))).collect::<Result<_>>()?;
        Ok(())
    }
}

impl Kept for Vec<bool> {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
        file.add(at, Dtype::U8, vec![self.len()], bytemuck::cast_slice(self));
    }
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
        *self = file.bytes(at, Dtype::U8)?.iter().map(|&b| b != 0).collect();
        Ok(())
    }
}

impl Kept for String {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
        file.add(at, Dtype::U8, vec![self.len()], self.as_bytes());
    }
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
        let text = core::str::from_utf8(file.bytes(at, Dtype::U8)?);
        *self = text.map_err(|e| Error::bad(at, "UTF-8", e.to_string()))?.into();
        Ok(())
    }
}

impl Item for String {}
impl Item for Vec<f32> {}
impl Item for Vec<bool> {}
impl<T: Kept + Default> Item for Arc<T> {}

/// `at.len` of them, `at.0` and so on.
macro_rules! list {
    ($list:ident) => {
        impl<T: Item> Kept for $list<T> {
            fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
                let len = (self.len() as u64).to_le_bytes().to_vec();
                file.add(&join(at, "len"), Dtype::U64, Vec::new(), len);
                self.iter().enumerate().for_each(|(i, item)| item.put(&join(at, &i.to_string()), file));
            }
            fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
                let mut len = 0usize;
                len.fill(&join(at, "len"), file)?;
                self.clear();
                // Whatever the file says: the first one that is missing ends it.
                for i in 0..len {
                    let mut item = T::default();
                    item.fill(&join(at, &i.to_string()), file)?;
                    self.extend([item]);
                }
                Ok(())
            }
        }
    };
}
list!(Vec);
list!(VecDeque);

impl<T: Kept + Default> Kept for Arc<T> {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
        (**self).put(at, file);
    }
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
        let mut inner = T::default();
        inner.fill(at, file)?;
        *self = Arc::new(inner);
        Ok(())
    }
}

impl<T: Kept + Default> Kept for Option<T> {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
        self.iter().for_each(|inner| inner.put(at, file));
    }
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
        if file.has(at) {
            self.get_or_insert_with(T::default).fill(at, file)?;
        } else {
            *self = None;
        }
        Ok(())
    }
}

impl<T: Kept, const N: usize> Kept for [T; N] {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
        self.iter().enumerate().for_each(|(i, part)| part.put(&join(at, &i.to_string()), file));
    }
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
        self.iter_mut().enumerate().try_for_each(|(i, part)| part.fill(&join(at, &i.to_string()), file))
    }
}

impl<A: Kept, B: Kept> Kept for (A, B) {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
        self.0.put(&join(at, "0"), file);
        self.1.put(&join(at, "1"), file);
    }
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
        self.0.fill(&join(at, "0"), file)?;
        self.1.fill(&join(at, "1"), file)
    }
}

/// Where the stream is; which stream it is follows from the settings.
impl Kept for Philox {
    fn put<'a>(&'a self, at: &str, file: &mut Written<'a>) {
        file.add(at, Dtype::U64, Vec::new(), self.position().to_le_bytes().to_vec());
    }
    fn fill(&mut self, at: &str, file: &Read<'_>) -> Result<()> {
        self.seek(u64::from_le_bytes(file.scalar(at, Dtype::U64)?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq)]
    struct Inner {
        numbers: Vec<f32>,
        maybe: Option<String>,
    }
    kept!(Inner { numbers, maybe });
    impl Item for Inner {}

    #[derive(Debug, Default, PartialEq)]
    struct Outer {
        inner: Vec<Inner>,
        queue: VecDeque<Arc<Vec<f32>>>,
        count: usize,
        pair: (f64, bool),
        flags: Vec<bool>,
        order: Vec<usize>,
        each: [Option<f64>; 2],
        step: i32,
    }
    kept!(Outer { inner, queue, count, pair, flags, order, each, step });

    fn sample() -> Outer {
        let inner = |x: f32, s: Option<&str>| Inner { numbers: vec![x, -0.0], maybe: s.map(String::from) };
        Outer {
            inner: vec![inner(1e-40, Some("ä")), inner(3.5, None)],
            queue: VecDeque::from([Arc::new(vec![1.0]), Arc::new(Vec::new())]),
            count: 7,
            pair: (0.1, true),
            flags: vec![true, false],
            order: vec![3, 0, usize::MAX],
            each: [None, Some(-2.5)],
            step: -4,
        }
    }
    fn bytes(of: &Outer) -> Vec<u8> {
        let mut file = Written::default();
        of.put("", &mut file);
        file.finish("key", "text".into()).expect("a file")
    }
    fn read(bytes: &[u8]) -> Result<Outer> {
        let (mut out, file) = (Outer::default(), Read::new("f", bytes)?);
        out.fill("", &file)?;
        file.finish()?;
        Ok(out)
    }

    #[test]
    fn what_is_kept_comes_back_and_equal_things_are_equal_files() {
        let bytes = bytes(&sample());
        assert_eq!(read(&bytes).expect("read"), sample());
        assert_eq!(bytes, self::bytes(&sample()));
        let file = Read::new("f", &bytes).expect("a file");
        assert_eq!(file.metadata(&bytes, "key").expect("metadata").as_deref(), Some("text"));
        let mut nan = sample();
        nan.inner[0].numbers[0] = f32::from_bits(0x7fc0_1234);
        let back = read(&self::bytes(&nan)).expect("read");
        assert_eq!(back.inner[0].numbers[0].to_bits(), 0x7fc0_1234);
    }

    #[test]
    fn what_does_not_fit_is_a_sentence() {
        let whole = bytes(&sample());
        for cut in [0, 7, 100, whole.len() - 1] {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
        let without = |change: &dyn Fn(&mut Written<'_>)| {
            let sample = sample();
            let mut file = Written::default();
            sample.put("", &mut file);
            change(&mut file);
            read(&file.finish("key", String::new()).expect("a file")).expect_err("refused").to_string()
        };
        let text = without(&|f| drop(f.0.remove("count")));
        assert!(text.contains("missing `count`"), "{text}");
        let text = without(&|f| f.add("more", Dtype::U8, vec![1], vec![0]));
        assert!(text.contains("`more` besides"), "{text}");
        let text = without(&|f| f.add("count", Dtype::F32, vec![1], vec![0; 4]));
        assert!(text.contains("expected U64"), "{text}");
        let text = without(&|f| f.add("count", Dtype::U64, vec![2], vec![0; 16]));
        assert!(text.contains("one number"), "{text}");
        let text = without(&|f| f.add("inner.len", Dtype::U64, vec![], vec![255; 8]));
        assert!(text.contains("missing `inner.2.numbers`"), "{text}");
    }
}
