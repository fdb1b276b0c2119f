//! Gradients through images: what an encoder says of a picture, by the latents that the picture is decoded from.
use crate::double::{Values, draw};
use crate::gradients::check_at;
use crate::harness::{executors, property, run_as, same_bits, seeds};
use pentimento_runtime::caps::Caps;
use pentimento_runtime::exec::LeafData;
use pentimento_runtime::grad::gradients;
use pentimento_runtime::graph::{Graph, Id};
use pentimento_runtime::model::{Constants, clip_vision, dino, vae};
use pentimento_runtime::plan::Plan;
use pentimento_wgsl::{Class, Stored};
use std::cell::Cell;
use tests::adapter::Device;
use tests::check::{Data, check};
use tests::tiny;

/// A graph from the input "latents" (or "image"), its result, and the tables it needs.
type Built = (Graph, Id, Id, Constants);

/// One way through images.
struct Way {
    name: &'static str,
    build: fn() -> Built,
}

const WAYS: [Way; 6] = [
    Way { name: "decoder, DINOv2", build: || encoded(usize::MAX, 8, &|g, c, x| tokens(g, c, false, x)) },
    Way {
        name: "decoder, DINOv2 with registers",
        build: || encoded(usize::MAX, 8, &|g, c, x| tokens(g, c, true, x)),
    },
    Way { name: "decoder in bands, DINOv2", build: || encoded(160, 8, &|g, c, x| tokens(g, c, false, x)) },
    Way { name: "decoder, CLIP", build: || encoded(usize::MAX, 8, &embedding) },
    Way {
        name: "decoder with a head too wide for the fused attention",
        build: || encoded(usize::MAX, 132, &|_, _, x| x),
    },
    Way { name: "encoder", build: latents },
];

/// `see` of the picture that two latents are decoded to. most: numbers of a tensor before bands are cut.
fn encoded(most: usize, widest: usize, see: &dyn Fn(&mut Graph, &mut Constants, Id) -> Id) -> Built {
    let (mut g, mut constants) = (Graph::new(), Constants::new());
    let z = g.input("latents", &[2, 3, 2, 4]);
    let image = vae::decode_within(&mut g, &tiny::vae(widest), z, most);
    let image01 = g.affine(image, 0.5, 0.5);
    let y = see(&mut g, &mut constants, image01);
    (g, y, z, constants)
}

fn tokens(g: &mut Graph, constants: &mut Constants, registers: bool, image01: Id) -> Id {
    let cfg = tiny::dino(registers);
    let pixels = dino::preprocess(g, constants, image01, [4, 8], &dino::Pixels::imagenet());
    let y = dino::encode(g, constants, &cfg, "reward", pixels);
    dino::without_registers(g, &cfg, y)
}

fn embedding(g: &mut Graph, constants: &mut Constants, image01: Id) -> Id {
    let cfg = tiny::clip_vision();
    let side = cfg.image_size;
    let pixels = dino::preprocess(g, constants, image01, [side, side], &dino::Pixels::clip());
    let x = clip_vision::hidden(g, &cfg, "reward", pixels, 1);
    let y = clip_vision::embed(g, &cfg, "reward", x, 1, false);
    let text = g.input("text", &[cfg.projection_dim]);
    clip_vision::cosine(g, constants, y, text)
}

fn latents() -> Built {
    let mut g = Graph::new();
    let x = g.input("image", &[2, 6, 4, vae::IMAGE_CHANNELS]);
    let y = vae::encode(&mut g, &tiny::vae(8), x);
    (g, y, x, Constants::new())
}

/// Drawn numbers; the tables are what they are.
fn numbers(g: &Graph, constants: &Constants, seed: u64) -> Values {
    let mut all = draw(g, seed);
    for (name, data) in constants.iter() {
        all.insert(name.into(), data.iter().map(|&v| v.into()).collect());
    }
    all
}

/// A way with `dy` as an input.
fn opened(way: &Way) -> (Graph, [Id; 3], Constants) {
    let (mut g, y, x, constants) = (way.build)();
    g.check().unwrap_or_else(|e| panic!("{}: {e}", way.name));
    let shape = g.shape(y).to_vec();
    let dy = g.input("dy", &shape);
    (g, [y, dy, x], constants)
}

