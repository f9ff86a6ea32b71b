"""Cohorts drawn at random, as numbers without images: to try the statistics and the calibrations on a known truth.

synthetic_cohort draws people, their scanner and their tissues, and measures them as this program does: what comes out
of a calibration is its own doing. paper_cohort draws the published result itself (Zhao 2024, Table 1 and Figures
2-5), to see whether the same statistics come out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from .calibration import Calibration, TwoPointCalibration
from .cohort import Cohort
from .reference import AGE_RANGE_YEARS, SD_MG_CM3, reference_curve

PAPER_COUNT = 1406
TRAINING_SHARE = 0.7
"""The paper's 7:3; rounded up, as 985 of 1406 is."""

WOMEN_SHARE = 517 / 1406

AGE_LIMITS_YEARS = (40.0, 94.0)
AGE_MODE_YEARS, AGE_SPREAD_YEARS = 53.5, 12.5
"""Of the normal distribution that, cut to the limits, has the published 57 +- 10 years."""

COHORT_SHIFT_MG_CM3 = -5.0
SD_SCALE = 0.91
"""The published cohort against the reference by age: tuned by this project, together with the ages, to its
125.6 +- 34.4 mg/cm3 and 8.4 % (118 of 1406) below 80."""

VBMD_LIMITS_MG_CM3 = (15.0, 300.0)
"""A density drawn outside is drawn again."""

HEIGHT_CM = {"F": (157.2, 5.8), "M": (167.7, 6.2)}
BMI_KG_M2 = {"F": (22.6, 2.5), "M": (24.5, 2.5)}
"""Mean and SD by sex: chosen by this project to give the published 163.8 +- 7.9 cm, 23.8 +- 2.7 kg/m2 and
64.3 +- 10.9 kg of both sexes together; the paper does not part them."""

HEIGHT_WITH_BMI = 0.1
"""Their correlation within a sex; without it the spread of weight stays below the published one."""

MUSCLE_HU_AT_57_YEARS = 54.0
FAT_HU = -105.0


