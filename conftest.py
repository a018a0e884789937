"""What every test run shares: the environment of notebooks, and who tests what."""

import os
import re

import pytest

os.environ["BOOK_MODE"] = "reduced"
os.environ["TQDM_DISABLE"] = "1"  # a progress bar prints times, which never repeat
os.environ.pop("MPLBACKEND", None)  # Agg would remove each figure from the outputs
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # processes side by side, each on its own core

# What takes longest is begun first, so that no process is left alone at the end.
LONGEST = (
    "book/07_training.ipynb", "book/10_speed_and_scale.ipynb", "book/06_resnet.ipynb",
    "book/08_fine_tuning.ipynb", "tests/runs/test_workers.py",
    "tests/runs/test_train.py", "tests/class/test_classroom.py",
    "tests/site/test_pages.py", "book/04_activations.ipynb",
)  # fmt: skip


def pytest_collectstart(collector):
    """Compare the text of outputs, not pictures: those depend on fonts and versions."""
    if hasattr(collector, "skip_compare"):  # a notebook, which nbval collects
        collector.skip_compare += ("image/svg+xml",)


def scope_of(nodeid: str) -> str:
    """Return what one process tests alone: a page of the site, or a file of tests."""
    page = re.search(r"\[([\w/]+\.html)\b", nodeid)
    return page[1] if page else nodeid.partition("::")[0]


def pytest_collection_modifyitems(items):
    """Begin with what takes longest."""
    rank = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand tests out by scope, in the order in which they stand."""
    from xdist.scheduler import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return scope_of(nodeid)

    config.option.loadscopereorder = False
    return ByScope(config, log)
