"""lowdosebmd-train: prepare label maps, look at synthetic CTs, train, export.

    lowdosebmd-train prepare PEOPLE.csv -o people
    lowdosebmd-train synthesize people --task bones --count 6 -o samples
    lowdosebmd-train train people --task bones --minutes 40 -o bones.pt
    lowdosebmd-train export bones.pt -o models/bones --card card.json
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SPACING_MM = {"bones": 2.0, "bodies": 1.5, "keypoints": 3.0}
"""Grid on which people are prepared for each task: finer than the network's, coarse enough to render quickly."""

SPINE_MARGIN_MM = 45.0
"""People for the bodies task are cut to the spine and this much round it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 done, 2 unusable arguments)."""
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, OSError) as error:
        print(f"lowdosebmd-train: {error}", file=sys.stderr)
        return 2


def build_parser() -> argparse.ArgumentParser:
    """All commands and options."""
    parser = argparse.ArgumentParser(prog="lowdosebmd-train", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(title="commands", required=True)
    prepare = commands.add_parser("prepare", help="label maps to people, once")
    prepare.add_argument("list", type=Path, help="CSV: name, labels (label map), names (JSON label->name or CSV with "
                         "columns id, structure), ct (optional); paths relative to the CSV")
    prepare.set_defaults(run=run_prepare)
    synthesize = commands.add_parser("synthesize", help="write synthetic CTs and targets as NIfTI, to look at")
    synthesize.add_argument("people", type=Path)
    synthesize.add_argument("--count", type=int, default=6)
    synthesize.add_argument("--seed", type=int, default=1)
    synthesize.set_defaults(run=run_synthesize)
    train = commands.add_parser("train", help="train one network; goes on from the checkpoint if it exists")
    train.add_argument("people", type=Path)
    train.add_argument("--steps", type=int, default=20000)
    train.add_argument("--minutes", type=float, default=0.0, help="stop at this time (0: at --steps)")
    train.add_argument("--batch", type=int, default=2)
    train.add_argument("--learning-rate", type=float, default=1.5e-3)
    train.add_argument("--res-units", type=int, default=1)
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    train.add_argument("--weight", action="append", default=[], metavar="NAME=W",
                       help="how often people whose name begins with NAME are drawn (default 1)")
    train.set_defaults(run=run_train)
    export = commands.add_parser("export", help="checkpoint to bundle (safetensors, ONNX, metadata)")
    export.add_argument("checkpoint", type=Path)
    export.add_argument("--version", default="0.1")
    export.add_argument("--card", type=Path, help="JSON with training, scores and limits for the bundle's metadata")
    export.set_defaults(run=run_export)
    for command in (prepare, synthesize, train, export):
        command.add_argument("-o", "--out", type=Path, required=True)
    for command in (prepare, synthesize, train):
        command.add_argument("--task", choices=tuple(SPACING_MM), required=True)
    return parser


def _names(path: Path) -> dict[int, str]:
    if path.suffix.lower() == ".json":
        return {int(label): name for label, name in json.loads(path.read_text(encoding="utf-8")).items()}
    with path.open(newline="", encoding="utf-8-sig") as file:
        return {int(row["id"]): row["structure"] for row in csv.DictReader(file)}


def _people(folder: Path) -> list:
    from .people import load_person

    files = sorted(folder.glob("*.npz"))
    if not files:
        raise ValueError(f"{folder} holds no prepared people (*.npz); run: lowdosebmd-train prepare")
    return [load_person(path) for path in files]


def run_prepare(options: argparse.Namespace) -> int:
    """Prepare every person of the list for one task."""
    from LowDoseBMDLib.files.read import read_ct, read_label_map

    from .people import make_person, save_person

    options.out.mkdir(parents=True, exist_ok=True)
    with options.list.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        home = options.list.parent
        labels, geometry = read_label_map(home / row["labels"])
        names = _names(home / row["names"])
        hu = None
        if row.get("ct"):
            ct = read_ct(home / row["ct"])
            if not ct.geometry.same_grid(geometry, 0.5):
                raise ValueError(f"{row['name']}: the CT and its label map do not lie on the same grid")
            hu = ct.hu
        if options.task == "bodies":
            labels, geometry, hu = _spine_only(labels, geometry, names, hu)
        person = make_person(row["name"], labels, geometry, names, SPACING_MM[options.task], hu)
        save_person(options.out / f"{row['name']}.npz", person)
        print(f"{row['name']}: {person.bone.shape} voxels, bodies {' '.join(person.centres_kji)}")
    return 0


def _spine_only(labels: np.ndarray, geometry: object, names: dict[int, str], hu: np.ndarray | None) -> tuple:
    from .people import BONE_PARTS, classify

    wanted = [label for label, name in names.items() if classify(name)[1] in BONE_PARTS[1:26]]
    where = np.argwhere(np.isin(labels, wanted))
    margin = np.ceil(SPINE_MARGIN_MM / np.array(geometry.spacing_kji_mm)).astype(int)
    low, high = np.maximum(where.min(0) - margin, 0), np.minimum(where.max(0) + margin, labels.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    labels = labels[box]
    return labels, geometry.crop(tuple(int(n) for n in low), labels.shape), None if hu is None else hu[box]


def run_synthesize(options: argparse.Namespace) -> int:
    """Write samples as pairs of NIfTI files."""
    import SimpleITK as sitk

    from .synthesis import SCALE_HU, TASKS, anchors_of, draw_sample

    people = _people(options.people)
    options.out.mkdir(parents=True, exist_ok=True)
    rng, task = np.random.default_rng(options.seed), TASKS[options.task]
    for n in range(options.count):
        person = people[n % len(people)]
        image, target = draw_sample(rng, person, task, anchors_of(person))
        pair = {"ct": (image[0] * SCALE_HU).short().numpy(),
                "target": target.numpy() if target.ndim == 3 else np.nan_to_num(target.numpy()).max(0)}
        for kind, array in pair.items():
            picture = sitk.GetImageFromArray(array)
            picture.SetSpacing([task.spacing_mm] * 3)
            sitk.WriteImage(picture, str(options.out / f"{n:03d}_{person.name}_{kind}.nii.gz"))
    print(f"{options.count} pairs in {options.out}")
    return 0


def run_train(options: argparse.Namespace) -> int:
    """Train until steps or minutes are used up."""
    from .training import Recipe, train

    people = _people(options.people)
    wanted = dict(entry.split("=", 1) for entry in options.weight)
    weights = [float(next((w for name, w in wanted.items() if p.name.startswith(name)), 1.0)) for p in people]
    recipe = Recipe(options.task, options.steps, options.batch, options.learning_rate, seed=options.seed,
                    minutes=options.minutes, res_units=options.res_units)
    print(f"{len(people)} people: {', '.join(p.name for p in people)}")
    train(recipe, people, options.out, options.device, weights=weights,
          report=lambda step, loss, seconds: print(f"step {step}  loss {loss:.4f}  {seconds:.0f} s", flush=True))
    return 0


def run_export(options: argparse.Namespace) -> int:
    """Write the bundle of a checkpoint."""
    import torch

    from .export import export_bundle, network_weights
    from .training import Recipe

    state = torch.load(options.checkpoint, weights_only=True)
    card = json.loads(options.card.read_text(encoding="utf-8")) if options.card else {}
    training = {**card.get("training", {}), "steps": state["step"], "recipe": json.loads(state["recipe"])}
    bundle = export_bundle(Recipe(**training["recipe"]), network_weights(state["average"]), options.out,
                           options.version, training, card.get("scores", {}), tuple(card.get("limits", ())))
    print(bundle.identity)
    return 0
