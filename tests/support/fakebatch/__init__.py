"""The commands of the fake batch systems: a file for each flavour, over one `engine`."""
