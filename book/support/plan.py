"""The plan of all recorded runs, which stands in runs/plan.toml, as Python reads it.

The runs are made by runs/records.py; the card and the results page show the plan.
"""

import shlex
import tomllib

from support.files import BOOK

SINGLE = ("train", "fast")  # programs whose record is one run of a network


def read_plan() -> dict[str, dict]:
    """Return what the plan says of each recorded run, by the record's name."""
    return tomllib.loads((BOOK / "runs" / "plan.toml").read_text("utf-8"))


def words(name: str, entry: dict) -> list[str]:
    """Return the words, after `python -m`, that make a run of the plan."""
    options = dict(entry.get("options", {}))
    result = [f"runs.{entry['program']}"]
    if "model" in options:
        result.append(options.pop("model"))
    for option, value in options.items():
        flag = option.replace("_", "-")
        if value is False:
            result.append(f"--no-{flag}")
        elif isinstance(value, list):
            result += [f"--{flag}", *map(str, value)]
        else:
            result += [f"--{flag}", str(value)]
    if entry["program"] in SINGLE:
        result += ["--name", name]
    return result


def command_of(name: str, entry: dict) -> str:
    """Return the command, to be typed in book/, that makes a run of the plan."""
    return shlex.join(["python", "-m", *words(name, entry)])
