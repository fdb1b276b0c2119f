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

/// Walks a JPEG's markers to the end of the picture; `None` where it ends earlier, its scans leave coefficients out or have
/// too few restarts.
pub(super) fn jpeg(bytes: &[u8]) -> Option<Jpeg> {
    let mut at = 2;
    let (mut frame, mut scans, mut interval) = (Frame::default(), 0, 0);
    // Restarts that the scan still needs.
    let mut restarts = 0u64;
    loop {
        at += bytes.get(at..)?.iter().position(|&b| b == 0xff)?;
        at += bytes.get(at..)?.iter().position(|&b| b != 0xff)?;
        let marker = bytes[at];
        at += 1;
        match marker {
            EOI if scans > 0 => {
                let whole = restarts == 0 && frame.components.iter().all(|c| c.precise == frame.all());
                let components = frame.components.len() as u64;
                let several_scans = frame.progressive || scans > 1;
                return whole.then_some(Jpeg { components, several_scans, end: at - 2 });
            }
            EOI => return None,
            0xd0..=0xd7 => restarts = restarts.saturating_sub(1),
            0 | 1 | 0xd8 => {}
            _ => {
                let length = usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
                let segment = bytes.get(at..at + length.max(2))?;
                at += segment.len();
                match marker {
                    0xc0..=0xc2 | 0xc9..=0xca => frame = Frame::read(segment, marker & 3 == 2)?,
                    0xdd => interval = u64::from(u16::from_be_bytes(*segment.get(2..)?.first_chunk()?)),
                    SOS if restarts > 0 => return None,
                    SOS => {
                        scans += 1;
                        let units = frame.scan(segment)?;
                        restarts = if interval > 0 { units.div_ceil(interval).saturating_sub(1) } else { 0 };
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A JPEG's frame, and what scans have given of it.
#[derive(Default)]
struct Frame {
    progressive: bool,
    size: [u64; 2],
    components: Vec<Component>,
}

struct Component {
    id: u8,
    /// Samples for the largest component's, across and down.
    sampling: [u64; 2],
    /// A bit for every coefficient known to its last bit; of a sequential JPEG the first only.
    precise: u64,
}

impl Frame {
    fn read(header: &[u8], progressive: bool) -> Option<Frame> {
        let &[_, _, _, a, b, c, d, _, ref components @ ..] = header else { return None };
        let number = |high: u8, low: u8| u64::from(u16::from_be_bytes([high, low]));
        let components = components.as_chunks::<3>().0.iter().map(|&[id, sampling, _]| Component {
            id,
            sampling: [sampling >> 4, sampling & 15].map(|n| u64::from(n.max(1))),
            precise: 0,
        });
        Some(Frame { progressive, size: [number(c, d), number(a, b)], components: components.collect() })
    }

    /// [`Component::precise`] of a whole component.
    fn all(&self) -> u64 {
        if self.progressive { u64::MAX } else { 1 }
    }

    /// Notes what a scan brings: the components of its header, and the coefficients whose lowest bit they reach. Returns its
    /// number of units: blocks of the only component, or groups of blocks of all.
    fn scan(&mut self, header: &[u8]) -> Option<u64> {
        let count = usize::from(*header.get(2)?);
        let ids: Vec<u8> = header.get(3..3 + 2 * count)?.chunks_exact(2).map(|c| c[0]).collect();
        let &[first, last, low, ..] = header.get(3 + 2 * count..)? else { return None };
        let bits = match (self.progressive, first <= last && last < 64) {
            (false, _) => 1,
            (true, true) => (u64::MAX >> (63 - last)) & (u64::MAX << first),
            (true, false) => return None,
        };
        let most = [0, 1].map(|axis| self.components.iter().map(|c| c.sampling[axis]).max().unwrap_or(1));
        let mut units = [0, 1].map(|axis| self.size[axis].div_ceil(8 * most[axis]));
        for component in self.components.iter_mut().filter(|c| ids.contains(&c.id)) {
            if !self.progressive || low & 15 == 0 {
                component.precise |= bits;
            }
            if count == 1 {
                let side = |axis: usize| (self.size[axis] * component.sampling[axis]).div_ceil(most[axis]);
                units = [side(0).div_ceil(8), side(1).div_ceil(8)];
            }
        }
        Some(units[0] * units[1])
    }
}

/// The JPEG with bits of no meaning after its last scan's own. A decoder leaves them alone; only where the scan is too short
/// for the picture it takes them for a part of it.
pub(super) fn with_surplus(bytes: &[u8], end: usize) -> Vec<u8> {
    // No byte is 0xff, so that they are no marker, nor is the first bit 0, as those are that a decoder makes up.
    let random = (1..4096u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8 & 0xfe);
    let surplus = [0xa5].into_iter().chain(random);
    let mut longer = Vec::with_capacity(bytes.len() + 4096);
    longer.extend_from_slice(&bytes[..end]);
    longer.extend(surplus);
    longer.extend_from_slice(&bytes[end..]);
    longer
}

/// The length of a PNG up to the end of its last chunk, if that is there.
pub(super) fn png(bytes: &[u8]) -> Option<usize> {
    let mut at = 8usize;
    loop {
        let [a, b, c, d, kind @ ..] = *bytes.get(at..)?.first_chunk::<8>()?;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        at = at.checked_add(12)?.checked_add(length).filter(|&end| end <= bytes.len())?;
        if kind == *b"IEND" {
            return Some(at);
        }
    }
}

/// The length of a WebP, if it is as long as it says and its chunks lie inside it: the decoder makes room for a chunk before it
/// looks whether that is there.
pub(super) fn webp(bytes: &[u8]) -> Option<usize> {
    let size = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize);
    let end = size(4)?.checked_add(8).filter(|&end| end <= bytes.len())?;
    let mut at = 12usize;
    while at.checked_add(8)? <= end {
        let length = size(at + 4)?;
        at = at.checked_add(8)?.checked_add(length).filter(|&next| next <= end)? + (length & 1);
    }
    Some(end)
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
