"""A trained model on disk: weights, the same network as ONNX, and what is known of it.

A bundle is a folder with ``bundle.json``, ``model.safetensors`` (fp16 weights for torch) and ``model.onnx`` (the
same weights for ONNX Runtime). ``bundle.json`` names the SHA-256 of both; a bundle whose files differ from it, or
whose format or network is unknown, is refused. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .anatomy import BONES, LEVELS

FORMAT = 1
NETWORKS: tuple[str, ...] = ("res_unet", "attention_unet")
METADATA, WEIGHTS, GRAPH = "bundle.json", "model.safetensors", "model.onnx"

BONES_FINE = "bones_fine"

MODELS: dict[str, tuple[str, ...]] = {"bones": BONES, "bodies": ("vertebral body",), "keypoints": LEVELS, BONES_FINE: BONES}
"""Names of the bundles of a set, which are its folders too, and what each must find. BONES_FINE may be missing: then bones
are drawn as the bundle bones found them."""

EMBEDDED = "LowDoseBMD"
"""Name of the set that comes with the product."""

FOLDER_VARIABLE = "LOWDOSEBMD_MODELS"
"""Environment variable that names the folder of the user's sets of models."""


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


def load_bundle(folder: Path, verify: bool = True) -> Bundle:
    """Read and verify a bundle. verify False: only that its files are there, which takes no time; not to run it.

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
        if not path.is_file() or (verify and file_sha256(path) != bundle.sha256.get(name)):
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


# --- sets of bundles ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class ModelSet:
    """A folder with some of the bundles of MODELS. holds: identity of each by name; completed_by: names of the bundles that
    the product's own stand in for; problem: why the set cannot be used, or empty."""

    name: str
    folder: Path
    holds: Mapping[str, str]
    completed_by: tuple[str, ...] = ()
    problem: str = ""


def load_models(folder: Path | None = None, verify: bool = True, fine: bool = True) -> dict[str, Bundle]:
    """Read and verify a set of bundles by the names of MODELS; those that the folder does not hold are the product's own.

    folder: None for the product's. verify: as of load_bundle. fine: BONES_FINE too, where there is one; the product's does
    not stand in beside a site's own bones, which it would draw in its own way instead of the site's. Raises BundleError when
    the folder holds no bundle, or one is damaged or does not find what its place asks for.
    """
    own = models_folder()
    home = folder or own
    held = [name for name in MODELS if (home / name).is_dir()]
    if not held:
        raise BundleError(f"{home.name}: no {METADATA} in a folder {', '.join(MODELS)}; this is no set of models. "
                          "Choose one that lowdosebmd-train export has written")
    places = {name: (home if name in held else own) / name for name in MODELS}
    if not fine or (BONES_FINE not in held and ("bones" in held or not places[BONES_FINE].is_dir())):
        del places[BONES_FINE]
    bundles = {name: load_bundle(place, verify) for name, place in places.items()}
    for name, bundle in bundles.items():
        missing = [output for output in MODELS[name] if output not in bundle.outputs]
        if missing:
            raise BundleError(f"{name}: the model {bundle.name!r} does not find {', '.join(missing)}, so it belongs in "
                              "another place; install the models again")
    return bundles


def identities(bundles: Mapping[str, Bundle]) -> dict[str, str]:
    """Identity of each bundle of a set; in a mixed set those of the product say so."""
    own = models_folder()
    mixed = len({bundle.folder.parent for bundle in bundles.values()}) > 1
    return {name: bundle.identity + (f", of {EMBEDDED}" if mixed and bundle.folder.parent == own else "")
            for name, bundle in bundles.items()}


def user_models_folder() -> Path:
    """Where the user's sets of models lie, one folder each: LOWDOSEBMD_MODELS, else in the user's folder for the data of
    programs. It need not exist."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Application Support"
    else:
        home = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local" / "share"))
    return home / "lowdosebmd" / "models"


def model_sets(folder: Path | None = None, verify: bool = True) -> tuple[ModelSet, ...]:
    """The product's set, then those of a folder by name (default: user_models_folder), the damaged ones too.

    verify: as of load_bundle.
    """
    home = folder or user_models_folder()
    found = sorted(path for path in home.iterdir() if path.is_dir() and path.name[0] != ".") if home.is_dir() else []
    return (read_set(models_folder(), verify), *(read_set(path, verify) for path in found))


def read_set(folder: Path, verify: bool = True) -> ModelSet:
    """The set of a folder; one that cannot be used has ``problem`` set. verify: as of load_bundle."""
    name = EMBEDDED if folder == models_folder() else folder.name
    try:
        bundles = load_models(folder, verify)
    except (BundleError, OSError) as error:
        return ModelSet(name, folder, {}, problem=str(error))
    held = {key: bundle.identity for key, bundle in bundles.items() if bundle.folder.parent == folder}
    return ModelSet(name, folder, held, tuple(key for key in bundles if key not in held))


def find_models(chosen: str | Path) -> Path | None:
    """Folder of a set that was chosen by its path or, failing that, by its name; None for the product's own.

    Raises ValueError, which names the sets that are there, when there is neither.
    """
    if str(chosen) == EMBEDDED:
        return None
    for folder in (Path(chosen), user_models_folder() / chosen):
        if any((folder / name).is_dir() for name in MODELS):
            return folder
    names = ", ".join(entry.name for entry in model_sets())
    raise ValueError(f"no models at {chosen}, and no set of that name in {user_models_folder()}; there are: {names}. Give "
                     f"the name of one, or a folder that holds {', '.join(MODELS)} or some of them")


def models_folder() -> Path:
    """Where the models that come with the product lie: beside the module, or in the installed data package."""
    beside = Path(__file__).resolve().parent.parent / "Resources" / "Models"
    if beside.is_dir():
        return beside
    found = importlib.util.find_spec("LowDoseBMDModels")
    if found is None or not found.submodule_search_locations:
        raise BundleError("the models are not installed; install LowDoseBMD again")
    return Path(next(iter(found.submodule_search_locations)))
