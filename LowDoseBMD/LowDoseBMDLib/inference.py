"""Running a bundle over a volume: engines, tiles, fusion, progress and cancel.

Measuring needs ONNX Runtime only; torch is used when asked for or when a CUDA device is to be used. Tiles are fused
here in numpy because MONAI's sliding window needs torch.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .bundle import GRAPH, WEIGHTS, Bundle

Progress = Callable[[str, float], None]
"""progress(stage in plain words, fraction 0..1); it may raise Cancelled to stop the run."""

STRIDE = 16
"""Sides of a tile are multiples of this: the networks halve four times."""

ENGINES: tuple[str, ...] = ("auto", "onnx", "torch")
DEVICES: tuple[str, ...] = ("auto", "cpu", "cuda")


THREADS_VARIABLE = "OMP_NUM_THREADS"
"""Environment variable that numeric libraries take their number of threads from; the network's engine does too."""


class Cancelled(Exception):
    """The person, or the program, that asked for the run asked it to stop."""


def silent(_stage: str, _fraction: float) -> None:
    """A progress callback that does nothing."""


class Engine(Protocol):
    """One network, ready to run. ``run`` maps (1, C, K, J, I) float32 to logits (N, K, J, I) float32."""

    bundle: Bundle
    description: str

    def run(self, tile: np.ndarray) -> np.ndarray: ...


@dataclass
class OnnxEngine:
    """ONNX Runtime on the CPU."""

    bundle: Bundle
    session: object
    description: str = "ONNX Runtime, CPU"

    def run(self, tile: np.ndarray) -> np.ndarray:
        name = self.session.get_inputs()[0].name
        with _onnx_errors():
            return self.session.run(None, {name: tile})[0][0]


@contextmanager
def _onnx_errors() -> Iterator[None]:
    """Raises RuntimeError for whatever ONNX Runtime raises: its errors have no class in common."""
    try:
        yield
    except Exception as error:
        raise RuntimeError(str(error)) from error


@dataclass
class TorchEngine:
    """torch in fp32, on CUDA with the convolutions in TF32.

    Half precision cannot hold these networks: values of 160,000 were seen in the bone network, and 65,504 is its largest.
    """

    bundle: Bundle
    network: object
    device: str

    @property
    def description(self) -> str:
        return f"torch, {self.device}"

    def run(self, tile: np.ndarray) -> np.ndarray:
        import torch

        with torch.inference_mode():
            logits = self.network(torch.from_numpy(tile).to(self.device))
        return logits[0].float().cpu().numpy()


