"""Checkpoints: a pipeline stops, shows what it has, and goes on with a person's decision.

In the order of the story: a *question* (`question`) and what is *shown* (`formats`) make a private
*bundle* (`bundle`), which a *notebook* (`notebook`, `preview`) lays out. An *answer* is a file,
whoever gives it (`answering`); the first one wins, and the flow makes a *decision* of it
(`decision`). While it waits (`waiting`, `page`), the pilots are gone. What was seen and decided is
kept as the *record* (`record`). All that wait lie on the *desk* (`desk`).
"""
