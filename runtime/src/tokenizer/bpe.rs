//! Byte-pair encoding of one word (Sennrich et al. 2016), on bytes, with CLIP's end-of-word mark `</w>`.
use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::{Error, Result};

/// Marks the last symbol of a word.
const END: &str = "</w>";

/// Vocabulary ids and ranked merges.
#[derive(Debug, Clone)]
pub(super) struct Bpe {
    /// Id of each byte inside a word.
    inner: Vec<u32>,
    /// Id of each byte at the end of a word.
    last: Vec<u32>,
    /// Pair of ids -> (rank, id of the merged token). Low ranks merge first.
    merges: BTreeMap<(u32, u32), (u32, u32)>,
}

/// GPT-2's printable stand-in for each byte: itself where printable, else a character from U+0100 on.
fn byte_characters() -> Vec<char> {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut spare = (0x100u32..).filter_map(char::from_u32);
    (0..=255u8)
        .map(
            |b| {
                if printable(b) { char::from(b) } else { spare.next().unwrap_or(char::REPLACEMENT_CHARACTER) }
            },
        )
        .collect()
}

impl Bpe {
    /// `merges` holds one pair per line, in rank order, after an optional `#version` line. Bytes that the vocabulary
    /// lacks become `unk`.
    pub(super) fn new(vocab: &BTreeMap<String, u32>, merges: &str, unk: u32, place: &str) -> Result<Self> {
        let id = |token: String| vocab.get(&token).copied().unwrap_or(unk);
        let bytes = byte_characters();
        let inner = bytes.iter().map(|c| id(c.to_string())).collect();
        let last = bytes.iter().map(|c| id(format!("{c}{END}"))).collect();
        let mut ranked = BTreeMap::new();
        let lines = merges.lines().enumerate().filter(|(_, line)| !line.starts_with("#version"));
        for (rank, (number, line)) in (0u32..).zip(lines.filter(|(_, line)| !line.trim().is_empty())) {
            let place = || format!("{place}, line {}", number + 1);
            let Some((left, right)) = line.split_once(' ').filter(|(_, right)| !right.contains(' ')) else {
                return Err(Error::bad(place(), "two tokens separated by a space", format!("`{line}`")));
            };
            let find = |token: &str| {
                vocab.get(token).copied().ok_or_else(|| {
                    Error::bad(place(), "tokens of vocab.json", format!("`{token}`, which is not there"))
                        .with_hint("Do merges.txt and vocab.json belong together?")
                })
            };
            let merged = find(&format!("{left}{right}"))?;
            ranked.insert((find(left)?, find(right)?), (rank, merged));
        }
        Ok(Bpe { inner, last, merges: ranked })
    }

    /// Appends the ids of `word`: the lowest-ranked pair is merged, leftmost first, until none is left.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) {
        let Some((&end, body)) = word.as_bytes().split_last() else { return };
        // A doubly linked list in two arrays; merged-away symbols are `None`. A heap keeps long words n log n.
        let body = body.iter().map(|&b| Some(self.inner[usize::from(b)]));
        let mut symbols: Vec<Option<u32>> = body.chain([Some(self.last[usize::from(end)])]).collect();
        let count = symbols.len();
        let mut next: Vec<usize> = (1..=count).collect();
        let mut previous: Vec<usize> = (0..count).map(|i| i.wrapping_sub(1)).collect();
        let merge = |symbols: &[Option<u32>], left: usize, right: usize| {
            let pair = (symbols.get(left).copied().flatten()?, symbols.get(right).copied().flatten()?);
            self.merges.get(&pair).copied()
        };
        let found = |(rank, merged): (u32, u32), at: usize| Reverse((rank, at, merged));
        let starts = (0..count).filter_map(|i| merge(&symbols, i, i + 1).map(|m| found(m, i)));
        let mut queue: BinaryHeap<_> = starts.collect();
        while let Some(Reverse((rank, left, merged))) = queue.pop() {
            let right = next[left];
            if merge(&symbols, left, right) != Some((rank, merged)) {
                continue; // a neighbour has changed since
            }
            symbols[left] = Some(merged);
            symbols[right] = None;
            next[left] = next[right];
            if let Some(back) = previous.get_mut(next[left]) {
                *back = left;
            }
            for (a, b) in [(previous[left], left), (left, next[left])] {
                if let Some(m) = merge(&symbols, a, b) {
                    queue.push(found(m, a));
                }
            }
        }
        ids.extend(symbols.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn bpe(merges: &str) -> Result<Bpe> {
        let tokens = ["a", "b", "a</w>", "b</w>", "ab", "abab", "ab</w>", "abab</w>", "<unk>"];
        let vocab = tokens.iter().zip(0u32..).map(|(t, i)| (t.to_string(), i)).collect();
        Bpe::new(&vocab, merges, 8, "merges.txt")
    }

    fn ids(bpe: &Bpe, word: &str) -> Vec<u32> {
        let mut ids = vec![];
        bpe.encode(word, &mut ids);
        ids
    }

    #[test]
    fn byte_characters_are_gpt2s() {
        let chars = byte_characters();
        assert_eq!((chars[0], chars[b' ' as usize], chars[b'A' as usize]), ('Ā', 'Ġ', 'A'));
        assert_eq!((chars[0x7F], chars[0xA0], chars[0xAD], chars[0xFF]), ('ġ', 'ł', 'Ń', 'ÿ'));
    }

    #[test]
    fn merges_by_rank_then_from_the_left() {
        let b = bpe("#version: 0.2\na b\na b</w>\nab ab</w>\n").unwrap();
        assert_eq!(ids(&b, "abab"), [7]);
        assert_eq!(ids(&b, "ababab"), [4, 7]);
        assert_eq!(ids(&b, "aab"), [0, 6]);
        assert_eq!(ids(&b, "ba"), [1, 2]);
        assert_eq!(ids(&b, "b"), [3]);
        assert!(ids(&b, "").is_empty());
        assert_eq!(ids(&b, "azb"), [0, 8, 3], "a byte without a token becomes unk");
    }

    #[test]
    fn rank_beats_position() {
        let b = bpe("a b</w>\na b\nab ab</w>").unwrap();
        assert_eq!(ids(&b, "abab"), [7]);
        let b = bpe("ab ab</w>\na b</w>").unwrap();
        assert_eq!(ids(&b, "abab"), [0, 1, 6], "`a b` has no merge here");
    }

    #[test]
    fn long_words_stay_fast() {
        let b = bpe("a b\nab ab\n").unwrap();
        let word = "ab".repeat(100_000);
        assert_eq!(ids(&b, &word).len(), 49_999 + 3, "abab 49,999 times, then ab, a, b</w>");
    }

    #[test]
    fn bad_merges_name_the_line() {
        for (merges, part) in
            [("a b\na", "line 2"), ("a b c", "line 1"), ("a b\n\na z", "line 3"), ("b a", "`ba`")]
        {
            let text = bpe(merges).unwrap_err().to_string();
            assert!(text.starts_with("merges.txt, line") && text.contains(part), "{merges}: {text}");
        }
    }
}
