"""Looking after envs: what is damaged (`verify`), what nobody uses any more (`upkeep`)."""
