"""The independent judge: a style classifier and a subject recogniser, both trained here from icons only.

Neither shares a weight, a feature or a loss with the reward backbone. Everything is cached in a work folder:

    icons.npz        every icon of six styles, rendered once from the npm packages that the model's data.py names
    round_trip.npz   the same icons through the model's own VAE, with a little latent noise (looks like a generated image)
    judge_KEY.pt     both networks, the names they know and the figures they reached; this file alone is enough to score
                     (`evaluate.py --judge FILE`)

The images in the reference folders (all of them, used and held out) are kept out of both trainings, so they can
anchor the scores.

The subject recogniser sees grey pictures only, and is trained on pictures whose colours went through random tone maps,
posterisation, thresholds, edge filters, filled outlines, inversion, thinner and thicker lines: a line drawing and a
painting of one thing are to score alike. A picture of a style is never told that a subject is wrong which training
never showed in that style, so the kept-out subjects are not pushed away from line art.

`train_judge.py` trains the same networks wider and on more pictures, on a GPU. In 75 s on an H200 (217 style and 725
subject steps of 768 pictures, 48 wide) it reached on the reference icons, which it had not seen: `mono` style 0.979,
subject top-1 0.52, top-5 0.86; `fluent` style 0.672, top-1 0.52, top-5 0.91, of 744 candidates. The defaults here are for
a CPU: 400 style and 1500 subject steps of 96 pictures, 24 wide. On one thread of
a busy 2-core machine the round trips took about 6 minutes and the style steps 2.3 (full: `mono` 0.982, `fluent` 0.569);
a subject step took 1.2 s, so all 1500 take half an hour. Those were not run in full (83 steps recognise nothing), and what
they reach is not known: look at `judge` in the report of evaluate.py before reading its fidelity.
"""
import hashlib
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

STYLES = ["noto", "twemoji", "blob", "emojione", "fluent", "mono"]
CONCRETE = {"Food & Drink", "Animals & Nature", "Travel & Places", "Objects", "Activities", "Smileys & Emotion"}
MIN_STYLES = 4      # a subject is learned when at least this many styles draw it
COMMON_STYLES = 6   # and is a candidate answer when all six do
SEED = 0
VERSION = 2         # of networks and training; part of the cache key


# ---- icons ------------------------------------------------------------------------------------------------------

def icons(work, model, downloads=None):
    """dict of images u8 [N,64,64,3], name [N], style [N], and the list of names and their groups."""
    path = work / "icons.npz"
    if not path.exists():
        spec = importlib.util.spec_from_file_location("data", model / "train" / "data.py")
        data = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(data)
        root = Path(downloads) if downloads else work / "downloads"
        if not (root / "node_modules" / "unicode-emoji-json").exists():
            subprocess.check_call(["npm", "i", "--prefix", str(root), "--no-audit", "--no-fund", "--ignore-scripts", *data.PKGS])
        np.savez(path, **render(data, root / "node_modules"))
    d = dict(np.load(path))
    d["names"], d["groups"] = d["names"].tolist(), d["groups"].tolist()
    return d


def render(data, nm):
    emojis = sorted(json.loads((nm / "emoji-datasource-google/emoji.json").read_text()), key=lambda e: e["sort_order"])
    names = {k: v["name"] for k, v in json.loads((nm / "unicode-emoji-json/data-by-emoji.json").read_text()).items()}
    sel = data.select(emojis, names)
    sets = {s: data.Iconify(str(nm), p) for s, p in
            (("blob", "noto-v1"), ("emojione", "emojione"), ("fluent", "fluent-emoji-flat"), ("mono", "fluent-emoji-high-contrast"))}
    images, name, style = [], [], []
    for i, (e, n) in enumerate(sel):
        for s in STYLES:
            if s in sets:
                key = sets[s].find(data.slug(n), e["unified"])
                im = sets[s].render(key) if key else None
            else:
                vendor = {"noto": "google", "twemoji": "twitter"}[s]
                p = nm / f"emoji-datasource-{vendor}/img/{vendor}/64/{e['image']}"
                im = data.load_png(str(p)) if e[f"has_img_{vendor}"] and p.exists() else None
            if im is not None:
                images.append(np.asarray(im)), name.append(i), style.append(STYLES.index(s))
    return dict(images=np.stack(images), name=np.array(name), style=np.array(style),
                names=np.array([n for _, n in sel]), groups=np.array([e["category"] for e, _ in sel]))


