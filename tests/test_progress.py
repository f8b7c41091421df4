"""The bar that nothing stops for."""

import io

import pytest

from sdlib.progress import Bar


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [None, Full(), io.StringIO()])
def test_a_bar_that_cannot_be_shown_stops_nothing(monkeypatch, stream):
    monkeypatch.setattr("sys.stderr", stream)
    if type(stream) is io.StringIO:
        stream.close()
    with Bar(total=3, mininterval=0, leave=False) as bar:
        for _ in range(3):
            bar.update()
    assert list(Bar(range(3))) == [0, 1, 2]
