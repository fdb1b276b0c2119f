"""The independent judge: a style classifier and a subject recogniser, both trained here from icons only.

Neither shares a weight, a feature or a loss with the reward backbone. Everything is cached in a work folder:

    icons.npz        every icon of six styles, rendered once from the npm packages that the model's data.py names
    round_trip.npz   the same icons through the model's own VAE, with a little latent noise (looks like a generated image)
    style_KEY.pt     six-way style classifier, 64x64
    subject_KEY.pt   image-to-subject classifier, 32x32, blind to colour by augmentation

The images in the reference folders (all of them, used and held out) are kept out of both trainings, so they can
anchor the scores. Step counts and seeds are fixed: the same machine gives the same judge.
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
def round_trip(work, model, d):
    """The icons as the model's VAE would draw them; latent noise of 0 to 0.35 standard deviations."""
    path = work / "round_trip.npz"
    if not path.exists():
        from diffusers import AutoencoderKL
        vae = AutoencoderKL.from_pretrained(model / "vae").float().eval()
        g, out = torch.Generator().manual_seed(SEED), []
        for i in range(0, len(d["images"]), 64):
            z = vae.encode(floats(d["images"][i:i + 64]) * 2 - 1).latent_dist.mean
            amount = 0.35 * torch.rand(len(z), 1, 1, 1, generator=g) / vae.config.scaling_factor
            y = vae.decode(z + amount * torch.randn(z.shape, generator=g)).sample
            out.append((y.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(0, 2, 3, 1).numpy())
        np.savez(path, images=np.concatenate(out))
    return np.load(path)["images"]


def floats(u8):
    """u8 [N,H,W,3] to float [N,3,H,W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(u8)).permute(0, 3, 1, 2).float() / 255


# ---- augmentation -----------------------------------------------------------------------------------------------

def some(x, p, g):
    return torch.rand(len(x), 1, 1, 1, generator=g) < p


def shift_scale(x, g, zoom=0.15, move=0.12):
    n = len(x)
    th = torch.zeros(n, 2, 3)
    s = 1 + zoom * (2 * torch.rand(n, generator=g) - 1)
    th[:, 0, 0] = s * torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    th[:, 1, 1] = s
    th[:, :, 2] = move * (2 * torch.rand(n, 2, generator=g) - 1)
    return 1 + F.grid_sample(x - 1, F.affine_grid(th, x.shape, align_corners=False), align_corners=False)


def blur(x, rounds=1):
    k = torch.tensor([1.0, 2.0, 1.0]) / 4
    w = (k[:, None] * k[None]).expand(3, 1, 3, 3)
    for _ in range(rounds):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), w, groups=3)
    return x


def grey(x):
    return (x * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True).expand_as(x)


def edges(x):
    """Dark lines on white where the image changes."""
    y = grey(x)[:, :1]
    k = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]) / 4
    e = F.conv2d(F.pad(y, (1, 1, 1, 1), mode="replicate"), torch.stack([k, k.T])[:, None])
    return (1 - 1.5 * e.square().sum(1, keepdim=True).add(1e-6).sqrt()).clamp(0, 1).expand_as(x)


def for_style(x, mono, g):
    """Keeps what makes a style; removes blur, noise and mere greyness as clues (grey colour icons stay themselves)."""
    x = shift_scale(x, g, 0.1, 0.08)
    x = torch.where(some(x, 0.3, g), blur(x, int(torch.randint(1, 3, (1,), generator=g))), x)
    x = torch.where(some(x, 0.2, g) & ~mono.view(-1, 1, 1, 1), grey(x), x)
    return (x + 0.06 * torch.rand(len(x), 1, 1, 1, generator=g) * torch.randn(x.shape, generator=g)).clamp(0, 1)


def for_subject(x, g):
    """Removes what makes a style: colour, fill, polarity, outline."""
    x = shift_scale(x, g)
    x = torch.where(some(x, 0.3, g), blur(x, 1), x)
    hue = x[:, torch.randperm(3, generator=g)] * (1 - 0.3 * torch.rand(len(x), 3, 1, 1, generator=g))
    x = torch.where(some(x, 0.4, g), hue, x)
    x = torch.where(some(x, 0.5, g), grey(x), x)
    x = torch.where(some(x, 0.25, g), edges(x), x)
    contrast = ((x - 0.3 - 0.4 * torch.rand(len(x), 1, 1, 1, generator=g)) * 4 + 0.5).clamp(0, 1)
    x = torch.where(some(x, 0.2, g), contrast, x)
    x = torch.where(some(x, 0.15, g), 1 - x, x)
    return (x + 0.06 * torch.rand(len(x), 1, 1, 1, generator=g) * torch.randn(x.shape, generator=g)).clamp(0, 1)


# ---- networks ---------------------------------------------------------------------------------------------------

def conv(i, o, stride=1):
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True))


def style_net():
    return nn.Sequential(conv(3, 24, 2), conv(24, 48, 2), conv(48, 96, 2), conv(96, 96), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, len(STYLES)))


class SubjectNet(nn.Module):
    def __init__(self, subjects, c=(24, 48, 96, 192), width=192):
        super().__init__()
        self.body = nn.Sequential(conv(3, c[0]), conv(c[0], c[1], 2), conv(c[1], c[1]), conv(c[1], c[2], 2), conv(c[2], c[2]),
                                  conv(c[2], c[3], 2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(c[3] * 16, width), nn.BatchNorm1d(width))
        self.subject = nn.Parameter(torch.randn(subjects, width) * 0.1)

    def embed(self, x):
        return F.normalize(self.body(F.avg_pool2d(x, 2) * 2 - 1), dim=1)

    def forward(self, x):
        return 16 * self.embed(x) @ F.normalize(self.subject, dim=1).T


def train(net, batch, loss, steps, lr, name):
    """AdamW, one warm-up and one cosine; returns the net in eval mode."""
    opt = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.02)
    sched = torch.optim.lr_scheduler.OneCycleLR(opt, lr, total_steps=steps, pct_start=0.1)
    t, run = time.time(), None
    for step in range(steps):
        x, y = batch()
        out = loss(net(x), y)
        opt.zero_grad(set_to_none=True)
        out.backward()
        opt.step()
        sched.step()
        run = out.item() if run is None else 0.95 * run + 0.05 * out.item()
        if (step + 1) % 100 == 0:
            print(f"{name}: step {step + 1}/{steps} loss {run:.3f} {time.time() - t:.0f} s", flush=True, file=sys.stderr)
    return net.eval()


class Judge:
    """style(images) -> [N, 6] probabilities; subjects(images) -> [N, candidates] scores."""

    def __init__(self, work, model, references, downloads=None, style_steps=350, subject_steps=900, batch=96):
        work.mkdir(parents=True, exist_ok=True)
        d = icons(work, model, downloads)
        self.d, self.names = d, d["names"]
        count = np.bincount(d["name"], minlength=len(self.names))
        concrete = np.array([g in CONCRETE for g in d["groups"]])
        self.learned = np.where(concrete & (count >= MIN_STYLES))[0]
        self.candidates = np.where(concrete & (count >= COMMON_STYLES))[0]
        # All reference subjects are kept out in the two held-out styles, whichever of them a run uses.
        kept_out = {json.loads(line)["text"].removeprefix("icon of ") for f in references for line in (f / "metadata.jsonl").read_text().splitlines()}
        is_ref = np.isin(d["name"], [i for i, n in enumerate(self.names) if n in kept_out]) & (d["style"] >= 4)
        self.train_rows = np.where(~is_ref)[0]
        self.batch, self.work, self.model = batch, work, model
        # A cached net belongs to the references it never saw.
        key = hashlib.sha256(json.dumps([sorted(kept_out), style_steps, subject_steps, batch]).encode()).hexdigest()[:8]
        torch.manual_seed(SEED)
        self.style_net = self.cached(f"style_{key}.pt", style_net(), lambda n: self.train_style(n, style_steps))
        self.subject_net = self.cached(f"subject_{key}.pt", SubjectNet(len(self.learned)), lambda n: self.train_subject(n, subject_steps))

    def cached(self, file, net, fit):
        path = self.work / file
        if path.exists():
            net.load_state_dict(torch.load(path, map_location="cpu"))
        else:
            fit(net)
            torch.save(net.state_dict(), path)
        return net.eval()

    def sampler(self, rows, weight, g):
        """Endless batches of (float images, row numbers); half of them VAE round trips."""
        both = (self.d["images"], round_trip(self.work, self.model, self.d))
        w = torch.from_numpy(weight / weight.sum())

        def draw():
            r = rows[torch.multinomial(w, self.batch, True, generator=g).numpy()]
            pick = torch.rand(self.batch, generator=g).numpy() < 0.5
            return floats(np.where(pick[:, None, None, None], both[0][r], both[1][r])), r
        return draw

    def train_style(self, net, steps):
        g = torch.Generator().manual_seed(SEED)
        rows, style = self.train_rows, torch.from_numpy(self.d["style"])
        draw = self.sampler(rows, 1 / np.bincount(self.d["style"][rows])[self.d["style"][rows]], g)

        def batch():
            x, r = draw()
            y = style[r]
            return for_style(x, y == STYLES.index("mono"), g), y
        train(net, batch, nn.CrossEntropyLoss(label_smoothing=0.02), steps, 4e-3, "style judge")

    def train_subject(self, net, steps):
        g = torch.Generator().manual_seed(SEED + 1)
        index = torch.full((len(self.names),), -1)
        index[torch.from_numpy(self.learned)] = torch.arange(len(self.learned))
        name = torch.from_numpy(self.d["name"])
        rows = self.train_rows[np.isin(self.d["name"][self.train_rows], self.learned)]
        draw = self.sampler(rows, np.ones(len(rows)), g)

        def batch():
            x, r = draw()
            return for_subject(x, g), index[name[r]]
        train(net, batch, nn.CrossEntropyLoss(label_smoothing=0.05), steps, 5e-3, "subject judge")

    @torch.no_grad()
    def style(self, x):
        return torch.cat([self.style_net(b).softmax(1) for b in x.split(128)])

    @torch.no_grad()
    def rank(self, x, subjects):
        """Rank (0 is best) of each image's own subject among the candidates; None where the subject is not a candidate."""
        col = {self.names[n]: i for i, n in enumerate(self.learned)}
        keep = torch.tensor([col[self.names[n]] for n in self.candidates])
        known = set(self.names[n] for n in self.candidates)
        s = torch.cat([(self.subject_net(b) + self.subject_net(b.flip(3))) / 2 for b in x.split(128)])
        return [int((s[i, keep] > s[i, col[n]]).sum()) if n in known else None for i, n in enumerate(subjects)]