@torch.no_grad()
def round_trip(model, images, device="cpu", batch=64):
    """u8 icons as the model's VAE would draw them; latent noise of 0 to 0.35 standard deviations."""
    from diffusers import AutoencoderKL
    vae = AutoencoderKL.from_pretrained(model / "vae").float().eval().to(device)
    g, out = torch.Generator().manual_seed(SEED), []
    for i in range(0, len(images), batch):
        z = vae.encode(floats(images[i:i + batch]).to(device) * 2 - 1).latent_dist.mean
        amount = 0.35 * torch.rand(len(z), 1, 1, 1, generator=g) / vae.config.scaling_factor
        y = vae.decode(z + (amount * torch.randn(z.shape, generator=g)).to(device)).sample
        out.append((y.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(out)


def floats(u8):
    """u8 [N,H,W,3] to float [N,3,H,W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(u8)).permute(0, 3, 1, 2).float() / 255


# ---- picture operations -----------------------------------------------------------------------------------------

LUMA = (0.299, 0.587, 0.114)


def blur(x, rounds=1):
    k = torch.tensor([1.0, 2.0, 1.0], device=x.device) / 4
    w = (k[:, None] * k[None]).expand(x.shape[1], 1, 3, 3)
    for _ in range(rounds):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), w, groups=x.shape[1])
    return x


def luma(x):
    return (x * torch.tensor(LUMA, device=x.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def grey(x):
    return luma(x).expand_as(x)


def gradient(y):
    """Strength of change of a one-channel picture."""
    k = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]], device=y.device) / 4
    e = F.conv2d(F.pad(y, (1, 1, 1, 1), mode="replicate"), torch.stack([k, k.T])[:, None])
    return e.square().sum(1, keepdim=True).add(1e-6).sqrt()


def edges(x):
    """Dark lines on white where the image changes."""
    return (1 - 1.5 * gradient(luma(x))).clamp(0, 1).expand_as(x)


def silhouette(x, white=0.85):
    """Bool [N,1,H,W]: whatever is not white connected with the border (4-neighbours), so an outline's inside counts too."""
    light = x.amin(1, keepdim=True) >= white
    out = torch.zeros_like(light)
    out[:, :, 0], out[:, :, -1], out[..., 0], out[..., -1] = light[:, :, 0], light[:, :, -1], light[..., 0], light[..., -1]
    for step in range(1, 2048):
        new = out.clone()
        new[:, :, 1:] |= out[:, :, :-1]
        new[:, :, :-1] |= out[:, :, 1:]
        new[..., 1:] |= out[..., :-1]
        new[..., :-1] |= out[..., 1:]
        new &= light
        if step % 8 == 0 and torch.equal(new, out):
            break
        out = new
    return ~out


def thicker(x, k=3):
    """Grows what is light."""
    return F.max_pool2d(x, k, 1, k // 2)


def thinner(x, k=3):
    return -F.max_pool2d(-x, k, 1, k // 2)


# ---- augmentation -----------------------------------------------------------------------------------------------

def uniform(x, g, n=1):
    return torch.rand(len(x), n, 1, 1, generator=g, device=x.device)


def some(x, p, g):
    return uniform(x, g) < p


def warp(x, g, zoom=0.15, move=0.12, turn=0.0, stretch=0.0):
    """Random mirror, zoom, move, turn, stretch. Outside is 1 in every channel."""
    n = len(x)

    def r():
        return 2 * torch.rand(n, generator=g, device=x.device) - 1
    s, a, q = 1 + zoom * r(), turn * r(), stretch * r()
    flip = torch.where(r() < 0, -1.0, 1.0)
    sx, sy = s * (1 + q), s / (1 + q)
    th = torch.stack([flip * sx * a.cos(), -sy * a.sin(), move * r(), flip * sx * a.sin(), sy * a.cos(), move * r()], 1).view(n, 2, 3)
    return 1 + F.grid_sample(x - 1, F.affine_grid(th, x.shape, align_corners=False), align_corners=False)


def for_style(x, mono, g):
    """Keeps what makes a style; removes blur, noise and mere greyness as clues (grey colour icons stay themselves)."""
    x = warp(x, g, 0.1, 0.08)
    x = torch.where(some(x, 0.15, g), blur(x, 1), torch.where(some(x, 0.15, g), blur(x, 2), x))
    x = torch.where(some(x, 0.2, g) & ~mono.view(-1, 1, 1, 1), grey(x), x)
    return (x + 0.06 * uniform(x, g) * torch.randn(x.shape, generator=g, device=x.device)).clamp(0, 1)


def tones(x, g):
    """A random smooth map from colour to grey, stretched to the full range: other fills, other polarity, same shapes."""
    w = 2.5 * torch.randn(len(x), 3, 3, generator=g, device=x.device) * uniform(x, g)[:, 0]
    p = 6.28 * torch.rand(len(x), 3, 1, generator=g, device=x.device)
    t = torch.cos(w @ x.flatten(2) + p).sum(1).view(len(x), 1, *x.shape[2:])
    lo, hi = t.amin((2, 3), keepdim=True), t.amax((2, 3), keepdim=True)
    return (t - lo) / (hi - lo).clamp_min(0.05)


def stretch(t):
    lo, hi = t.amin((2, 3), keepdim=True), t.amax((2, 3), keepdim=True)
    return (t - lo) / (hi - lo).clamp_min(0.1)


def for_subject(x, fg, g):
    """One grey channel without what makes a style: colour, fill, polarity, outline, width of lines. fg: silhouettes [N,1,H,W]."""
    x = warp(torch.cat([x, 1 - fg], 1), g, 0.18, 0.12, 0.2, 0.12)
    x, fg = x[:, :3].clamp(0, 1), (x[:, 3:] < 0.5).float()
    y = luma(x)
    t = torch.where(some(x, 0.5, g), tones(x, g), y)
    t = torch.where(some(x, 0.1, g), blur(t), t)
    # What is drawn inside: shades, few shades, thresholds, lines.
    kind = uniform(x, g)
    soft = 4 + 16 * uniform(x, g)
    levels = torch.floor(2 + 3 * uniform(x, g))
    cut = ((t - 0.2 - 0.6 * uniform(x, g)) * soft + 0.5).clamp(0, 1)
    few = torch.floor(t * levels * 0.999) / (levels - 1)
    wide = torch.where(some(x, 0.5, g), F.avg_pool2d(t, 9, 1, 4, count_include_pad=False), F.avg_pool2d(t, 17, 1, 8, count_include_pad=False))
    local = ((t - wide + 0.02 + 0.06 * uniform(x, g)) * soft * 1.5 + 0.5).clamp(0, 1)
    lines = stretch(gradient(torch.where(some(x, 0.4, g), blur(t, 2), t)).clamp_max(0.6))
    lines = ((lines - 0.1 - 0.25 * uniform(x, g)) * soft * 0.5 + 0.5).clamp(0, 1)
    lines = 1 - torch.where(some(x, 0.35, g), thicker(lines), lines)
    t = torch.where(kind < 0.40, t, torch.where(kind < 0.57, cut, torch.where(kind < 0.66, few, torch.where(kind < 0.82, local, lines))))
    t = torch.where(some(x, 0.08, g), 1 - t, t)
    # What surrounds it: white, anything, an outline, or nothing inside but black.
    t = torch.where(some(x, 0.55, g) | (kind >= 0.66), t * fg + (1 - fg), t)
    out2, out1, in1 = thicker(fg, 5), thicker(fg), thinner(fg)
    rim = torch.where(some(x, 0.5, g), out1 - in1, out2 - thinner(fg, 5))
    t = torch.where(some(x, 0.25, g), torch.minimum(t, 1 - rim), t)
    t = torch.where(some(x, 0.02, g), 1 - fg, t)
    w = uniform(x, g)
    t = torch.where(w < 0.12, thinner(t), torch.where(w < 0.24, thicker(t), t))
    t = torch.where(some(x, 0.06, g), 1 - t, t)
    t = torch.where(some(x, 0.3, g), blur(t), t)
    t = 0.5 + (t - 0.5) * (1 - 0.5 * uniform(x, g).square())
    # A hole, so that no single part decides.
    yy = torch.arange(x.shape[2], device=x.device).view(1, 1, -1, 1)
    c, s = 64 * uniform(x, g, 2), 6 + 10 * uniform(x, g)
    hole = ((yy - c[:, :1]).abs() < s) & ((yy.transpose(2, 3) - c[:, 1:]).abs() < s) & some(x, 0.15, g)
    t = torch.where(hole, uniform(x, g), t)
    return (t + 0.08 * uniform(x, g).square() * torch.randn(t.shape, generator=g, device=x.device)).clamp(0, 1)


# ---- networks ---------------------------------------------------------------------------------------------------

def conv(i, o, stride=1):
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))


def style_net(c):
    return nn.Sequential(conv(3, c, 2), conv(c, 2 * c, 2), conv(2 * c, 4 * c, 2), conv(4 * c, 4 * c), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * c, len(STYLES)))


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.a = conv(i, o, stride)
        self.b = nn.Sequential(nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o))
        self.skip = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(i, o, 1, bias=False), nn.BatchNorm2d(o)) if i != o or stride > 1 else nn.Identity()
        nn.init.constant_(self.b[1].weight, 0.3)

    def forward(self, x):
        return F.relu(self.b(self.a(x)) + self.skip(x), inplace=True)


