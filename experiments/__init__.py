"""One file per family: how it is initialised, what its loss is, how it is judged and drawn."""
