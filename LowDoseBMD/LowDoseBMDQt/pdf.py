"""A report on paper: the library's page for print, drawn by Qt as vectors into a PDF."""

from __future__ import annotations

from pathlib import Path

import qt

PDF_FILE = "report.pdf"
DOTS_PER_INCH = 96
"""The page's lengths are pixels of this size; text stays sharp, as it is drawn as vectors."""


def writePdf(page: Path, out: Path) -> None:
    """Draw an HTML page to an A4 PDF. Raises OSError when the PDF cannot be written."""
    document = qt.QTextDocument()
    document.setHtml(page.read_text(encoding="utf-8"))
    aside = out.with_name(f".{out.name}")
    writer = qt.QPdfWriter(str(aside))
    writer.setPageSize(qt.QPageSize(qt.QPageSize.A4))
    writer.setPageMargins(qt.QMarginsF(0, 0, 0, 0))  # the document's own margins of 2 cm, with the page's number, remain
    writer.setResolution(DOTS_PER_INCH)
    document.print(writer)
    del writer
    if not aside.is_file() or aside.stat().st_size == 0:
        raise OSError(f"the PDF could not be written to {out.parent}")
    aside.replace(out)
