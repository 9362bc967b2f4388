"""Published weights: where they are, how files of them are read safely, and our names for them."""
