"""What the chapters build, one module a subject; each definition is a chapter's own.

These modules know nothing of what no chapter teaches (files, records, workers), and of
each other only what their chapter has already taught. A test compares each definition
with the cell that shows it.
"""
