"""Writes tests/corpus/image: small pictures in every form that is read, which tests cut and mutate.

Usage: make_corpus.py (needs numpy and pillow)
"""
from pathlib import Path

import numpy as np
from PIL import Image

out = Path(__file__).parents[1] / "corpus/image"
rng = np.random.default_rng(1)
W, H = 48, 40
slope = np.add.outer(np.arange(H) * 3.0, np.arange(W) * 2.0)
rgb = np.stack([slope, slope[::-1], slope * 0.3 + 60], -1) + rng.normal(0, 12, (H, W, 3))
image = Image.fromarray(rgb.clip(0, 255).astype(np.uint8))
exif = Image.Exif()
exif[0x0112] = 6


def save(name, picture, **how):
    picture.save(out / name, **how)


save("baseline.jpg", image, quality=70, exif=exif)
save("full.jpg", image, quality=70, subsampling=0)
save("half.jpg", image, quality=70, subsampling=1)
save("restart.jpg", image, quality=70, restart_marker_rows=1)
save("blocks.jpg", image, quality=70, restart_marker_blocks=2)
save("grey.jpg", image.convert("L"), quality=70)
save("cmyk.jpg", image.convert("CMYK"), quality=50)
save("progressive.jpg", image, quality=70, progressive=True)
save("progressive_grey.jpg", image.convert("L"), quality=70, progressive=True, restart_marker_rows=1)
small = image.crop((0, 0, 24, 20))
alpha = small.copy()
alpha.putalpha(Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)))
save("rgb.png", small, exif=exif)
save("rgba.png", alpha)
save("palette.png", small.quantize(8), transparency=2)
save("one_bit.png", small.convert("1"))
save("grey16.png", Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257))
save("profile.png", small.convert("L"), icc_profile=b"\0" * 4096)
save("animated.png", small, save_all=True, append_images=[small.transpose(0)])
save("lossy.webp", image, quality=60, exif=exif)
save("lossy_alpha.webp", alpha, quality=60)
save("lossless.webp", small, lossless=True)
save("lossless_alpha.webp", alpha.quantize(16).convert("RGBA"), lossless=True)
save("animated.webp", small, save_all=True, append_images=[small.transpose(0)], lossless=True)
