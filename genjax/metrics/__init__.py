"""Metrics: functions of arrays on the host, in NumPy and float64."""
