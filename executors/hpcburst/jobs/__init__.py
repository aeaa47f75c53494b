"""Batch jobs: what is said to a batch system (`dialect`, pure) and who says it (`probe`).

`local` is the dialect of the embedded queue, and `localqueue` is that queue: a batch system in one
file, whose jobs are processes on this machine.
"""
