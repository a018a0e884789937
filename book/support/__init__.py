"""What the book needs and no chapter teaches: images, files, epochs, machine, workers.

Nothing here knows a lesson, a network or a recorded run.
"""
