//! What a run of the suite covered, by kernel and variant.
use std::collections::BTreeMap;
use tests::check::Step;
use tests::draw::Draw;

#[derive(Default)]
struct Tally {
    cases: usize,
    numbers: usize,
    free: usize,
    worst: f64,
    at: String,
}

/// Counts and worst shares.
#[derive(Default)]
pub struct Summary {
    rows: BTreeMap<(&'static str, String), Tally>,
    cases: usize,
}

impl Summary {
    /// Adds one case.
    pub fn add(&mut self, draw: &Draw, steps: &[Step]) {
        self.cases += 1;
        let mut counted = Vec::new();
        for s in steps {
            let key = (s.variant.entry(), s.variant.body());
            let row = self.rows.entry(key.clone()).or_default();
            row.numbers += s.numbers;
            row.free += s.free;
            if s.worst > row.worst {
                (row.worst, row.at) = (s.worst, draw.to_string());
            }
            if !counted.contains(&key) {
                row.cases += 1;
                counted.push(key);
            }
        }
    }
    /// Cases added.
    pub fn cases(&self) -> usize {
        self.cases
    }
    /// Prints the table.
    pub fn print(&self, adapter: &str, driver: &str) {
        println!("\nadapter: {adapter} {driver}");
        println!(
            "{:<20} {:<22} {:>6} {:>11} {:>6} {:>7}  worst case",
            "op", "variant", "cases", "numbers", "free", "of limit"
        );
        for ((op, variant), t) in &self.rows {
            let free = 100.0 * t.free as f64 / (t.numbers.max(1)) as f64;
            println!(
                "{op:<20} {variant:<22} {:>6} {:>11} {free:>5.1}% {:>7.4}  {}",
                t.cases, t.numbers, t.worst, t.at
            );
        }
        println!("{} property cases", self.cases);
    }
}
