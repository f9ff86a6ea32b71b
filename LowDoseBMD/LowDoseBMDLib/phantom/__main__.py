"""Write the CT of one phantom to a folder, as exchange.write_ct does: ``python -m LowDoseBMDLib.phantom OUT --seed 1``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the phantom that ``lowdosebmd demo`` makes with the same seed."""
    parser = argparse.ArgumentParser(prog="python -m LowDoseBMDLib.phantom", description="Writes the CT of one phantom.")
    parser.add_argument("out", type=Path, help="folder for ct.npy and ct.json")
    parser.add_argument("--seed", type=int, default=1, help="which phantom")
    options = parser.parse_args(arguments)
    from ..exchange import write_ct
    from . import PhantomSpec, make_phantom

    write_ct(options.out, make_phantom(PhantomSpec(seed=options.seed)).ct)


if __name__ == "__main__":
    main()