#[test]
fn gradients_through_images_agree_with_differences() {
    let (done, worst) = (Cell::new(0), Cell::new(0.0f64));
    for way in &WAYS {
        property(way.name, seeds(), |seed| {
            let (g, [y, dy, x], constants) = opened(way);
            let inputs = numbers(&g, &constants, seed);
            let (n, share) = check_at((g, y, dy, vec![x]), &inputs, seed, 2)?;
            done.set(done.get() + n);
            worst.set(worst.get().max(share));
            Ok(())
        });
    }
    let (n, share) = (done.get(), 100.0 * worst.get());
    println!(
        "gradients through images: {n} directions of {} ways, at most {share:.0} % of the limit",
        WAYS.len()
    );
}

/// Every command of the backward pass, from the numbers the adapter itself made before it.
#[test]
fn gradients_through_images_agree_with_twins() {
    let Some(mut device) = Device::open("gradients through images") else { return };
    for (way, class) in WAYS.iter().flat_map(|w| [Class::Gpu, Class::Software].map(|c| (w, c))) {
        device.clear();
        let exec = device.exec();
        let own = exec.caps().clone();
        let texture_rows = if class == Class::Software { own.texture_rows } else { 0 };
        let caps = Caps { class, texture_rows, ..own };
        let (mut g, [y, dy, x], constants) = opened(way);
        let dx = gradients(&mut g, y, dy, &[x], true).expect("a gradient")[0];
        let mut data = Data::new();
        for (name, numbers) in numbers(&g, &constants, 7) {
            data.insert(name, numbers.into_iter().map(|v| v as f32).collect());
        }
        let plan = Plan::new(g, &[("y", y), ("dx", dx)], &caps, &|_| Stored::F32).expect("a plan");
        for leaf in &plan.leaves {
            exec.set_leaf(&leaf.name, LeafData::F32(&data[&leaf.name])).expect("a leaf");
        }
        let steps = check(exec, plan, &data).unwrap_or_else(|e| panic!("{}, {class:?}: {e}", way.name));
        let worst = steps.iter().map(|s| s.worst).fold(0.0, f64::max);
        println!(
            "{}, {class:?}: {} commands, at most {:.0} % of a limit",
            way.name,
            steps.len(),
            100.0 * worst
        );
    }
}

/// Blocks of the networks, computed again beside their backward pass, give the stored gradient's bits, one command per
/// operation. (Fused plans differ by what fusion rounds less: where a block is kept, fewer of its parts are joined.)
#[test]
fn recomputed_images_give_the_same_gradients() {
    for way in &WAYS {
        // Executors of its own: the ways' weights share names, not sizes.
        for (who, mut exec) in executors("recomputation of images") {
            let dx = [false, true].map(|recompute| {
                let (mut g, [y, dy, x], constants) = opened(way);
                let dx = gradients(&mut g, y, dy, &[x], recompute).expect("a gradient")[0];
                let all = numbers(&g, &constants, 3).into_iter();
                let all = all.map(|(name, v)| (name, v.into_iter().map(|v| v as f32).collect())).collect();
                run_as(&mut *exec, &g, &[dx], &all, false).remove(0)
            });
            same_bits(&dx[1], &dx[0]).unwrap_or_else(|e| panic!("{} on {who}: {e}", way.name));
            assert!(dx[0].iter().any(|v| *v != 0.0), "{}: a gradient of zeros", way.name);
            println!("{}: recomputed like stored, bit for bit, on {who}", way.name);
        }
    }
}

#[test]
fn weights_of_images_are_frozen() {
    let mut g = Graph::new();
    let (x, k) = (g.input("x", &[1, 4, 4, 4]), g.input("k", &[4, 3, 3, 4]));
    let (w, b) = (g.input("w", &[4]), g.input("b", &[4]));
    let y = g.conv2d(x, k, Some(b), 1, 1, 0);
    let n = g.group_norm(y, w, b, 2, 1e-5);
    let dy = g.input("dy", &[1, 4, 4, 4]);
    for (end, wrt, what) in [(y, k, "a convolution"), (y, b, "a convolution"), (n, w, "a group norm")] {
        let e = gradients(&mut g.clone(), end, dy, &[wrt], false).expect_err("frozen");
        assert!(e.to_string().contains(&format!("the weights of {what}, which are frozen")), "{e}");
    }
    assert!(gradients(&mut g, n, dy, &[x], false).is_ok());
}
