//! The smallest transformer that has every part of SD3.5-medium.
use pentimento::model::mmdit::Config;

/// Two heads of 64, one dual-attention block, patches of one latent position.
pub fn transformer(num_layers: usize) -> Config {
    Config {
        patch_size: 1,
        num_layers,
        num_attention_heads: 2,
        joint_attention_dim: 32,
        pooled_projection_dim: 16,
        pos_embed_max_size: 8,
        dual_attention_layers: vec![0],
        ..Config::sd35_medium()
    }
}
