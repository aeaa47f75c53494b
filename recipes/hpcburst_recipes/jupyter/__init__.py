"""A notebook on a compute node, for as long as somebody looks at a checkpoint."""
