"""Watches the nodes of a study and says, once for a burst of changes, that a reader touched them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import slicer

from .study import Study

Defer = Callable[[Callable[[], None]], None]
"""Runs what it is given later in the main thread, such as a timer does."""

_DRAWN = (slicer.vtkSegmentation.SourceRepresentationModified, slicer.vtkSegmentation.SegmentAdded,
          slicer.vtkSegmentation.SegmentRemoved, slicer.vtkSegmentation.SegmentModified)
_PLACED = (slicer.vtkMRMLMarkupsNode.PointModifiedEvent, slicer.vtkMRMLMarkupsNode.PointPositionDefinedEvent)
_CT_CHANGED = (slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent, slicer.vtkMRMLTransformableNode.TransformModifiedEvent)


class StudyWatch:
    """Calls ``touched`` after segments or keypoints changed, ``ct_changed`` when the CT did, ``saving`` before the scene
    is written. While a keypoint is dragged nothing is said until it is let go."""

    def __init__(self, study: Study, defer: Defer, touched: Callable[[], None], ct_changed: Callable[[], None]) -> None:
        self._study, self._defer, self._touched, self._ct_changed = study, defer, touched, ct_changed
        self._observers: list[tuple[Any, int]] = []
        self._pending = self._dragging = False
        self._muted = 0

    @property
    def watching(self) -> bool:
        return bool(self._observers)

    def start(self) -> None:
        """Watch until ``stop``."""
        study, node = self._study, slicer.vtkMRMLMarkupsNode
        subjects = [(study.segmentation_node.GetSegmentation(), _DRAWN, self._on_change),
                    (study.keypoints_node, _PLACED, self._on_change),
                    (study.keypoints_node, (node.PointStartInteractionEvent,), self._on_drag),
                    (study.keypoints_node, (node.PointEndInteractionEvent,), self._on_drop),
                    (study.volume_node, _CT_CHANGED, self._on_ct_changed),
                    (study.scene, (slicer.vtkMRMLScene.StartSaveEvent,), self._on_saving)]
        for subject, events, callback in subjects:
            self._observers += [(subject, subject.AddObserver(event, callback)) for event in events]

    def stop(self) -> None:
        for subject, tag in self._observers:
            subject.RemoveObserver(tag)
        self._observers.clear()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Changes that the program makes itself are no edits."""
        self._muted += 1
        try:
            yield
        finally:
            self._muted -= 1

    def _on_change(self, *_: Any) -> None:
        if not self._muted and not self._pending and not self._dragging:
            self._pending = True
            self._defer(self._say)

    def _say(self) -> None:
        self._pending = False
        if self.watching:
            self._touched()

    def _on_drag(self, *_: Any) -> None:
        self._dragging = True

    def _on_drop(self, *_: Any) -> None:
        self._dragging = False
        self._on_change()

    def _on_ct_changed(self, *_: Any) -> None:
        if not self._muted:
            self._ct_changed()

    def _on_saving(self, *_: Any) -> None:
        self._say()