class SubjectNet(nn.Module):
    """One grey channel, 64x64, to a unit feature; a subject's score is 16 times the cosine with its own vector."""

    def __init__(self, subjects, c, width=192):
        super().__init__()
        w = (c, 2 * c, 4 * c, 5 * c)
        self.body = nn.Sequential(nn.Conv2d(1, c, 5, 2, 2, bias=False), nn.BatchNorm2d(c), nn.ReLU(inplace=True), Block(c, w[0], 1), Block(w[0], w[0], 1),
                                  Block(w[0], w[1], 2), Block(w[1], w[1], 1), Block(w[1], w[2], 2), Block(w[2], w[2], 1), Block(w[2], w[3], 2))
        self.out = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(w[3] * 4, width), nn.BatchNorm1d(width))
        self.subject = nn.Parameter(torch.randn(subjects, width) * 0.1)

    def embed_grey(self, t):
        h = self.body(t * 2 - 1)
        return F.normalize(self.out(F.avg_pool2d(h, 2)).float(), dim=1)

    def embed(self, x):
        return self.embed_grey(luma(x))

    def score(self, e):
        with torch.autocast(e.device.type, enabled=False):
            return 16 * e.float() @ F.normalize(self.subject.float(), dim=1).T

    def forward(self, t):
        return self.score(self.embed_grey(t))


