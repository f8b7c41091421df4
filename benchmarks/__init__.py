"""What is measured and printed, and not asserted: speed, memory and quality beside the peers."""
