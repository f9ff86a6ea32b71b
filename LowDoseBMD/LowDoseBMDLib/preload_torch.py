"""What preload.py loads, and torch with the networks' parts, for studies whose networks run in it.

That takes some seconds more, which each study would else spend anew. Nothing here looks for a GPU: what CUDA has begun does
not survive a fork, so each study begins it itself.
"""

from __future__ import annotations

from .preload import load

MODULES: tuple[str, ...] = ("torch", "safetensors.torch", "monai.networks.nets")

load(MODULES)
