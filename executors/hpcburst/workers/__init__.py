"""What happens on the node: the pilot (`pilot`), its line to the driver (`session`), and how it runs
a task's work: Python bodies in the env's own interpreter (`guests`, `guest/`), programs (`commands`).
"""
