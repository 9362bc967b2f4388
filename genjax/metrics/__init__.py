"""What a model is worth: pure functions of predictions and features."""
