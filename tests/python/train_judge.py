#!/usr/bin/env python3
"""Train the judge of judge.py, on a GPU if there is one, and say what it reads of icons it never saw.

    python train_judge.py DATA --out judge.pt --model MODEL --seconds 75
    python train_judge.py --pack DATA --work WORK --model MODEL --references MODEL/references/fluent MODEL/references/mono

The second form writes DATA (about 8 MB: the icons of a work folder in 32 colours each, and the kept-out names), which
the first needs and nothing else: torch, numpy, pillow, and for the round trips diffusers and MODEL/vae. Score with
`evaluate.py --judge judge.pt`, or put the file into a work folder under the name that the last line prints.
"""
import argparse
import io
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import judge as J


def pack(path, d, kept_out):
    blobs = []
    for im in d["images"]:
        b = io.BytesIO()
        Image.fromarray(im).quantize(32, dither=Image.Dither.NONE).save(b, "PNG", optimize=True)
        blobs.append(b.getvalue())
    np.savez(path, png=np.frombuffer(b"".join(blobs), np.uint8), end=np.cumsum([len(b) for b in blobs]), name=d["name"].astype(np.int16), style=d["style"].astype(np.uint8),
             names=np.array(d["names"]), groups=np.array(d["groups"]), kept_out=np.array(kept_out))


def unpack(path):
    z = np.load(path)
    blob, end = z["png"].tobytes(), z["end"].tolist()
    images = np.stack([np.asarray(Image.open(io.BytesIO(blob[a:b])).convert("RGB")) for a, b in zip([0] + end, end)])
    return dict(images=images, name=z["name"].astype(np.int64), style=z["style"].astype(np.int64), names=z["names"].tolist(), groups=z["groups"].tolist()), z["kept_out"].tolist()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("data", type=Path, nargs="?")
    p.add_argument("--pack", type=Path)
    p.add_argument("--work", type=Path)
    p.add_argument("--references", type=Path, nargs="*")
    p.add_argument("--model", type=Path)
    p.add_argument("--out", type=Path)
    p.add_argument("--seconds", type=float, default=75, help="for everything, loading and round trips included")
    p.add_argument("--device")
    p.add_argument("--width", type=int, default=48)
    p.add_argument("--batch", type=int, default=768)
    p.add_argument("--extra", type=int, default=0, help="keep this many more subjects out of the held-out styles, for a more exact figure")
    a = p.parse_args()
    if a.pack:
        pack(a.pack, J.icons(a.work, a.model), J.kept_out_names(a.references))
        return
    start = time.time()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    d, kept_out = unpack(a.data)
    if a.extra:
        common = np.bincount(d["name"], minlength=len(d["names"])) >= J.COMMON_STYLES
        more = [n for n, c, g in zip(d["names"], common, d["groups"]) if c and g in J.CONCRETE and n not in kept_out]
        kept_out += np.random.default_rng(0).choice(more, a.extra, False).tolist()
    device = torch.device(a.device) if a.device else J.best_device()
    print(f"{len(d['images'])} icons on {device}, {time.time() - start:.1f} s", flush=True)
    trips = None
    if a.model:
        try:
            trips = J.round_trip(a.model, d["images"], device, 512 if device.type == "cuda" else 64)
            print(f"round trips, {time.time() - start:.1f} s", flush=True)
        except Exception as e:  # diffusers fails in many ways where it is half installed
            print(f"no round trips: {e}", flush=True)
    left = max(a.seconds - (time.time() - start) - 4, 2)
    judge = J.Judge.trained(d, kept_out, trips, device, a.width, a.batch, style_seconds=0.12 * left, subject_seconds=0.88 * left)
    print(json.dumps(judge.report), flush=True)
    a.out.parent.mkdir(parents=True, exist_ok=True)
    judge.save(a.out)
    print(f"{a.out}: {a.out.stat().st_size / 1e6:.1f} MB, {time.time() - start:.1f} s; in a work folder its name is {J.cache_name(kept_out)}")


if __name__ == "__main__":
    main()
