//! What a picture shows, as against its background.

/// All channels at least this: near-white.
const WHITE: f32 = 0.85;
/// Largest difference in a channel from a background of another colour.
const NEAR: f32 = 0.15;
/// Part of a picture that its foreground must take, at least and at most, to say anything.
const SAYS: [f32; 2] = [0.02, 0.98];

/// Foreground of a picture, `[H, W, 3]` in 0 to 1: all but the pixels of the background's colour that connect to the
/// border, so that a white inside of an outline is foreground. The background is near-white where the median of the
/// border is, otherwise what is close to that median.
pub(crate) fn silhouette(image: &[f32], width: usize) -> Vec<bool> {
    let pixels = image.as_chunks::<3>().0;
    let height = pixels.len().checked_div(width).unwrap_or(0);
    let border = |i: usize| {
        let (y, x) = (i / width, i % width);
        y == 0 || x == 0 || y + 1 == height || x + 1 == width
    };
    let edge: Vec<usize> = (0..height * width).filter(|&i| border(i)).collect();
    let white = |p: &[f32; 3]| p.iter().all(|c| *c >= WHITE);
    let colour = [0, 1, 2].map(|c| median(edge.iter().map(|&i| pixels[i][c]).collect()));
    let like = |p: &[f32; 3]| match white(&colour) {
        true => white(p),
        false => p.iter().zip(colour).all(|(c, m)| (c - m).abs() < NEAR),
    };
    let mut front = vec![true; height * width];
    let mut next: Vec<usize> = edge;
    while let Some(i) = next.pop() {
        if !front[i] || !like(&pixels[i]) {
            continue;
        }
        front[i] = false;
        let (y, x) = (i / width, i % width);
        next.extend((y > 0).then(|| i - width));
        next.extend((y + 1 < height).then(|| i + width));
        next.extend((x > 0).then(|| i - 1));
        next.extend((x + 1 < width).then(|| i + 1));
    }
    front
}

/// Zero for none; NaN counts as large.
fn median(mut values: Vec<f32>) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Mean overlap (intersection over union) of pictures' silhouettes with those of the base model's. Base pictures without a
/// background, such as many photographs, or without a foreground are left out; `None` where that is more than half.
pub(crate) fn overlap(base: &[Vec<bool>], now: &[Vec<bool>]) -> Option<f32> {
    let says = |mask: &[bool]| {
        let part = mask.iter().filter(|m| **m).count() as f32 / mask.len() as f32;
        (SAYS[0]..=SAYS[1]).contains(&part)
    };
    let pairs: Vec<_> = base.iter().zip(now).filter(|(b, _)| says(b)).collect();
    let count = |b: &[bool], n: &[bool], f: fn(bool, bool) -> bool| {
        b.iter().zip(n).filter(|(b, n)| f(**b, **n)).count() as f32
    };
    let sum: f32 = pairs.iter().map(|(b, n)| count(b, n, |b, n| b && n) / count(b, n, |b, n| b || n)).sum();
    (!pairs.is_empty() && 2 * pairs.len() >= base.len()).then(|| sum / pairs.len() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 10;
    /// A square outline from 2 to 7 around `inside`.
    fn outline(back: f32, line: f32, inside: f32) -> Vec<f32> {
        let at = |i: usize| {
            let (y, x) = (i / SIDE, i % SIDE);
            let within = |v: usize, low, high| (low..=high).contains(&v);
            match (within(y, 2, 7) && within(x, 2, 7), within(y, 3, 6) && within(x, 3, 6)) {
                (false, _) => back,
                (true, false) => line,
                (true, true) => inside,
            }
        };
        (0..SIDE * SIDE).flat_map(|i| [at(i); 3]).collect()
    }
    fn size(mask: &[bool]) -> usize {
        mask.iter().filter(|m| **m).count()
    }

    #[test]
    fn the_inside_of_an_outline_is_foreground() {
        assert_eq!(size(&silhouette(&outline(1.0, 0.0, 1.0), SIDE)), 36);
        // An open outline has no inside.
        let mut open = outline(1.0, 0.0, 1.0);
        open[3 * (2 * SIDE + 4)..][..3].fill(1.0);
        assert_eq!(size(&silhouette(&open, SIDE)), 36 - 16 - 1);
    }
    #[test]
    fn any_plain_background_will_do() {
        let white = silhouette(&outline(0.95, 0.1, 1.0), SIDE);
        assert_eq!(white, silhouette(&outline(0.3, 0.9, 0.3), SIDE));
        assert_eq!(overlap(std::slice::from_ref(&white), std::slice::from_ref(&white)), Some(1.0));
    }
    #[test]
    fn without_foreground_or_background_nothing_is_said() {
        let plain = silhouette(&[0.5; 3 * SIDE * SIDE], SIDE);
        assert_eq!(size(&plain), 0);
        let square = silhouette(&outline(1.0, 0.0, 1.0), SIDE);
        let all = vec![true; SIDE * SIDE];
        assert_eq!(
            overlap(&[plain.clone(), all.clone(), square.clone()], &[vec![], vec![], square.clone()]),
            None
        );
        assert_eq!(overlap(&[plain, square.clone()], &[vec![], all]), Some(0.36));
        assert_eq!(overlap(&[], &[]), None);
    }
    #[test]
    fn damaged_pictures_are_all_foreground() {
        assert_eq!(size(&silhouette(&[f32::NAN; 3 * SIDE * SIDE], SIDE)), SIDE * SIDE);
        assert!(silhouette(&[], 0).is_empty() && silhouette(&[], SIDE).is_empty());
    }
}
