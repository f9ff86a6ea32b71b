"""A case under an annotator's hand: what is drawn is taken in by strokes, can be undone, and can be read for saving."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from LowDoseBMDLib.anatomy import STRUCTURES
from LowDoseBMDLib.ctvolume import CTVolume
from LowDoseBMDLib.geometry import lps_to_ras, ras_point
from LowDoseBMDLib.rois import NO_VOXELS, Keypoint, Mask
from LowDoseBMDMRML import markups, segments
from LowDoseBMDMRML.history import History
from LowDoseBMDMRML.watch import Defer, StudyWatch
from LowDoseBMDTrainerLib.cases import Labels
from LowDoseBMDTrainerLib.masks import without
from LowDoseBMDTrainerLib.slices import labelled_slices

from .case_nodes import CaseNodes, write_labels
from .painting import Rules, painted


class LiveCase:
    """The labels of a case as they stand.

    Edits of segments and keypoints are gathered until ``defer`` runs what it was given; every such burst is one step of
    undo. ``listeners`` are called after each change. labels: frozen, on the CT's grid; the object is another one after each
    change, so that whoever saves it needs no copy. active: the label that is being drawn.
    """

    def __init__(self, nodes: CaseNodes, ct: CTVolume, labels: Labels, defer: Defer) -> None:
        self.nodes, self.ct = nodes, ct
        self.listeners: list[Callable[[], None]] = []
        self.labels = labels
        self.active = ""
        self.locked = False
        self._history: History[Labels] = History()
        self._watch = StudyWatch(nodes, defer, self.flush, _nothing)
        write_labels(nodes, labels, {})
        self._times = self._region_times()
        self._watch.start()

    def close(self) -> None:
        """Stop watching; the nodes stay."""
        self._watch.stop()
        self.listeners.clear()

    # --- what the annotator does -------------------------------------------------------------------------------

    def replace(self, masks: Mapping[str, Mask], keypoints: tuple[Keypoint, ...] | None = None) -> None:
        """One step of undo: put these masks, and keypoints when given, in place of those there."""
        self.flush()
        if self.locked:
            return
        changed = replace(self.labels, masks={**self.labels.masks, **masks},
                          keypoints=self.labels.keypoints if keypoints is None else keypoints)
        self._history.push(self.labels)
        self._become(changed, self.labels.masks)

    def place(self, level: str, position_lps_mm: tuple[float, float, float]) -> None:
        """Put the keypoint of a level there."""
        others = tuple(point for point in self.labels.keypoints if point.level != level)
        self.replace({}, (*others, Keypoint(level, position_lps_mm)))

    def paint(self, name: str, stroke: Mask, rules: Rules, begins: bool, erase: bool = False) -> None:
        """Add voxels to a label by the rules of the brush, or take them from it. begins: a step of undo begins; else this
        belongs to the last one."""
        if begins:
            self.flush()
        if self.locked or stroke.empty:
            return
        masks = self.labels.masks
        if erase:
            changed = {name: without(masks.get(name, NO_VOXELS), stroke)}
        else:
            changed = painted(masks, self.ct, name, stroke, rules)
        changed = {each: mask for each, mask in changed.items() if mask is not masks.get(each)}
        if begins:
            self._history.push(self.labels)
        if changed:
            self._become(replace(self.labels, masks={**masks, **changed}), masks)

    def copy_slice(self, name: str, index: int, instead: bool = False) -> int:
        """Add to an axial slice what the label has in the nearest slice that is drawn; returns that slice's index.

        instead: the slice loses what it has of the label, in the same step of undo. Raises ValueError when there is none.
        """
        mask = self.labels.masks.get(name, NO_VOXELS)
        drawn = [n for n, there in enumerate(self.slices_of(name)) if there and n != index]
        if not drawn or not 0 <= index < self.labels.geometry.shape_kji[0]:
            raise ValueError("No slice with this label is near: draw one first.")
        source = min(drawn, key=lambda n: (abs(n - index), n))
        copied = mask.voxels[source - mask.start_kji[0]]
        if instead:
            whole = Mask(np.ones((1, *self.labels.geometry.shape_kji[1:]), bool), (index, 0, 0))
            self.paint(name, whole, Rules(), begins=True, erase=True)
        self.paint(name, Mask.from_array(copied[None], (index, *mask.start_kji[1:])), Rules(), begins=not instead)
        return source

    def undo(self) -> None:
        """Back by one action; nothing at the first."""
        self._travel(self._history.back)

    def redo(self) -> None:
        """Forth again."""
        self._travel(self._history.forth)

    @property
    def can_undo(self) -> bool:
        return bool(self._history.past) and not self.locked

    @property
    def can_redo(self) -> bool:
        return bool(self._history.future) and not self.locked

    def lock(self, locked: bool) -> None:
        """Let nothing be changed, as in a case that somebody else edits: what is drawn is put back."""
        self.locked = locked
        with self._watch.quiet():
            markups.lock(self.nodes.keypoints_node, locked)

    # --- what the panel asks -----------------------------------------------------------------------------------

    def label_at(self, *ras_mm: float) -> tuple[str, float | None]:
        """Name of the label at a point, the smallest where labels lie inside each other, and the HU there; "" where there is
        no label, None outside of the CT."""
        voxel = self._voxel(ras_mm)
        if voxel is None:
            return "", None
        names = [name for name, mask in self.labels.masks.items() if _holds(mask, voxel)]
        return (min(names, key=lambda name: self.labels.masks[name].voxels.size) if names else ""), float(self.ct.hu[voxel])

    def _voxel(self, ras_mm: Sequence[float]) -> tuple[int, int, int] | None:
        geometry = self.labels.geometry
        k, j, i = (int(n) for n in np.rint(geometry.to_kji(lps_to_ras(np.array(ras_mm)))))
        inside = all(0 <= n < size for n, size in zip((k, j, i), geometry.shape_kji, strict=True))
        return (k, j, i) if inside else None

    def slices_of(self, name: str) -> tuple[bool, ...]:
        """For every axial slice, from the feet up, whether it holds voxels of the label."""
        mask = self.labels.masks.get(name, NO_VOXELS)
        held = np.zeros(self.labels.geometry.shape_kji[0], bool)
        held[mask.box[0]] = labelled_slices(mask.voxels, 0)
        return tuple(held.tolist())

    def slice_at(self, *ras_mm: float) -> int:
        """Index of the axial slice of a point; may lie outside of the CT."""
        return int(np.rint(self.labels.geometry.to_kji(lps_to_ras(np.array(ras_mm)))[0]))

    def slice_ras(self, index: int) -> tuple[float, float, float]:
        """A point of an axial slice: its middle, RAS mm."""
        _, rows, columns = self.labels.geometry.shape_kji
        return ras_point(self.labels.geometry.to_lps(np.array([index, rows / 2, columns / 2])))

    # --- taking in what was drawn ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Take in what was drawn or dragged since the last time; nothing when nothing changed."""
        if not self._watch.watching or not self.nodes.whole:
            return
        drawn = self._drawn()
        points = markups.read_keypoints(self.nodes.keypoints_node)
        moved = markups.moved_keypoints(self.nodes.keypoints_node, self.labels.keypoints)
        if not drawn and not moved and len(points) == len(self.labels.keypoints):
            return
        shown = {**self.labels.masks, **drawn}
        if self.locked:
            self._become(self.labels, shown)
            return
        kept = self._of_the_stroke(drawn)
        self._history.push(self.labels)
        self._become(replace(self.labels, masks={**self.labels.masks, **kept}, keypoints=points), shown)

    def _drawn(self) -> dict[str, Mask]:
        """Labels whose voxels are others than those that are known."""
        times = self._region_times()
        touched = [name for name, time in times.items() if time != self._times.get(name)]
        self._times = times
        read = {name: segments.read_region(self.nodes.segmentation_node, name, self.labels.geometry) for name in touched}
        known = self.labels.masks
        read |= {name: NO_VOXELS for name in known if name not in times and not known[name].empty}
        return {name: mask for name, mask in read.items() if not mask.same_as(known.get(name, NO_VOXELS))}

    def _of_the_stroke(self, drawn: Mapping[str, Mask]) -> dict[str, Mask]:
        """A vertebral body lies inside the vertebrae: painting one over all others must not take voxels from the other."""
        if self.active not in STRUCTURES or self.active not in drawn:
            return dict(drawn)
        group = STRUCTURES[self.active].group
        return {name: mask for name, mask in drawn.items() if name not in STRUCTURES or STRUCTURES[name].group == group}

    def _become(self, labels: Labels, shown: Mapping[str, Mask]) -> None:
        self.labels = labels
        with self._watch.quiet():
            write_labels(self.nodes, labels, shown)
        self._times = self._region_times()
        for listener in tuple(self.listeners):
            listener()

    def _travel(self, take: Callable[[Labels], Labels | None]) -> None:
        self.flush()
        labels = None if self.locked else take(self.labels)
        if labels is not None:
            self._become(labels, self.labels.masks)

    def _region_times(self) -> dict[str, int]:
        node = self.nodes.segmentation_node
        return {name: segments.region_time(node, name) for name in node.GetSegmentation().GetSegmentIDs()}


def _holds(mask: Mask, voxel: tuple[int, int, int]) -> bool:
    inside = tuple(n - start for n, start in zip(voxel, mask.start_kji, strict=True))
    return all(0 <= n < size for n, size in zip(inside, mask.voxels.shape, strict=True)) and bool(mask.voxels[inside])


def _nothing() -> None:
    """A changed CT changes no label."""
