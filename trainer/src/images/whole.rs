//! Whether a picture's file is all there. Decoders fill what a cut JPEG lacks with grey and take a PNG without its end; here
//! only the structure is walked, without decoding.

/// A JPEG's structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Jpeg {
    /// Colour components.
    pub components: u64,
    /// Whether coefficients must be kept until the last scan.
    pub several_scans: bool,
    /// Where its end marker stands.
    pub end: usize,
}

const SOS: u8 = 0xda;
const EOI: u8 = 0xd9;

/// Walks a JPEG's markers to the end of the picture; `None` where it ends earlier, or its scans leave coefficients out.
pub(super) fn jpeg(bytes: &[u8]) -> Option<Jpeg> {
    let (mut at, mut scans) = (2, 0);
    let (mut progressive, mut frame): (bool, Vec<Component>) = (false, Vec::new());
    loop {
        at += bytes.get(at..)?.iter().position(|&b| b == 0xff)?;
        at += bytes.get(at..)?.iter().position(|&b| b != 0xff)?;
        let marker = bytes[at];
        at += 1;
        match marker {
            EOI if scans > 0 => {
                let whole = frame.iter().all(|c| c.precise == if progressive { u64::MAX } else { 1 });
                let several_scans = progressive || scans > 1;
                let jpeg = Jpeg { components: frame.len() as u64, several_scans, end: at - 2 };
                return whole.then_some(jpeg);
            }
            EOI => return None,
            0 | 1 | 0xd0..=0xd8 => continue, // no length
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let segment = bytes.get(at..at + length.max(2))?;
        at += segment.len();
        match marker {
            0xc0..=0xc2 | 0xc9..=0xca => {
                progressive = marker == 0xc2 || marker == 0xca;
                frame =
                    segment.get(8..)?.chunks_exact(3).map(|c| Component { id: c[0], precise: 0 }).collect();
            }
            SOS => {
                scans += 1;
                scan(segment, progressive, &mut frame)?;
            }
            _ => {}
        }
    }
}

/// What scans have given of a component.
struct Component {
    id: u8,
    /// A bit for every coefficient known to its last bit; of a sequential JPEG the first only.
    precise: u64,
}

/// Notes what a scan brings: the components of its header, and the coefficients whose lowest bit they reach.
fn scan(header: &[u8], progressive: bool, frame: &mut [Component]) -> Option<()> {
    let count = usize::from(*header.get(2)?);
    let ids = header.get(3..3 + 2 * count)?.chunks_exact(2).map(|c| c[0]);
    let &[first, last, low, ..] = header.get(3 + 2 * count..)? else { return None };
    let bits = match (progressive, first <= last && last < 64) {
        (false, _) => 1,
        (true, true) => (u64::MAX >> (63 - last)) & (u64::MAX << first),
        (true, false) => return None,
    };
    for id in ids.filter(|_| !progressive || low & 15 == 0) {
        frame.iter_mut().filter(|c| c.id == id).for_each(|c| c.precise |= bits);
    }
    Some(())
}

/// The JPEG with bits of no meaning after its last scan's own. A decoder leaves them alone; only where the scan is too short
/// for the picture it takes them for a part of it.
pub(super) fn with_surplus(bytes: &[u8], end: usize) -> Vec<u8> {
    // No byte is 0xff, so that they are no marker; long enough for several rows of blocks.
    let surplus = (0..4096u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .map(|b| if b == 0xff { 0x5a } else { b });
    let mut longer = Vec::with_capacity(bytes.len() + 4096);
    longer.extend_from_slice(&bytes[..end]);
    longer.extend(surplus);
    longer.extend_from_slice(&bytes[end..]);
    longer
}

/// Whether a PNG's chunks reach its end.
pub(super) fn png(bytes: &[u8]) -> bool {
    let mut at = 8usize;
    loop {
        let Some((head, _)) = bytes.get(at..).and_then(|rest| rest.split_first_chunk::<8>()) else {
            return false;
        };
        let [a, b, c, d, kind @ ..] = *head;
        let next = at.checked_add(12).and_then(|n| n.checked_add(u32::from_be_bytes([a, b, c, d]) as usize));
        match next.filter(|&next| next <= bytes.len()) {
            None => return false,
            Some(_) if kind == *b"IEND" => return true,
            Some(next) => at = next,
        }
    }
}

/// Whether a WebP is as long as it says.
pub(super) fn webp(bytes: &[u8]) -> bool {
    let size = bytes.get(4..8).and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_le_bytes(*b));
    size.is_some_and(|size| bytes.len() as u64 >= u64::from(size) + 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_end_where_they_say() {
        for bytes in [
            &b""[..],
            b"\xff\xd8",
            b"\xff\xd8\xff\xd9",
            b"\xff\xd8\xff\xe0\0\x02\xff\xd9",
            b"\xff\xd8\xff\xda\0\0\xff\xd9",
        ] {
            assert_eq!(jpeg(bytes), None, "{bytes:?}");
        }
        let frame = b"\xff\xd8\xff\xff\xc0\0\x0b\x08\0\x01\0\x01\x01\x07\x11\0";
        let scan = b"\xff\xda\0\x08\x01\x07\0\0\x3f\0\x12\xff\0\xff\xd0\x34";
        let whole = [&frame[..], scan, b"\xff\xd9 and more"].concat();
        let end = frame.len() + scan.len();
        assert_eq!(jpeg(&whole), Some(Jpeg { components: 1, several_scans: false, end }));
        for cut in 0..end + 2 {
            assert_eq!(jpeg(&whole[..cut]), None, "{cut}");
        }
        let mut other = whole.clone();
        other[frame.len() + 5] = 8; // a scan of a component that is none
        assert_eq!(jpeg(&other), None);
        let mut progressive = whole.clone();
        progressive[4] = 0xc2;
        assert!(jpeg(&progressive).is_some_and(|j| j.several_scans));
        progressive[frame.len() + 8] = 0x3e; // the last coefficient is missing
        assert_eq!(jpeg(&progressive), None);
        progressive[frame.len() + 8] = 0x3f;
        progressive[frame.len() + 9] = 0x01; // the last bit is
        assert_eq!(jpeg(&progressive), None);
    }
}
