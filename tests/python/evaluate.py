#!/usr/bin/env python3
"""Score a folder of generated icons with a judge that shares nothing with the reward.

    pentimento generate --model M --prompts M/prompts-heldout.txt --steps 10 --seed 5000 --out BASE
    pentimento generate --model M --prompts M/prompts-heldout.txt --steps 10 --seed 5000 --adapter FILE --out OUT
    python evaluate.py --images OUT --base BASE --prompts M/prompts-heldout.txt --references M/references/mono --used used.txt --work judge

    --images      0000*.png, 0001*.png, ... 64x64; image i answers line i modulo the number of lines of --prompts
    --base        a folder of the base model's pictures, made like --images but without the adapter: same prompts, same
                  noise; `model` samples the base model here instead (other noise, so no silhouettes); `none`
    --references  a folder of reference images with metadata.jsonl; its name is the style (mono or fluent)
    --used        file names the adapter was trained on, one a line; the other references are the held-out anchor
    --work        cache folder; the first call installs the icon packages with npm and trains the judge there, once
                  (about 40 minutes on one CPU thread; train_judge.py takes 75 s on a GPU)
    --judge       a file of train_judge.py instead: nothing is installed or trained

Prints one JSON object: the same scores for `images`, for `base`, for `held_out` (real references nobody trained on) and
for `used` (the references trained on). Read a score between `base` and `held_out`; none of them means anything alone.
Fidelity falls from `base` to `held_out`: the base model draws in styles the judge was trained on, and a line drawing says
less. The judge's own figures for all references, used or not, are printed as `judge`.

    style        mean probability the style classifier gives the reference style, and the share of images it wins
    fidelity     is the prompt's subject recognised, among several hundred common subjects? top1, top5, median rank;
                 colour, fill and outline play no part in it, so line art and paintings are on one scale
    silhouettes  is it still the base model's thing in the base model's place? IoU with the base picture of the same
                 prompt and noise: `filled` of what white from the border does not reach, `plain` of what is not white;
                 `chance` is `filled` against the base pictures of the other prompts, and what any icon gets
    statistics   chroma, near-black, near-white, edge darkness; distance = mean |difference to held_out| / its spread
                 (a spread below 0.05 counts as 0.05)
    diversity    with two or more pictures a prompt: how two of them differ in pixels (mean |difference|), filled
                 silhouettes (1 - IoU) and subject features (1 - cosine); to be read beside that of `base`
    copies       share of images nearer to a used reference than 99 % of held-out references are; `held_out_rate` is what
                 the held-out references themselves get

`score_arrays` gives all but distance and copies for arrays in memory, without references.
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
    return np.stack(out)


def numbered(folder):
    """The images of a folder, by the numbers that their names begin with."""
    files = sorted(folder.glob("[0-9][0-9][0-9][0-9]*.png"))
    if not files:
        stop(f"{folder}: holds no image named 0000*.png, 0001*.png, ….")
    if [f.stem[:4] for f in files] != [f"{i:04}" for i in range(len(files))]:
        stop(f"{folder}: the image numbers have a gap; image i must answer prompt i.")
    return load(files)


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


def number(v):
    return round(float(v), 4)


def filled(x):
    return J.silhouette(x).flatten(1).float()


def plain(x):
    return (x.amin(1) < 0.85).flatten(1).float()


def iou(p, q):
    """Of masks [N, pixels]; two empty ones agree."""
    union = torch.maximum(p, q).sum(1)
    return torch.where(union > 0, (p * q).sum(1) / union.clamp_min(1), 1.0)


def silhouettes(x, base, prompts):
    """IoU of each picture with its base picture; image i answers prompt i modulo `prompts`."""
    p, q = filled(x), filled(base)
    out = {"filled": number(iou(p, q).mean()), "plain": number(iou(plain(x), plain(base)).mean())}
    if prompts > 1:
        both, i = p @ q.T, torch.arange(len(p)) % prompts
        every = both / (p.sum(1)[:, None] + q.sum(1) - both).clamp_min(1)
        out["chance"] = number(every[i[:, None] != i].mean())
    return out


def diversity(judge, x, prompts):
    """How any two pictures of one prompt differ."""
    e, m = judge.embed(x), filled(x)
    a, b = map(torch.tensor, zip(*((i, j) for i in range(len(x)) for j in range(i + prompts, len(x), prompts))))
    return {"pairs": len(a), "pixels": number((x[a] - x[b]).abs().mean()), "silhouettes": number((1 - iou(m[a], m[b])).mean()), "features": number((1 - (e[a] * e[b]).sum(1)).mean())}


def score_arrays(images_u8, base_u8, subjects, style, judge):
    """The scores that need no references. images_u8 [N,64,64,3]; base_u8 likewise (image i from the same prompt and noise)
    or None; image i shows subjects[i % len(subjects)]; style is a name of judge.STYLES; judge is a judge.Judge."""
    x, s = J.floats(images_u8), J.STYLES.index(style)
    p = judge.style(x)
    rank = np.array([r for r in judge.rank(x, [subjects[i % len(subjects)] for i in range(len(x))]) if r is not None])
    out = {"images": len(x), "style": {"probability": number(p[:, s].mean()), "share": number((p.argmax(1) == s).float().mean())}, "fidelity": {"scored": len(rank)},
           "statistics": {n: number(v) for n, v in zip(STATISTICS, statistics(x).mean(0))}}
    if len(rank):
        out["fidelity"].update(top1=number((rank < 1).mean()), top5=number((rank < 5).mean()), median_rank=float(np.median(rank)) + 1)
    if base_u8 is not None:
        if len(base_u8) != len(images_u8):
            raise ValueError(f"{len(images_u8)} images and {len(base_u8)} base images; image i is compared with base image i")
        out["silhouettes"] = silhouettes(x, J.floats(base_u8), len(subjects))
    if len(x) > len(subjects):
        out["diversity"] = diversity(judge, x, len(subjects))
    return out


def similarity(judge, a, b):
    """Larger is nearer, [A, B]: the mean of pixel correlation (blurred, mirror allowed) and of subject-feature cosine."""
    def pixels(x):
        v = F.avg_pool2d(J.grey(x)[:, :1], 4).flatten(1)
        return F.normalize(v - v.mean(1, keepdim=True), dim=1)
    feature = torch.maximum(judge.embed(a) @ judge.embed(b).T, judge.embed(a.flip(3)) @ judge.embed(b).T)
    return (torch.maximum(pixels(a) @ pixels(b).T, pixels(a.flip(3)) @ pixels(b).T) + feature) / 2


@torch.no_grad()
def base_images(model, prompts, count, work, steps, guidance, seed):
    """The base model's own answer to the prompts, through the stock pipeline; cached."""
    import hashlib
    from diffusers import StableDiffusion3Pipeline
    key = hashlib.sha256(json.dumps([prompts, count, steps, guidance, seed]).encode()).hexdigest()[:16]
    path = work / f"base_{key}.npz"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
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
    return np.load(path)["images"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", type=Path, help="omit to score the anchors only")
    p.add_argument("--prompts", type=Path, required=True)
    p.add_argument("--references", type=Path, required=True)
    p.add_argument("--used", type=Path, required=True)
    p.add_argument("--work", type=Path, help="needed unless --judge is given and --base is not `model`")
    p.add_argument("--judge", type=Path, metavar="FILE", help="a trained judge; default: the one of --work, trained there if missing")
    p.add_argument("--model", type=Path, help="default model folder, with vae/ and train/data.py; default: model/ beside the references' parent folder")
    p.add_argument("--downloads", type=Path, help="folder whose node_modules holds the icon packages already")
    p.add_argument("--base", default="model", metavar="FOLDER|model|none")
    p.add_argument("--steps", type=int, default=10, help="for --base model")
    p.add_argument("--guidance", type=float, default=4.5, help="for --base model")
    p.add_argument("--seed", type=int, default=777, help="for --base model")
    a = p.parse_args()
    style = a.references.name
    if style not in J.STYLES[4:]:
        stop(f"{a.references}: the judge knows the styles {' and '.join(J.STYLES[4:])}, and a folder is named after its style.")
    model = a.model or a.references.resolve().parent.parent / "model"
    if a.judge is None or a.base == "model":
        if a.work is None:
            stop("--work names the folder for what is made here: the judge unless --judge gives one, the base model's pictures with --base model.")
        if not (model / "train" / "data.py").exists():
            stop(f"{model}: has no train/data.py. Give the default model's folder with --model.")
    base_folder = None if a.base in ("model", "none") else Path(a.base)
    for f in (a.prompts, a.used, a.references / "metadata.jsonl", a.judge, base_folder):
        if f is not None and not f.exists():
            stop(f"{f}: there is no such file.")
    prompts = [t.strip() for t in a.prompts.read_text().splitlines() if t.strip()]
    meta = {r["file_name"]: r["text"] for r in map(json.loads, (a.references / "metadata.jsonl").read_text().splitlines())}
    used = [t.strip() for t in a.used.read_text().splitlines() if t.strip()]
    if lost := [u for u in used if u not in meta]:
        stop(f"{a.used}: `{lost[0]}` is not a reference in {a.references}.")
    if not used:
        stop(f"{a.used}: names no reference.")
    held = sorted(set(meta) - set(used))
    if len(held) < 8:
        stop(f"{a.references}: {len(held)} references are held out, 8 are needed as an anchor.")
    if not prompts:
        stop(f"{a.prompts}: holds no prompt.")
    images = numbered(a.images) if a.images else None
    base = numbered(base_folder) if base_folder else None
    if images is not None and base is not None and len(images) != len(base):
        stop(f"{base_folder}: {len(base)} images, and {a.images} has {len(images)}; image i is compared with base image i.")

    if a.judge:
        judge = J.Judge.load(a.judge)
        if judge.kept_out and (seen := sorted(set(J.kept_out_names([a.references])) - set(judge.kept_out))):
            stop(f"{a.judge}: `{seen[0]}` of {a.references} was not kept out of its training; train a judge for these references.")
    else:
        folders = [f for f in (a.references.parent / s for s in J.STYLES[4:]) if f.exists()]
        judge = J.Judge.cached(a.work, model, folders, a.downloads)
    uh, uu = load(a.references / f for f in held), load(a.references / f for f in used)
    hs, xu = statistics(J.floats(uh)), J.floats(uu)
    near = similarity(judge, J.floats(uh), xu).max(1).values
    threshold = near.quantile(0.99)

    def scores(images, subjects, base=None):
        out, x = score_arrays(images, base, subjects, style, judge), J.floats(images)
        out["statistics"]["distance"] = number(((statistics(x).mean(0) - hs.mean(0)).abs() / hs.std(0).clamp_min(0.05)).mean())
        mine = similarity(judge, x, xu).max(1).values
        out["copies"] = {"rate": number((mine > threshold).float().mean()), "held_out_rate": number((near > threshold).float().mean()), "nearest_mean": number(mine.mean())}
        return out

    subjects = [subject(t) for t in prompts]
    out = {"style": style, "prompts": len(prompts), "candidates": len(judge.candidates), "judge": judge.report}
    if images is not None:
        out["images"] = scores(images, subjects, base)
    if a.base == "model":
        base = base_images(model, prompts, len(prompts), a.work, a.steps, a.guidance, a.seed)
    if base is not None:
        out["base"] = scores(base, subjects)
    out["held_out"] = scores(uh, [subject(meta[f]) for f in held])
    out["used"] = scores(uu, [subject(meta[f]) for f in used])
    if not out["used"]["copies"]["rate"] == 1:  # the check must find what certainly is a copy
        stop("the copy check does not recognise the used references themselves.")
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
