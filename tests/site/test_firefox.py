"""One look at the built site in Firefox: a page is drawn there, light and dark."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def firefox():
    """The path of Debian's Firefox, or of another."""
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    if path is None:
        reason = "Firefox is missing: sudo apt install firefox-esr"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return path


def colours(picture):
    """The colours of a picture, each with the number of its pixels."""
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    return {f"#{r:02x}{g:02x}{b:02x}": n for (r, g, b), n in zip(found, counts)}


@pytest.mark.parametrize(
    "scheme", [pytest.param("light", marks=pytest.mark.slow), "dark"]
)
def test_chapter_is_drawn_in_firefox(firefox, address, tmp_path, scheme):
    profile = tmp_path / "profile"
    profile.mkdir()
    dark = int(scheme == "dark")
    (profile / "user.js").write_text(f'user_pref("ui.systemUsesDarkTheme", {dark});\n')
    picture = tmp_path / "page.png"
    command = [firefox, "--headless", "--no-remote", "--profile", str(profile)]
    command += ["--window-size=1280,3500", f"--screenshot={picture}"]
    subprocess.run(
        [*command, f"{address}/book/02_neural_network.html"],
        check=True,
        capture_output=True,
        timeout=300,
        env=os.environ | {"HOME": str(tmp_path)},
    )
    seen = colours(picture)
    boxes = {"light": "#d3e8f6", "dark": "#123a55"}  # of a drawing
    assert seen.get(boxes.pop(scheme), 0) > 500
    assert not set(boxes.values()) & seen.keys()
