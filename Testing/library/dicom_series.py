"""A CT as axial DICOM slices on disk, as a scanner would send it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from LowDoseBMDLib.ctvolume import CTVolume
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = "SECRET^NAME"
OFFSET_HU = 1024


def write_ct_series(folder: Path, ct: CTVolume, study_uid: str, **changes: object) -> str:
    """One file for each slice of a canonical CT, in ``folder``; returns the series UID. changes: attributes of each."""
    folder.mkdir(parents=True)
    series_uid, frame_uid = generate_uid(prefix=None), generate_uid(prefix=None)
    for k, pixels in enumerate(ct.hu):
        ds = _slice(study_uid, series_uid, k)
        ds.FrameOfReferenceUID = frame_uid
        _place(ds, ct, k)
        ds.Rows, ds.Columns = pixels.shape
        ds.PixelData = (np.rint(pixels).astype(np.int32) + OFFSET_HU).clip(0, 4095).astype("<u2").tobytes()
        for name, value in changes.items():
            setattr(ds, name, value)
        ds.save_as(folder / f"{k:04d}.dcm")
    return series_uid


def _slice(study_uid: str, series_uid: str, k: int) -> pydicom.FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    ds = pydicom.FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study_uid, series_uid
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = PATIENT, "ID7", "19600102", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20240131", "0930", "S1", "A1"
    ds.ReferringPhysicianName = ""
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber, ds.ImageType = "CT", 3, k + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Manufacturer, ds.KVP, ds.ConvolutionKernel = "ACME", 120, "B30f"
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.RescaleSlope, ds.RescaleIntercept = 1, -OFFSET_HU
    return ds


def _place(ds: Dataset, ct: CTVolume, k: int) -> None:
    k_mm, j_mm, i_mm = ct.geometry.spacing_kji_mm
    direction = ct.geometry.direction
    ds.ImagePositionPatient = [f"{v:.6f}" for v in ct.geometry.to_lps(np.array([k, 0, 0]))]
    ds.ImageOrientationPatient = [f"{v:.10f}" for v in (*direction[:, 0], *direction[:, 1])]
    ds.PixelSpacing, ds.SliceThickness = [f"{j_mm:.6f}", f"{i_mm:.6f}"], f"{k_mm:.6f}"
