"""The rail of comms: who may talk to whom. Private folders (`staging`), the run's TLS (`credentials`)."""
