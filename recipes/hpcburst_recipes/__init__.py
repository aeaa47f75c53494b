"""Recipes on top of hpcburst: the demo, and the local conda channel it can make for itself."""
