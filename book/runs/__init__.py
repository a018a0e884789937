"""The commands that make the records: `python -m runs.train resnet20 …` from book/.

Each is a thin file over one driver (driver.py, or comparison.py for many short runs).
plan.toml lists all recorded runs with their settings.
"""
