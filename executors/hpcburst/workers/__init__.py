"""What happens on the node.

The pilot (`pilot`) has a line to the driver (`session`) and does what comes over it (`work`):
Python bodies in the env's own interpreter (`guests`, `guest/`), programs as processes (`commands`).
"""
