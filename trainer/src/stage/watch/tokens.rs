//! How far pictures are from the references, and how far from each other, by the reward's frozen backbone: measures that
//! nothing in training is an adversary of.

/// Least unit of class tokens, as a part of the patch tokens' deviation: few references have class tokens that hardly
/// differ.
const LEAST: f64 = 0.5;

/// Mean and deviation of each dimension.
#[derive(Clone, Debug, Default)]
struct Spread {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Spread {
    /// Of vectors of one length.
    fn of<'a>(tokens: impl Iterator<Item = &'a [f32]>, width: usize) -> Self {
        let (mut n, mut sum, mut squares) = (0.0, vec![0.0; width], vec![0.0; width]);
        for token in tokens {
            n += 1.0;
            for ((s, q), &t) in sum.iter_mut().zip(&mut squares).zip(token) {
                *s += f64::from(t);
                *q += f64::from(t) * f64::from(t);
            }
        }
        let mean: Vec<f64> = sum.iter().map(|s| s / n).collect();
        let deviation = squares.iter().zip(&mean).map(|(q, m)| (q / n - m * m).max(0.0).sqrt());
        Spread { deviation: deviation.collect(), mean }
    }
    /// Mean over dimensions of the squared differences of means and of deviations, in the given units.
    fn distance(&self, other: &Spread, units: &[f64]) -> f64 {
        let parts = |a: &[f64], b: &[f64]| -> f64 {
            let all = a.iter().zip(b).zip(units);
            all.map(|((a, b), u)| ((a - b) / u.max(1e-6)).powi(2)).sum::<f64>() / units.len() as f64
        };
        parts(&self.mean, &other.mean) + parts(&self.deviation, &other.deviation)
    }
}

/// What tokens of some images have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Style {
    class: Spread,
    patches: Spread,
}

impl Style {
    /// Of the tokens of images, class token first, `width` numbers each.
    pub fn of(images: &[Vec<f32>], width: usize) -> Self {
        let class = Spread::of(images.iter().filter_map(|t| t.get(..width)), width);
        let patches = images.iter().flat_map(|t| t.chunks_exact(width).skip(1));
        Style { class, patches: Spread::of(patches, width) }
    }
    /// Distance from references, in units of the references' own deviations: 0 for equal statistics.
    pub fn distance(&self, references: &Style) -> f32 {
        let patches = &references.patches.deviation;
        let class = references.class.deviation.iter().zip(patches);
        let class: Vec<f64> = class.map(|(c, p)| c.max(LEAST * p)).collect();
        let sum = self.class.distance(&references.class, &class)
            + self.patches.distance(&references.patches, patches);
        (sum / 2.0) as f32
    }
}

/// Mean distance between the class tokens of two images, over all pairs.
pub(crate) fn diversity(images: &[Vec<f32>], width: usize) -> f32 {
    let class: Vec<&[f32]> = images.iter().filter_map(|t| t.get(..width)).collect();
    let mut sum = 0.0;
    for (i, a) in class.iter().enumerate() {
        for b in &class[..i] {
            sum += a.iter().zip(*b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
        }
    }
    let pairs = class.len() * class.len().saturating_sub(1) / 2;
    (sum / pairs.max(1) as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_in_units_of_the_references() {
        // Two images of a class token and two patches, two dimensions each.
        let references = vec![vec![0.0, 0.0, 0.0, 0.0, 2.0, 4.0], vec![2.0, 4.0, 0.0, 0.0, 2.0, 4.0]];
        let there = Style::of(&references, 2);
        assert_eq!(there.distance(&there), 0.0);
        // Everything moved by one deviation: each mean differs by 1, each deviation by 0.
        let moved = |by: f32| -> Vec<Vec<f32>> {
            let one = |t: &Vec<f32>| {
                t.as_chunks::<2>().0.iter().flat_map(|p| [p[0] + by, p[1] + 2.0 * by]).collect()
            };
            references.iter().map(one).collect()
        };
        assert!((Style::of(&moved(1.0), 2).distance(&there) - 1.0).abs() <= 1e-6);
        assert!((Style::of(&moved(-2.0), 2).distance(&there) - 4.0).abs() <= 1e-6);
        assert!(Style::of(&moved(f32::NAN), 2).distance(&there).is_nan());
        // One reference: its class token has no deviation of its own.
        let one = Style::of(&references[..1], 2);
        assert!(one.distance(&there).is_finite() && there.distance(&one).is_finite());
    }
    #[test]
    fn equal_pictures_have_no_diversity() {
        let images = vec![vec![0.0, 0.0, 9.0, 9.0], vec![3.0, 4.0, 7.0, 7.0], vec![0.0, 0.0, 5.0, 5.0]];
        assert!((diversity(&images, 2) - 10.0 / 3.0).abs() <= 1e-6);
        assert_eq!(diversity(&vec![images[0].clone(); 4], 2), 0.0);
        assert_eq!(diversity(&images[..1], 2), 0.0);
    }
}
