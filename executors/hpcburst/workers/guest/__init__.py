"""What runs inside a task's env: the standard library alone, on Python 3.8 and newer.

The pilot copies this folder to the node under the name `hpcburst_guest` and starts it with the
env's own interpreter, which never sees the rest of hpcburst. The driver and the pilot import from
here what both ends must agree on: `values` (data as bytes), `syntax` (definitions as text) and
`frames` (messages).
"""
