"""Published weights: where they come from, how they are read safely, what we call them."""
