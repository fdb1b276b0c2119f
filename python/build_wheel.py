"""Puts the built library, its header and the licences into the wheel, and says where the wheel works.

The library is taken as it is: from the folder that ``PENTIMENTO_LIBRARIES`` names (``target/release``, or ``lib`` of an archive that
``ffi/dist.sh`` made, with the licences of all that is inside), and without it from ``target/dist`` or ``target/release``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from platform import machine
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CHECKOUT = Path(__file__).resolve().parent.parent
LIBRARY = {"win32": "pentimento.dll", "darwin": "libpentimento.dylib"}.get(sys.platform, "libpentimento.so")


def library() -> Path:
    """The built library."""
    own = os.environ.get("PENTIMENTO_LIBRARIES")
    folders = [Path(own)] if own else [CHECKOUT / "target" / profile for profile in ("dist", "release")]
    for folder in folders:
        if (folder / LIBRARY).is_file():
            return (folder / LIBRARY).resolve()
    looked = " or ".join(str(folder) for folder in folders)
    raise FileNotFoundError(f"expected {LIBRARY} in {looked}, found none. Build it: cargo build --profile dist -p pentimento-ffi")


def stripped(source: Path, folder: Path) -> Path:
    """The library without symbols for debuggers, which are nine tenths of it, where there is a tool for that."""
    made = folder / LIBRARY
    strip = shutil.which("strip")
    if sys.platform == "linux" and strip and subprocess.run([strip, "--strip-unneeded", "-o", made, source]).returncode == 0:
        return made
    return source


def platform(file: Path) -> str:
    """The wheel's platform. On Linux it follows from the newest symbol of the C library (PEP 600), elsewhere from this machine."""
    own = re.sub(r"[-.]", "_", sysconfig.get_platform())
    if not own.startswith("linux_"):
        return own.replace("universal2", machine())
    needed = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", file.read_bytes())]
    return own.replace("linux", f"manylinux_2_{max(needed)}", 1) if needed else own


class Hook(BuildHookInterface):  # type: ignore[type-arg]
    """hatchling's."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        self._folder = tempfile.mkdtemp()
        built = library()
        file = stripped(built, Path(self._folder))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform(file)}"
        inside: dict[str, str] = build_data["force_include"]
        inside[str(file)] = f"pentimento/{LIBRARY}"
        inside[str(CHECKOUT / "include" / "pentimento.h")] = "pentimento/pentimento.h"
        licences = [CHECKOUT / "LICENSE-APACHE", CHECKOUT / "LICENSE-MIT", built.parent.parent / "THIRD-PARTY.txt"]
        inside.update({str(text): f"pentimento/licenses/{text.name}" for text in licences if text.is_file()})

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
