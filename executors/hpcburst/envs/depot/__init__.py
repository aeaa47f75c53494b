"""Envs that travel to nodes: archives in a few large files (`depot`), linked there (`localise`)."""
