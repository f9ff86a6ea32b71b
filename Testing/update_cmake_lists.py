"""Writes the lists of scripts and resources in the modules' CMakeLists.txt from what lies on the disk.

Run it after adding, renaming or removing a file of a module::

    python Testing/update_cmake_lists.py
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("LowDoseBMD", "LowDoseBMDTrainer")
SCRIPTS, RESOURCES = "MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"

NEVER_LISTED = {"CMakeLists.txt", ".gitignore"}


def checkout_files(root: Path) -> list[Path]:
    """Files of a checkout, tracked or new but not ignored by git, relative to ``root``, sorted.

    Raises subprocess.CalledProcessError when ``root`` is not in a git checkout.
    """
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, check=True, capture_output=True).stdout.decode()
    return sorted({Path(name) for name in listed.split("\0") if name and (root / name).is_file()})


def wanted_lists(module: Path) -> dict[str, list[str]]:
    """What the lists of a module should hold: paths relative to the module's folder, with slashes, sorted."""
    names = sorted(path.as_posix() for path in checkout_files(module) if path.name not in NEVER_LISTED)
    scripts = [name for name in names if name.endswith(".py")]
    return {SCRIPTS: scripts, RESOURCES: [name for name in names if not name.endswith(".py")]}


def read_lists(text: str) -> dict[str, list[str]]:
    """What the two lists in the text of a CMakeLists.txt hold."""
    return {name: _pattern(name).search(text).group("files").split() for name in (SCRIPTS, RESOURCES)}


def write_lists(text: str, lists: dict[str, list[str]]) -> str:
    """The text of a CMakeLists.txt with its lists replaced."""
    for name, files in lists.items():
        body = "".join(f"  {file}\n" for file in files)
        text = _pattern(name).sub(lambda found, body=body: f"{found['start']}\n{body}  )", text)
    return text


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<start>set\({name}\b)(?P<files>[^)]*)\)")


def main() -> None:
    """Rewrite the lists of every module; says which files changed."""
    for module in MODULES:
        path = ROOT / module / "CMakeLists.txt"
        old = path.read_text(encoding="utf-8")
        new = write_lists(old, wanted_lists(path.parent))
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"updated {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
