"""Draws the extension's screenshot: a phantom, measured, as Slicer's four-up layout shows it.

Run it after a change of models, colours or views::

    python Testing/screenshots.py

The phantom is synthetic; the picture holds nothing of a patient.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "LowDoseBMD"))

SCREENSHOT = ROOT / "Resources" / "Screenshot01.png"
SEED = 7
PANE_PIXELS = (640, 520)
GAP_PIXELS = 4
CUT_WIDTH_MM = 190.0


def measured_phantom():
    """(CT, Rois) of a phantom, found by the networks as any other CT's."""
    from LowDoseBMDLib.phantom import PhantomSpec, make_phantom
    from LowDoseBMDLib.pipeline import open_models, propose_rois

    ct = make_phantom(PhantomSpec(seed=SEED)).ct
    return ct, propose_rois(ct, open_models())


def four_up(ct, rois) -> np.ndarray:
    """(H, W, 3) uint8: axial and 3D above, coronal and sagittal below, all cuts through the centre of L1."""
    import slicer
    from LowDoseBMDLib.calibration import TwoPointCalibration
    from LowDoseBMDLib.exchange import Proposal
    from LowDoseBMDMRML.pictures import bones_picture, slice_picture
    from LowDoseBMDMRML.remeasure import LiveMeasurement
    from LowDoseBMDMRML.study import create_study
    from LowDoseBMDMRML.volumes import node_from_ct

    study = create_study(scene := slicer.vtkMRMLScene(), node_from_ct(scene, ct, "Phantom"))
    live = LiveMeasurement(study, ct, lambda run: run())
    live.load(Proposal(rois), TwoPointCalibration())
    centre = rois.keypoint("L1").position_lps_mm
    axial, coronal, sagittal = (
        slice_picture(study.volume_node, study.segmentation_node, orientation, centre, size=PANE_PIXELS,
                      field_of_view_mm=CUT_WIDTH_MM, markups_node=study.keypoints_node)
        for orientation in ("Axial", "Coronal", "Sagittal"))
    bones = bones_picture(study.segmentation_node, "oblique", PANE_PIXELS)
    live.close()
    return stack([[axial, bones], [coronal, sagittal]])


def stack(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Pictures of one size in rows, with a grey line between them."""
    height, width, _ = rows[0][0].shape
    step = np.array([height, width]) + GAP_PIXELS
    whole = np.full((*(np.array([len(rows), len(rows[0])]) * step - GAP_PIXELS), 3), 70, np.uint8)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            top, left = step * (row, column)
            whole[top:top + height, left:left + width] = picture
    return whole


def main() -> None:
    from LowDoseBMDMRML.pictures import save_png

    save_png(SCREENSHOT, four_up(*measured_phantom()))


if __name__ == "__main__":
    main()
