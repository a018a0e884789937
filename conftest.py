"""What every test run shares: the environment in which notebooks are executed."""

import os

os.environ["BOOK_MODE"] = "reduced"
os.environ["TQDM_DISABLE"] = "1"  # a progress bar prints times, which never repeat
os.environ.pop("MPLBACKEND", None)  # Agg would remove each figure from the outputs
