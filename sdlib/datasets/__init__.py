"""Data to learn from; points in the plane are in `sdlib.datasets.plane`."""
