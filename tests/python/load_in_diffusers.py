#!/usr/bin/env python3
"""Load a pentimento adapter into diffusers and prove that it works there.

    python load_in_diffusers.py --model MODEL_DIR --adapter pytorch_lora_weights.safetensors

Checks, in order: the file loads with `load_lora_weights`; every tensor of the file sits in the pipeline, value for
value, and the pipeline has no LoRA tensor the file lacks; every LoRA layer has scale 1 (no hidden alpha); the same
latents give the same image as folding B·A into the base weights by hand, and a different one from the base model.
Exits 0 with a summary, or 1 with one sentence.
"""
import argparse
import sys

import torch
import diffusers
import transformers
from diffusers import StableDiffusion3Pipeline
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file

PREFIX = "transformer."


class Refused(Exception):
    """What went wrong, as a sentence."""


def file_tensors(path):
    try:
        sd = load_file(path)
    except (OSError, SafetensorError) as e:
        raise Refused(f"{path}: cannot be read as safetensors: {e}") from e
    if not sd:
        raise Refused(f"{path}: holds no tensors.")
    for k in sd:
        if not (k.startswith(PREFIX) and k.endswith((".lora_A.weight", ".lora_B.weight"))):
            raise Refused(f"{path}: key `{k}` is not of the form `transformer.….lora_A.weight` or `….lora_B.weight`.")
        other = k.replace(".lora_A.", ".lora_?.").replace(".lora_B.", ".lora_A.").replace(".lora_?.", ".lora_B.")
        if other not in sd:
            raise Refused(f"{path}: `{k}` has no partner `{other}`.")
        if not torch.isfinite(sd[k].float()).all():
            raise Refused(f"{path}: `{k}` holds a value that is not finite.")
    return {k[len(PREFIX):]: v.float() for k, v in sd.items()}


def load_pipeline(folder):
    """The pipeline in f32 without T5. Adapters are compared in f32 whatever type they are stored in."""
    try:
        pipe = StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None, torch_dtype=torch.float32)
    except (OSError, ValueError) as e:
        raise Refused(f"{folder}: is not a StableDiffusion3Pipeline folder: {' '.join(str(e).split())[:400]}") from e
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(pipe, a):
    c = pipe.transformer.config
    shape = (len(a.prompt), c.in_channels, c.sample_size, c.sample_size)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(a.seed))
    side = c.sample_size * pipe.vae_scale_factor
    return pipe(a.prompt, num_inference_steps=a.steps, guidance_scale=a.guidance, height=side, width=side,
                latents=latents, output_type="pt").images


def check_attached(pipe, want):
    """The adapter in the pipeline is exactly the file's, at scale 1."""
    have = {k: v.float() for k, v in get_peft_model_state_dict(pipe.transformer, adapter_name="check").items()}
    lost, extra = sorted(set(want) - set(have)), sorted(set(have) - set(want))
    if lost:
        raise Refused(f"{len(lost)} of {len(want)} adapter tensors were not consumed, the first is `{PREFIX}{lost[0]}`.")
    if extra:
        raise Refused(f"the pipeline made {len(extra)} LoRA tensors that the file lacks, the first is `{PREFIX}{extra[0]}`.")
    for k, v in want.items():
        if have[k].shape != v.shape or not torch.equal(have[k], v):
            raise Refused(f"`{PREFIX}{k}`: the attached weights differ from the file's.")
    for n, m in pipe.transformer.named_modules():
        s = getattr(m, "scaling", None)
        if isinstance(s, dict) and s.get("check", 1.0) != 1.0:
            raise Refused(f"`{n}`: the adapter is applied at scale {s['check']}, expected 1. Is an alpha stored?")


def fold(transformer, want):
    """W += B·A by hand, on a transformer without any adapter."""
    with torch.no_grad():
        for k in want:
            if k.endswith(".lora_A.weight"):
                base = k[: -len(".lora_A.weight")]
                transformer.get_submodule(base).weight += want[base + ".lora_B.weight"] @ want[k]


def run(a):
    want = file_tensors(a.adapter)
    pipe = load_pipeline(a.model)
    before = generate(pipe, a)
    try:
        pipe.load_lora_weights(a.adapter, adapter_name="check")
    except Exception as e:  # whatever diffusers or peft objects to is the answer
        raise Refused(f"{a.adapter}: diffusers refused it: {' '.join(str(e).split())[:400]}") from e
    if "check" not in getattr(pipe.transformer, "peft_config", {}):
        raise Refused(f"{a.adapter}: diffusers attached nothing (it found no key it knows).")
    check_attached(pipe, want)
    after = generate(pipe, a)
    if not torch.isfinite(after).all():
        raise Refused("the image made with the adapter has values that are not finite.")
    change = (after - before).abs()
    if not change.max() > a.min_change:
        raise Refused(f"the adapter changes no pixel by more than {a.min_change}: largest change {change.max():.2e}.")
    pipe.unload_lora_weights()
    if not (generate(pipe, a) - before).abs().max() <= 1e-5:
        raise Refused("after unloading the adapter the base image did not come back.")
    fold(pipe.transformer, want)
    folded = (generate(pipe, a) - after).abs().max()
    # Both compute the same sums in another order, over many steps; a missing layer is far larger than this.
    if not folded <= max(1e-3, 0.02 * float(change.max())):
        raise Refused(f"attached adapter and folded weights give images that differ by {folded:.2e}.")
    layers = len(want) // 2
    ranks = sorted({v.shape[0] for k, v in want.items() if k.endswith(".lora_A.weight")})
    return (f"ok: {len(want)} tensors ({layers} layers, rank {', '.join(map(str, ranks))}) all consumed and equal to the file; "
            f"{len(a.prompt)} images changed by {change.mean():.4f} mean, {change.max():.3f} max; "
            f"folded weights agree within {folded:.1e}.")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="diffusers StableDiffusion3Pipeline folder")
    p.add_argument("--adapter", required=True, help="pytorch_lora_weights.safetensors")
    p.add_argument("--prompt", action="append", help="may be repeated; default: two icons")
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--guidance", type=float, default=4.5)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--min-change", type=float, default=1e-3, help="smallest largest pixel change that counts (pixels are in [0, 1])")
    a = p.parse_args()
    a.prompt = a.prompt or ["icon of red apple", "icon of grinning face"]
    for lib in (diffusers, transformers):
        lib.utils.logging.set_verbosity(50)  # the one sentence below says it
        lib.utils.logging.disable_progress_bar()
    try:
        print(run(a))
    except Refused as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
