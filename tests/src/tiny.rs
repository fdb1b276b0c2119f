//! The smallest networks that have every part of those they stand for.
use pentimento::model::{Cubic, clip_vision, dino, mmdit, vae};
use pentimento_wgsl::kernel::Act;

/// Two heads of 64, one dual-attention block, patches of one latent position.
pub fn transformer(num_layers: usize) -> mmdit::Config {
    mmdit::Config {
        patch_size: 1,
        num_layers,
        num_attention_heads: 2,
        joint_attention_dim: 32,
        pooled_projection_dim: 16,
        pos_embed_max_size: 8,
        dual_attention_layers: vec![0],
        ..mmdit::Config::sd35_medium()
    }
}

/// Two blocks, the inner one `widest` channels wide: two pixels per latent along a side.
pub fn vae(widest: usize) -> vae::Config {
    vae::Config {
        block_out_channels: vec![8, widest],
        layers_per_block: 1,
        latent_channels: 4,
        norm_num_groups: 4,
        use_quant_conv: true,
        use_post_quant_conv: true,
        ..vae::Config::sd3()
    }
}

/// Two layers of two heads, patches of two pixels; with `registers`, those and the gated MLP as well.
pub fn dino(registers: bool) -> dino::Config {
    dino::Config {
        hidden_size: 8,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 12,
        image_size: 6,
        patch_size: 2,
        use_swiglu_ffn: registers,
        num_register_tokens: if registers { 3 } else { 0 },
        position_resampling: if registers { Cubic::Antialiased } else { Cubic::Plain },
        ..dino::Config::base()
    }
}

/// Two layers of two heads, four patches of two pixels.
pub fn clip_vision() -> clip_vision::Config {
    clip_vision::Config {
        hidden_size: 8,
        intermediate_size: 12,
        projection_dim: 6,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 4,
        patch_size: 2,
        hidden_act: Act::QuickGelu,
        layer_norm_eps: 1e-5,
    }
}
