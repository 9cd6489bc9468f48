"""What the same posterior costs with other tools: see `plain.py`."""
