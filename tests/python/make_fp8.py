"""Writes tests/fixtures/fp8/codes.safetensors: all 256 codes of both 8-bit float types, and their values by ml_dtypes.

Usage: make_fp8.py (needs numpy and ml_dtypes)
"""
import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np

codes = np.arange(256, dtype=np.uint8)
header, data = {}, b""
for name, stored, kind in [
    ("e4m3", "F8_E4M3", ml_dtypes.float8_e4m3fn),
    ("e5m2", "F8_E5M2", ml_dtypes.float8_e5m2),
]:
    for key, dtype, blob in [
        (name, stored, codes.tobytes()),
        (f"{name}.values", "F32", codes.view(kind).astype("<f4").tobytes()),
    ]:
        header[key] = {"dtype": dtype, "shape": [256], "data_offsets": [len(data), len(data) + len(blob)]}
        data += blob
text = json.dumps(header).encode()
out = Path(__file__).parents[1] / "fixtures/fp8/codes.safetensors"
out.write_bytes(struct.pack("<Q", len(text)) + text + data)
