"""Specs to locks (`solve`), locks to prefixes (`build`), by rattler or a conda tool (`builders`).

Many may build at once, on file systems without locks: `publish` says how one of them wins.
"""
