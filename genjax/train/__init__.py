"""The trainer every family shares: state, step, devices, loop, checkpoints, logs."""
