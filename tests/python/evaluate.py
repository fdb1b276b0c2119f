#!/usr/bin/env python3
"""Score a folder of generated icons with a judge that shares nothing with the reward.

    python evaluate.py --images OUT --prompts prompts.txt --references refs/mono --used used.txt --work judge

    --images      0000.png, 0001.png, ... 64x64; image i answers line i modulo the number of lines of --prompts
    --references  a folder of reference images with metadata.jsonl; its name is the style (mono or fluent)
    --used        file names the adapter was trained on, one a line; the other references are the held-out anchor
    --work        cache folder; the first call installs the icon packages with npm and trains the judge (minutes, once)

Prints one JSON object: the same scores for `images`, for `held_out` (real references nobody trained on), for `used`
(the references trained on) and, unless --base none, for `base` (the base model without adapter on the same prompts).
Read a score between `base` and `held_out`; none of them means anything alone.

    style        mean probability the style classifier gives the reference style, and the share of images it wins
    fidelity     is the prompt's subject recognised, among several hundred common subjects? top1, top5, median rank
    statistics   chroma, near-black, near-white, edge darkness; distance = mean |difference to held_out| / its spread
                 (a spread below 0.05 counts as 0.05)
    copies       share of images nearer to a used reference than 99 % of held-out references are
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import judge as J


def stop(text):
    sys.exit(f"error: {text}")


def load(files):
    out = []
    for f in files:
        im = Image.open(f).convert("RGB")
        if im.size != (64, 64):
            stop(f"{f}: expected 64x64 pixels, found {im.size[0]}x{im.size[1]}.")
        out.append(np.asarray(im))
    return J.floats(np.stack(out))


def subject(prompt):
    """`noto icon of red apple` -> `red apple`."""
    return prompt.split("icon of ", 1)[-1].strip().lower()


def statistics(x):
    """Per image: mean chroma, share of near-black and near-white pixels, darkness where edges are. [N, 4]"""
    y = J.grey(x)[:, 0]
    e = 1 - J.edges(x)[:, 0]
    e = e * (e > 0.1)
    dark = (e * (1 - y)).sum((1, 2)) / e.sum((1, 2)).clamp_min(1e-6)
    chroma = (x.amax(1) - x.amin(1)).mean((1, 2))
    return torch.stack([chroma, (y < 0.15).float().mean((1, 2)), (y > 0.9).float().mean((1, 2)), dark], 1)


STATISTICS = ["chroma", "near_black", "near_white", "edge_darkness"]


def similarity(judge, a, b):
    """Larger is nearer, [A, B]: the mean of pixel correlation (blurred, mirror allowed) and of subject-feature cosine."""
    def pixels(x):
        v = F.avg_pool2d(J.grey(x)[:, :1], 4).flatten(1)
        return F.normalize(v - v.mean(1, keepdim=True), dim=1)
    with torch.no_grad():
        feature = torch.maximum(judge.subject_net.embed(a) @ judge.subject_net.embed(b).T, judge.subject_net.embed(a.flip(3)) @ judge.subject_net.embed(b).T)
    return (torch.maximum(pixels(a) @ pixels(b).T, pixels(a.flip(3)) @ pixels(b).T) + feature) / 2


@torch.no_grad()
def base_images(model, prompts, count, work, steps, guidance, seed):
    """The base model's own answer to the prompts, through the stock pipeline; cached."""
    import hashlib
    from diffusers import StableDiffusion3Pipeline
    key = hashlib.sha256(json.dumps([prompts, count, steps, guidance, seed]).encode()).hexdigest()[:16]
    path = work / f"base_{key}.npz"
    if not path.exists():
        pipe = StableDiffusion3Pipeline.from_pretrained(model, text_encoder_3=None, tokenizer_3=None, torch_dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        c = pipe.transformer.config
        x = torch.randn(count, c.in_channels, c.sample_size, c.sample_size, generator=torch.Generator().manual_seed(seed))
        out = []
        for i in range(0, count, 16):
            text = [prompts[j % len(prompts)] for j in range(i, min(i + 16, count))]
            # 1 zero token instead of 256 would change the model's answer: the stock pipeline is kept as it is.
            im = pipe(text, num_inference_steps=steps, guidance_scale=guidance, height=64, width=64, latents=x[i:i + 16], output_type="np").images
            out.append((im * 255).round().astype(np.uint8))
        np.savez(path, images=np.concatenate(out))
    return J.floats(np.load(path)["images"])


def scores(judge, x, subjects, style, held_stats, used, threshold):
    p = judge.style(x)
    rank = [r for r in judge.rank(x, subjects) if r is not None]
    st = statistics(x)
    out = {"images": len(x),
           "style": {"probability": round(float(p[:, style].mean()), 4), "share": round(float((p.argmax(1) == style).float().mean()), 4)},
           "fidelity": {"scored": len(rank)},
           "statistics": {n: round(float(v), 4) for n, v in zip(STATISTICS, st.mean(0))}}
    if rank:
        r = np.array(rank)
        out["fidelity"].update(top1=round(float((r < 1).mean()), 4), top5=round(float((r < 5).mean()), 4), median_rank=float(np.median(r)) + 1)
    out["statistics"]["distance"] = round(float(((st.mean(0) - held_stats.mean(0)).abs() / held_stats.std(0).clamp_min(0.05)).mean()), 4)
    near = similarity(judge, x, used).max(1).values
    out["copies"] = {"rate": round(float((near > threshold).float().mean()), 4), "nearest_mean": round(float(near.mean()), 4)}
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=Path, help="omit to score the anchors only")
    p.add_argument("--prompts", type=Path, required=True)
    p.add_argument("--references", type=Path, required=True)
    p.add_argument("--used", type=Path, required=True)
    p.add_argument("--work", type=Path, required=True)
    p.add_argument("--model", type=Path, help="default model folder, with vae/ and train/data.py; default: model/ beside the references' parent folder")
    p.add_argument("--downloads", type=Path, help="folder whose node_modules holds the icon packages already")
    p.add_argument("--base", choices=["none", "model"], default="model")
    p.add_argument("--steps", type=int, default=10, help="for the base model's samples")
    p.add_argument("--guidance", type=float, default=4.5, help="for the base model's samples")
    p.add_argument("--seed", type=int, default=777, help="for the base model's samples")
    a = p.parse_args()
    if a.references.name not in J.STYLES[4:]:
        stop(f"{a.references}: the judge knows the styles {' and '.join(J.STYLES[4:])}, and a folder is named after its style.")
    model = a.model or a.references.resolve().parent.parent / "model"
    if not (model / "train" / "data.py").exists():
        stop(f"{model}: has no train/data.py. Give the default model's folder with --model.")
    for f in (a.prompts, a.used, a.references / "metadata.jsonl"):
        if not f.exists():
            stop(f"{f}: there is no such file.")
    prompts = [t.strip() for t in a.prompts.read_text().splitlines() if t.strip()]
    meta = {r["file_name"]: r["text"] for r in map(json.loads, (a.references / "metadata.jsonl").read_text().splitlines())}
    used = [t.strip() for t in a.used.read_text().splitlines() if t.strip()]
    if lost := [u for u in used if u not in meta]:
        stop(f"{a.used}: `{lost[0]}` is not a reference in {a.references}.")
    held = sorted(set(meta) - set(used))
    if len(held) < 8:
        stop(f"{a.references}: {len(held)} references are held out, 8 are needed as an anchor.")
    if not prompts:
        stop(f"{a.prompts}: holds no prompt.")

    folders = [f for f in (a.references.parent / s for s in J.STYLES[4:]) if f.exists()]
    judge = J.Judge(a.work, model, folders, a.downloads)
    style = J.STYLES.index(a.references.name)
    xh, xu = load(a.references / f for f in held), load(a.references / f for f in used)
    hs = statistics(xh)
    near = similarity(judge, xh, xu).max(1).values
    threshold = float(near.quantile(0.99))
    out = {"style": a.references.name, "prompts": len(prompts), "candidates": len(judge.candidates)}
    if a.images:
        files = sorted(a.images.glob("[0-9][0-9][0-9][0-9].png"))
        if not files:
            stop(f"{a.images}: holds no image named 0000.png, 0001.png, ….")
        if [f.stem for f in files] != [f"{i:04}" for i in range(len(files))]:
            stop(f"{a.images}: the image numbers have a gap; image i must answer prompt i.")
        names = [subject(prompts[i % len(prompts)]) for i in range(len(files))]
        out["images"] = scores(judge, load(files), names, style, hs, xu, threshold)
    if a.base == "model":
        x = base_images(model, prompts, len(prompts), a.work, a.steps, a.guidance, a.seed)
        out["base"] = scores(judge, x, [subject(t) for t in prompts], style, hs, xu, threshold)
    out["held_out"] = scores(judge, xh, [subject(meta[f]) for f in held], style, hs, xu, threshold)
    out["used"] = scores(judge, xu, [subject(meta[f]) for f in used], style, hs, xu, threshold)
    if not out["used"]["copies"]["rate"] == 1:  # the check must find what certainly is a copy
        stop("the copy check does not recognise the used references themselves.")
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
