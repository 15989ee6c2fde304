"""Drift statistics on arrays and on tables of counts: numpy in, scores out, no clock, file, thread or global state."""