@dataclass(frozen=True)
class Scatter:
    """What moves the HU of people away from their line. *_sd_hu: between people of one age and density, and noise.

    The defaults are the literature's, with muscle and bone independent. osteophyte_hu: how much the largest spurs
    raise the spine's HU inside the eroded region (severity grows with age); muscle_with_bone: correlation of muscle
    HU with vBMD at one age; reference_sd_mg_cm3: error of the QCT itself.
    """

    spine_sd_hu: float = 4.0
    muscle_sd_hu: float = 5.5
    fat_sd_hu: float = 4.0
    muscle_hu_per_year: float = -0.25
    muscle_with_bone: float = 0.0
    osteophyte_hu: float = 0.0
    reference_sd_mg_cm3: float = 0.0

    def __post_init__(self) -> None:
        for name in ("spine_sd_hu", "muscle_sd_hu", "fat_sd_hu", "osteophyte_hu", "reference_sd_mg_cm3"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not -1 <= self.muscle_with_bone <= 1:
            raise ValueError(f"muscle_with_bone is {self.muscle_with_bone}; a correlation lies between -1 and 1")


@dataclass(frozen=True)
class Scanner:
    """A CT: vBMD = slope * HU + intercept where its offset is 0; offset_hu is added to bone, muscle and fat alike.

    The default line is a Mindways-style one at 120 kVp. Raises ValueError when the slope is not above 0.
    """

    name: str = "synthetic CT"
    kvp: float = 120.0
    slope_mg_cm3_per_hu: float = 0.80
    intercept_mg_cm3: float = 8.0
    offset_hu: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.slope_mg_cm3_per_hu < math.inf:
            raise ValueError(f"slope_mg_cm3_per_hu is {self.slope_mg_cm3_per_hu}; it must be above 0")


PAPER_SCATTER = Scatter(muscle_with_bone=0.3, osteophyte_hu=30.0)
PAPER_SCANNER = Scanner(slope_mg_cm3_per_hu=0.87, intercept_mg_cm3=1.5)
"""With these two and the literature's constants the two-point line comes near the paper's result: r 0.95, SD 28, six in
ten of those below 80 found. That the paper's scans were so is this project's guess, not a finding."""

KINDS: dict[str, tuple[Scatter, Scanner]] = {"literature": (Scatter(), Scanner()),
                                             "paper-like": (PAPER_SCATTER, PAPER_SCANNER)}
"""The cohorts that have names."""


@dataclass(frozen=True)
class _Published:
    """One set of the paper: vBMD by QCT and by the model (mean, SD), their correlation, and who was in it.

    The SD of the model and the correlation are not printed; they follow from the printed limits of agreement and ICC.
    """

    split: str
    men: int
    women: int
    reference_mg_cm3: tuple[float, float]
    measured_mg_cm3: tuple[float, float]
    correlation: float


PUBLISHED = (_Published("training", 624, 361, (125.6, 34.4), (124.2, 29.5), 0.958),
             _Published("test", 265, 156, (125.2, 33.9), (124.0, 28.6), 0.959))


def synthetic_cohort(count: int = PAPER_COUNT, seed: int = 1, scatter: Scatter = Scatter(),
                     scanners: Sequence[Scanner] = (Scanner(),),
                     calibration: Calibration = TwoPointCalibration()) -> Cohort:
    """People like the paper's, each on one of the scanners, measured with the calibration; 7:3 training and test.

    A person keeps age, sex, size and vBMD, whatever the scatter, scanners and calibration. HU and densities are
    rounded to 0.01. Raises ValueError for a count below 2, a negative seed or no scanner.
    """
    if count < 2:
        raise ValueError(f"a cohort of {count} cannot be parted into training and test; give a count of 2 or more")
    if not scanners:
        raise ValueError("a cohort needs a scanner; give one or more")
    people = _draw_people(count, seed)
    return _measured(people, seed, scatter, scanners, calibration)


def paper_cohort(seed: int = 1) -> Cohort:
    """985 and 421 people of the paper's sexes, with densities drawn from its printed parameters; HU are unknown.

    vBMD does not follow age and sex here: only its published mean, SD and agreement do. Raises ValueError for a
    negative seed.
    """
    sexes = np.concatenate([_shuffled(["M"] * part.men + ["F"] * part.women, _stream(seed, f"sex {part.split}"))
                            for part in PUBLISHED])
    pairs = np.concatenate([_draw_pairs(part, _stream(seed, f"densities {part.split}")) for part in PUBLISHED])
    splits = np.repeat([part.split for part in PUBLISHED], [part.men + part.women for part in PUBLISHED])
    age = _draw_age(len(sexes), _stream(seed, "age"))
    height, weight = _draw_size(sexes, _stream(seed, "size"))
    return Cohort.of(id=_names("paper-like", len(sexes)), split=splits, age_years=age, sex=sexes, height_cm=height,
                     weight_kg=weight, reference_mg_cm3=pairs[:, 0].round(2), measured_mg_cm3=pairs[:, 1].round(2),
                     kvp=np.full(len(sexes), 120.0), synthetic=np.ones(len(sexes), bool))


def _draw_people(count: int, seed: int) -> Cohort:
    """Everything that is true of the people before any scan; their true vBMD stands as the reference."""
    training = math.ceil(TRAINING_SHARE * count - 1e-9)
    split = _shuffled(["training"] * training + ["test"] * (count - training), _stream(seed, "split"))
    sex = np.where(_stream(seed, "sex").random(count) < WOMEN_SHARE, "F", "M")
    age = _draw_age(count, _stream(seed, "age"))
    height, weight = _draw_size(sex, _stream(seed, "size"))
    vbmd = usual_vbmd(age, sex) + _within_sd(sex) * _within_limits(count, age, sex, _stream(seed, "vbmd"))
    return Cohort.of(id=_names("synthetic", count), split=split, age_years=age, sex=sex, height_cm=height,
                     weight_kg=weight, reference_mg_cm3=vbmd.round(2), synthetic=np.ones(count, bool))


def usual_vbmd(age_years: np.ndarray, sex: np.ndarray) -> np.ndarray:
    """(N,) mean vBMD in mg/cm3 of the synthetic cohort at (N,) ages and sexes; as at 80 years in the older."""
    ages = np.clip(age_years, *AGE_RANGE_YEARS)
    return COHORT_SHIFT_MG_CM3 + np.where(sex == "F", reference_curve("F", ages), reference_curve("M", ages))


def _within_sd(sex: np.ndarray) -> np.ndarray:
    return SD_SCALE * np.where(sex == "F", SD_MG_CM3["F"], SD_MG_CM3["M"])


def _within_limits(count: int, age: np.ndarray, sex: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) standard normal, cut where vBMD would leave VBMD_LIMITS_MG_CM3."""
    low, high = ((limit - usual_vbmd(age, sex)) / _within_sd(sex) for limit in VBMD_LIMITS_MG_CM3)
    return stats.truncnorm.rvs(low, high, size=count, random_state=rng)


def _draw_age(count: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) whole years."""
    low, high = ((limit - AGE_MODE_YEARS) / AGE_SPREAD_YEARS for limit in AGE_LIMITS_YEARS)
    return stats.truncnorm.rvs(low, high, AGE_MODE_YEARS, AGE_SPREAD_YEARS, size=count, random_state=rng).round()


def _draw_size(sex: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(N,) height in cm and (N,) weight in kg."""
    tall, free = rng.standard_normal((2, len(sex))).clip(-3.5, 3.5)
    heavy = HEIGHT_WITH_BMI * tall + math.sqrt(1 - HEIGHT_WITH_BMI**2) * free
    height = _of_sex(HEIGHT_CM, sex, tall)
    weight = _of_sex(BMI_KG_M2, sex, heavy) * (height / 100) ** 2
    return height.round(1), weight.round(1)


def _of_sex(margins: dict[str, tuple[float, float]], sex: np.ndarray, score: np.ndarray) -> np.ndarray:
    (women, women_sd), (men, men_sd) = margins["F"], margins["M"]
    return np.where(sex == "F", women + women_sd * score, men + men_sd * score)


def _measured(people: Cohort, seed: int, scatter: Scatter, scanners: Sequence[Scanner],
              calibration: Calibration) -> Cohort:
    count, truth = len(people), people.reference_mg_cm3
    which = _stream(seed, "scanner").integers(len(scanners), size=count)
    slope, intercept, offset, kvp = (np.array([getattr(scanner, name) for scanner in scanners])[which]
                                     for name in ("slope_mg_cm3_per_hu", "intercept_mg_cm3", "offset_hu", "kvp"))
    spine = (truth - intercept) / slope + offset + _spine_scatter(people, seed, scatter)
    muscle = (MUSCLE_HU_AT_57_YEARS + scatter.muscle_hu_per_year * (people.age_years - 57) + offset
              + _muscle_scatter(people, seed, scatter))
    fat = FAT_HU + offset + scatter.fat_sd_hu * _stream(seed, "fat").standard_normal(count)
    spine, muscle, fat = spine.round(2), muscle.round(2), fat.round(2)
    error = scatter.reference_sd_mg_cm3 * _stream(seed, "reference").standard_normal(count)
    return replace(people, reference_mg_cm3=(truth + error).round(2),
                   measured_mg_cm3=np.round(calibration.vbmd(spine, muscle, fat), 2), spine_hu=spine, muscle_hu=muscle,
                   fat_hu=fat, kvp=kvp, scanner=np.array([scanner.name for scanner in scanners])[which])


def _spine_scatter(people: Cohort, seed: int, scatter: Scatter) -> np.ndarray:
    """(N,) HU: noise, and spurs that raise the reading."""
    noise = scatter.spine_sd_hu * _stream(seed, "spine").standard_normal(len(people))
    return noise + scatter.osteophyte_hu * osteophyte_severity(people.age_years, seed)


def osteophyte_severity(age_years: np.ndarray, seed: int) -> np.ndarray:
    """(N,) 0..1 of the people of a cohort with these ages and this seed: more and larger with age, as in the phantom."""
    return _stream(seed, "osteophytes").beta(1.2, 3, len(age_years)) * np.clip((age_years - 30) / 40, 0, 1)


def _muscle_scatter(people: Cohort, seed: int, scatter: Scatter) -> np.ndarray:
    """(N,) HU, of which muscle_with_bone goes with how dense the bone is for age and sex."""
    bone = (people.reference_mg_cm3 - usual_vbmd(people.age_years, people.sex)) / _within_sd(people.sex)
    own = _stream(seed, "muscle").standard_normal(len(people))
    shared = scatter.muscle_with_bone
    return scatter.muscle_sd_hu * (shared * bone + math.sqrt(1 - shared**2) * own)


def _draw_pairs(part: _Published, rng: np.random.Generator) -> np.ndarray:
    """(N, 2) vBMD by QCT and by the model, bivariate normal; a pair outside VBMD_LIMITS_MG_CM3 is drawn again."""
    (reference, reference_sd), (measured, measured_sd) = part.reference_mg_cm3, part.measured_mg_cm3
    shared = part.correlation * reference_sd * measured_sd
    low, high = VBMD_LIMITS_MG_CM3
    count = part.men + part.women
    drawn = rng.multivariate_normal((reference, measured), [[reference_sd**2, shared], [shared, measured_sd**2]],
                                    size=2 * count)
    return drawn[np.all((drawn > low) & (drawn < high), axis=1)][:count]


def _names(prefix: str, count: int) -> list[str]:
    digits = max(4, len(str(count)))
    return [f"{prefix}-{number:0{digits}d}" for number in range(1, count + 1)]


def _shuffled(values: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(np.array(values))


def _stream(seed: int, purpose: str) -> np.random.Generator:
    """A generator of its own for each purpose, so that one part's draws never move another's."""
    if seed < 0:
        raise ValueError(f"the seed is {seed}; give a whole number from 0 on")
    return np.random.default_rng([seed, *purpose.encode()])
