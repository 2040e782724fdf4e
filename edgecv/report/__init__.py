"""The report of a run: the table that people quote, the verdict, and a page that stands alone."""

from edgecv.report.causes import LAYER_COLUMNS, layer_cells
from edgecv.report.page import render_html
from edgecv.report.tables import render_markdown, render_table, table
from edgecv.report.verdicts import best, verdict

__all__ = ["LAYER_COLUMNS", "best", "layer_cells", "render_html", "render_markdown", "render_table", "table", "verdict"]
