"""What batch systems say of their queues, read: one file for each system, all of it pure.

`found` is what they all give, `readings` what they all read with, `systems` lists them, and `page`
writes the outcome as a section of Dask's config. Nothing here runs a command: `policy.discover`
does.
"""
