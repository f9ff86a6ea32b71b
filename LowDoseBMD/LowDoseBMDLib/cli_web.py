"""Options of the command line for studies of a DICOMweb server."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .files.studies import Study

DEPENDENT = ("since", "until", "study_uids", "store", "ca", "insecure_http")
"""Options that mean nothing without --dicomweb."""


def add_web_options(parser: argparse.ArgumentParser) -> None:
    """Add --dicomweb and what belongs to it. Credentials are no options: they come from the environment."""
    group = parser.add_argument_group("studies of an archive over the network", "Credentials are read from the environment: "
                                      "LOWDOSEBMD_DICOMWEB_USER and _PASSWORD, or LOWDOSEBMD_DICOMWEB_TOKEN.")
    group.add_argument("--dicomweb", metavar="URL", help="measure CT studies of this DICOMweb server")
    group.add_argument("--since", type=_day, metavar="YYYY-MM-DD", help="studies of this day and later")
    group.add_argument("--until", type=_day, metavar="YYYY-MM-DD", help="studies of this day and earlier")
    group.add_argument("--study-uids", type=Path, metavar="FILE", help="these studies: one Study Instance UID a line")
    group.add_argument("--store", action="store_true", help="store segmentation.dcm and report.dcm on the server; without "
                       "this nothing is sent there but questions")
    group.add_argument("--ca", type=Path, metavar="FILE", help="certificates (PEM) that the server's is signed with")
    group.add_argument("--insecure-http", action="store_true", help="allow http:// to another machine, where names and "
                       "images can be read on the way")


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a day such as 2024-01-31") from None


def web_studies(options: argparse.Namespace) -> list[Study]:
    """The studies that the options of add_web_options ask for; none without --dicomweb.

    Raises ValueError when they contradict each other, or the server (WebError) does not answer.
    """
    from .files.dicomweb import Server
    from .files.studies import Study
    from .files.web_series import WebSource, find_web_studies, read_study_uids

    if not options.dicomweb:
        _refuse_alone(options)
        return []
    if options.study_uids and (options.since or options.until):
        raise ValueError("--study-uids names the studies; leave out --since and --until")
    if options.since and options.until and options.since > options.until:
        raise ValueError(f"--since {options.since} lies after --until {options.until}")
    server = Server(options.dicomweb, options.ca, options.insecure_http)
    found = read_study_uids(options.study_uids) if options.study_uids else \
        find_web_studies(server, options.since, options.until)
    return [Study((study.uid,), (), dicom=True, web=WebSource(server, study.uid, options.store)) for study in found]


def _refuse_alone(options: argparse.Namespace) -> None:
    alone = [f"--{name.replace('_', '-')}" for name in DEPENDENT if getattr(options, name)]
    if alone:
        raise ValueError(f"{', '.join(alone)} belongs to --dicomweb URL, which is not given")
