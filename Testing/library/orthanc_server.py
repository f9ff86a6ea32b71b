"""A real Orthanc with its DICOMweb plugin, started by a test on a free port of this machine and removed after it."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

USER, PASSWORD = "radiology", "correct-horse"
PLUGINS = (Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
           Path("/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so"))
STARTS_IN_SECONDS = 30.0


@dataclass(frozen=True)
class Orthanc:
    """A running server. ask: its own REST interface, which is not the one under test."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    def ask(self, path: str) -> Any:
        return json.loads(self.file(path))

    def file(self, path: str) -> bytes:
        return self._call("GET", path)

    def remove(self, path: str) -> None:
        self._call("DELETE", path)

    def _call(self, method: str, path: str) -> bytes:
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method,
                                         headers={"Authorization": f"Basic {login}"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return answer.read()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_orthanc() -> Iterator[Orthanc]:
    """Skips the test where Orthanc or its plugin is not installed."""
    plugin = next((path for path in PLUGINS if path.exists()), None)
    if shutil.which("Orthanc") is None or plugin is None:
        pytest.skip("no Orthanc here: on Debian, apt-get install orthanc orthanc-dicomweb")
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        settings = {
            "Name": "test", "StorageDirectory": f"{folder}/storage", "IndexDirectory": f"{folder}/storage",
            "Plugins": [str(plugin)], "HttpPort": port, "DicomServerEnabled": False, "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD}, "SaveJobs": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False}}
        (Path(folder) / "orthanc.json").write_text(json.dumps(settings))
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(["Orthanc", f"{folder}/orthanc.json"], stdout=log, stderr=log)
        try:
            server = Orthanc(port, process)
            _wait(server, Path(folder) / "log")
            yield server
        finally:
            process.kill()
            process.wait()


def _wait(server: Orthanc, log: Path) -> None:
    ends = time.monotonic() + STARTS_IN_SECONDS
    while time.monotonic() < ends and server.process.poll() is None:
        try:
            server.ask("/system")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError(f"Orthanc did not start: {log.read_text(errors='replace')[-1000:]}")