def train(net, batch, loss, lr, name, steps=None, seconds=None, every=100):
    """AdamW, one warm-up and one cosine over steps or seconds; returns the average of the last weights, in eval mode."""
    device = next(net.parameters()).device
    opt = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.05)
    t, run, step = time.time(), None, 0
    live, done = [v for v in net.state_dict().values() if v.is_floating_point()], 0.0
    mean = [v.clone() for v in live]
    while done < 1:
        now = min(1.0, (time.time() - t) / seconds) if seconds else step / steps
        for group in opt.param_groups:
            group["lr"] = lr * min(1, now / 0.08 + 0.02) * (0.5 + 0.5 * np.cos(np.pi * now))
        x, y = batch()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            out = loss(net(x), y)
        opt.zero_grad(set_to_none=True)
        out.backward()
        opt.step()
        step += 1
        done = (time.time() - t) / seconds if seconds else step / steps
        # Average over about the last twentieth.
        keep = 1 - min(1.0, 20 / max(step, 1)) if step < 400 else 0.995 if step < 2000 else 0.998
        torch._foreach_lerp_(mean, live, 1 - keep)
        if step % every == 0:
            v = out.item()
            run = v if run is None else 0.7 * run + 0.3 * v
            print(f"{name}: step {step} ({100 * min(done, 1):.0f} %) loss {run:.3f} {time.time() - t:.0f} s", flush=True, file=sys.stderr)
    torch._foreach_copy_(live, mean)
    return net.eval(), step


# ---- the judge --------------------------------------------------------------------------------------------------

def kept_out_names(references):
    """All reference subjects, whichever of the folders a run uses."""
    return sorted({json.loads(line)["text"].removeprefix("icon of ") for f in references for line in (f / "metadata.jsonl").read_text().splitlines()})


