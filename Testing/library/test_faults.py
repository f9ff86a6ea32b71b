"""Every fault ends in a measurement that is right, or in a sentence: never a traceback, a wrong number or a lost result.

``python Testing/faults.py`` prints the same cases, and heavier ones, as a table.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from fault_cases import FAULTS, LIES, Fault, with_regions, write_ct_series
from fault_machine import MACHINE_FAULTS
from fault_scene import NOT_HERE, Given, Scene, run
from LowDoseBMDLib.files.read import read_ct

QUICK = [fault for fault in (*FAULTS, *MACHINE_FAULTS) if not fault.heavy]
OF_READING = {"damaged_files", "files_left_out"}
"""Codes of flags that reading gives."""
READ_ONLY = [fault for fault in QUICK if fault.status == "measured" and fault.name != "clock jump"
             and (fault.same or OF_READING.intersection(fault.codes))]
"""Faults that are settled once the CT is read: where it is the plain one, voxel by voxel, so is every number."""


def identity(fault: Fault) -> str:
    return f"{fault.name}: {fault.given}"


@pytest.mark.parametrize("fault", [fault for fault in QUICK if fault not in READ_ONLY], ids=identity)
def test_a_fault_ends_as_it_must(fault: Fault, a_scene: Scene, tmp_path: Path) -> None:
    if os.name == "nt" and fault in MACHINE_FAULTS:
        pytest.skip("limits and links of POSIX systems")
    outcome = fault.run(a_scene, tmp_path)
    if outcome == NOT_HERE:
        pytest.skip(outcome.sentence)
    assert not fault.wrong(outcome, a_scene), (outcome.sentence, outcome.said)


@pytest.mark.parametrize("fault", READ_ONLY, ids=identity)
def test_what_is_stored_otherwise_reads_as_the_plain_ct(fault: Fault, a_scene: Scene, tmp_path: Path) -> None:
    given = fault.make(a_scene, tmp_path)
    ct = read_ct(given.ct)
    assert set(fault.codes) <= {flag.code for flag in ct.flags}
    np.testing.assert_array_equal(ct.hu, a_scene.hu[:len(ct.hu)])
    np.testing.assert_allclose(ct.geometry.ijk_to_lps, a_scene.geometry.ijk_to_lps, atol=1e-4)
    assert len(ct.hu) == len(a_scene.hu) or not fault.same


def test_a_patient_who_lies_otherwise_has_the_same_number(a_scene: Scene, tmp_path: Path) -> None:
    """One orientation all the way through, DICOM results included."""
    given = with_regions(a_scene, write_ct_series(a_scene, tmp_path, lie=LIES["FFP"]))
    outcome = run(given, tmp_path / "out")
    assert outcome.record["levels"] == a_scene.levels
    assert (tmp_path / "out" / "segmentation.dcm").exists() and (tmp_path / "out" / "report.dcm").exists()


def test_the_check_of_outcomes_sees_what_is_wrong(a_scene: Scene, tmp_path: Path) -> None:
    """The table cannot say that all is well when it is not."""
    fault = next(fault for fault in FAULTS if fault.codes == ("missing_slices",))
    outcome = run(Given(a_scene.ct, ("--rois", str(a_scene.rois))), tmp_path / "out")
    assert "measured, not refused" in fault.wrong(outcome, a_scene)
    (tmp_path / "out" / "measurement.json").write_text("{")
    with pytest.raises(ValueError):
        run(Given(a_scene.ct), tmp_path / "out")