def threads() -> int:
    """Cores that this process may use; fewer when THREADS_VARIABLE says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get(THREADS_VARIABLE, "")
    return min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores


def choose_engine(engine: str = "auto", device: str = "auto") -> tuple[str, str]:
    """(engine, device) that will run, from what was asked for and what is installed.

    Raises ValueError when a name is unknown or what was asked for is not there.
    """
    if engine not in ENGINES or device not in DEVICES:
        raise ValueError(f"engine {engine!r} on device {device!r}: use one of {ENGINES} on one of {DEVICES}")
    has_torch = importlib.util.find_spec("torch") is not None
    wants_cuda = device == "cuda" or (device == "auto" and engine != "onnx" and shutil.which("nvidia-smi"))
    cuda = bool(wants_cuda) and has_torch and _cuda_works()
    if device == "cuda" and not cuda:
        raise ValueError("device 'cuda': no CUDA build of torch with a GPU is here; use --device cpu")
    if engine == "torch" and not has_torch:
        raise ValueError("engine 'torch' is not installed; install torch and monai, or use --engine onnx")
    if engine == "onnx" and device == "cuda":
        raise ValueError("engine 'onnx' runs on the CPU here; use --engine torch for a GPU")
    return ("torch", "cuda") if cuda else ("torch" if engine == "torch" else "onnx", "cpu")


def _cuda_works() -> bool:
    import torch

    return torch.cuda.is_available()


def open_engine(bundle: Bundle, engine: str = "auto", device: str = "auto") -> Engine:
    """Load a bundle into the engine that choose_engine names."""
    kind, place = choose_engine(engine, device)
    return _open_torch(bundle, place) if kind == "torch" else _open_onnx(bundle)


def _open_onnx(bundle: Bundle) -> OnnxEngine:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.enable_mem_pattern = False  # together with the kept memory it takes more of it, and no less time
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave the cores to others
    with _onnx_errors():
        session = onnxruntime.InferenceSession(str(bundle.folder / GRAPH), options, providers=["CPUExecutionProvider"])
    return OnnxEngine(bundle, session)


def _open_torch(bundle: Bundle, device: str) -> TorchEngine:
    import torch
    from safetensors.torch import load_file

    from .networks.attention_unet import build_attention_unet
    from .networks.res_unet import build_res_unet

    torch.set_num_threads(threads())  # what is forked from a process that has loaded torch does not look for the variable
    build = build_attention_unet if bundle.network == "attention_unet" else build_res_unet
    network = build(**bundle.arguments)
    network.load_state_dict({k: v.float() for k, v in load_file(bundle.folder / WEIGHTS).items()})
    return TorchEngine(bundle, network.to(device).eval(), device)


def normalise(hu: np.ndarray, bundle: Bundle) -> np.ndarray:
    """Network input (k, j, i) float32 from HU."""
    return np.clip(hu, *bundle.clip_hu).astype(np.float32) / bundle.scale_hu


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """First indices of tiles that cover ``length`` with at least ``overlap`` shared voxels."""
    if length <= tile:
        return [0]
    count = int(np.ceil((length - overlap) / (tile - overlap)))
    return [int(round(n)) for n in np.linspace(0, length - tile, count)]


def _bell(shape: tuple[int, ...]) -> np.ndarray:
    """Weight of a tile's voxels when tiles are fused: a Gaussian that falls to 5 % at the faces."""
    sides = [np.exp(-0.5 * (np.linspace(-1, 1, n) * 2.45) ** 2) for n in shape]
    return np.einsum("k,j,i->kji", *sides).astype(np.float32)


def predict(engine: Engine, hu: np.ndarray, max_tile_kji: tuple[int, int, int], overlap: int = 32,
            progress: Progress = silent, stage: str = "") -> np.ndarray:
    """Logits (N, K, J, I) float32 of a volume in HU (k, j, i) on the bundle's grid.

    The volume is padded with air to whole tiles of at most max_tile_kji (multiples of STRIDE). Raises RuntimeError when a
    logit is no number.
    """
    shape = hu.shape
    tile = tuple(min(m, -(-n // STRIDE) * STRIDE) for n, m in zip(shape, max_tile_kji, strict=True))
    padding = [(0, max(0, t - n)) for n, t in zip(shape, tile, strict=True)]
    image = np.pad(normalise(hu, engine.bundle), padding, constant_values=engine.bundle.clip_hu[0]
                   / engine.bundle.scale_hu)
    starts = list(itertools.product(*(tile_starts(n, t, overlap) for n, t in zip(image.shape, tile, strict=True))))
    inner = (slice(None), *(slice(0, n) for n in shape))
    if len(starts) == 1:
        progress(stage, 0.0)
        return _numbers(engine.run(image[None, None]))[inner]
    total = np.zeros((len(engine.bundle.outputs), *image.shape), np.float32)
    weight = np.zeros(image.shape, np.float32)
    bell = _bell(tile)
    for done, start in enumerate(starts):
        progress(stage, done / len(starts))
        box = tuple(slice(s, s + t) for s, t in zip(start, tile, strict=True))
        total[(slice(None), *box)] += engine.run(np.ascontiguousarray(image[box])[None, None]) * bell
        weight[box] += bell
    return _numbers(total / weight)[inner]


def _numbers(logits: np.ndarray) -> np.ndarray:
    """The same logits. Raises RuntimeError when one is no number: nothing may be read off what is left."""
    if not np.isfinite(logits.sum(dtype=np.float64)):
        raise RuntimeError("A network gave values that are no numbers. Its file, or the library that runs it, is not in "
                           "order: try another --engine or --device, or install the models anew.")
    return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the first axis."""
    shares = logits - logits.max(axis=0, keepdims=True)
    np.exp(shares, out=shares)
    shares /= shares.sum(axis=0, keepdims=True)
    return shares


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Element-wise 1 / (1 + exp(-x))."""
    return 1.0 / (1.0 + np.exp(-logits))