def cache_name(kept_out):
    """A judge belongs to the references it never saw."""
    return f"judge_{hashlib.sha256(json.dumps([VERSION, sorted(kept_out)]).encode()).hexdigest()[:8]}.pt"


def best_device():
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Judge:
    """style(images) -> [N, 6] probabilities; rank(images, subjects) -> rank of each own subject; embed(images) -> features."""

    def __init__(self, names, learned, candidates, width, device=None):
        self.names, self.learned, self.candidates, self.width = list(names), list(learned), list(candidates), width
        self.device = torch.device(device) if device else best_device()
        torch.manual_seed(SEED)
        self.style_net = style_net(width).to(self.device).eval()
        self.subject_net = SubjectNet(len(self.learned), width).to(self.device).eval()
        self.column = {self.names[n]: i for i, n in enumerate(self.learned)}
        self.keep = torch.tensor([self.column[self.names[n]] for n in self.candidates], device=self.device)
        self.known = {self.names[n] for n in self.candidates}
        self.report, self.kept_out = {}, []

    @classmethod
    def cached(cls, work, model, references, downloads=None, device=None, **settings):
        """The judge of the work folder for these references; made there when it is missing."""
        work.mkdir(parents=True, exist_ok=True)
        kept_out = kept_out_names(references)
        path = work / cache_name(kept_out)
        if not path.exists():
            d = icons(work, model, downloads)
            trip = work / "round_trip.npz"
            if not trip.exists():
                np.savez(trip, images=round_trip(model, d["images"], device or best_device()))
            judge = cls.trained(d, kept_out, np.load(trip)["images"], device, **settings)
            judge.save(path)
        return cls.load(path, device)

    @classmethod
    def load(cls, path, device=None):
        f = torch.load(path, map_location="cpu", weights_only=True)
        judge = cls(f["names"], f["learned"], f["candidates"], f["width"], device)
        for net, key in ((judge.style_net, "style"), (judge.subject_net, "subject")):
            net.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in f[key].items()})
        judge.report, judge.kept_out = f["report"], f.get("kept_out", [])
        return judge

    def save(self, path):
        def half(net):
            return {k: v.detach().cpu().half() if v.is_floating_point() else v.cpu() for k, v in net.state_dict().items()}
        torch.save({"names": self.names, "learned": self.learned, "candidates": self.candidates, "width": self.width, "report": self.report, "kept_out": self.kept_out,
                    "style": half(self.style_net), "subject": half(self.subject_net)}, path)

    @classmethod
    def trained(cls, d, kept_out, trips=None, device=None, width=24, batch=96, style_steps=400, subject_steps=1500, style_seconds=None, subject_seconds=None):
        """Trains on the icons `d` and, half of the time, on their round trips; the pictures of `kept_out` in the held-out styles are not seen."""
        name, style = np.asarray(d["name"]), np.asarray(d["style"])
        count = np.bincount(name, minlength=len(d["names"]))
        concrete = np.array([g in CONCRETE for g in d["groups"]])
        learned, candidates = np.where(concrete & (count >= MIN_STYLES))[0].tolist(), np.where(concrete & (count >= COMMON_STYLES))[0].tolist()
        judge = cls(d["names"], learned, candidates, width, device)
        device, cuda = judge.device, judge.device.type == "cuda"
        judge.kept_out = sorted(kept_out)
        held = np.isin(name, [i for i, n in enumerate(d["names"]) if n in set(kept_out)]) & (style >= 4)
        pictures = [torch.from_numpy(np.ascontiguousarray(v.transpose(0, 3, 1, 2))).to(device) for v in [d["images"]] + ([] if trips is None else [trips])]
        fg = torch.cat([silhouette(p.float() / 255) for p in pictures[0].split(512)])
        ids, styles = torch.from_numpy(name).to(device), torch.from_numpy(style).to(device)

        def sampler(rows, weight, g):
            w, rows = torch.from_numpy(weight / weight.sum()).to(device).float(), torch.from_numpy(rows).to(device)

            def draw():
                r = rows[torch.multinomial(w, batch, True, generator=g)]
                x = pictures[0][r]
                if len(pictures) > 1:
                    x = torch.where(torch.rand(batch, 1, 1, 1, generator=g, device=device) < 0.5, x, pictures[1][r])
                return x.float() / 255, r
            return draw

        def layout(net):
            return net.train().to(memory_format=torch.channels_last) if cuda else net.train()

        g = torch.Generator(device).manual_seed(SEED)
        rows = np.where(~held)[0]
        draw = sampler(rows, 1 / np.bincount(style[rows])[style[rows]], g)

        def style_batch():
            with torch.no_grad():
                x, r = draw()
                return for_style(x, styles[r] == STYLES.index("mono"), g), styles[r]
        _, n1 = train(layout(judge.style_net), style_batch, nn.CrossEntropyLoss(label_smoothing=0.02), 4e-3, "style judge", style_steps, style_seconds)

        g2 = torch.Generator(device).manual_seed(SEED + 1)
        index = torch.full((len(d["names"]),), -1, device=device)
        index[torch.tensor(learned, device=device)] = torch.arange(len(learned), device=device)
        rows = np.where(~held & np.isin(name, learned))[0]
        draw2 = sampler(rows, np.where(style[rows] >= 4, 1.5, 1.0), g2)
        # seen[s, i]: training shows subject i in style s.
        seen = torch.zeros(len(STYLES), len(learned), dtype=torch.bool, device=device)
        seen[styles[rows], index[ids[rows]]] = True
        ce = nn.CrossEntropyLoss(label_smoothing=0.05)

        def subject_batch():
            with torch.no_grad():
                x, r = draw2()
                return for_subject(x, fg[r].float(), g2), r

        def subject_loss(s, r):
            y = index[ids[r]]
            s = s - 2 * F.one_hot(y, s.shape[1])      # a margin
            return ce(s.masked_fill(~seen[styles[r]], -30), y)
        _, n2 = train(layout(judge.subject_net), subject_batch, subject_loss, 3e-3, "subject judge", subject_steps, subject_seconds)
        judge.report = {"style_steps": n1, "subject_steps": n2, "batch": batch, "round_trips": trips is not None, **judge.check(d, held)}
        return judge

    def check(self, d, held):
        """What the judge reads of the pictures it never saw."""
        out = {}
        for s in ("mono", "fluent"):
            rows = np.where(held & (d["style"] == STYLES.index(s)))[0]
            if len(rows) == 0:
                continue
            x = floats(d["images"][rows])
            rank = np.array([r for r in self.rank(x, [d["names"][i] for i in d["name"][rows]]) if r is not None])
            p = self.style(x)
            out[s] = {"style_share": round(float((p.argmax(1) == STYLES.index(s)).float().mean()), 4), "style_probability": round(float(p[:, STYLES.index(s)].mean()), 4),
                      "scored": len(rank), "top1": round(float((rank < 1).mean()), 4), "top5": round(float((rank < 5).mean()), 4)}
        return out

    @torch.no_grad()
    def style(self, x):
        return torch.cat([self.style_net(b.to(self.device)).softmax(1) for b in x.split(256)]).cpu()

    @torch.no_grad()
    def embed(self, x):
        return torch.cat([self.subject_net.embed(b.to(self.device)) for b in x.split(256)]).cpu()

    @torch.no_grad()
    def scores(self, x):
        """[N, learned subjects]; the mean over mirror images and three sizes."""
        out = []
        for b in x.split(256):
            b, s = luma(b.to(self.device)), 0
            for zoom in (1.0, 0.9, 1.1):
                th = torch.tensor([[zoom, 0, 0], [0, zoom, 0]], device=self.device).expand(len(b), 2, 3)
                v = 1 + F.grid_sample(b - 1, F.affine_grid(th, b.shape, align_corners=False), align_corners=False) if zoom != 1 else b
                s = s + self.subject_net(v) + self.subject_net(v.flip(3))
            out.append(s / 6)
        return torch.cat(out).cpu()

    def rank(self, x, subjects):
        """Rank (0 is best) of each image's own subject among the candidates; None where the subject is not a candidate."""
        s, keep = self.scores(x), self.keep.cpu()
        return [int((s[i, keep] > s[i, self.column[n]]).sum()) if n in self.known else None for i, n in enumerate(subjects)]
