"""Data to learn from: points in the plane (`plane`), and pictures with captions (`scenes`)."""
