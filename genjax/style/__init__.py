"""Style transfer's pictures and features: files, colours, windows, feature statistics."""
