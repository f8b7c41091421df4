"""Logs of training: tables of numbers, one row a step, that go on with the run they belong to.

with Log("losses.csv", tensorboard="runs/spiral") as losses, Log("scores.csv") as scores:
    for step in train(...):
        losses(step)
        if step.step % 1000 == 0:
            scores({"step": step.step, "distance": distance(network)})
"""

import csv
import io
import os
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from accelerate import PartialState

from sdlib.files import expand
from sdlib.training.checkpoint import whole
from sdlib.training.loop import TrainStep


class Log:
    """Writes rows to a CSV file, each at once; call it with a `TrainStep` or a mapping.

    Every row has a `step` and the columns of the first. What the file held before is kept up to
    the first row's step: a run that goes on from step 1000 logs 1001 anew, and one that starts
    afresh starts its log afresh.

    A row that cannot be written (the disk is full, say) ends the log with a warning and not the
    run, since rows are worth less than weights. Of several processes, the main one writes.

    Args:
        path: of the CSV file.
        tensorboard: a folder to write the numbers to for TensorBoard as well, which has to be
            installed (`pip install "sdlib[train]"`).

    Raises:
        ModuleNotFoundError: if TensorBoard is asked for and not there.
    """

    def __init__(self, path: str | os.PathLike, *, tensorboard: str | os.PathLike | None = None):
        self.path, self.folder = expand(path), tensorboard
        self.columns, self.file, self.board, self.broken = [], None, None, False
        if tensorboard is not None:
            _summary_writer()  # is it there?

    def __call__(self, row: TrainStep | Mapping[str, Any]) -> None:
        """Write a row.

        Raises:
            ValueError: for a row without a step, or with other columns than those before it.
        """
        row = asdict(row) if isinstance(row, TrainStep) else dict(row)
        first = not self.columns
        if "step" not in row or not (first or list(row) == self.columns):
            raise ValueError(
                f"a row of {self.path} needs a step and the columns of the first row; "
                f"got {', '.join(row)}{'' if first else ' after ' + ', '.join(self.columns)}."
            )
        self.columns = list(row)
        if self.broken or not PartialState().is_main_process:
            return
        try:
            if self.file is None:
                self._open(row["step"])
            self.file.write(_line(row.values()))
            self.file.flush()
            if self.board is not None:
                for name in self.columns:
                    if name != "step":
                        self.board.add_scalar(f"{self.path.stem}/{name}", row[name], row["step"])
        except OSError as error:
            self.broken = True
            warnings.warn(f"{self.path} ends before step {row['step']} ({error}).")

    def close(self) -> None:
        """Rows are on their way without it; TensorBoard's last ones need it."""
        for open_ in (self.file, self.board):
            if open_ is not None:
                open_.close()

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error) -> None:
        self.close()

    def _open(self, step: int) -> None:
        """Keep what was logged before `step`, and go on after it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = self._before(step) if self.path.exists() else []
        with whole(self.path) as file:
            file.write("".join(map(_line, [self.columns, *kept])).encode())
        self.file = open(self.path, "a", encoding="utf8", newline="")  # noqa: SIM115
        if self.folder is not None:
            self.board = _summary_writer()(str(self.folder), purge_step=step)

    def _before(self, step: int) -> list[list[str]]:
        text = self.path.read_text(encoding="utf8")
        lines = text[: text.rfind("\n") + 1].splitlines()  # a killed process may leave half a row
        header, *rows = list(csv.reader(lines)) or [self.columns]
        if step > 1 and header != self.columns:
            raise ValueError(
                f"{self.path} has the columns {', '.join(header)}, and this log has "
                f"{', '.join(self.columns)}; log to another file."
            )
        place = self.columns.index("step")
        return [row for row in rows if int(row[place]) < step] if header == self.columns else []


def _line(values) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _summary_writer() -> type:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ModuleNotFoundError(
            'TensorBoard is not installed; run pip install "sdlib[train]".'
        ) from error
    return SummaryWriter
