"""What activating an env and loading modules change, found out once and kept as data."""
