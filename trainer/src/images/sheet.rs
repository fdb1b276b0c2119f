//! Contact sheets: many pictures of one size in one, and back.
use super::{MAX_SIDE, Picture, byte_count};
use pentimento_runtime::{Error, Result};

/// Pictures in a row of the tool's contact sheets.
pub const COLUMNS: u32 = 8;
/// White pixels between and around them.
pub const GAP: u32 = 2;

/// Lays `images` of one size out in rows of `columns`, `gap` white pixels between and around them.
///
/// # Errors
/// No images, no columns, images of different sizes, or a sheet beyond [`MAX_SIDE`].
pub fn contact_sheet(images: &[Picture], columns: u32, gap: u32) -> Result<Picture> {
    let place = "contact sheet";
    let Some(first) = images.first().filter(|_| columns > 0) else {
        return Err(Error::bad(place, "at least one image and one column", "none"));
    };
    let (w, h) = (first.width, first.height);
    if let Some(other) = images.iter().find(|i| (i.width, i.height) != (w, h)) {
        return Err(Error::bad(
            place,
            format!("images of {w}x{h}"),
            format!("{}x{}", other.width, other.height),
        ));
    }
    let count = u32::try_from(images.len()).unwrap_or(u32::MAX);
    let columns = columns.min(count);
    let side = |cells: u32, size: u32| cells.saturating_mul(size.saturating_add(gap)).saturating_add(gap);
    let (width, height) = (side(columns, w), side(count.div_ceil(columns), h));
    let mut rgb = vec![255; byte_count(width, height)?];
    for (i, image) in (0..count).zip(images) {
        let (left, top) = (gap + i % columns * (w + gap), gap + i / columns * (h + gap));
        let rows = image.rgb.chunks_exact(w as usize * 3);
        let targets = rgb.chunks_exact_mut(width as usize * 3).skip(top as usize);
        for (row, target) in rows.zip(targets) {
            target[left as usize * 3..][..row.len()].copy_from_slice(row);
        }
    }
    Picture::new(width, height, rgb)
}

/// The pictures of `size`, width and height, of a sheet that [`contact_sheet`] made, at most `most`. Places at the end that are all white
/// hold none.
///
/// # Errors
/// A sheet of other measures.
pub fn cells(sheet: &Picture, [w, h]: [u32; 2], gap: u32, most: usize) -> Result<Vec<Picture>> {
    let count = |side: u32, size: u32| {
        let cell = Some(size).filter(|s| (1..=MAX_SIDE).contains(s))?.checked_add(gap)?;
        let inner = side.checked_sub(gap)?;
        inner.is_multiple_of(cell).then_some(inner / cell)
    };
    let Some((columns, rows)) = count(sheet.width, w).zip(count(sheet.height, h)) else {
        let found = format!("{}x{}", sheet.width, sheet.height);
        return Err(Error::bad("contact sheet", format!("rows of pictures of {w}x{h}"), found));
    };
    let cell = |i: u32| {
        let (left, top) = (gap + i % columns * (w + gap), gap + i / columns * (h + gap));
        let row = |y: u32| &sheet.rgb[((top + y) * sheet.width + left) as usize * 3..][..w as usize * 3];
        Picture::new(w, h, (0..h).flat_map(row).copied().collect())
    };
    let mut all = (0..columns * rows).take(most).map(cell).collect::<Result<Vec<_>>>()?;
    while all.last().is_some_and(|last| last.rgb.iter().all(|v| *v == 255)) {
        all.pop();
    }
    Ok(all)
}
