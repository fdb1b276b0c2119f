use super::*;
use proptest::prelude::*;

/// Settings of each recipe on each class of devices.
fn all() -> impl Iterator<Item = Settings> {
    let of = |name: &&str| [true, false].map(|slow| Settings::recipe(name, slow).expect("a recipe"));
    Recipe::NAMES.iter().flat_map(of).collect::<Vec<_>>().into_iter()
}
/// Every text on another recipe's settings.
fn copied(from: &Settings, into: &mut Settings) {
    for setting in list() {
        let text = from.get(setting.name).expect(setting.name);
        into.set(setting.name, &text).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(into.get(setting.name), Some(text), "{}", setting.name);
    }
}

#[test]
fn every_setting_goes_through_its_text() {
    let mut own = Settings::default();
    for settings in all() {
        settings.check().expect("a recipe's own settings");
        copied(&settings, &mut own);
        assert_eq!(own, settings);
    }
    for (name, texts) in [
        ("base", &["none", "q8", "q4"][..]),
        ("recompute", &["auto", "none", "most", "all"]),
        ("memory", &["none", "6GB", "1500MB", "512MiB", "7B"]),
        ("seconds", &["none", "90.0"]),
        ("fit", &["cover", "pad", "squash"]),
        ("background", &["#00ff7f"]),
        ("seed", &["18446744073709551615"]),
        ("recipe", &["pathwise", "grpo", "flow-grpo", "nft", "sft", "released"]),
        ("grpo.credit", &["image", "patch:0.25"]),
        ("grpo.spread", &["global", "within", "group"]),
        ("pathwise.from", &["last-step", "noised:0.25..1.0"]),
        ("rollout.window_start", &["none", "0", "3"]),
        ("released.tune_layer", &["-2"]),
    ] {
        for text in texts {
            own.set(name, text).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(own.get(name).as_deref(), Some(*text), "{name}");
        }
    }
}

#[test]
fn names_are_the_paths_of_fields_and_all_is_said() {
    let mut names: Vec<&str> = list().iter().map(|s| s.name).collect();
    for name in ["optim.rate", "rollout.group", "head.steady", "iterations", "recipe", "released.tune_rate"] {
        assert!(names.contains(&name), "{name}");
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), list().len(), "a name that two have");
    for setting in list() {
        let Setting { name, about, .. } = setting;
        assert!(
            about.ends_with(['.', ')']) && !about.contains("[`") && !about.contains("\n"),
            "{name}: {about}"
        );
        assert_eq!(setting.default("default", true), setting.default("pathwise", true));
    }
    let rate = find("optim.rate").expect("a setting");
    assert_eq!((rate.kind, rate.source), (Kind::Number, Source::Released));
    assert_eq!(rate.default("released", false).as_deref(), Ok("0.0003"));
    assert_eq!(rate.expected(), "a number, 0 to 1");
}

/// Every one has texts that it does not take, and those with ranges have numbers beyond them.
#[test]
fn every_setting_refuses_what_it_cannot_be() {
    for setting in list() {
        let mut bad =
            vec!["".to_string(), "x".into(), "-1e30".into(), "patch:2".into(), "noised:0..2".into()];
        if let Some(range) = setting.range {
            bad.extend([range.low - 1.0, range.high + 1.0, 1e30, f64::NAN].map(|v| v.to_string()));
        }
        for text in bad {
            let mut own = Settings::recipe("grpo", true).expect("a recipe");
            let error = own.set(setting.name, &text).expect_err(setting.name).to_string();
            assert!(error.starts_with(setting.name) && error.contains("expected"), "{error}");
            assert_eq!(own, Settings::recipe("grpo", true).expect("a recipe"), "{error}");
        }
    }
}

#[test]
fn unknown_names_are_told_the_nearest() {
    for (name, near) in [
        ("optim.rat", "Did you mean optim.rate?"),
        ("optim.Rate", "Did you mean optim.rate?"),
        ("iteration", "Did you mean iterations?"),
        ("warm_steps", "Did you mean warm.steps?"),
        ("group", "Did you mean rollout.group?"),
        ("rate", "Did you mean warm.rate or head.rate or optim.rate?"),
        ("", "Did you mean "),
    ] {
        let error = Settings::default().set(name, "1").expect_err(name).to_string();
        assert!(error.contains(near) && error.starts_with(name), "{error}");
        assert!(find(name).is_err() && Settings::default().get(name).is_none());
    }
}

#[test]
fn settings_that_do_not_go_together_are_named() {
    let mut own = Settings::recipe("released", true).expect("a recipe");
    own.set("fit", "pad").expect("a fit");
    assert!(own.check().expect_err("squash").to_string().starts_with("fit: expected squash"));
    let mut own = Settings::recipe("pathwise", true).expect("a recipe");
    own.set("pathwise.from", "noised:0.8..0.1").expect("levels");
    assert!(own.check().expect_err("rising").to_string().contains("pathwise.from"));
    own.config.optim.rate = f32::NAN;
    assert!(own.check().expect_err("a number").to_string().contains("optim.rate"));
}

proptest! {
    /// Any number in range comes back as the same text's value, to the bit.
    #[test]
    fn numbers_go_through_their_texts(which in 0..list().len(), part in 0.0..=1.0f64, bits in any::<u64>()) {
        let setting = &list()[which];
        let Some(Range { low, high, .. }) = setting.range else { return Ok(()) };
        // Even over the range, or over the magnitudes of all numbers.
        let wild = f64::from_bits(bits);
        let number = if (low..=high).contains(&wild) { wild } else { low + part * (high - low) };
        let text = match setting.kind {
            Kind::Number => format!("{:?}", number as f32),
            Kind::Whole => format!("{}", number as i64),
            Kind::Text(_) => match setting.name {
                "seconds" => format!("{number:?}"),
                "grpo.credit" => format!("patch:{:?}", number as f32),
                "pathwise.from" => format!("noised:{:?}..{:?}", number as f32, number as f32),
                _ => format!("{}", number as i64),
            },
            Kind::Switch | Kind::Name(_) => return Ok(()),
        };
        let mut own = Settings::default();
        if let Err(error) = own.set(setting.name, &text) {
            // An f32 may round to the end of a range that is left out.
            let at_end = setting.range.is_some_and(|r| r.above) && number < 1e-30;
            prop_assert!(at_end, "{error}");
            return Ok(());
        }
        let back = own.get(setting.name).expect("a text");
        prop_assert_eq!(&back, &text);
        let mut again = Settings::default();
        again.set(setting.name, &back).expect("its own text");
        prop_assert_eq!(again, own);
    }
}
