"""Stage 3b, levels: which vertebra is which.

Independent witnesses (level_witnesses.py) speak of the chain of bodies (level_chain.py): the keypoint network's heatmaps,
the lowest ribs, the count of ribs from the first one down, the sacrum. What each says alone is read off at one body of the
chain, as the chance of each name; none is trusted further than its own rate of error. Together they give the probability
of a name; where it is not overwhelming, a witness speaks clearly against it, or two bodies lie too near to each other, the
levels are given with a flag that asks for confirmation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .anatomy import LEVELS, SPINE
from .bodies import Body, Spine
from .bones import Bones
from .flags import LEVEL_UNCERTAIN, LEVELS_NAMED, Flag, Severity
from .keypoints import Heatmaps
from .level_chain import PLACES, Chain, chain_of, crowded
from .level_ribs import HIGHER_MM, kind_of, map_ribs, own_ribs
from .level_witnesses import Witness, count_witness, heat_witness, rib_witness, sacral, sacrum_witness

CERTAIN = 0.95
"""Names at least this probable, which no witness speaks clearly against, are used without asking, unless two bodies are
crowded."""

OPINION_FLOOR = 1e-4
"""No witness rules a place out completely."""

WORTH_SAYING = 0.05
"""Names less likely than this are not told."""

AGAINST = 10.0
"""A witness speaks clearly against a name when another is so many times as likely by what it saw (judgement)."""


@dataclass(frozen=True)
class Numbering:
    """The names given to a chain of bodies, head to foot.

    names: one per body, None beyond the known spine. probability: that the names of T12, L1, L2 are right, as far as they
    are there. second, second_probability: names and probability of the next best. ribs: per body, what own_ribs saw.
    said: what each witness alone says, a sentence. flags: what a reader must know, and what the names rest on.
    """

    names: tuple[str | None, ...]
    probability: float
    second: tuple[str | None, ...]
    second_probability: float
    ribs: tuple[str, ...]
    said: str = ""
    flags: tuple[Flag, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether a reader must confirm the names."""
        return any(flag.code == LEVEL_UNCERTAIN for flag in self.flags)


def name_levels(spine: Spine, heatmaps: Heatmaps, bones: Bones) -> Numbering:
    """Name every body of a spine."""
    vertebral = [not sacral(body, bones) for body in spine.bodies]
    bodies = tuple(body for body, kept in zip(spine.bodies, vertebral, strict=True) if kept)
    if not bodies:
        nothing = (None,) * len(spine.bodies)
        return Numbering(nothing, 0.0, nothing, 0.0, ("none",) * len(nothing))
    mapped = map_ribs(bodies, bones)
    ribs = own_ribs(bodies, mapped)
    witnesses = [heat_witness(bodies, heatmaps), rib_witness(ribs, own_ribs(bodies, mapped, HIGHER_MM)),
                 count_witness(bodies, mapped), sacrum_witness(bodies, _next_below(spine.bodies, vertebral), bones)]
    numbering, against = _numbering(chain_of(np.array([body.centre_lps_mm for body in bodies])), witnesses,
                                    tuple(kind_of(rib) for rib in ribs))
    doubt = _doubt(bodies, numbering, against)
    numbering = replace(numbering, **{name: _among_all(getattr(numbering, name), vertebral, nothing) for name, nothing in
                                      (("names", None), ("second", None), ("ribs", "none"))})
    return replace(numbering, flags=tuple(_flags(numbering, spine, doubt)))


def _next_below(bodies: tuple[Body, ...], vertebral: list[bool]) -> Body | None:
    """The first body below the last vertebral one."""
    after = len(vertebral) - vertebral[::-1].index(True)
    return bodies[after] if after < len(bodies) else None


def _among_all(values: tuple[str | None, ...], vertebral: list[bool], nothing: str | None) -> tuple[str | None, ...]:
    """Values of the vertebral bodies among those of all bodies."""
    left = iter(values)
    return tuple(next(left) if kept else nothing for kept in vertebral)


