"""A progress bar that nothing stops for: where it cannot be shown, the work goes on without it."""

import sys

from tqdm.auto import tqdm


class Bar(tqdm):
    """tqdm, but what fails in it (a full disk, a closed stream, none at all) ends the bar alone."""

    def __init__(self, *args, disable: bool = False, **options):
        super().__init__(*args, disable=disable or sys.stderr is None, **options)

    def display(self, *args, **options):
        try:
            return super().display(*args, **options)
        except (OSError, ValueError):
            self.disable = True
