//! Uniform blocks: structs whose fields are the words of a shader's `Params`, in order, but for the last word, `first`: the first workgroup of a
//! dispatch (`shader/shared/index.wgsl`), which no call knows.
use alloc::vec::Vec;

/// What a field of a uniform block may be.
pub(super) trait Field {
    /// Appends its words.
    fn push(self, words: &mut Vec<u32>);
}
impl Field for u32 {
    fn push(self, words: &mut Vec<u32>) {
        words.push(self);
    }
}
impl Field for f32 {
    fn push(self, words: &mut Vec<u32>) {
        words.push(self.to_bits());
    }
}
impl<const N: usize> Field for [u32; N] {
    fn push(self, words: &mut Vec<u32>) {
        words.extend(self);
    }
}

/// A struct of 32-bit fields with its words.
macro_rules! uniform {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[repr(C)]
        pub struct $name { $($(#[$doc])* pub $field: $type,)* }

        impl $name {
            /// Names and types of the fields, as the shader has them, `first` included.
            pub const FIELDS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($field), stringify!($type)),)* ("first", "u32")];

            /// The words of the uniform block before `first`.
            pub fn words(&self) -> alloc::vec::Vec<u32> {
                let mut words = alloc::vec::Vec::new();
                $(super::uniform::Field::push(self.$field, &mut words);)*
                words
            }
        }
    };
}

/// Words as indices.
pub fn indices<const N: usize>(words: [u32; N]) -> [usize; N] {
    words.map(|w| w as usize)
}
