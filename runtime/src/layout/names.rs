//! Original tensor names and what diffusers calls them.
use alloc::format;
use alloc::string::{String, ToString};

/// What becomes of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rename {
    /// The same under another name.
    To(String),
    /// A fused projection: three equal ranges of rows.
    Split([String; 3]),
    /// Two halves of rows, exchanged: the original stores (shift, scale), diffusers (scale, shift).
    Swap(String),
}

impl Rename {
    /// The same for a tensor of the module.
    fn with(self, suffix: &str) -> Rename {
        let add = |name: String| format!("{name}{suffix}");
        match self {
            Rename::To(name) => Rename::To(add(name)),
            Rename::Split(names) => Rename::Split(names.map(add)),
            Rename::Swap(name) => Rename::Swap(add(name)),
        }
    }
}

/// Modules outside the blocks.
const OUTER: [(&str, &str); 7] = [
    ("x_embedder.proj", "pos_embed.proj"),
    ("t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
    ("t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
    ("y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"),
    ("y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"),
    ("context_embedder", "context_embedder"),
    ("final_layer.linear", "proj_out"),
];
/// The last modulation, whose halves are exchanged.
const LAST: (&str, &str) = ("final_layer.adaLN_modulation.1", "norm_out.linear");
/// Modules of a joint block that stay whole.
const INNER: [(&str, &str); 15] = [
    ("x_block.adaLN_modulation.1", "norm1.linear"),
    ("context_block.adaLN_modulation.1", "norm1_context.linear"),
    ("x_block.attn.ln_q", "attn.norm_q"),
    ("x_block.attn.ln_k", "attn.norm_k"),
    ("x_block.attn.proj", "attn.to_out.0"),
    ("x_block.attn2.ln_q", "attn2.norm_q"),
    ("x_block.attn2.ln_k", "attn2.norm_k"),
    ("x_block.attn2.proj", "attn2.to_out.0"),
    ("x_block.mlp.fc1", "ff.net.0.proj"),
    ("x_block.mlp.fc2", "ff.net.2"),
    ("context_block.attn.ln_q", "attn.norm_added_q"),
    ("context_block.attn.ln_k", "attn.norm_added_k"),
    ("context_block.attn.proj", "attn.to_add_out"),
    ("context_block.mlp.fc1", "ff_context.net.0.proj"),
    ("context_block.mlp.fc2", "ff_context.net.2"),
];
/// Fused projections of a joint block.
const FUSED: [(&str, [&str; 3]); 3] = [
    ("x_block.attn.qkv", ["attn.to_q", "attn.to_k", "attn.to_v"]),
    ("context_block.attn.qkv", ["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"]),
    ("x_block.attn2.qkv", ["attn2.to_q", "attn2.to_k", "attn2.to_v"]),
];

/// What diffusers calls an original transformer module such as `joint_blocks.0.x_block.attn.qkv`, `None` when there is
/// no such module. `last`: the last joint block, whose context modulation is stored the other way round.
pub fn module(name: &str, last: Option<usize>) -> Option<Rename> {
    if let Some((_, to)) = OUTER.iter().find(|(from, _)| *from == name) {
        return Some(Rename::To(to.to_string()));
    }
    if name == LAST.0 {
        return Some(Rename::Swap(LAST.1.into()));
    }
    let (n, rest) = number_after(name, "joint_blocks.")?;
    let rest = rest.strip_prefix('.')?;
    let block = |to: &str| format!("transformer_blocks.{n}.{to}");
    if let Some((_, to)) = FUSED.iter().find(|(from, _)| *from == rest) {
        return Some(Rename::Split(to.map(block)));
    }
    let (from, to) = INNER.iter().find(|(from, _)| *from == rest)?;
    let swapped = *from == "context_block.adaLN_modulation.1" && Some(n) == last;
    Some(if swapped { Rename::Swap(block(to)) } else { Rename::To(block(to)) })
}

/// As [`module`], for a module of either layout whose name may have underscores for its dots, as trainers write it.
pub fn any_module(name: &str, last: Option<usize>) -> Option<Rename> {
    if let Some((n, rest)) = numbered(name, "joint_blocks") {
        let all = INNER.iter().map(|(from, _)| *from).chain(FUSED.iter().map(|(from, _)| *from));
        let from = { all }.find(|from| same(rest, from))?;
        return module(&format!("joint_blocks.{n}.{from}"), last);
    }
    if let Some((n, rest)) = numbered(name, "transformer_blocks") {
        let mut all = INNER.iter().map(|(_, to)| *to).chain(FUSED.iter().flat_map(|(_, to)| *to));
        return Some(Rename::To(format!("transformer_blocks.{n}.{}", all.find(|to| same(rest, to))?)));
    }
    let outer = || OUTER.iter().chain([&LAST]);
    let original = || outer().find(|(from, _)| same(name, from)).and_then(|(from, _)| module(from, last));
    let diffusers = outer().find(|(_, to)| same(name, to)).map(|(_, to)| Rename::To(to.to_string()));
    diffusers.or_else(original)
}

/// Whether a name is this module's, perhaps with underscores for dots.
pub fn same(name: &str, module: &str) -> bool {
    let alike = |(a, b): (u8, u8)| a == b || (a, b) == (b'_', b'.');
    name.len() == module.len() && name.bytes().zip(module.bytes()).all(alike)
}

/// The number (below 1024) and the rest of `<blocks>.<number>.<rest>`, perhaps with underscores for dots.
pub fn numbered<'a>(name: &'a str, blocks: &str) -> Option<(usize, &'a str)> {
    let (_, rest) = name.split_at_checked(blocks.len()).filter(|(head, _)| same(head, blocks))?;
    let (n, rest) = number_after(rest.strip_prefix(['.', '_'])?, "")?;
    Some((n, rest.strip_prefix(['.', '_'])?))
}

/// A tensor of the transformer, in the original layout or already in diffusers'.
pub(super) fn transformer(name: &str, last: Option<usize>) -> Option<Rename> {
    if name == "pos_embed" {
        return Some(Rename::To("pos_embed.pos_embed".into()));
    }
    let known = ["transformer_blocks.", "pos_embed.", "time_text_embed.", "norm_out.linear.", "proj_out."];
    if known.iter().any(|prefix| name.starts_with(prefix)) {
        return Some(Rename::To(name.to_string()));
    }
    [".weight", ".bias"]
        .iter()
        .find_map(|suffix| Some(module(name.strip_suffix(suffix)?, last)?.with(suffix)))
}

/// Whether a tensor lies in one of the transformer's modules by its name, read or not.
pub(super) fn in_transformer(name: &str) -> bool {
    let root = name.split('.').next().unwrap_or_default();
    let outer = || OUTER.iter().any(|(module, _)| module.split('.').next() == Some(root));
    outer() || ["joint_blocks", "final_layer"].contains(&root)
}

/// A tensor of the autoencoder, in the original layout or already in diffusers'. Levels of the decoder keep their
/// numbers here; they are counted the other way round once all are known.
pub(super) fn vae(name: &str) -> Option<Rename> {
    let (side, rest) = match name.split_once('.')? {
        (side @ ("encoder" | "decoder"), rest) => (side, rest),
        ("quant_conv" | "post_quant_conv", _) => return Some(Rename::To(name.to_string())),
        _ => return None,
    };
    let to = |rest: String| Some(Rename::To(format!("{side}.{rest}")));
    if let Some(rest) = rest.strip_prefix("norm_out.") {
        return to(format!("conv_norm_out.{rest}"));
    }
    if let Some(rest) = rest.strip_prefix("mid.") {
        return to(format!("mid_block.{}", middle(rest)?));
    }
    for (from, blocks, sampler, samplers) in [
        ("down.", "down_blocks", "downsample", "downsamplers"),
        ("up.", "up_blocks", "upsample", "upsamplers"),
    ] {
        let Some((level, rest)) = number_after(rest, from) else { continue };
        let rest = rest.strip_prefix('.')?;
        if let Some((n, rest)) = number_after(rest, "block.") {
            let rest = rest.replace(".nin_shortcut.", ".conv_shortcut.");
            return to(format!("{blocks}.{level}.resnets.{n}{rest}"));
        }
        let rest = rest.strip_prefix(sampler)?;
        return to(format!("{blocks}.{level}.{samplers}.0{rest}"));
    }
    to(rest.to_string())
}

/// Inside the middle block of either half of the autoencoder.
fn middle(name: &str) -> Option<String> {
    let (part, rest) = name.split_once('.')?;
    let attention = |to: &str, rest: &str| Some(format!("attentions.0.{to}{rest}"));
    match part {
        "block_1" => Some(format!("resnets.0.{rest}")),
        "block_2" => Some(format!("resnets.1.{rest}")),
        "attn_1" => {
            let (layer, rest) = rest.split_at(rest.find('.')?);
            match layer {
                "norm" => attention("group_norm", rest),
                "q" | "k" | "v" => attention(&format!("to_{layer}"), rest),
                "proj_out" => attention("to_out.0", rest),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Axes of the tensors that files store with more (a 1 x 1 convolution) or fewer (a leading 1 is lost).
pub(super) fn rank(diffusers: &str) -> Option<usize> {
    let matrix = diffusers.contains(".attentions.0.to_") && diffusers.ends_with(".weight");
    if diffusers == "pos_embed.pos_embed" { Some(3) } else { matrix.then_some(2) }
}

/// The joint block a tensor belongs to.
pub(super) fn block(name: &str) -> Option<usize> {
    number_after(name, "joint_blocks.").map(|(n, _)| n)
}

/// The number (below 1024) that follows a prefix, and the rest.
pub(super) fn number_after<'a>(name: &'a str, prefix: &str) -> Option<(usize, &'a str)> {
    let rest = name.strip_prefix(prefix)?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = rest.split_at(digits);
    let plain = number.len() == 1 || !number.starts_with('0');
    Some((number.parse().ok().filter(|&n: &usize| plain && n < 1024)?, rest))
}
