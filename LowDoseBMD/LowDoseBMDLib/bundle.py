"""A trained model on disk: weights, the same network as ONNX, and what is known of it.

A bundle is a folder with ``bundle.json``, ``model.safetensors`` (fp16 weights for torch) and ``model.onnx`` (the
same weights for ONNX Runtime). ``bundle.json`` names the SHA-256 of both; a bundle whose files differ from it, or
whose format or network is unknown, is refused. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1
NETWORKS: tuple[str, ...] = ("res_unet", "attention_unet")
METADATA, WEIGHTS, GRAPH = "bundle.json", "model.safetensors", "model.onnx"


class BundleError(ValueError):
    """The folder is not a bundle that this version may run; the message says why and what to do."""


@dataclass(frozen=True)
class Bundle:
    """What is known of one trained network.

    network: res_unet or attention_unet; arguments: of its builder. spacing_mm: isotropic grid of its input.
    clip_hu, scale_hu: input is clip(HU) / scale. outputs: name of each output channel. training, scores, limits:
    what it was trained and tested on, and where it fails, in words and numbers. sha256: by file name.
    """

    name: str
    version: str
    network: str
    arguments: Mapping[str, Any]
    spacing_mm: float
    clip_hu: tuple[float, float]
    scale_hu: float
    outputs: tuple[str, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()

    @property
    def identity(self) -> str:
        """Name, version and the first 12 digits of the weights' SHA-256, for reports."""
        return f"{self.name} {self.version} ({self.sha256[WEIGHTS][:12]})"


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_metadata(bundle: Bundle) -> None:
    """Write bundle.json beside the weights and graph that already lie in ``bundle.folder``."""
    record = asdict(bundle)
    del record["folder"]
    record["sha256"] = {name: file_sha256(bundle.folder / name) for name in (WEIGHTS, GRAPH)}
    text = json.dumps({"format": FORMAT, **record}, indent=1)
    (bundle.folder / METADATA).write_text(text + "\n", encoding="utf-8")


def load_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises BundleError when the folder holds no bundle, its format or network is unknown, a field is missing, or a
    file is not the one that bundle.json describes.
    """
    try:
        record = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder.name}: no {METADATA}; this is not a model bundle") from None
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{folder.name}: {METADATA} cannot be read ({error}); copy the bundle again") from None
    if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
        raise BundleError(f"{folder.name}: unknown bundle format; this version reads format {FORMAT}")
    bundle = _from_record(record, folder)
    for name in (WEIGHTS, GRAPH):
        path = folder / name
        if not path.is_file() or file_sha256(path) != bundle.sha256.get(name):
            raise BundleError(f"{folder.name}: {name} is not the file that {METADATA} describes (damaged or "
                              "replaced); install the model again")
    return bundle


def _from_record(record: Mapping[str, Any], folder: Path) -> Bundle:
    if record.get("network") not in NETWORKS:
        raise BundleError(f"{folder.name}: unknown network {record.get('network')!r}; known: {', '.join(NETWORKS)}")
    try:
        fields = dict(record)
        for name in ("clip_hu", "outputs", "limits"):
            fields[name] = tuple(fields[name])
        return Bundle(**fields, folder=folder)
    except (KeyError, TypeError) as error:
        raise BundleError(f"{folder.name}: {METADATA} is incomplete or unknown to this version ({error})") from None


def models_folder() -> Path:
    """Where the models that come with the product lie: beside the module, or in the installed data package."""
    beside = Path(__file__).resolve().parent.parent / "Resources" / "Models"
    if beside.is_dir():
        return beside
    found = importlib.util.find_spec("LowDoseBMDModels")
    if found is None or not found.submodule_search_locations:
        raise BundleError("the models are not installed; install LowDoseBMD again")
    return Path(next(iter(found.submodule_search_locations)))
