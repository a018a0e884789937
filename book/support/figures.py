"""How plots and drawings get into a notebook: as SVG that suits light and dark pages.

What is drawn stands in the chapters (plots) and in _tools/drawings.py (drawings).
"""

import io
from pathlib import Path

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import SVG, display
from matplotlib.figure import Figure

DRAWINGS = Path(__file__).resolve().parent.parent / "_static" / "drawings"

# Okabe and Ito's palette: told apart by colour-blind readers, in the order of use.
BLUE, ORANGE, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
GREY, INK = "#6b6b6b", "#1b2733"  # text and axes are drawn in ink

# What each colour becomes on a dark page.
ON_DARK = {
    BLUE: "#56b4e9",
    ORANGE: "#f0883e",
    GREEN: "#2fc79a",
    PINK: "#e39cc4",
    GREY: "#9aa4ae",
    INK: "#e1e7ed",
}

# A picture is light or dark as the page is that it stands in. A browser that does not
# know light-dark() shows the colours of a light page.
STYLE = "".join(
    f'[style*="{what}: {light}"] {{ {what}: light-dark({light}, {dark}) !important }}\n'
    for light, dark in ON_DARK.items()
    for what in ("fill", "stroke")
)
ROOT = "svg:root { color-scheme: light dark }\n"  # of a picture that stands alone


def as_svg(figure: Figure) -> str:
    """Return a figure as SVG: transparent, with real text, the same bytes each time."""
    file = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": "book"}
    with plt.rc_context(settings):
        figure.savefig(
            file,
            format="svg",
            dpi=144,  # of what is no line: twice that of the rest
            bbox_inches="tight",
            facecolor="none",
            metadata={"Date": None, "Creator": None},
        )
    text = file.getvalue()
    return text[text.index("<svg") :].replace(
        "<defs>", f"<style>\n{ROOT}{STYLE}</style>\n<defs>", 1
    )


def show_figures_as_svg() -> None:
    """Let notebooks show each figure as SVG; outside of a notebook, do nothing."""
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    set_matplotlib_formats("svg")
    shell.display_formatter.formatters["image/svg+xml"].for_type(Figure, as_svg)


def show_drawing(name: str) -> None:
    """Show a drawing of _static/drawings; raises FileNotFoundError if there is none."""
    display(SVG(filename=DRAWINGS / f"{name}.svg"))
