"""Images as uint8 arrays, and batches of them as a pure function of (seed, step)."""
