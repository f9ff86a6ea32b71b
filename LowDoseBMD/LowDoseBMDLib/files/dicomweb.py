"""A DICOMweb server: how it is reached, and what may come from it. Searching, fetching and storing lie in web_series.

Standard: DICOM PS3.18. The client is dicomweb-client (MIT); what is added here is what a stranger's server must not do:
nothing is sent to another address than the given one, no answer may be endless, and an answer that was cut off is noticed.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..flags import Refusal

if TYPE_CHECKING:
    import requests
    from dicomweb_client import DICOMwebClient

log = logging.getLogger(__name__)

USER, PASSWORD, TOKEN = "LOWDOSEBMD_DICOMWEB_USER", "LOWDOSEBMD_DICOMWEB_PASSWORD", "LOWDOSEBMD_DICOMWEB_TOKEN"
"""The only places that credentials are read from: arguments of a program can be seen by every user of a machine."""

PASSING_STATUS: tuple[int, ...] = (502, 503, 504)
"""HTTP says: the server behind the gateway is down, busy or slow. Worth another try after a pause."""

MAX_TEXT_BYTES = 128 * 2**20
"""Of a list or of headers. 5,000 slices have about 30 MB of headers."""
MAX_SERIES_BYTES = 8 * 2**30
"""Of one series: 5,000 slices of 512 x 512 have 2.6 GB, 4,000 of 1024 x 1024 have 8.4 GB."""
MAX_ANSWER_SECONDS = 1800.0
"""For one answer, however it drips: a series of 3 GB at 2 MB/s takes 25 minutes. A judgement."""

CHUNK_BYTES = 2**20
_CLIENT_LOGGERS = ("dicomweb_client", "urllib3")
"""They write addresses, which hold UIDs, and headers, which hold credentials."""
BROKEN_CONTENT = (ValueError, TypeError, AttributeError, KeyError, IndexError, EOFError, NotImplementedError, OverflowError,
                  RecursionError, SyntaxError, struct.error)
"""What parsers of JSON, XML, multipart and DICOM raise on what is none."""


class WebError(ValueError):
    """A server did not do what was asked; says why and what to do, and names no patient. Another try may go well."""


@dataclass(frozen=True)
class Server:
    """A DICOMweb service, as it is given on the command line; holds no credentials.

    url: its root, under which ``/studies`` lies. ca: certificates (PEM) to trust instead of the usual ones. insecure_http:
    plain http to another machine is wanted. retries and pause_seconds: of a passing fault; each pause is twice the last. A
    connection that breaks, or waits for read_seconds, is tried once more.
    """

    url: str
    ca: Path | None = None
    insecure_http: bool = False
    retries: int = 4
    pause_seconds: float = 1.0
    connect_seconds: float = 10.0
    read_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Raises ValueError when the address cannot be used or would send data in the open."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("The address of a DICOMweb server begins with https:// (or http://), such as "
                             "https://pacs.example.org/dicom-web")
        if "@" in parts.netloc:
            raise ValueError(f"A user or password may not stand in the address: others on this machine could read it. Set "
                             f"{USER} and {PASSWORD} in the environment.")
        if parts.query or parts.fragment:
            raise ValueError("The address of a DICOMweb server has no '?' and no '#'; give its root, under which /studies "
                             "lies.")
        if parts.scheme == "http" and not self.insecure_http and not _is_loopback(parts.hostname):
            raise ValueError(f"http:// to {parts.hostname} would send names and images unencrypted. Use https://, or, in a "
                             "network where that is allowed, add --insecure-http.")
        if self.ca is not None and not self.ca.is_file():
            raise ValueError(f"There are no certificates at {self.ca}; check what was given as --ca.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def asking(server: Server, chunk_bytes: int = CHUNK_BYTES) -> Iterator[DICOMwebClient]:
    """A client for ``server``; whatever goes wrong in talking to it, and in reading its answers, becomes a WebError.

    chunk_bytes: a longer message is sent in pieces, which cannot be sent again. Refusals and faults of a disk pass.
    Raises ValueError when the environment gives half of the credentials.
    """
    client_class = _client_class()
    with _session(server) as session, _explained(urlsplit(server.url).netloc):
        client = client_class(server.url.rstrip("/"), session, callback=_guard, chunk_size=chunk_bytes,
                              timeout=(server.connect_seconds, server.read_seconds))
        client.set_http_retry_params(retry=False)  # would try again after every error, wrong passwords included
        yield client


def _client_class() -> type[DICOMwebClient]:
    try:
        from dicomweb_client import DICOMwebClient
    except ImportError as error:
        raise WebError("The Python package dicomweb-client is missing; install it with: python -m pip install "
                       "'lowdosebmd[dicomweb]'") from error
    for name in _CLIENT_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return DICOMwebClient


def _session(server: Server) -> requests.Session:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    session = requests.Session()
    session.trust_env = False  # no proxy, .netrc or certificates but those that were given
    session.verify = str(server.ca) if server.ca else True
    session.max_redirects = 0
    session.auth = _signer()
    session.headers["Accept"] = "application/dicom+json"
    retry = Retry(total=server.retries, connect=server.retries, status=server.retries, read=1, other=0, redirect=0,
                  status_forcelist=PASSING_STATUS, allowed_methods={"GET", "POST"}, backoff_factor=server.pause_seconds,
                  respect_retry_after_header=False, raise_on_status=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _signer() -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Puts the credentials of the environment into each request, and takes out the client's Host, which lacks the port."""
    authorization = _authorization(os.environ)

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.pop("Host", None)
        if authorization:
            request.headers["Authorization"] = authorization
        return request

    return sign


