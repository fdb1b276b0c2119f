//! `pentimento personalize --official`.
use crate::personalize::{Args, Log, Loop};
use crate::{Stop, bar};
use pentimento::pipeline::Pipeline;
use pentimento_trainer::adapter::Adapter;
use pentimento_trainer::recipe::released::{Official, Report, Seeded};
use pentimento_trainer::{Error, Result};
use serde_json::json;

/// Epochs unless told otherwise: two of them train the generator.
const EPOCHS: usize = 20;

impl Loop for Official {
    fn pipeline(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }
    fn adapter(&self) -> Result<Adapter> {
        self.adapter()
    }
    fn show_average(&mut self, average: bool) -> Result<()> {
        self.show_average(average)
    }
    fn train(&mut self, args: &Args, stop: &Stop) -> Result<()> {
        let mut log = Log::new(args);
        let mut script = Seeded::new(args.seed);
        let epochs = if args.minutes.is_some() { usize::MAX } else { args.iterations.unwrap_or(EPOCHS) };
        let spare = |log: &Log| args.minutes.is_none_or(|m| log.elapsed() < 60.0 * m);
        let progress = bar(1, "epoch");
        for epoch in 0..epochs {
            if stop.asked() || !spare(&log) {
                break;
            }
            let done = self.epoch(&mut script, &mut |part, all| {
                progress.set_length((all * epochs.min(1 << 20)) as u64);
                progress.set_position((epoch * all + part) as u64);
                !stop.asked()
            });
            let report = match done {
                Err(Error::Cancelled) => break,
                done => done?,
            };
            progress.println(summary(&report));
            log.add(record(&report))?;
            if args.keep {
                self.adapter()?.save(&args.out.join(format!("iteration-{}.safetensors", epoch + 1)))?;
            }
        }
        progress.finish_and_clear();
        Ok(())
    }
}

fn summary(r: &Report) -> String {
    let what = match r.head {
        Some(h) => format!("head loss {:.3} accuracy {:.2}", h.loss, h.accuracy),
        None => format!("generator, gradients {:?}", r.gradient_norms),
    };
    let (generated, reference) = (r.reward_generated, r.reward_reference);
    format!("{:>3}  reward {generated:+.4} (references {reference:+.4})  {what}", r.epoch + 1)
}

fn record(r: &Report) -> serde_json::Value {
    json!({
        "epoch": r.epoch + 1,
        "reward_generated": r.reward_generated,
        "reward_reference": r.reward_reference,
        "head_loss": r.head.map(|h| h.loss),
        "head_accuracy": r.head.map(|h| h.accuracy),
        "gradient_norms": r.gradient_norms,
        "clip_fraction": r.clip_fraction,
    })
}
