//! Pictures that are cut, and what decoding them takes: every form that is read, cut at every byte.
use pentimento_trainer::images::{MAX_DECODED, Picture};
use std::path::Path;
use tests::memory::peak;

#[global_allocator]
static COUNTING: tests::memory::Counting = tests::memory::Counting;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/image");
    let files = std::fs::read_dir(folder).expect("the corpus").flatten();
    files
        .map(|e| (e.file_name().into_string().expect("a name"), std::fs::read(e.path()).expect("a picture")))
        .collect()
}

#[test]
fn every_cut_is_refused() {
    let all = corpus();
    assert!(all.len() >= 20, "{}", all.len());
    for (name, bytes) in all {
        Picture::decode(&name, &bytes).expect("the whole picture");
        for cut in 0..bytes.len() {
            let error = Picture::decode(&name, &bytes[..cut]).expect_err(&format!("{name} cut at {cut}"));
            assert!(error.to_string().starts_with(&format!("{name}: expected")), "{error}");
        }
    }
}

/// What some tools do to a cut JPEG: the end marker is put after what there is, or zeros fill the rest.
#[test]
fn mended_cuts_are_refused() {
    for (name, bytes) in corpus().into_iter().filter(|(name, _)| name.ends_with(".jpg")) {
        let whole = Picture::decode(&name, &bytes).expect("the whole picture");
        let (mut tried, mut taken) = (0, 0);
        for cut in 4..bytes.len() - 2 {
            let marked = [&bytes[..cut], &[0xff, 0xd9]].concat();
            let filled = [&bytes[..cut], &vec![0; bytes.len() - cut - 2], &[0xff, 0xd9]].concat();
            assert!(Picture::decode(&name, &filled[..filled.len() - 2]).is_err(), "{name} filled from {cut}");
            tried += 1;
            // The last bits of the last block may be those that the decoder makes up.
            if let Ok(picture) = Picture::decode(&name, &marked) {
                taken += 1;
                assert!(bytes.len() - cut < 12 && picture == whole, "{name} cut at {cut} with an end");
            }
        }
        assert!(taken <= 4, "{name}: {taken} of {tried}");
    }
}

#[test]
fn decoding_takes_what_it_says() {
    for (name, bytes) in corpus() {
        // The least limit at which the picture is taken is what its decoding is said to take.
        let (mut low, mut high) = (0, MAX_DECODED);
        while high - low > 1 << 16 {
            let middle = (low + high) / 2;
            match Picture::decode_within(&name, &bytes, middle) {
                Ok(_) => high = middle,
                Err(e) => {
                    assert!(e.to_string().contains("decoding takes at most"), "{e}");
                    low = middle;
                }
            }
        }
        let (_, taken) = peak(|| Picture::decode_within(&name, &bytes, high).expect("a picture"));
        assert!(taken as u64 <= high, "{name}: {taken} of {high}");
    }
}

/// A PNG from its chunks.
fn png(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in chunks {
        bytes.extend((data.len() as u32).to_be_bytes());
        let from = bytes.len();
        bytes.extend(*kind);
        bytes.extend(*data);
        let crc = tests::fuzz::crc32(&bytes[from..]);
        bytes.extend(crc.to_be_bytes());
    }
    bytes
}

fn header(side: u32, bits: u8, colour: u8) -> Vec<u8> {
    [&side.to_be_bytes()[..], &side.to_be_bytes(), &[bits, colour, 0, 0, 0]].concat()
}

/// `length` zero bytes in zlib's form, made of the same block of 64 KiB over and over.
fn zeros(length: usize) -> Vec<u8> {
    // Fixed codes, one literal zero, then copies of 258 bytes from one byte back: 15 ones and zeros of 13 bits each.
    let mut bits: Vec<bool> = vec![true, true, false];
    let put =
        |code: u32, n: u32, bits: &mut Vec<bool>| (0..n).rev().for_each(|i| bits.push(code >> i & 1 == 1));
    put(0x30, 8, &mut bits);
    for _ in 0..length / 258 {
        put(0b1100_0101, 8, &mut bits); // length 258
        put(0, 5, &mut bits); // distance 1
    }
    put(0, 7, &mut bits);
    let mut bytes = vec![0x78, 0x01];
    bytes.extend(
        bits.chunks(8).map(|byte| byte.iter().enumerate().map(|(i, b)| u8::from(*b) << i).sum::<u8>()),
    );
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn large_pictures_take_no_more_than_the_limit() {
    let bomb = zeros(1 << 30);
    let profile = [b"p\0\0", &bomb[..]].concat();
    let one = zeros(300); // more than the two bytes of one grey pixel
    let cases = [
        ("rgba", png(&[(b"IHDR", &header(16384, 8, 6)), (b"IDAT", &bomb), (b"IEND", b"")]), false),
        (
            "one bit",
            png(&[(b"IHDR", &header(16384, 1, 0)), (b"IDAT", &zeros(16384 * 2049)), (b"IEND", b"")]),
            false,
        ),
        (
            "rgb",
            png(&[(b"IHDR", &header(16384, 8, 2)), (b"IDAT", &zeros(16384 * 49153 + 258)), (b"IEND", b"")]),
            true,
        ),
        ("16 bits", png(&[(b"IHDR", &header(16384, 16, 6)), (b"IDAT", &one), (b"IEND", b"")]), false),
        (
            "profile",
            png(&[(b"IHDR", &header(1, 8, 0)), (b"iCCP", &profile), (b"IDAT", &one), (b"IEND", b"")]),
            true,
        ),
    ];
    for (name, bytes, taken) in cases {
        let (made, most) = peak(|| Picture::decode(name, &bytes).map(drop));
        assert!(most as u64 <= MAX_DECODED, "{name}: {most}");
        println!("{name}: {} MiB for a file of {} KiB, {made:?}", most >> 20, bytes.len() >> 10);
        assert_eq!(made.is_ok(), taken, "{name}");
        if name == "profile" {
            assert!(most < 64 << 20, "{most}");
        }
    }
}