def _authorization(environment: Any) -> str | None:
    user, password, token = (environment.get(name) for name in (USER, PASSWORD, TOKEN))
    if token and (user or password):
        raise ValueError(f"Set either {TOKEN}, or {USER} and {PASSWORD}, not both.")
    if bool(user) != bool(password):
        raise ValueError(f"Of {USER} and {PASSWORD} only one is set; set both, or neither.")
    if token:
        return f"Bearer {token}"
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii") if user else None


def _guard(response: requests.Response, **_options: Any) -> None:
    """Called for each answer before its content is read: bound that content, and let its kind be recognised."""
    kind, _, parameters = response.headers.get("Content-Type", "").partition(";")
    kind = kind.strip().lower()
    if kind in ("application/dicom+json", "application/json", "application/dicom+xml", "application/xml"):
        response.headers["Content-Type"] = kind  # the client compares the whole header with these words
    large = kind in ("multipart/related", "application/dicom")
    end = _closing_delimiter(parameters) if kind == "multipart/related" else b""
    read = response.iter_content
    response.iter_content = lambda chunk_size=CHUNK_BYTES, decode_unicode=False: _bounded(
        read(min(chunk_size or CHUNK_BYTES, CHUNK_BYTES)), MAX_SERIES_BYTES if large else MAX_TEXT_BYTES, end)


def _closing_delimiter(parameters: str) -> bytes:
    """What a whole multipart message ends with (RFC 2046, 5.1.1); empty when no boundary is named."""
    for entry in parameters.split(";"):
        name, _, value = entry.strip().partition("=")
        if name.lower() == "boundary":
            return b"--" + value.strip('"').encode() + b"--"
    return b""


def _bounded(chunks: Iterator[bytes], limit_bytes: int, end: bytes) -> Iterator[bytes]:
    """The same chunks. Raises WebError when they go on for too long, or stop before ``end``.

    A server that closes the connection to mark the end, as Orthanc does, looks the same when it dies.
    """
    total, tail, started = 0, b"", time.monotonic()
    for chunk in chunks:
        total += len(chunk)
        if total > limit_bytes:
            raise WebError(f"The server's answer is longer than {limit_bytes / 2**20:.0f} MiB, which no CT series or list "
                           "needs; it was not read further. Check the address and the server.")
        if time.monotonic() - started > MAX_ANSWER_SECONDS:
            raise WebError(f"The server's answer took longer than {MAX_ANSWER_SECONDS / 60:.0f} minutes and was given up. "
                           "Try again when the network is less busy.")
        tail = (tail + chunk[-2 * len(end) - 2:])[-2 * len(end) - 8:] if end else b""
        yield chunk
    if end and end not in tail:
        raise WebError("The server's answer broke off before its end. Try again; nothing of it was used.")


@contextmanager
def _explained(where: str) -> Iterator[None]:
    """Errors of the client, and of the parsers that it uses, in plain words. where: the server's host and port."""
    import requests
    from pydicom.errors import InvalidDicomError
    from urllib3.exceptions import ReadTimeoutError

    try:
        yield
    except (WebError, Refusal):
        raise
    except requests.exceptions.HTTPError as error:
        raise WebError(_of_status(error.response.status_code, where)) from error
    except requests.exceptions.SSLError as error:
        raise WebError(f"The certificate of {where} could not be verified. If the hospital signs its own, give its "
                       "certificates with --ca FILE.") from error
    except requests.exceptions.TooManyRedirects as error:
        raise WebError(f"{where} points to another address, which is not followed. Give the final address.") from error
    except (requests.exceptions.ReadTimeout, requests.exceptions.ConnectTimeout) as error:
        raise WebError(_too_slow(where)) from error
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise WebError("The server's answer broke off before its end. Try again; nothing of it was used.") from error
    except requests.exceptions.ConnectionError as error:
        if isinstance(getattr(error.args[0] if error.args else None, "reason", None), ReadTimeoutError):
            raise WebError(_too_slow(where)) from error
        raise WebError(f"{where} cannot be reached, or closed the connection. Check the address and that the server runs, "
                       "and try again.") from error
    except requests.exceptions.JSONDecodeError as error:
        raise WebError(_garbage(where)) from error
    except requests.exceptions.RequestException as error:
        raise WebError(f"The request to {where} failed ({type(error).__name__}).") from error
    except (*BROKEN_CONTENT, InvalidDicomError) as error:
        log.debug("an answer could not be read: %s", type(error).__name__)
        raise WebError(_garbage(where)) from error


def _too_slow(where: str) -> str:
    return f"{where} did not answer in time. Try again later."


def _garbage(where: str) -> str:
    return (f"{where} answered with something that is not DICOMweb. Check that the address is the root of its DICOMweb "
            "service (often ending in /dicom-web) and that no log-in page stands before it.")


def _of_status(status: int, where: str) -> str:
    if status in (401, 403):
        return (f"{where} refuses the log-in (HTTP {status}). Check {USER} and {PASSWORD}, or {TOKEN}, in the environment, "
                "and what this user may do.")
    if status == 404:
        return (f"{where} does not have what was asked for (HTTP 404). Check the address of the DICOMweb service, and "
                "whether the study is still there.")
    if status in (429, *PASSING_STATUS):
        return f"{where} is too busy or down (HTTP {status}), also after pauses. Try again later."
    if status >= 500:
        return f"{where} has a fault of its own (HTTP {status}). Try again later, or ask its administrator."
    return f"{where} refuses the request (HTTP {status}). It may not support DICOMweb as it is asked here."
