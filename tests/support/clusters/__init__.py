"""Private batch systems for tests: real Slurm and real Grid Engine, many nodes on one machine."""
