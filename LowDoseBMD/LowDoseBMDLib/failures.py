"""What went wrong, in one plain sentence with the way out, for a person who did not write the program."""

from __future__ import annotations

import errno
import re

from .bundle import BundleError
from .flags import Refusal

_FULL = {errno.ENOSPC, errno.EFBIG, *(getattr(errno, name) for name in ("EDQUOT",) if hasattr(errno, name))}
_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""What numpy says, with no error number, when the disk did not take all of an array."""
_NO_MEMORY = re.compile(r"bad.?alloc|out of memory|not enough memory|cannot allocate memory|failed to allocate|"
                        r"unable to allocate|failed to map segment|memory allocation still failed", re.IGNORECASE)


def explain(error: BaseException) -> str:
    """One or two sentences: what happened and what to do."""
    if is_memory(error):
        return ("There is not enough memory for this CT. Close other programs and volumes, or crop the CT to the spine "
                "from T10 to L3, and measure again.")
    if isinstance(error, BundleError):
        return f"A model cannot be used: {error}. Reinstall LowDoseBMD, or choose another folder of models."
    if isinstance(error, ImportError) and error.name:
        package = error.name.partition(".")[0]
        return (f"The Python package '{package}' is missing or damaged. Allow its installation when you are asked, or "
                f"install it with: PythonSlicer -m pip install {package}")
    if isinstance(error, OSError):
        return _of_files(error)
    if isinstance(error, ValueError):  # ours name the value and the way out
        return str(error)
    return f"{error or type(error).__name__}. Please report this with the log."


def refusal_of(error: Exception) -> Refusal:
    """What a stage that failed on a scan refuses it with (code ``internal``); a refusal is passed on."""
    if isinstance(error, Refusal):
        return error
    return Refusal("internal", f"A stage failed on this scan ({type(error).__name__}: {error}). No number is given. "
                               "Please report it with this text; drawing the regions by hand may still work.")


def is_memory(error: BaseException) -> bool:
    """Memory ran out, in Python, in the network's engine, or while a library was loaded."""
    speaks_of_it = isinstance(error, (RuntimeError, ImportError, OSError)) and says_memory(str(error))
    return isinstance(error, MemoryError) or speaks_of_it


def says_memory(text: str) -> bool:
    """Whether a library's words say that memory ran out."""
    return bool(_NO_MEMORY.search(text))


def is_full_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and (error.errno in _FULL or bool(_SHORT_WRITE.search(str(error))))


def _of_files(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if is_full_disk(error):
        return f"The disk is full{where}. Free some space there, or choose another folder, and try again."
    if isinstance(error, FileNotFoundError):
        return f"A file is missing{where}. Was it moved or removed meanwhile? Try again."
    if isinstance(error, PermissionError):
        return f"A file cannot be read or written{where}. Close the program that has it open, or choose another folder."
    return f"A file cannot be used{where}: {error.strerror or error}. Check the disk and try again."
