"""The drift monitor: reads events, counts them in windows, judges each window under an alarm budget, notifies."""
