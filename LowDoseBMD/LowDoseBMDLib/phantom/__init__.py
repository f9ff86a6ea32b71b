"""A synthetic low-dose chest CT whose vBMD is known.

Every shape is a formula (ellipsoids, superellipses, tubes along curves); no atlas and no patient data are inside.
``make_phantom(PhantomSpec(seed=3))`` gives the CT, a label map of every structure on the same grid, and the truth.
"""

from .build import make_phantom
from .labels import CLASSES, LABEL, names_by_label
from .model import Phantom, PhantomSpec, PhantomTruth

__all__ = ["CLASSES", "LABEL", "Phantom", "PhantomSpec", "PhantomTruth", "make_phantom", "names_by_label"]
