"""The commands on label maps of whole people: prepare and synthesize."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from LowDoseBMDLib.cli_output import say

from .people import SPACING_MM


def add_people_commands(commands: argparse._SubParsersAction) -> None:
    """Add the commands, with their options, to those of the command line."""
    prepare = commands.add_parser("prepare", help="label maps to people, once")
    prepare.add_argument("list", type=Path, help="CSV: name, labels (label map), names (JSON label->name or CSV with "
                         "columns id, structure), ct (optional); paths relative to the CSV")
    prepare.set_defaults(run=run_prepare)
    synthesize = commands.add_parser("synthesize", help="write synthetic CTs and targets as NIfTI, to look at")
    synthesize.add_argument("people", type=Path)
    synthesize.add_argument("--count", type=int, default=6)
    synthesize.add_argument("--seed", type=int, default=1)
    synthesize.set_defaults(run=run_synthesize)
    for command in (prepare, synthesize):
        command.add_argument("--task", choices=tuple(SPACING_MM), required=True)
        command.add_argument("-o", "--out", type=Path, required=True)


def run_prepare(options: argparse.Namespace) -> int:
    """Prepare every person of the list for one task."""
    from LowDoseBMDLib.files.read import read_ct, read_label_map

    from .mapping import read_names
    from .people import person_for, save_person

    options.out.mkdir(parents=True, exist_ok=True)
    with options.list.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        home = options.list.parent
        labels, geometry = read_label_map(home / row["labels"])
        names = read_names(home / row["names"])
        hu = None
        if row.get("ct"):
            ct = read_ct(home / row["ct"])
            if not ct.geometry.same_grid(geometry, 0.5):
                raise ValueError(f"{row['name']}: the CT and its label map do not lie on the same grid")
            hu = ct.hu
        person = person_for(options.task, row["name"], labels, geometry, names, hu)
        save_person(options.out / f"{row['name']}.npz", person)
        say(f"{row['name']}: {person.bone.shape} voxels, bodies {' '.join(person.centres_kji)}")
    return 0


def run_synthesize(options: argparse.Namespace) -> int:
    """Write samples as pairs of NIfTI files; those of bones are in the registry's labels, so that ``import`` takes them."""
    import SimpleITK as sitk

    from .people import load_people
    from .synthesis import SCALE_HU, TASKS, draw_sample
    from .synthesis_subject import make_subject

    subjects = [make_subject(person) for person in load_people(options.people)]
    options.out.mkdir(parents=True, exist_ok=True)
    rng, task = np.random.default_rng(options.seed), TASKS[options.task]
    for n in range(options.count):
        subject = subjects[n % len(subjects)]
        image, target = draw_sample(rng, subject, task)
        kind = "labels" if options.task == "bones" else "target"
        pair = {"ct": (image[0] * SCALE_HU).short().numpy(),
                kind: target.numpy() if target.ndim == 3 else np.nan_to_num(target.numpy()).max(0)}
        for kind, array in pair.items():
            picture = sitk.GetImageFromArray(array)
            picture.SetSpacing([task.spacing_mm] * 3)
            sitk.WriteImage(picture, str(options.out / f"{n:03d}_{subject.person.name}_{kind}.nii.gz"))
    say(f"{options.count} pairs in {options.out}")
    return 0