def _numbering(chain: Chain, witnesses: list[Witness], kinds: tuple[str, ...]) -> tuple[Numbering, list[Witness]]:
    """(numbering, who speaks against it)."""
    heard = np.prod([witness.emission.mean(axis=0) for witness in witnesses], axis=0)
    body = _reference(chain.spread(heard))
    opinions = [_opinion(chain, witness, body) for witness in witnesses]
    chance = np.prod(opinions, axis=0)
    chance /= chance.sum()
    best, second = (int(place) for place in np.argsort(chance)[::-1][:2])
    names, sure = _names(chain, heard, body, best)
    others, _ = _names(chain, heard, body, second)
    against = [w for w, opinion in zip(witnesses, opinions, strict=True) if opinion[best] * AGAINST < opinion.max()]
    views = [_said(witness, opinion) for witness, opinion in zip(witnesses, opinions, strict=True) if not witness.silent]
    said = f"What each witness alone says of the vertebra read as {names[body] or 'none'}: {'; '.join(views) or 'nothing'}."
    return Numbering(names, float(chance[best] * sure), others, float(chance[second]), kinds, said), against


def _reference(spread: np.ndarray) -> int:
    """The body at which the witnesses are compared: the likeliest one for L1, amid the levels that are measured."""
    return int(spread[:, SPINE.index("L1")].argmax())


def _opinion(chain: Chain, witness: Witness, body: int) -> np.ndarray:
    """(PLACES,) chances of a body's place by one witness alone, no surer than the witness is good."""
    if witness.silent:
        return np.full(PLACES, 1.0 / PLACES)
    unheard = np.maximum(chain.spread(np.ones(witness.emission.shape[1:]))[body], 1e-6)
    views = [chain.spread(view)[body] / unheard for view in witness.emission]
    alone = np.maximum(np.mean([view / max(view.sum(), 1e-300) for view in views], axis=0), OPINION_FLOOR)
    beside = np.convolve(alone, [0.5, 0.0, 0.5], mode="same")
    mixed = (1.0 - witness.error) * alone + witness.error * beside
    return mixed / mixed.sum()


def _names(chain: Chain, heard: np.ndarray, body: int, place: int) -> tuple[tuple[str | None, ...], float]:
    """(names of all bodies when one has its place, how sure the least certain of the measured levels is then)."""
    given = heard.copy()
    given[body, np.arange(PLACES) != place] = 0.0
    places, spread = chain.best(given), chain.spread(given)
    if np.any(np.diff(places) < 1):  # more bodies than a spine has places
        return (None,) * len(places), 0.0
    names = tuple(SPINE[n] if n < len(SPINE) else None for n in places)
    return names, min((float(spread[n, p]) for n, p in enumerate(places) if names[n] in LEVELS), default=1.0)


def _said(witness: Witness, opinion: np.ndarray) -> str:
    likely = [n for n in np.argsort(opinion)[::-1][:2] if opinion[n] >= WORTH_SAYING]
    views = ", ".join(f"{SPINE[n] if n < len(SPINE) else 'L6'} {100 * opinion[n]:.0f} %" for n in likely)
    return f"{witness.name}{f' ({witness.saw})' if witness.saw else ''} {views or 'nothing in particular'}"


def _doubt(bodies: tuple[Body, ...], numbering: Numbering, against: list[Witness]) -> str:
    """Why the names must be confirmed, in words; empty where nothing speaks against them."""
    named = [(body.centre_lps_mm, SPINE.index(name)) for body, name in zip(bodies, numbering.names, strict=True) if name]
    if against:
        return f"{' and '.join(witness.name for witness in against)} speak against it"
    if len(named) > 1 and crowded(*(np.array(part) for part in zip(*named, strict=True))):
        return "two bodies lie so near to each other that one vertebra may have been taken for two"
    return "" if numbering.probability >= CERTAIN else "the evidence is not overwhelming"


def _flags(numbering: Numbering, spine: Spine, doubt: str) -> list[Flag]:
    measured = [n for n, name in enumerate(numbering.names) if name in LEVELS]
    if not measured:
        return []
    name, other = numbering.names[measured[0]], numbering.second[measured[0]]
    percent, rest = (f"{100 * share:.0f} %" for share in (numbering.probability, numbering.second_probability))
    place = tuple(float(c) for c in spine.bodies[measured[0]].centre_lps_mm)
    if not doubt:
        sentence = f"The names of the levels are {percent} probable. {numbering.said}"
        return [Flag(LEVELS_NAMED, Severity.INFO, sentence, name, place)]
    return [Flag(LEVEL_UNCERTAIN, Severity.LIMITED,
                 f"Confirm the level: {doubt}. The vertebra read as {name} ({percent}) could be {other or 'another'} "
                 f"({rest}). {numbering.said}", name, place)]
