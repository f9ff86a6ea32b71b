"""The chain of vertebrae: which names neighbouring bodies can have, by the distances between them.

Body networks miss a body here and there, or join two. How many vertebrae lie between two bodies that were found follows
from their distance and from the usual distances of an adult spine, scaled to the person. What a witness says of one body is
so carried along the chain to the others, with less certainty across a distance that does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .anatomy import SPINE

UNNAMED = 2
"""Places below L5: a sixth lumbar vertebra, and what the body network may draw of the sacrum."""

PLACES = len(SPINE) + UNNAMED

STEP_MM = np.array([
    18.0, 18.0, 17.0, 17.0, 17.5, 18.0, 18.5,
    19.0, 19.5, 20.0, 20.5, 21.0, 22.0, 22.5, 23.0, 24.0, 26.0, 28.0, 30.5,
    32.0, 34.0, 35.0, 35.0, 34.0, 33.0,
])
"""From each place's centre to the next one's, C1 first, adults: body heights of Panjabi et al. (Spine 1991; 16: 861 and
1992; 17: 299), and discs of 4 mm in the upper thoracic spine to 11 mm at L4-L5 (judgement)."""

DOWN_MM = np.concatenate([[0.0], np.cumsum(STEP_MM)])
"""(PLACES,) from C1's centre down to each place's, along the spine."""

STEP_SPREADS = (0.12, 0.2, 0.2, 0.2)
"""Standard deviation of the logarithm of a distance to the next vertebra that was found, the one after it, and so on: 12 %,
by wedging, narrow discs and cut bodies; more where two bodies were taken for one, whose centre lies between (judgement)."""

SIZES = np.exp(np.linspace(-0.3, 0.3, 13))
SIZE_SPREAD = 0.12
"""Sizes of people that are tried, 0.74 to 1.35, and how much adults spread about 1 (judgement)."""

STEP_CHANCES = (0.93, 0.05, 0.015, 0.005)
"""How often the next body that was found is the next vertebra, the one after it, and so on (judgement: bodies are rarely
missed but in the upper chest)."""

CROWDED, CROWDED_FROM = 0.72, SPINE.index("T8")
"""Bodies from T8 down that lie nearer to each other than this part of what the scan's others let expect: one vertebra may
have been drawn as two. Of 50 synthetic scans, seeds 300 to 349, two had wrong names by that, with 0.58 and 0.68; the
nearest of those named right and surely, these and 104 real ones with their cuts, had 0.74."""


@dataclass(frozen=True, eq=False)
class Chain:
    """Bodies from head to foot as a Markov chain over the places of the spine.

    prior: (sizes,). steps: (sizes, bodies - 1, PLACES, PLACES), how well a pair of places fits two neighbours.
    """

    prior: np.ndarray
    steps: np.ndarray

    def spread(self, emission: np.ndarray) -> np.ndarray:
        """(bodies, PLACES) chances of each body's place, rows add up to 1, from what is known of the bodies alone.

        emission: (bodies, PLACES) likelihood of what a witness saw of each body at each place; ones where it saw nothing.
        """
        down, up = self._passed(emission, self.steps), self._passed(emission[::-1], np.swapaxes(self.steps[:, ::-1], 2, 3))
        both = (self.prior[:, None, None] * down * emission * up[:, ::-1]).sum(axis=0)
        return both / np.maximum(both.sum(axis=1, keepdims=True), 1e-300)

    def _passed(self, emission: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """(sizes, bodies, PLACES) what comes to each body from those before it."""
        message = np.ones((len(self.prior), PLACES)) / PLACES
        messages = [message]
        for seen, step in zip(emission[:-1], np.moveaxis(steps, 1, 0), strict=True):
            message = np.einsum("sa,sab->sb", message * seen, step)
            messages.append(message)
        return np.stack(messages, axis=1)

    def best(self, emission: np.ndarray) -> np.ndarray:
        """(bodies,) places of the likeliest chain as a whole."""
        found = [self._best_of(emission, steps) for steps in self.steps]
        return max(zip(found, np.log(self.prior), strict=True), key=lambda one: one[0][0] + one[1])[0][1]

    @staticmethod
    def _best_of(emission: np.ndarray, steps: np.ndarray) -> tuple[float, np.ndarray]:
        seen = np.log(np.maximum(emission, 1e-300))
        score, origins = seen[0], []
        for here, step in zip(seen[1:], np.log(np.maximum(steps, 1e-300)), strict=True):
            onward = score[:, None] + step
            origins.append(onward.argmax(axis=0))
            score = onward.max(axis=0) + here
        places = [int(score.argmax())]
        for origin in reversed(origins):
            places.append(int(origin[places[-1]]))
        return float(score.max()), np.array(places[::-1])


def chain_of(centres_lps_mm: np.ndarray) -> Chain:
    """The chain of bodies with these centres, (bodies, 3), head to foot."""
    distances = np.linalg.norm(np.diff(centres_lps_mm, axis=0), axis=1)
    between = DOWN_MM[None, :] - DOWN_MM[:, None]
    apart = np.arange(PLACES)[None, :] - np.arange(PLACES)[:, None]
    weight, spread = np.zeros((PLACES, PLACES)), np.ones((PLACES, PLACES))
    for count, (chance, width) in enumerate(zip(STEP_CHANCES, STEP_SPREADS, strict=True), start=1):
        weight[apart == count], spread[apart == count] = chance / width, width
    expected = np.log(SIZES[:, None, None] * np.maximum(between, 1.0))
    off = (np.log(np.maximum(distances, 1.0))[None, :, None, None] - expected[:, None]) / spread
    fit = weight * np.exp(-0.5 * np.minimum(off**2, 50.0))
    prior = np.exp(-0.5 * (np.log(SIZES) / SIZE_SPREAD) ** 2)
    return Chain(prior / prior.sum(), fit)


def crowded(centres_lps_mm: np.ndarray, places: np.ndarray) -> bool:
    """Whether two bodies lie too near to each other for the places that they were given.

    The first and last one do not count: what the scan cuts off has its centre nearer to its neighbour. centres_lps_mm:
    (bodies, 3). places: (bodies,) of the spine, each once, head to foot.
    """
    steps = np.linalg.norm(np.diff(centres_lps_mm, axis=0), axis=1) / np.maximum(np.diff(DOWN_MM[places]), 1.0)
    inner = steps[1:-1][places[1:-2] >= CROWDED_FROM]
    return bool(inner.size and inner.min() < CROWDED * np.median(steps))
