"""The rail of comms: who may talk to whom.

`staging` makes and checks private folders, `exports` writes variables as shell text, `credentials`
the run's own TLS, `ports` keeps the ports that nobody needs closed.
"""
