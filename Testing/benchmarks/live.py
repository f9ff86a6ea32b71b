"""From the last brush stroke to the new number, in a real MRML scene at 512 x 512 x 320.

    python Testing/benchmarks/live.py CT [--strokes 20]

The CT is brought to that size, its regions are proposed by the networks, then strokes of a brush are put into segments
and the time until the table holds the new number is taken. Limits: 30 ms when a muscle, fat or trabecular region was
edited, 150 ms when a body was, whose core is eroded again. Machines are shared and noisy: beside the milliseconds stand
multiples of one distance transform of the same body, timed between the strokes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer
import vtk
from scipy import ndimage
from vtk.util.numpy_support import vtk_to_numpy

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "LowDoseBMD"))

SHAPE_KJI = (320, 512, 512)
EDITED = (("psoas_left", 30.0), ("fat_anterior", 30.0), ("trabecular_L1", 30.0), ("body_L1", 150.0))
"""Region and limit in ms."""


def at_full_size(ct):
    """The CT over the same extent in SHAPE_KJI voxels."""
    from LowDoseBMDLib.ctvolume import CTVolume
    from LowDoseBMDLib.geometry import Geometry, resample

    step = np.array(ct.geometry.shape_kji[::-1]) / np.array(SHAPE_KJI[::-1])
    matrix = ct.geometry.ijk_to_lps.copy()
    matrix[:3, :3] = matrix[:3, :3] * step
    matrix[:3, 3] = ct.geometry.to_lps(np.full(3, -0.5)) + matrix[:3, :3] @ np.full(3, 0.5)
    grid = Geometry(SHAPE_KJI, matrix)
    return CTVolume(resample(ct.hu, ct.geometry, grid, outside=-1000), grid, ct.acquisition)


def stroke(live, name: str, number: int) -> None:
    """Erase a ball of about 4 mm at the rim of a region, each time another one."""
    segment = live.study.segmentation_node.GetSegmentation().GetSegment(name)
    image = segment.GetRepresentation("Binary labelmap")
    low = image.GetExtent()[::2]
    labels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    inside = np.argwhere(labels)
    k, j, i = inside[(number * 7919) % len(inside)]
    logic, ball = slicer.vtkSlicerSegmentationsModuleLogic, slicer.vtkOrientedImageData()
    corner = np.array([i + low[0], j + low[1], k + low[2]])
    ball.SetExtent([int(n) for c in corner for n in (c - 2, c + 2)])
    ball.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    vtk_to_numpy(ball.GetPointData().GetScalars())[:] = 0
    matrix = vtk.vtkMatrix4x4()
    live.study.volume_node.GetIJKToRASMatrix(matrix)
    ball.SetImageToWorldMatrix(matrix)
    logic.SetBinaryLabelmapToSegment(ball, live.study.segmentation_node, name, logic.MODE_MERGE_MIN, ball.GetExtent())


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000.0 * (time.perf_counter() - started)


def main() -> None:
    from LowDoseBMDLib.calibration import TwoPointCalibration
    from LowDoseBMDLib.exchange import Proposal
    from LowDoseBMDLib.files.read import read_ct
    from LowDoseBMDLib.pipeline import open_models, propose_rois
    from LowDoseBMDMRML.remeasure import LiveMeasurement
    from LowDoseBMDMRML.study import create_study
    from LowDoseBMDMRML.volumes import ct_from_node, node_from_ct

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--strokes", type=int, default=20)
    options = parser.parse_args()
    scene, waiting = slicer.vtkMRMLScene(), []
    volume_node = node_from_ct(scene, at_full_size(read_ct(options.ct)), "CT")
    ct = ct_from_node(volume_node)
    live = LiveMeasurement(create_study(scene, volume_node), ct, waiting.append)
    live.load(Proposal(propose_rois(ct, open_models())), TwoPointCalibration())
    body = live.rois.masks["body_L1"].voxels
    for name, limit in EDITED:
        taken, transform = [], []
        for number in range(options.strokes):
            before = live.measurement
            stroke(live, name, number)
            taken.append(milliseconds(lambda: waiting.pop(0)()))
            assert live.measurement is not before
            transform.append(milliseconds(lambda: ndimage.distance_transform_edt(body, sampling=ct.geometry.spacing_kji_mm)))
        median, worst = float(np.median(taken)), max(taken)
        print(f"{name:<14} median {median:6.1f} ms, worst {worst:6.1f} ms (limit {limit:.0f}); "
              f"{median / np.median(transform):.1f} distance transforms of {np.median(transform):.1f} ms")
    for label, work in (("names one up", lambda: live.shift_levels(1)), ("undo", live.undo)):
        print(f"{label:<14} {milliseconds(work):6.1f} ms")


if __name__ == "__main__":
    main()
